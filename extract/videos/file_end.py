"""Whether a file reaches as far as its container says it should.

Conventions: for containers that count no frames, and that FFmpeg reads to the end it
finds without a word. A file that was cut between two packets shows it only here; a
transport stream cut there does not show it at all.
"""

import struct
from pathlib import Path

#: ASF's file properties: this, 8 bytes of length, 16 of name, then the file's size.
ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def is_cut_short(path: Path, container: str) -> bool:
    """Whether the end of a file is missing; `container` is FFmpeg's name for it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if container == "mpegts":
            return all(size % packet for packet in (188, 192, 204))
        if container == "gif":
            file.seek(max(size - 64, 0))
            return not file.read().rstrip(b"\0").endswith(b";")
        if container == "asf":
            head = file.read(1 << 16)
            place = head.find(ASF_PROPERTIES) + 40
            return 40 <= place <= len(head) - 8 and size < _number("<Q", head, place)
        if container == "flv":
            # Each tag is followed by its length: 11 bytes of head, then its data,
            # whose length stands in the head.
            file.seek(max(size - 4, 0))
            tag = _number(">I", file.read(), 0)
            file.seek(max(size - 4 - tag, 0))
            head = file.read(4)
            return size < 4 + tag or _number(">I", head, 0) & 0xFFFFFF != tag - 11
    return False


def _number(form: str, data: bytes, place: int) -> int:
    return int(struct.unpack_from(form, data, place)[0])
