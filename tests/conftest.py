"""Fixtures that more than one test file needs, named by the state they give."""

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared_data():
    """Real lists and videos beside the checkout; skips where there are none."""
    folder = Path(os.environ.get("AQA_SHARED", ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder


@pytest.fixture(autouse=True)
def seeds_fixed():
    """Make a test's own draws the same in every run and order."""
    torch.manual_seed(0)
