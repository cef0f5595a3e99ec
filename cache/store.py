"""The feature cache on disk: format version 1, one HDF5 file, read-only once written.

Conventions: features are float32 (N, offsets, clips, D), finite, one HDF5 chunk per
sample; samples are sorted by key; every dataset carries a fletcher32 checksum, and
each sample the SHA-256 of its float32 bytes. A file's bytes follow from its samples,
features and provenance alone. Files that others wrote after the same format are read
alike, and none is trusted (see guards.py).

    with FeatureCache.open("features.h5") as cache:
        cache.samples.key, cache.samples.score     # columns, in the order of the rows
        x = cache.read()                           # (N, offsets, clips, D)
        y = cache.read([0, 7], out=mine)           # two rows, into an array of yours

A feature cache written: the bytes that `store` reads.

Conventions: those of `store`. A cache is never changed, only replaced whole.
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from aqa.cache.errors import AqaError, UnreadableFile
from aqa.cache.files import Disk, replacing
from aqa.cache.hdf5_checks import FLOAT32, FLOAT64, INT32, GuardedFile, reading
from aqa.cache.provenance import Provenance
from aqa.cache.samples import Sample, SampleTable

FORMAT = "aqa-features"
VERSION = 1

Features = NDArray[np.float32]

#: Columns of `samples` that hold text, and those that hold a SHA-256.
TEXTS = ("key", "action", "split", "damage")
DIGESTS = ("source_sha256", "feature_sha256")


class FeatureCache:
    """An open cache; use it as a context manager, in the process that opened it."""

    path: Path
    provenance: Provenance
    samples: SampleTable
    #: (N, offsets, clips, D), none of them 0.
    shape: tuple[int, int, int, int]

    def __init__(self, path: Path, file: GuardedFile) -> None:
        """Check the open `file`; `FeatureCache.open` is the way in."""
        self.path = path
        self._file = file
        self.provenance = _read_header(file)
        file.members("", {"features", "samples"})
        self._features = file.dataset("features", FLOAT32, rank=4)
        self.shape = self._features.shape
        if 0 in self.shape:
            raise AqaError(f"features have shape {self.shape}: a cache is never empty")
        self.samples = _read_samples(file, self.shape[0])

    @classmethod
    def open(cls, path: Path | str) -> "FeatureCache":
        """Open and check the cache at `path`; features are read later.

        Raises AqaError, in one line, for a file that is missing, damaged, unfinished,
        of another format or version, or hostile, and UnreadableFile (an AqaError) for
        one that the system will not let us read. Costs no more than its labels do:
        checksums of features are the business of `read`, digests of `verify`.
        """
        path = Path(path)
        with reading(path):
            file = GuardedFile(path)
            try:
                return cls(path, file)
            except BaseException:
                file.close()
                raise

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
        # What no sample can hold is what HDF5 gives for a chunk that it cannot find.
        if np.isnan(out[:, 0, 0, 0]).any():
            raise AqaError(f"{self.path}: damaged: features are missing or not finite")
        return out

    def read_sound(self, row: int) -> Features:
        """Read one sample, (offsets, clips, D), and prove it against its digest.

        Raises AqaError naming the sample when it is damaged or not finite, and
        UnreadableFile when that cannot be told.
        """
        key = self.samples.key[row]
        try:
            features: Features = self.read([row])[0]
        except UnreadableFile:
            raise
        except AqaError as error:
            raise AqaError(f"{self.path}: sample {key!r} is damaged") from error
        if digest_of(features) != self.samples.feature_sha256[row]:
            raise AqaError(f"{self.path}: sample {key!r} is damaged: wrong SHA-256")
        if not np.isfinite(features).all():
            raise AqaError(f"{self.path}: sample {key!r} is not finite")
        return features

    def close(self) -> None:
        """Close the file; reading after that fails."""
        self._file.close()

    def __enter__(self) -> "FeatureCache":
        """Return the cache itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()


