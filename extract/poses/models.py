"""Model files by name, downloaded from their project's address and kept.

Conventions: a name stands for one zip of one .onnx file, at the address that rtmlib
publishes (OpenMMLab). Files are kept under `$XDG_CACHE_HOME/aqa/models`, by default
`~/.cache/aqa/models`, and not downloaded again. OpenMMLab publishes no digests of these
zips, so that a file cannot be checked; its SHA-256 stands in the poses made with it.
"""

import io
import os
import zipfile
from pathlib import Path
from urllib.request import urlopen

from aqa.cache.console import Progress, silent
from aqa.cache.files import write_file
from aqa.extract.poses.read import PoseError

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
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = cache / "aqa" / "models" / f"{name}.onnx"
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
