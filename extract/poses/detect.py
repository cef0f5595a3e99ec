"""Detect poses with ONNX models run by rtmlib; one JSON file per video.

Conventions: a frame is uint8 (H, W, 3) RGB; a person is float64 (joints, 3), x and y
in pixels of the frame and a score, joints in the order of the model. Needs the extra
`pose`.

Two kinds of model, told apart by the ranks of their outputs: RTMO finds people and
their joints at once; RTMPose finds the joints inside given boxes and needs a YOLOX
person detector. RTMO and YOLOX were trained on BGR, RTMPose on RGB; each gets what it
was trained on (rtmlib's issue 48 reports the scores lost otherwise).

The file of the video `diving/001` is `<out>/diving/001.json`, a COCO annotation file
that `aqa.extract.poses.read` reads: `images` are the frames, ids from 0; `annotations`
the people, joints in pixels to 1/100 and scores to 1/1000; `info` names the models,
the video's digest and its damage. Files are written atomically, so that a run can be
repeated to continue; a replaced video is processed again. A video that is damaged,
crashes its process or exceeds its limits is a `Failure`, also listed in
`failures.json` beside `<out>`.

A model is an .onnx file, or a name that stands for one zip of one such file, at the
address that rtmlib publishes (OpenMMLab). Downloads are kept under
`$XDG_CACHE_HOME/aqa/models`, by default `~/.cache/aqa/models`. OpenMMLab publishes no
digests of these zips, so that a file cannot be checked; its SHA-256 stands in the poses
made with it.
"""

import importlib
import io
import json
import time
import zipfile
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import numpy.typing as npt

from aqa.cache.child import limit_memory
from aqa.cache.console import Progress, silent
from aqa.cache.errors import AqaError, brief
from aqa.cache.files import user_folder, write_file
from aqa.cache.processes import process_outcomes
from aqa.cache.provenance import Provenance, require_same
from aqa.extract.config import DetectorConfig
from aqa.extract.datasets.dataset import Dataset, Video
from aqa.extract.extractor import source_changed, source_sha256
from aqa.extract.poses.json_records import Person
from aqa.extract.poses.read import MAX_FRAMES, PoseError, load_json, naming
from aqa.extract.stage import Failure, FailureLog
from aqa.extract.videos.integrity import VideoError
from aqa.extract.videos.video import watch

#: Kind of a model by the ranks of its outputs: boxes and poses; x and y; boxes alone or
#: with classes.
KINDS = {(3, 4): "RTMO", (3, 3): "RTMPose", (3,): "YOLOX", (3, 2): "YOLOX"}
#: Height and width of the input where the file leaves them open.
SIZES = {"RTMO": (640, 640), "YOLOX": (640, 640), "RTMPose": (256, 192)}

ADDRESS = "https://download.openmmlab.com/mmpose/v1/projects"
ARCHIVES = {
    "rtmo-s": "rtmo/onnx_sdk/rtmo-s_8xb32-600e_body7-640x640-dac2bf74_20231211.zip",
    "rtmo-m": "rtmo/onnx_sdk/rtmo-m_16xb16-600e_body7-640x640-39e78cc4_20231211.zip",
    "rtmo-l": "rtmo/onnx_sdk/rtmo-l_16xb16-600e_body7-640x640-b37118ce_20231211.zip",
    "rtmpose-m": "rtmposev1/onnx_sdk/"
    "rtmpose-m_simcc-body7_pt-body7_420e-256x192-e48f03d0_20230504.zip",
    "yolox-m": "rtmposev1/onnx_sdk/yolox_m_8xb8-300e_humanart-c2c7a14a.zip",
}
#: The person detector that goes with a pose model.
DETECTORS = {"rtmpose-m": "yolox-m"}
MAX_BYTES = 1 << 30
TIMEOUT = 60.0


