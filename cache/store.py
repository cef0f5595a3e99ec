"""The feature cache on disk: one HDF5 file, replaced whole, never changed in place.

Conventions: features are float32 (N, offsets, clips, D), finite, one HDF5 chunk per
sample; samples are sorted by key; every dataset carries a fletcher32 checksum, and
each sample the SHA-256 of its float32 bytes. A file's bytes follow from its samples,
features and provenance alone. Version 2 is written, whose texts are all of fixed
length; version 1 (text attributes of varying length, no `source_probe`, `clips` and
`extra`) is read too. Files that other programs wrote after the same format are read
alike, and none is trusted (see hdf5_checks.py).

    with FeatureCache.open("features.h5") as cache:
        cache.samples.key, cache.samples.score     # columns, in the order of the rows
        x = cache.read()                           # (N, offsets, clips, D)
        y = cache.read([0, 7], out=mine)           # two rows, into an array of yours
"""

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from aqa.cache import processes
from aqa.cache.errors import AqaError, UnreadableFile
from aqa.cache.files import Disk, replacing
from aqa.cache.hdf5_checks import (
    FLOAT32,
    FLOAT64,
    INT32,
    CheckedFile,
    VaryingText,
    reading,
)
from aqa.cache.provenance import Provenance
from aqa.cache.samples import Sample, SampleTable

FORMAT = "aqa-features"
VERSION = 2

#: Columns of `samples`: of text, and of numbers by type. Optional ones are written
#: where a value is set.
DIGESTS = ("source_sha256", "feature_sha256", "source_probe")
TEXTS = ("key", "action", "split", "damage", *DIGESTS)
NUMBERS = {"score": FLOAT64, "frames": INT32, "clips": INT32, "rate": FLOAT64}
OPTIONAL = ("damage", "source_probe", "clips", "rate")

Features = NDArray[np.float32]


class FeatureCache(AbstractContextManager["FeatureCache"]):
    """An open cache; use it as a context manager, in the process that opened it."""

    path: Path
    #: Of the format: 1 or 2.
    version: int
    provenance: Provenance
    samples: SampleTable
    #: (N, offsets, clips, D), none of them 0.
    shape: tuple[int, int, int, int]

    def __init__(self, path: Path, file: CheckedFile, header: "Header") -> None:
        """Check an open file; call `FeatureCache.open` instead."""
        self.path = path
        self._file = file
        self.version, self.provenance = _checked_header(header)
        file.members("", {"features", "samples"})
        self._features = file.dataset("features", FLOAT32, rank=4)
        self.shape = self._features.shape
        if 0 in self.shape:
            raise AqaError(f"features have shape {self.shape}: a cache is never empty")
        self.samples = _checked_table(header, self.version, self.shape)

    @classmethod
    def open(cls, path: Path | str) -> "FeatureCache":
        """Open and check the cache at `path`; features are read later.

        AqaError for a file that is missing, damaged, of another format or version, or
        hostile, UnreadableFile for one that the system will not let us read. Checksums
        of features are checked by `read`, digests by `read_sound`.
        """
        path = Path(path)
        with reading(path):
            file = CheckedFile(path)
            try:
                try:
                    header = read_header(file)
                except VaryingText:
                    header = processes.call(_read_header_of, path)
                    if header.identity != file.identity:
                        raise UnreadableFile("replaced while it was opened") from None
                return cls(path, file, header)
            except BaseException:
                file.close()
                raise

    @property
    def real_clips(self) -> NDArray[np.int32]:
        """The clips (N,) of each sample that are no padding: the last ones."""
        clips = self.samples.clips
        return np.where(clips == 0, self.shape[2], clips).astype(np.int32)

    def read(
        self, rows: Sequence[int] | None = None, out: Features | None = None
    ) -> Features:
        """Read all samples, or `rows` in their order: (rows, offsets, clips, D).

        With `out`, a contiguous float32 array of just that shape (memory-mapped or
        not), the features are read into it and held nowhere else. Raises AqaError
        over a failing checksum and IndexError over a row that is not there.
        """
        wanted = np.arange(self.shape[0]) if rows is None else np.asarray(rows, np.intp)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < self.shape[0]:
            raise IndexError(
                f"rows reach from {wanted.min()} to {wanted.max()}; "
                f"{self.path} has rows 0 to {self.shape[0] - 1}"
            )
        shape = (len(wanted), *self.shape[1:])
        if out is None:
            out = np.empty(shape, np.float32)
        elif out.shape != shape or out.dtype != np.float32 or not out.flags.carray:
            raise AqaError(
                f"{self.path}: out is {out.dtype} {out.shape}; "
                f"expected contiguous, writeable float32 {shape}"
            )
        with reading(self.path):
            done = 0
            # One read for each run of neighbours.
            for run in np.split(wanted, np.flatnonzero(np.diff(wanted) != 1) + 1):
                if run.size:
                    self._features.read_direct(
                        out[done : done + run.size], np.s_[run[0] : run[-1] + 1]
                    )
                done += run.size
        # The fill value, which HDF5 returns for a chunk that it cannot find.
        if np.isnan(out[:, 0, 0, 0]).any():
            raise AqaError(f"{self.path}: damaged: features are missing or not finite")
        return out

    def read_sound(self, row: int) -> Features:
        """Read one sample, (offsets, clips, D), and verify its digest.

        Raises AqaError naming the sample when it is damaged or not finite, and
        UnreadableFile when that cannot be told.
        """
        place = f"{self.path}: sample {self.samples.key[row]!r}"
        try:
            features: Features = self.read([row])[0]
        except UnreadableFile:
            raise
        except AqaError as error:
            raise AqaError(f"{place} is damaged") from error
        if digest_of(features) != self.samples.feature_sha256[row]:
            raise AqaError(f"{place} is damaged: wrong SHA-256")
        if not np.isfinite(features).all():
            raise AqaError(f"{place} is not finite")
        return features

    def close(self) -> None:
        """Close the file; reading after that fails."""
        self._file.close()

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()


