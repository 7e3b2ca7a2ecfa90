"""MATLAB files: arrays come back; hostile and damaged files are errors that name the file."""

import struct
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.io import savemat

from fkp.errors import FkpError
from fkp.files.matlab import array, cell, cells, open_hdf5, read_mat

KINDS = st.sampled_from([np.float64, np.float32, np.uint8, np.int8, np.int16, np.int32, np.int64])


@settings(max_examples=40, deadline=None)
@given(
    KINDS.flatmap(lambda kind: arrays(kind, array_shapes(min_dims=2, max_dims=3))), st.booleans()
)
def test_an_array_of_version_5_comes_back(
    tmp_path_factory: pytest.TempPathFactory, values: np.ndarray, compressed: bool
) -> None:
    file = tmp_path_factory.mktemp("mat") / "a.mat"
    savemat(file, {"wanted": values, "other": "text"}, do_compression=compressed)
    found = read_mat(file, ["wanted", "missing"])
    assert list(found) == ["wanted"]
    np.testing.assert_array_equal(found["wanted"], values)


@pytest.mark.parametrize(
    "value",
    [np.array([[1, "a"]], object), "text", {"a": 1.0}, np.eye(2) * 1j],
    ids=["cells", "text", "structure", "complex"],
)
def test_only_real_numbers_are_read(tmp_path: Path, value: object) -> None:
    savemat(tmp_path / "a.mat", {"wanted": value})
    with pytest.raises(FkpError) as error:
        print(read_mat(tmp_path / "a.mat", ["wanted"]))
    assert error.value.file == tmp_path / "a.mat"


def version_5(*elements: tuple[int, bytes]) -> bytes:
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    return header + b"".join(struct.pack("<II", kind, len(data)) + data for kind, data in elements)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no MATLAB file" * 20,
        version_5((15, zlib.compress(bytes(1 << 25)))),  # expands to 32 MiB
        version_5((15, zlib.compress(bytes(100))[:-5])),
        version_5((14, struct.pack("<II", 6, 1 << 31))),
        version_5((14, b""))[:-1],
        b"\x89HDF\r\n\x1a\n".rjust(520),
        version_5() + bytes(1 << 20),
    ],
    ids=["empty", "foreign", "bomb", "cut", "length", "tag", "7.3", "large"],
)
def test_a_hostile_file_of_version_5_is_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "a.mat"
    file.write_bytes(data)
    with pytest.raises(FkpError) as error:
        read_mat(file, ["wanted"])
    assert str(file) in str(error.value)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(0, 255), st.booleans())
def test_a_flipped_byte_gives_an_array_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int, compressed: bool
) -> None:
    file = tmp_path_factory.mktemp("mat") / "a.mat"
    savemat(file, {"wanted": np.arange(12.0).reshape(3, 4)}, do_compression=compressed)
    data = bytearray(file.read_bytes())
    data[place % len(data)] = value
    file.write_bytes(data)
    try:
        found = read_mat(file, ["wanted"])
    except FkpError as error:
        assert str(file) in str(error)
    else:
        assert all(one.dtype.kind in "uif" for one in found.values())


def test_arrays_and_cells_of_version_7_3_come_back(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["points"] = np.eye(3)
        references = [file.create_dataset(f"#refs#/{i}", data=np.full(2, i)).ref for i in range(3)]
        file.create_dataset("cells", data=np.array(references, h5py.ref_dtype)[None])
    with open_hdf5(tmp_path / "a.mat") as opened:
        np.testing.assert_array_equal(array(opened, "points"), np.eye(3))
        found = [cell(opened, one, "cells") for one in cells(opened, "cells")]
    np.testing.assert_array_equal(found, [[0, 0], [1, 1], [2, 2]])


def test_nothing_outside_of_a_file_of_version_7_3_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(64))
    with h5py.File(tmp_path / "other.mat", "w") as other:
        other["points"] = np.eye(3)
    layout = h5py.VirtualLayout((3, 3), float)
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.mat"), "points", (3, 3))
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file["linked"] = h5py.ExternalLink("other.mat", "points")
        file["soft"] = h5py.SoftLink("/text")
        file["text"] = "text"
        file["group/points"] = np.eye(3)
        file.create_virtual_dataset("virtual", layout)
        secret = [(str(tmp_path / "secret"), 0, 64)]
        file.create_dataset("external", (8,), float, external=secret)
        file.create_dataset("large", (1 << 31,), np.uint8, chunks=(1 << 20,), compression="gzip")

    with open_hdf5(tmp_path / "a.mat") as opened:
        for name in ("missing", "linked", "soft", "text", "group", "virtual", "external", "large"):
            with pytest.raises(FkpError) as error:
                array(opened, name)
            assert error.value.file == tmp_path / "a.mat"


@pytest.mark.parametrize("cut", [0, 100, 700, 1500])
def test_a_damaged_file_of_version_7_3_is_an_error(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "a.mat"
    with h5py.File(file, "w") as opened:
        opened["points"] = np.eye(30)
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(FkpError) as error, open_hdf5(file) as opened:
        array(opened, "points")
    assert error.value.file == file
