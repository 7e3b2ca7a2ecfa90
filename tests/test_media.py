import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from fkp import media
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
    [
        ("empty", "no picture in this folder"),
        ("*.jpeg", "matches no picture"),
        ("none.txt", "names no picture"),
        ("binary.txt", "not a list of paths"),
    ],
)
def test_nothing_to_look_at_is_said(tmp_path: Path, image: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.txt").write_text("# nothing\n")
    (tmp_path / "binary.txt").write_bytes(b"a\0b.png")
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


def filmed(file: Path, size: tuple[int, int] = (64, 48)) -> Path:
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, size)
    writer.write(np.zeros((*size[::-1], 3), np.uint8))
    writer.release()
    return file


PLAYLISTS = {
    "concat": "ffconcat version 1.0\nfile film.mp4\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{folder}/film.mp4\n#EXT-X-ENDLIST\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_called_a_film_leads_nowhere(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filmed(tmp_path / "film.mp4")
    (tmp_path / "list.mp4").write_text(PLAYLISTS[kind].format(folder=tmp_path))
    if kind == "concat":  # which FFmpeg would follow
        assert cv2.VideoCapture(str(tmp_path / "list.mp4")).isOpened()
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "threads;1")
    with pytest.raises(FkpError, match="list.mp4: cannot be opened as a film"):
        find(str(tmp_path / "list.mp4"))
    assert os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] == "threads;1"


def test_a_name_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file:other.mp4").write_bytes(b"no film")
    filmed(Path("other.mp4"))
    with pytest.raises(FkpError, match="cannot be opened as a film"):
        find("file:other.mp4")


def test_a_film_is_read_whose_name_is_no_text(tmp_path: Path) -> None:
    film = filmed(tmp_path / "film.mp4").rename(tmp_path / os.fsdecode(b"caf\xe9 \xc3\xbc.mp4"))
    assert len(list(Film(film))) == 1


def test_frames_larger_than_pictures_may_be_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filmed(tmp_path / "film.mp4")
    monkeypatch.setattr(media, "PIXELS", 64 * 48)
    assert len(list(Film(tmp_path / "film.mp4"))) == 1
    monkeypatch.setattr(media, "PIXELS", 64 * 48 - 1)
    with pytest.raises(FkpError, match="frames of 64 x 48 pixels; fkp reads 3071 at most"):
        Film(tmp_path / "film.mp4")


def test_films_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no film")
    with pytest.raises(FkpError, match="cannot be opened as a film"):
        find(str(tmp_path / "bad.mp4"))
    with pytest.raises(FkpError, match="no such file"):
        find(str(tmp_path / "gone.mp4"))
