"""Every way to write a list is read right or refused; see benchmarks/list_matrix.py."""

import random

import pytest
from list_matrix import CASES, ENCODINGS, EXTRA, READERS, cells, outcome, prepare

ALL = list(cells())
UNREADABLE = ("UTF-16, no mark", "UTF-32, mark", "Latin-1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files that lists name."""
    path = tmp_path_factory.mktemp("matrix")
    prepare(path)
    return path


def check(cell, reader, folder):
    found = outcome(cell, reader, folder)
    if cell.encoding in UNREADABLE:
        assert found == "cannot be written" or found.startswith("refused: "), cell
        if found.startswith("refused"):
            assert "UTF-8" in found, (cell, found)
    else:
        assert found == "read", cell


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("reader", ["labels", "videos"])
def test_each_cell_is_read_or_refused_with_what_to_do(folder, reader, encoding):
    chosen = [cell for cell in ALL if cell.encoding == encoding]
    assert len(chosen) == len(ALL) // len(ENCODINGS) >= 250
    for cell in random.Random(0).sample(chosen, 60):
        check(cell, reader, folder)
    assert {cell.extra for cell in chosen} == {*EXTRA}
    assert {cell.case for cell in chosen} == {*CASES}


def test_imports_read_as_labels_do(folder):
    assert "import" in READERS
    for cell in random.Random(1).sample(ALL, 40):
        check(cell, "import", folder)


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_the_whole_matrix(folder, reader):
    for cell in ALL:
        check(cell, reader, folder)
