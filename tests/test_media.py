from pathlib import Path

import cv2
import numpy as np
import pytest

from fkp.errors import FkpError
from fkp.media import Album, Film, find
from fkp.pictures import write_picture

PIXELS = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.jpg", "a.png", "deep er/ü/c.d.webp", ".hidden/x.png", "outputs/drawn.png"):
        write_picture(tmp_path / name, PIXELS)
    (tmp_path / "notes.md").write_text("no picture")
    return tmp_path


def found(image: str, folder: Path) -> list[str]:
    album = find(image, without=folder / "outputs")
    assert isinstance(album, Album)
    return [path.relative_to(folder).as_posix() for path in album.paths]


def test_a_folder_is_walked_without_hidden_files_and_results(folder: Path) -> None:
    assert found(str(folder), folder) == ["a.jpg", "a.png", "b.png", "deep er/ü/c.d.webp"]
    album = find(str(folder / "outputs"), without=folder / "outputs")
    assert isinstance(album, Album) and len(album.paths) == 1


def test_every_picture_has_a_name_of_its_own(folder: Path) -> None:
    album = find(str(folder), without=folder / "outputs")
    assert isinstance(album, Album)
    names = [name.as_posix() for name in album.names()]
    assert names == ["a.jpg", "a.png", "b", "deep er/ü/c.d"]


def test_patterns_and_lists(folder: Path) -> None:
    assert found(str(folder / "*.png"), folder) == ["a.png", "b.png"]
    assert found(str(folder / "**/*.webp"), folder) == ["deep er/ü/c.d.webp"]
    (folder / "list.txt").write_text("# mine\n\nb.png\ndeep er/ü/c.d.webp\ngone.jpg\nb.png\n", encoding="utf-8")
    assert found(str(folder / "list.txt"), folder) == ["b.png", "deep er/ü/c.d.webp", "gone.jpg"]


def test_a_list_may_lead_elsewhere_but_no_result_does(folder: Path) -> None:
    (folder / "deep er/list.txt").write_text("../b.png\nü/../../a.jpg\n", encoding="utf-8")
    album = find(str(folder / "deep er/list.txt"))
    assert isinstance(album, Album)
    assert all(".." not in name.parts and not name.is_absolute() for name in album.names())
    assert all(path.is_file() for path in album.paths)


@pytest.mark.parametrize(
    ("image", "message"),
    [("empty", "no picture in this folder"), ("*.jpeg", "matches no picture"), ("none.txt", "names no picture")],
)
def test_nothing_to_look_at_is_said(tmp_path: Path, image: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.txt").write_text("# nothing\n")
    with pytest.raises(FkpError, match=message):
        find(str(tmp_path / image))


def test_one_picture_is_one_even_if_its_name_looks_like_a_pattern(tmp_path: Path) -> None:
    write_picture(tmp_path / "a[1]*.png", PIXELS)
    assert find(str(tmp_path / "a[1]*.png")) == tmp_path / "a[1]*.png"
    assert find("nowhere.jpg") == Path("nowhere.jpg")


def test_a_film_gives_its_frames_in_order(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "film.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 48))
    for level in (0, 80, 160):
        writer.write(np.full((48, 64, 3), (level, 0, 0), np.uint8))
    writer.release()
    film = find(str(tmp_path / "film.mp4"))
    assert isinstance(film, Film) and film.rate == pytest.approx(10) and film.count == 3 and not film.live
    frames = list(film)
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 3
    assert [round(float(frame[..., 2].mean()) / 80) for frame in frames] == [0, 1, 2]  # RGB, where it was written BGR


def test_films_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no film")
    with pytest.raises(FkpError, match="cannot be opened as a film"):
        find(str(tmp_path / "bad.mp4"))
    with pytest.raises(FkpError, match="no such file"):
        find(str(tmp_path / "gone.mp4"))
