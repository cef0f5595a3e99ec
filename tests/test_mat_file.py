"""MATLAB files: SciPy's are read as SciPy reads them, hostile ones refused."""

import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat, savemat

from aqa.extract.datasets.aqa7 import MOST_UNPACKED, MatError, read_matrices


def saved(content, **options):
    file = io.BytesIO()
    savemat(file, content, **options)
    return file.getvalue()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", "f8 f4 i1 u1 i2 u2 i4 u4 i8 u8".split())
def test_numbers_are_those_that_scipy_wrote(kind, packed):
    content = {
        "x": np.arange(6).reshape(2, 3).astype(kind),
        "a_long_name": np.arange(3).astype(kind),
        "empty": np.zeros((0, 3), kind),
    }
    found = read_matrices(saved(content, do_compression=packed))
    assert list(found) == list(content)
    for name, array in content.items():
        numbers = found[name].numbers()
        assert numbers.dtype == np.float64
        np.testing.assert_array_equal(numbers, np.atleast_2d(array))
    assert found["x"].kind == np.dtype(kind).name.replace("float64", "double").replace(
        "float32", "single"
    )


def test_the_released_lists_are_read_as_scipy_reads_them(shared_data):
    for split in ("train", "test"):
        name = f"consolidated_{split}_list"
        path = shared_data / "aqa7" / f"{name}.mat"
        expected = loadmat(path)[name]
        found = read_matrices(path.read_bytes())[name].numbers()
        np.testing.assert_array_equal(found, expected)


def test_a_file_of_the_other_byte_order_is_read():
    header = b"by hand".ljust(124) + b"\x01\x00MI"
    body = b"\0\0\0\x06\0\0\0\x08" + b"\0\0\0\x06" + bytes(4)  # double
    body += b"\0\0\0\x05\0\0\0\x08" + b"\0\0\0\x01\0\0\0\x02"  # 1 by 2
    body += b"\0\x01\0\x01x\0\0\0"  # its name, in the tag
    body += b"\0\0\0\x09\0\0\0\x10" + np.array([1.5, -2], ">f8").tobytes()
    data = header + b"\0\0\0\x0e" + len(body).to_bytes(4, "big") + body
    np.testing.assert_array_equal(read_matrices(data)["x"].numbers(), [[1.5, -2]])


def test_other_types_are_named():
    content = {
        "text": "abc",
        "struct": {"a": 1},
        "cell": np.array([[1, "x"]], object),
        "truth": np.array([True]),
        "complex": np.array([1j]),
    }
    kinds = [matrix.kind for matrix in read_matrices(saved(content)).values()]
    assert kinds == ["char", "struct", "cell", "logical", "complex double"]


def bomb():
    packed = zlib.compress(bytes(MOST_UNPACKED + 1))
    return b"\x0f\0\0\0" + len(packed).to_bytes(4, "little") + packed


HEADER = saved({})[:128]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no header"),
        (b"x" * 200, "no header"),
        (HEADER + b"\x0e\0\0\0", "ends at 132"),
        (HEADER + b"\x0e\0\0\0\xff\xff\xff\xff", "4294967295 bytes where fewer"),
        (HEADER + b"\x0e\0\x05\0abcd", "5 bytes where fewer"),
        (HEADER + b"\x09\0\0\0\0\0\0\0", "type 9 in the place"),
        (HEADER + b"\x0f\0\0\0\x04\0\0\0abcd", "is damaged"),
        (HEADER + bomb()[:-9], "fewer are left"),
        (HEADER + bomb(), "cut off, or all are over"),
    ],
)
def test_lying_lengths_are_refused(data, message):
    with pytest.raises(MatError, match=message):
        read_matrices(data)


def test_a_type_out_of_the_table_is_refused():
    """Found by soaking: this byte makes SciPy 1.17's reader crash the process."""
    whole = saved({"x": np.ones((2, 3))})
    tag = b"\x09\0\0\0\x30\0\0\0"
    assert whole.count(tag) == 1
    spoilt = whole.replace(tag, b"\x09\xff\0\0\x30\0\0\0")
    with pytest.raises(MatError, match="values of type 65289"):
        read_matrices(spoilt)["x"].numbers()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_change_is_read_or_refused(data):
    x = {"x": np.array([[1.0, 1, 50], [2, 7, 14]]), "t": "text"}
    content = bytearray(saved(x, do_compression=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(124, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    try:
        for matrix in read_matrices(bytes(content)).values():
            assert matrix.numbers().shape == matrix.shape
    except MatError as error:
        assert len(str(error)) < 300