def model_file(model: str | Path, progress: Progress = silent) -> Path:
    """Return the path of a model: of a file as it is, of a name downloaded if needed.

    Raises `PoseError` when the download fails or holds no model.
    """
    name = str(model)
    if name not in ARCHIVES or Path(name).exists():
        return Path(model)
    path = user_folder() / "models" / f"{name}.onnx"
    if path.exists():
        return path
    url = f"{ADDRESS}/{ARCHIVES[name]}"
    try:
        content = _download(url, progress)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            (member,) = (n for n in archive.namelist() if n.endswith(".onnx"))
            model_bytes = archive.read(member)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise PoseError(
            f"{url}: expected a zip of one .onnx file: {error}. Download it by other "
            "means, and pass the path of the .onnx file"
        ) from error
    write_file(path, model_bytes)
    return path


def _download(url: str, progress: Progress) -> bytes:
    content = bytearray()
    with urlopen(url, timeout=TIMEOUT) as answer:
        size = int(answer.headers.get("Content-Length") or 0)
        while block := answer.read(1 << 20):
            content += block
            progress(len(content), max(size, len(content)), f"downloading {url}")
            if len(content) > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES >> 20} MiB")
    if size and len(content) != size:
        raise ValueError(f"{len(content)} of {size} bytes arrived")
    return bytes(content)


class PoseModel:
    """A loaded pose model, with its person detector if it needs one."""

    def __init__(self, config: DetectorConfig) -> None:
        """Load the model files; raises `PoseError` if they are of another kind."""
        self._joints, *rest = (_tool(path, config.device) for path in _files(config))
        self._boxes = rest[0] if rest else None
        kinds = [type(tool).__name__ for tool in (self._joints, *rest)]
        if kinds not in (["RTMO"], ["RTMPose", "YOLOX"]):
            raise PoseError(
                "expected an RTMO model, or RTMPose with a YOLOX person detector, "
                f"found {' with '.join(kinds)}: {config.model}, {config.detector}"
            )

    def __call__(self, frame: npt.NDArray[np.uint8]) -> list[Person]:
        """Return the people of one frame, each (joints, 3); possibly none."""
        bgr = np.ascontiguousarray(frame[..., ::-1])
        if self._boxes is None:
            keypoints, scores = self._joints(bgr)
        else:
            boxes = self._boxes(bgr)
            if len(boxes) == 0:  # rtmlib would use the whole frame as a box
                return []
            keypoints, scores = self._joints(frame, bboxes=boxes)
        people = np.concatenate([keypoints, scores[..., None]], axis=-1)
        # If RTMO finds nobody, rtmlib returns one person of zeros.
        return [one.astype(np.float64) for one in people if one[:, 2].any()]


def pose_model_record(config: DetectorConfig) -> dict[str, Any]:
    """Return the provenance of poses: model files by digest, library versions."""
    files = zip(("model", "detector"), _files(config), strict=False)
    record: dict[str, Any] = {
        name: {"name": path.name, "sha256": source_sha256(path)} for name, path in files
    }
    for name in ("rtmlib", "onnxruntime"):
        _library(name)
        record[name] = version(name)
    return record


def _files(config: DetectorConfig) -> list[Path]:
    """Model and person detector; PoseError if there is no such file."""
    files = [path for path in (config.model, config.detector) if path is not None]
    for path in files:
        if not path.is_file():  # rtmlib would try to download it
            raise PoseError(f"{path}: expected an .onnx file, found none")
    return files


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise PoseError(
            f"expected {name}, of the extra pose: pip install '.[pose]' "
            f"in a checkout ({error})"
        ) from error


def _tool(path: Path, device: str) -> Any:
    """Return rtmlib's tool for a model file, by the ranks of its outputs."""
    runtime = _library("onnxruntime")
    if device == "auto":
        cuda = "CUDAExecutionProvider" in runtime.get_available_providers()
        device = "cuda" if cuda else "cpu"
    try:
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise PoseError(f"{path}: expected an ONNX model: {brief(error)}") from error
    ranks = tuple(len(output.shape) for output in session.get_outputs())
    shape = session.get_inputs()[0].shape
    kind = KINDS.get(ranks)
    if kind is None or len(shape) != 4:
        raise PoseError(
            f"{path}: expected an RTMO, RTMPose or YOLOX model, found one with input "
            f"{shape} and output ranks {ranks}"
        )
    size = tuple(shape[2:])
    if not all(isinstance(side, int) for side in size):
        size = SIZES[kind]
    if kind == "RTMPose":
        size = size[::-1]  # rtmlib expects width first here, and only here
    with redirect_stdout(io.StringIO()):  # rtmlib prints what it loads
        return getattr(_library("rtmlib"), kind)(
            str(path), model_input_size=size, backend="onnxruntime", device=device
        )


