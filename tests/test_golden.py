"""What a cache, a model and a report hold may only change on purpose.

`tests/golden/` was recorded before the code was rearranged. The cache's bytes follow
from its content alone and are compared exactly. Trained values depend on the
processor's order of summation in the last bits, so numbers of models and reports are
compared to a relative tolerance, everything else exactly. To record anew after an
intended change: `AQA_RECORD_GOLDEN=1 pytest tests/test_golden.py`, and say in the
commit what changed and why.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

FOLDER = Path(__file__).parent / "golden"
RECORDING = os.environ.get("AQA_RECORD_GOLDEN") == "1"
#: Facts of the installation, not of the result.
VARYING = {"created_with", "seconds", "cache"}


@pytest.fixture(scope="module")
def made(plant, tmp_path_factory):
    """A planted cache, and what `fit` and `compare` make of it."""
    from click.testing import CliRunner

    from aqa.cli import main

    folder = tmp_path_factory.mktemp("golden")
    counts = {"diving": (14, 8), "gym_vault": (10, 6), "ski_big_air": (9, 7)}
    cache = plant(folder / "features.h5", "shared", counts)
    for arguments in (
        ["fit", "--mode", "all-action", "--iterations", "60", "--out", folder / "m"],
        ["compare", "single-vs-all", "--iterations", "60", "--out", folder / "report"],
    ):
        run = CliRunner().invoke(main, [*map(str, arguments), "--cache", str(cache)])
        assert run.exit_code == 0, run.output
    return folder


def test_the_bytes_of_a_cache(made):
    digest = hashlib.sha256((made / "features.h5").read_bytes()).hexdigest()
    _compare("cache", {"sha256": digest})


def test_the_content_of_a_model(made):
    [path] = sorted((made / "m").glob("*.safetensors"))
    with safe_open(path, "numpy") as model:
        header = {name: json.loads(text) for name, text in model.metadata().items()}
        arrays = {name: model.get_tensor(name) for name in sorted(model.keys())}
    sums = {
        name: [list(array.shape), str(array.dtype), float(np.abs(array).sum())]
        for name, array in arrays.items()
    }
    _compare("model", {"header": header, "arrays": sums})


def test_the_content_of_a_report(made):
    _compare("report", json.loads((made / "report" / "report.json").read_text()))


def _compare(name, found):
    path = FOLDER / f"{name}.json"
    found = _stable(found)
    if RECORDING:
        path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    expected = json.loads(path.read_text())
    assert found.keys() == expected.keys()
    _same(name, found, expected)


def _stable(value):
    if isinstance(value, dict):
        return {k: _stable(v) for k, v in value.items() if k not in VARYING}
    if isinstance(value, list):
        return [_stable(each) for each in value]
    return value


def _same(where, found, expected):
    if isinstance(expected, dict):
        assert isinstance(found, dict) and found.keys() == expected.keys(), where
        for key in expected:
            _same(f"{where}.{key}", found[key], expected[key])
    elif isinstance(expected, list):
        assert isinstance(found, list) and len(found) == len(expected), where
        for place, (one, other) in enumerate(zip(found, expected, strict=True)):
            _same(f"{where}[{place}]", one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-4), where
    else:
        assert found == expected, where
