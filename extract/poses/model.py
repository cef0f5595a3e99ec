"""Pose models in ONNX files, run by rtmlib: one frame in, its people out.

Conventions: a frame is uint8 (H, W, 3) RGB; a person is float64 (joints, 3), x and y
in pixels of the frame and a score, joints in the order of the model. Files are given
by path: nothing is fetched. Needs the extra `aqa[pose]`.

Two kinds of model, told apart by what they give out:
- RTMO finds people and their joints at once;
- RTMPose finds the joints of whoever is in a box, so that a person detector of the
  YOLOX kind has to go first.
RTMO and YOLOX were trained on BGR, RTMPose on RGB (rtmlib's issue 48 tells of scores
lost to that), and each is given what it knows.
"""

import hashlib
import importlib
import io
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aqa.extract.config import DetectorConfig
from aqa.extract.poses.keypoints import Person, PoseError

#: By the ranks of what a model gives out: boxes and poses of people; positions along
#: x and along y; boxes, and perhaps classes.
KINDS = {(3, 4): "RTMO", (3, 3): "RTMPose", (3,): "YOLOX", (3, 2): "YOLOX"}
#: Height and width of the input, where the file leaves them open.
SIZES = {"RTMO": (640, 640), "YOLOX": (640, 640), "RTMPose": (256, 192)}


class PoseModel:
    """A pose model, loaded, with the person detector in front of it, if any."""

    def __init__(self, config: DetectorConfig) -> None:
        """Load the files; raises `PoseError` on what is no such model."""
        self._joints = _tool(config.model, config.device)
        self._boxes = None
        if config.detector is not None:
            self._boxes = _tool(config.detector, config.device)
        kinds = [type(tool).__name__ for tool in (self._joints, self._boxes) if tool]
        if kinds not in (["RTMO"], ["RTMPose", "YOLOX"]):
            raise PoseError(
                "expected an RTMO model, or RTMPose with a YOLOX person detector, "
                f"found {' with '.join(kinds)}: {config.model}, {config.detector}"
            )

    def __call__(self, frame: npt.NDArray[np.uint8]) -> list[Person]:
        """People of one frame, each (joints, 3), in the model's order; often none."""
        bgr = np.ascontiguousarray(frame[..., ::-1])
        if self._boxes is None:
            keypoints, scores = self._joints(bgr)
        else:
            boxes = self._boxes(bgr)
            if len(boxes) == 0:  # rtmlib would take the whole frame for a person
                return []
            keypoints, scores = self._joints(frame, bboxes=boxes)
        people = np.concatenate([keypoints, scores[..., None]], axis=-1)
        # Where RTMO finds nobody, rtmlib gives one person of zeros.
        return [one.astype(np.float64) for one in people if one[:, 2].any()]


def pose_model_record(config: DetectorConfig) -> dict[str, Any]:
    """What a pose is made with, as JSON values: files by digest, and versions."""
    files = {"model": config.model, "detector": config.detector}
    record: dict[str, Any] = {
        name: {"name": path.name, "sha256": _sha256(path)}
        for name, path in files.items()
        if path is not None
    }
    for name in ("rtmlib", "onnxruntime"):
        _library(name)
        record[name] = version(name)
    return record


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise PoseError(
            f"expected {name} to find poses with: pip install 'aqa[pose]' ({error})"
        ) from error


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise PoseError(f"{path}: expected an .onnx file: {error.strerror}") from error


def _tool(path: Path, device: str) -> Any:
    """Rtmlib's tool for a model file, chosen by the ranks of what it gives out."""
    runtime = _library("onnxruntime")
    _sha256(path)  # says so if there is no such file; rtmlib would try to fetch it
    if device == "auto":
        cuda = "CUDAExecutionProvider" in runtime.get_available_providers()
        device = "cuda" if cuda else "cpu"
    try:
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no base of their own
        raise PoseError(
            f"{path}: expected an ONNX model: {str(error).splitlines()[0]}"
        ) from error
    ranks = tuple(len(output.shape) for output in session.get_outputs())
    shape = session.get_inputs()[0].shape
    kind = KINDS.get(ranks)
    if kind is None or len(shape) != 4:
        raise PoseError(
            f"{path}: expected an RTMO, RTMPose or YOLOX model, found one that takes "
            f"{shape} and gives tensors of ranks {ranks}"
        )
    size = tuple(shape[2:])
    if not all(isinstance(side, int) for side in size):
        size = SIZES[kind]
    if kind == "RTMPose":
        size = size[::-1]  # rtmlib wants width first here, and here only
    with redirect_stdout(io.StringIO()):  # it prints what it loads
        return getattr(_library("rtmlib"), kind)(
            str(path), model_input_size=size, backend="onnxruntime", device=device
        )