@dataclass(frozen=True)
class Detection:
    """Result of a run; `failures` are the videos without poses, and why."""

    folder: Path
    done: int
    skipped: int
    failures: tuple[Failure, ...]
    seconds: float

    def record(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return {**asdict(self), "folder": str(self.folder)}


def detect_poses(
    dataset: Dataset, out: Path, config: DetectorConfig, progress: Progress = silent
) -> Detection:
    """Detect people in every frame of every video that has no current pose file.

    Raises:
        PoseError: the model cannot be used.
        ProvenanceMismatch: poses in `out` were detected with other models.
    """
    begun = time.monotonic()
    made_with = Provenance(pose_model_record(config))
    tasks = [(video, out / f"{video.key}.json") for video in dataset.videos]
    todo = [task for task in tasks if not _is_done(*task, made_with)]
    PoseModel(config)  # report an unusable model once, not once per video
    failures = []
    outcomes = process_outcomes(
        _work,
        [(video.path, target) for video, target in todo],
        workers=1,
        seconds=config.limits.seconds,
        prepare=_prepare,
        arguments=(config, made_with.record),
    )
    for count, error in enumerate(outcomes, start=1):
        video, _ = todo[count - 1]
        if isinstance(error, AqaError):
            failures.append(Failure(video.key, str(video.path), str(error)))
        progress(count, len(todo), video.key)
    FailureLog(out).write_list(failures)
    return Detection(
        folder=out,
        done=len(todo) - len(failures),
        skipped=len(dataset.videos) - len(todo),
        failures=tuple(failures),
        seconds=time.monotonic() - begun,
    )


def detect_in_video(
    path: Path, model: PoseModel, config: DetectorConfig
) -> dict[str, Any]:
    """Return the people of a video as a COCO record; raises `VideoError` as `watch`."""
    images: list[dict[str, int]] = []
    people: list[dict[str, Any]] = []

    def see(frame: npt.NDArray[np.uint8]) -> None:
        number, (height, width, _) = len(images), frame.shape
        images.append({"id": number, "width": width, "height": height})
        for person in model(frame):
            rows = np.column_stack([person[:, :2].round(2), person[:, 2].round(3)])
            one = {"image_id": number, "category_id": 1}
            people.append({**one, "keypoints": rows.ravel().tolist()})

    limits = replace(config.limits, frames=min(config.limits.frames, MAX_FRAMES))
    seen = watch(path, see, limits=limits, allow_damaged=config.allow_damaged)
    return {
        "info": {"source_sha256": seen.source_sha256, "damage": list(seen.damage)},
        "categories": [{"id": 1, "name": "person"}],
        "images": images,
        "annotations": people,
    }


_model: PoseModel
_config: DetectorConfig
_made_with: dict[str, Any]


def _prepare(config: DetectorConfig, made_with: dict[str, Any]) -> None:
    global _model, _config, _made_with
    _model, _config, _made_with = PoseModel(config), config, made_with
    limit_memory(config.limits.memory)


def _work(task: tuple[Path, Path]) -> None:
    path, target = task
    try:
        record = detect_in_video(path, _model, _config)
    except AqaError:
        raise
    except Exception as error:  # ONNX Runtime's errors share no base class
        reason = brief(f"{type(error).__name__}: {error}")
        raise VideoError(f"{path}: {reason}") from error
    record["info"]["made_with"] = _made_with
    write_file(target, json.dumps(record, separators=(",", ":"), allow_nan=False))


def _is_done(video: Video, path: Path, made_with: Provenance) -> bool:
    if not path.exists():
        return False
    with naming(path):
        try:
            info = load_json(path)["info"]
            found, source = info["made_with"], info["source_sha256"]
        except (TypeError, KeyError) as error:
            raise PoseError(
                "expected a file that `aqa poses` wrote, or none; use another folder"
            ) from error
    require_same(Provenance(found), made_with, str(path))
    return not source_changed(video.path, source, written=path.stat().st_mtime_ns)
