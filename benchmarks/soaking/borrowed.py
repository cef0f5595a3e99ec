"""Modules of the tests, whose hostile files are seeds for more."""

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def tests(name: str) -> ModuleType:
    """The module tests/test_<name>.py."""
    path = ROOT / "tests" / f"test_{name}.py"
    spec = importlib.util.spec_from_file_location(f"borrowed_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