def _read_header(file: GuardedFile) -> Provenance:
    for name, expected in (("format", FORMAT), ("version", VERSION), ("complete", 1)):
        found = file.attribute(name)
        if found != expected:
            raise AqaError(f"{name} is {str(found)[:80]!r}; expected {expected!r}")
    text, digest = file.attribute("provenance"), file.attribute("provenance_sha256")
    return Provenance.parse(str(text), str(digest))


def _read_samples(file: GuardedFile, count: int) -> SampleTable:
    known = {*TEXTS, *DIGESTS, "score", "frames"}
    columns: dict[str, list[Any]] = {
        "score": file.numbers("samples/score", FLOAT64),
        "frames": file.numbers("samples/frames", INT32),
    }
    for name in sorted(file.members("samples", known) | known - {"damage"}):
        if name not in columns:
            columns[name] = file.texts(f"samples/{name}")
        if len(columns[name]) != count:
            raise AqaError(f"{len(columns[name])} of {name} for {count} samples")
    digests = columns.pop("feature_sha256")
    rows = zip(*columns.values(), strict=True)
    samples = [Sample(**dict(zip(columns, row, strict=True))) for row in rows]
    table = SampleTable.of(samples, digests)
    if file.attribute("sha256", "samples") not in (None, table.sha256):
        raise AqaError("samples are damaged: wrong SHA-256")
    return table


def digest_of(features: Features) -> str:
    """Give the SHA-256 of the little-endian float32 bytes of one sample."""
    return hashlib.sha256(features.astype("<f4", "C", copy=False).data).hexdigest()


def write_cache(
    path: Path | str,
    samples: Iterable[Sample],
    features: Iterable[Features],
    provenance: Provenance,
) -> Path:
    """Write a cache that replaces `path` whole and durably, or leaves it as it was.

    `features` yields a float32 (offsets, clips, D) for each sample, in the samples'
    order. Sorted samples are streamed, one held at a time; others are sorted first,
    all held. Raises AqaError over features that are not finite float32 of one shape,
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
    with replacing(path) as new, Disk(new) as disk, h5py.File(disk, "w") as file:
        digests = _write_features(file, samples, features, disk)
        _write_samples(file.create_group("samples"), SampleTable.of(samples, digests))
        file.attrs["format"] = FORMAT
        file.attrs["version"] = VERSION
        file.attrs["provenance"] = provenance.json
        file.attrs["provenance_sha256"] = provenance.sha256
        file.attrs["complete"] = 1
    return path


def _write_features(
    file: Any, samples: Sequence[Sample], features: Iterable[Features], disk: Disk
) -> list[str]:  # -> the features' digests
    digests: list[str] = []
    dataset = None
    for row, (sample, x) in enumerate(zip(samples, features, strict=True)):
        if x.ndim != 3 or 0 in x.shape or x.dtype != np.float32:
            raise AqaError(
                f"sample {sample.key!r}: features are {x.dtype} {x.shape}; "
                "expected float32 (offsets, clips, D)"
            )
        if not np.isfinite(x).all():
            raise AqaError(f"sample {sample.key!r}: features are not finite")
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
        digests.append(digest_of(x))
        disk.check()
    return digests


def _write_samples(group: Any, table: SampleTable) -> None:
    group.attrs["sha256"] = table.sha256

    def write(name: str, values: Any, kind: Any) -> None:
        column = np.array(values, kind)
        group.create_dataset(name, data=column, chunks=column.shape, fletcher32=True)

    for name in TEXTS:
        texts = [text.encode() for text in getattr(table, name)]
        # Of fixed length: HDF5 keeps no checksum of texts that vary in length.
        if name != "damage" or any(texts):
            longest = max(1, *map(len, texts))
            write(name, texts, h5py.string_dtype("utf-8", longest))
    write("score", table.score, "<f8")
    write("frames", table.frames, "<i4")
    for name in DIGESTS:
        digests = [digest.encode() for digest in getattr(table, name)]
        write(name, digests, h5py.string_dtype("ascii", 64))
