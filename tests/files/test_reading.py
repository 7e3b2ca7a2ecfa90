"""Test the bounded readers of files, and names that are safe for other programs."""

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
def test_safe_cell_names_the_same_path_and_is_no_formula(name: str) -> None:
    cell = safe_cell(name)
    assert os.path.normpath(cell) == os.path.normpath(name)
    assert safe_cell(cell) == cell
    assert cell[:1] not in tuple("=+-@") and not cell[:1].isspace()


@given(TEXT)
def test_error_messages_contain_no_terminal_commands(text: str) -> None:
    message = str(FkpError(f"{text}: wrong"))
    assert all(letter in "\n\t" or letter >= " " for letter in message)
    assert not set(message) & {"\x7f", "\x9b", "\udcff"}

    # It can be printed, and does not change when it is wrapped in another error.
    message.encode()
    assert message == str(FkpError(message))


@pytest.mark.parametrize(
    ("name", "most", "message"),
    [
        ("fine", 4, "5 bytes, more than the 4"),
        ("binary", 9, "not text in UTF-8 .* at byte 1"),
        ("pipe", 9, "a pipe or a device, not a file"),
        (".", 9, "a folder, not a file"),
        ("gone", 9, "no such file"),
        ("x" * 999, 9, "File name too long"),
        ("a\0b", 9, "null byte"),
    ],
)
def test_unreadable_files_are_refused(tmp_path: Path, name: str, most: int, message: str) -> None:
    (tmp_path / "fine").write_bytes(b"\xef\xbb\xbf\xc3\xbc")
    (tmp_path / "binary").write_bytes(b"a\x81")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone").symlink_to("nowhere")
    with pytest.raises(FkpError, match=message):
        read_text(tmp_path / name, most)
    with (
        pytest.raises(FkpError, match=message.split(" .*")[0]),
        open_text(tmp_path / name, most) as text,
    ):
        text.read()


def test_a_file_of_exactly_the_limit_is_read(tmp_path: Path) -> None:
    (tmp_path / "fine").write_bytes(b"\xef\xbb\xbf\xc3\xbc")
    assert read_bytes(tmp_path / "fine", 5) == b"\xef\xbb\xbf\xc3\xbc"
    assert read_text(tmp_path / "fine", 5) == "ü"


def test_open_text_keeps_line_ends_and_errors_of_the_caller(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes("\ufeffü\r\nb\rc\n".encode())
    with open_text(tmp_path / "text", 99) as text:
        assert text.readlines() == ["ü\r\n", "b\r", "c\n"]
    with pytest.raises(ValueError, match="mine"), open_text(tmp_path / "text", 99):
        raise ValueError("mine")


def test_inside_resolves_links_and_dots(tmp_path: Path) -> None:
    (tmp_path / "folder/deep").mkdir(parents=True)
    (tmp_path / "folder/up").symlink_to(tmp_path)
    (tmp_path / "here").symlink_to(tmp_path / "folder")
    within = ["a", "deep/../a", "deep", "up/folder/a", "../folder/a", "../here/a"]
    within.append(str(tmp_path / "folder/a"))
    outside = ["..", "../a", "up/a", "deep/../../folders", "/", "a\0b", "../folder2"]
    for folder in (tmp_path / "folder", tmp_path / "here"):
        for name in within:
            assert inside(folder, folder / name), name
        for name in outside:
            assert not inside(folder, folder / name), name