@dataclass(frozen=True)
class Header:
    """Everything in a file but the features, unchecked beyond types and sizes."""

    attributes: dict[str, Any]
    columns: dict[str, list[Any]]
    extra: dict[str, list[str]]
    #: Of the file that this was read from, see `CheckedFile.identity`.
    identity: tuple[int, int, int]


def read_header(file: CheckedFile) -> Header:
    """Read attributes and samples; VaryingText where the file may not be asked."""
    names = ("format", "version", "complete", "provenance", "provenance_sha256")
    attributes = {name: file.attribute(name) for name in names}
    attributes["samples"] = file.attribute("sha256", "samples")
    there = file.members("samples", {*TEXTS, *NUMBERS, "extra"})
    columns: dict[str, list[Any]] = {}
    for name in (*TEXTS, *NUMBERS):
        if name in there or name not in OPTIONAL:
            column = f"samples/{name}"
            if name in TEXTS:
                columns[name] = file.texts(column)
            else:
                numbers = file.dataset(column, NUMBERS[name], rank=1)
                columns[name] = numbers[:].tolist()
    further = file.members("samples/extra", None) if "extra" in there else []
    extra = {name: file.texts(f"samples/extra/{name}") for name in further}
    return Header(attributes, columns, extra, file.identity)


def _read_header_of(path: Path) -> Header:
    with reading():
        return read_header(CheckedFile(path, varying=True))


def _checked_header(header: Header) -> tuple[int, Provenance]:
    expected = {"format": (FORMAT,), "version": (1, VERSION), "complete": (1,)}
    for name, values in expected.items():
        if (found := header.attributes[name]) not in values:
            newer = ": was it written by a newer aqa?" if name == "version" else ""
            raise AqaError(
                f"{name} is {str(found)[:80]!r}; "
                f"expected {' or '.join(map(str, values))}{newer}"
            )
    text, digest = (
        header.attributes["provenance"],
        header.attributes["provenance_sha256"],
    )
    return header.attributes["version"], Provenance.parse(str(text), str(digest))


def _checked_table(header: Header, version: int, shape: tuple[int, ...]) -> SampleTable:
    for name, values in (*header.columns.items(), *header.extra.items()):
        if len(values) != shape[0]:
            raise AqaError(f"{len(values)} of {name} for {shape[0]} samples")
    samples, digests = [], []
    for row in range(shape[0]):
        fields = {name: values[row] for name, values in header.columns.items()}
        digests.append(fields.pop("feature_sha256"))
        extra = {name: texts[row] for name, texts in header.extra.items()}
        samples.append(Sample(**fields, extra=extra))
    table = SampleTable(samples, digests)
    if table.clips.max() > shape[2]:
        raise AqaError(f"a sample has {table.clips.max()} clips; features {shape[2]}")
    recorded = header.attributes["samples"]
    if recorded is not None and recorded != table.sha256(version):
        raise AqaError("samples are damaged: wrong SHA-256")
    return table


