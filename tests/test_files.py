"""Laws of what is read from and written for others."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fkp.errors import FkpError
from fkp.files.reading import inside, open_text, read_bytes, read_text, safe_cell

TEXT = st.text(
    st.one_of(st.sampled_from("=+-@./\t\r\n a\x1b\x00\udcff"), st.characters()), max_size=12
)


@given(TEXT)
def test_a_harmless_path_is_the_same_path_and_no_formula(name: str) -> None:
    made = safe_cell(name)
    assert os.path.normpath(made) == os.path.normpath(name) and safe_cell(made) == made
    assert made[:1] not in tuple("=+-@") and not made[:1].isspace()


@given(TEXT)
def test_a_message_commands_no_terminal(said: str) -> None:
    told = str(FkpError(f"{said}: wrong"))
    assert all(letter in "\n\t" or letter >= " " for letter in told) and not set(told) & {
        "\x7f",
        "\x9b",
        "\udcff",
    }
    told.encode()  # and can be printed
    assert told == str(FkpError(told))


def test_a_file_is_regular_small_and_there(tmp_path: Path) -> None:
    (tmp_path / "fine").write_bytes(b"\xef\xbb\xbf\xc3\xbc")
    assert (
        read_bytes(tmp_path / "fine", 5) == b"\xef\xbb\xbf\xc3\xbc"
        and read_text(tmp_path / "fine", 5) == "ü"
    )
    (tmp_path / "binary").write_bytes(b"a\x81")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone").symlink_to("nowhere")
    for name, most, told in (
        ("fine", 4, "5 bytes, more than the 4"),
        ("binary", 9, "not text in UTF-8 .* at byte 1"),
        ("pipe", 9, "a pipe or a device, not a file"),
        (".", 9, "a folder, not a file"),
        ("gone", 9, "no such file"),
        ("x" * 999, 9, "File name too long"),
        ("a\0b", 9, "null byte"),
    ):
        with pytest.raises(FkpError, match=told):
            read_text(tmp_path / name, most)
        with (
            pytest.raises(FkpError, match=told.split(" .*")[0]),
            open_text(tmp_path / name, most) as text,
        ):
            text.read()


def test_text_read_bit_by_bit_is_the_same_and_mistakes_of_others_are_left_alone(
    tmp_path: Path,
) -> None:
    (tmp_path / "text").write_bytes("\ufeffü\r\nb\rc\n".encode())
    with open_text(tmp_path / "text", 99) as text:
        assert text.readlines() == ["ü\r\n", "b\r", "c\n"]
    with pytest.raises(ValueError, match="mine"), open_text(tmp_path / "text", 99):
        raise ValueError("mine")


def test_inside_is_where_a_path_ends(tmp_path: Path) -> None:
    (tmp_path / "folder/deep").mkdir(parents=True)
    (tmp_path / "folder/up").symlink_to(tmp_path)
    (tmp_path / "here").symlink_to(tmp_path / "folder")
    for folder in (tmp_path / "folder", tmp_path / "here"):
        for name in (
            "a",
            "deep/../a",
            "deep",
            "up/folder/a",
            "../folder/a",
            "../here/a",
            str(tmp_path / "folder/a"),
        ):
            assert inside(folder, folder / name), name
        for name in ("..", "../a", "up/a", "deep/../../folders", "/", "a\0b", "../folder2"):
            assert not inside(folder, folder / name), name
