"""A feature cache written: the bytes that `store` reads.

Conventions: those of `store`. A cache is never changed, only replaced whole.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from aqa.cache.disk import Disk
from aqa.cache.errors import AqaError
from aqa.cache.provenance import Provenance
from aqa.cache.replacement import replacing
from aqa.cache.samples import Sample, SampleTable
from aqa.cache.store import DIGESTS, FORMAT, TEXTS, VERSION, Features, digest_of


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