def digest_of(features: Features) -> str:
    """Return the SHA-256 of the little-endian float32 bytes of one sample."""
    return hashlib.sha256(features.astype("<f4", "C", copy=False).data).hexdigest()


def write_cache(
    path: Path | str,
    samples: Iterable[Sample],
    features: Iterable[Features],
    provenance: Provenance,
    digests: Sequence[str] | None = None,
) -> Path:
    """Write a cache that replaces `path` whole and durably, or leaves it as it was.

    `features` yields a float32 (offsets, clips, D) per sample. Sorted samples are
    streamed, one held at a time; others are sorted first, all held. With `digests`
    (samples must be sorted then) features come from `read_sound` and are neither hashed
    nor checked again. AqaError over features that are not finite float32 of one shape,
    over a key that comes twice, and when the disk refuses.
    """
    path, samples = Path(path), list(samples)
    if not samples:
        raise AqaError(f"{path}: no samples to write")
    keys = [sample.key for sample in samples]
    if keys != sorted(keys):
        pairs = list(zip(samples, features, strict=True))
        pairs.sort(key=lambda pair: pair[0].key)
        samples, features = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    with (
        replacing(path) as new,
        Disk(new.fileno()) as disk,
        h5py.File(disk, "w") as file,
    ):
        found = _write_features(file, samples, features, disk, digests)
        _write_samples(file.create_group("samples"), SampleTable(samples, found))
        _write_text(file, "format", FORMAT)
        file.attrs["version"] = VERSION
        _write_text(file, "provenance", provenance.json)
        _write_text(file, "provenance_sha256", provenance.sha256)
        file.attrs["complete"] = 1
    return path


def _write_features(
    file: Any,
    samples: Sequence[Sample],
    features: Iterable[Features],
    disk: Disk,
    digests: Sequence[str] | None,
) -> Sequence[str]:  # -> the features' digests
    computed: list[str] = []
    dataset = None
    for row, (sample, x) in enumerate(zip(samples, features, strict=True)):
        if x.ndim != 3 or 0 in x.shape or x.dtype != np.float32:
            raise AqaError(
                f"sample {sample.key!r}: features are {x.dtype} {x.shape}; "
                "expected float32 (offsets, clips, D)"
            )
        if digests is None:
            if not np.isfinite(x).all():
                raise AqaError(f"sample {sample.key!r}: features are not finite")
            computed.append(digest_of(x))
        if sample.clips > x.shape[1]:
            raise AqaError(f"sample {sample.key!r}: {sample.clips} clips of {x.shape}")
        if dataset is None:
            shape = (len(samples), *x.shape)
            dataset = file.create_dataset(
                "features",
                shape,
                "<f4",
                chunks=(1, *x.shape),
                fletcher32=True,
                fillvalue=np.nan,
            )
        elif x.shape != dataset.shape[1:]:
            raise AqaError(
                f"sample {sample.key!r}: features are {x.shape}; "
                f"those before it are {dataset.shape[1:]}"
            )
        dataset[row] = x
        disk.check()
    # Chunks get their places in the file now, not when Python collects `dataset`.
    file.flush()
    return computed if digests is None else digests


def _write_samples(group: Any, table: SampleTable) -> None:
    _write_text(group, "sha256", table.sha256(VERSION))
    for name in (*TEXTS, *NUMBERS):
        values = table.column(name)
        if name not in OPTIONAL or any(values):
            kind = NUMBERS.get(name)
            column = np.array(values, kind.dtype) if kind else _texts(values)
            _write(group, name, column)
    if table.extra:
        extra = group.create_group("extra")
        for name, values in table.extra.items():
            _write(extra, name, _texts(values))


def _texts(values: Sequence[str]) -> NDArray[Any]:
    # Of fixed length: HDF5 keeps no checksum of texts that vary in length.
    encoded = [text.encode() for text in values]
    longest = max(1, *map(len, encoded))
    return np.array(encoded, h5py.string_dtype("utf-8", longest))


def _write(group: Any, name: str, column: NDArray[Any]) -> None:
    group.create_dataset(name, data=column, chunks=column.shape, fletcher32=True)


def _write_text(owner: Any, name: str, text: str) -> None:
    encoded = text.encode()
    kind = h5py.string_dtype("utf-8", max(1, len(encoded)))
    owner.attrs.create(name, np.array(encoded, kind), dtype=kind)
