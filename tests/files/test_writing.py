"""Test that files are written whole or not at all."""

import os
from pathlib import Path

import pytest

from fkp.files.writing import open_whole, write_whole


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_a_file_is_replaced_and_nothing_is_left_beside_it(
    tmp_path: Path, durable: bool, shared: bool
) -> None:
    for data in ("ü\r\n", b"\0\xff"):
        write_whole(tmp_path / "a.txt", data, durable=durable, shared=shared)
        assert (tmp_path / "a.txt").read_bytes() == (
            data.encode() if isinstance(data, str) else data
        )
    assert os.listdir(tmp_path) == ["a.txt"]


def test_an_interrupted_write_keeps_the_old_file(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", "old")
    with pytest.raises(KeyboardInterrupt), open_whole(tmp_path / "a") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert (tmp_path / "a").read_text() == "old" and os.listdir(tmp_path) == ["a"]


def test_a_draft_of_a_killed_process_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".a.part").write_text("half of a longer text")
    write_whole(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new" and os.listdir(tmp_path) == ["a"]


def test_errors_name_the_file_and_not_the_draft(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        write_whole(tmp_path / "none/a", "")
    assert error.value.filename == str(tmp_path / "none/a")


def test_a_name_of_full_length_can_be_written(tmp_path: Path) -> None:
    write_whole(tmp_path / ("a" * 255), "x", shared=True)
    assert os.listdir(tmp_path) == ["a" * 255]


def test_permissions_are_those_of_a_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    write_whole(tmp_path / "a", "x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode
