"""Images, videos and collections of them are found, named, and read frame by frame."""

import os
import shutil
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from fkp.errors import FkpError
from fkp.files import images
from fkp.files.images import write_image
from fkp.inference.media import ImageCollection, find
from fkp.inference.video import Video

PIXELS = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    for name in (
        "b.png",
        "a.jpg",
        "a.png",
        "deep er/ü/c.d.webp",
        ".hidden/x.png",
        "outputs/drawn.png",
    ):
        write_image(tmp_path / name, PIXELS)
    (tmp_path / "notes.md").write_text("not an image")
    return tmp_path


def found(image: str, folder: Path) -> list[str]:
    collection = find(image, without=folder / "outputs")
    assert isinstance(collection, ImageCollection)
    return [path.relative_to(folder).as_posix() for path in collection.paths]


def test_folder_is_walked_without_hidden_files_and_results(folder: Path) -> None:
    assert found(str(folder), folder) == ["a.jpg", "a.png", "b.png", "deep er/ü/c.d.webp"]
    collection = find(str(folder / "outputs"), without=folder / "outputs")
    assert isinstance(collection, ImageCollection) and len(collection.paths) == 1


def test_every_image_has_a_unique_name(folder: Path) -> None:
    collection = find(str(folder), without=folder / "outputs")
    assert isinstance(collection, ImageCollection)
    names = [name.as_posix() for name in collection.names()]
    assert names == ["a.jpg", "a.png", "b", "deep er/ü/c.d"]


def test_patterns_and_lists(folder: Path) -> None:
    assert found(str(folder / "*.png"), folder) == ["a.png", "b.png"]
    assert found(str(folder / "**/*.webp"), folder) == ["deep er/ü/c.d.webp"]
    (folder / "list.txt").write_text(
        "# mine\n\nb.png\ndeep er/ü/c.d.webp\ngone.jpg\nb.png\n", encoding="utf-8"
    )
    assert found(str(folder / "list.txt"), folder) == ["b.png", "deep er/ü/c.d.webp", "gone.jpg"]


def test_list_may_name_other_folders_but_results_stay_inside(folder: Path) -> None:
    (folder / "deep er/list.txt").write_text("../b.png\nü/../../a.jpg\n", encoding="utf-8")
    collection = find(str(folder / "deep er/list.txt"))
    assert isinstance(collection, ImageCollection)
    assert all(".." not in name.parts and not name.is_absolute() for name in collection.names())
    assert all(path.is_file() for path in collection.paths)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("empty", "no image or video in this folder"),
        ("*.jpeg", "matches no image"),
        ("none.txt", "names no image"),
        ("binary.txt", "not a list of paths"),
    ],
)
def test_nothing_found_raises(tmp_path: Path, image: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.txt").write_text("# nothing\n")
    (tmp_path / "binary.txt").write_bytes(b"a\0b.png")
    with pytest.raises(FkpError, match=message):
        find(str(tmp_path / image))


def test_existing_file_is_not_taken_for_a_pattern(tmp_path: Path) -> None:
    write_image(tmp_path / "a[1]*.png", PIXELS)
    assert find(str(tmp_path / "a[1]*.png")) == tmp_path / "a[1]*.png"
    assert find("nowhere.jpg") == Path("nowhere.jpg")


def test_video_yields_frames_in_order(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(
        str(tmp_path / "video.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 48)
    )
    for level in (0, 80, 160):
        writer.write(np.full((48, 64, 3), (level, 0, 0), np.uint8))
    writer.release()
    video = find(str(tmp_path / "video.mp4"))
    assert isinstance(video, Video)
    assert video.rate == pytest.approx(10) and video.count == 3 and not video.live
    frames = list(video)
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 3
    # OpenCV writes BGR, fkp yields RGB: the blue channel comes last.
    blue = [round(float(frame[..., 2].mean()) / 80) for frame in frames]
    assert blue == [0, 1, 2]


def one_frame(file: Path, size: tuple[int, int] = (64, 48)) -> Path:
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, size)
    writer.write(np.zeros((*size[::-1], 3), np.uint8))
    writer.release()
    return file


PLAYLISTS = {
    "concat": "ffconcat version 1.0\nfile video.mp4\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{folder}/video.mp4\n#EXT-X-ENDLIST\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video 5004 RTP/AVP 96\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_playlist_with_a_video_ending_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_frame(tmp_path / "video.mp4")
    (tmp_path / "list.mp4").write_text(PLAYLISTS[kind].format(folder=tmp_path))
    if kind == "concat":  # FFmpeg would follow it
        assert cv2.VideoCapture(str(tmp_path / "list.mp4")).isOpened()
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "threads;1")
    with pytest.raises(FkpError, match="list.mp4: cannot be opened as a video"):
        find(str(tmp_path / "list.mp4"))
    assert os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] == "threads;1"


def test_file_name_is_not_taken_for_a_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file:other.mp4").write_bytes(b"not a video")
    one_frame(Path("other.mp4"))
    with pytest.raises(FkpError, match="cannot be opened as a video"):
        find("file:other.mp4")


def test_video_whose_name_is_not_utf8_is_read(tmp_path: Path) -> None:
    video = one_frame(tmp_path / "video.mp4").rename(
        tmp_path / os.fsdecode(b"caf\xe9 \xc3\xbc.mp4")
    )
    assert len(list(Video(video))) == 1


def test_frames_above_the_pixel_limit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_frame(tmp_path / "video.mp4")
    monkeypatch.setattr(images, "PIXELS", 64 * 48)
    assert len(list(Video(tmp_path / "video.mp4"))) == 1
    monkeypatch.setattr(images, "PIXELS", 64 * 48 - 1)
    with pytest.raises(FkpError, match="frames of 64 x 48 pixels.* 3071"):
        Video(tmp_path / "video.mp4")


def test_damaged_and_missing_videos_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    with pytest.raises(FkpError, match="cannot be opened as a video"):
        find(str(tmp_path / "bad.mp4"))
    with pytest.raises(FkpError, match="no such file"):
        find(str(tmp_path / "gone.mp4"))


def brightening(file: Path, frames: int = 12, codec: str = "mp4v", rate: float = 10.0) -> Path:
    """Write a video that gets brighter from frame to frame; the ending sets the container."""
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*codec), rate, (64, 48))
    for number in range(frames):
        writer.write(np.full((48, 64, 3), 8 * number, np.uint8))
    writer.release()
    return file


def variable(file: Path, times: list[int]) -> Path:
    """Write a Matroska video whose frames have these times, milliseconds."""
    data, at = bytearray(brightening(file, len(times)).read_bytes()), 0
    for number, milliseconds in enumerate(times):
        at = data.index(b"\x81" + struct.pack(">h", 100 * number), at) + 1  # a block of track 1
        data[at : at + 2] = struct.pack(">h", milliseconds)
    file.write_bytes(data)
    return file


TIMES = [0, 40, 80, 120, 160, 1160, 2160, 2200, 2240, 3000]


def test_frames_have_their_own_times_and_one_constant_rate_fits_all(tmp_path: Path) -> None:
    video = Video(variable(tmp_path / "variable.mkv", TIMES))
    assert video.constant_rate() == pytest.approx(25)
    assert [seconds for seconds, _ in video.timed_frames()] == pytest.approx(
        [time / 1000 for time in TIMES]
    )
    steady = Video(brightening(tmp_path / "steady.avi", codec="MJPG"))
    assert steady.constant_rate() == 10
    assert [seconds for seconds, _ in steady.timed_frames()][-1] == pytest.approx(1.1)


def test_long_gap_does_not_raise_the_constant_rate(tmp_path: Path) -> None:
    video = Video(variable(tmp_path / "gap.mkv", [0, 40, 80, 120, 32000]))
    assert video.constant_rate() * 32 < 10 * 5


@pytest.mark.real
def test_times_of_a_phone_video(shared: Path) -> None:
    for kind in ("mkv", "mp4"):
        video = Video(shared / f"cases/film_vfr/vfr.{kind}")
        assert video.constant_rate() == pytest.approx(25)
        times = [seconds for seconds, _ in video.timed_frames()]
        assert (times[10], times[11], times[-1]) == pytest.approx((0.4, 0.6, 4.2))
        assert video.notes(len(times), times[-1]) == []


def test_frames_without_times_are_spaced_evenly_and_noted(tmp_path: Path) -> None:
    video = Video(variable(tmp_path / "none.mkv", [0] * 6))
    times = [seconds for seconds, _ in video.timed_frames()]
    assert times == pytest.approx([i / 10 for i in range(6)])
    (note,) = video.notes(6, times[-1])
    assert "10 frames a second" in note


def test_truncated_video_yields_its_frames_and_a_note(tmp_path: Path) -> None:
    whole = brightening(tmp_path / "whole.avi", 30, "MJPG")
    data = whole.read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: (data.index(b"00dc") + data.rindex(b"idx1")) // 2])
    notes = {}
    for name in ("whole", "cut"):
        video = Video(tmp_path / f"{name}.avi")
        times = [seconds for seconds, _ in video.timed_frames()]
        assert len(times) == 30 if name == "whole" else 0 < len(times) < 25
        notes[name] = video.notes(len(times), times[-1])
    assert notes["whole"] == [] and "cut off" in notes["cut"][0] and "3.00 s" in notes["cut"][0]


def test_video_of_one_frame(tmp_path: Path) -> None:
    video = Video(one_frame(tmp_path / "one.mp4"))
    assert video.constant_rate() == 10
    ((seconds, _),) = video.timed_frames()
    assert seconds == 0 and video.notes(1, 0.0) == []


def test_rotation_of_a_phone_video_is_applied(tmp_path: Path) -> None:
    data = bytearray(one_frame(tmp_path / "phone.mp4").read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # the matrix of the track
    assert struct.unpack_from(">9i", data, at) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", data, at, 0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30)
    (tmp_path / "phone.mp4").write_bytes(data)
    assert [frame.shape for frame in Video(tmp_path / "phone.mp4")] == [(64, 48, 3)]


CODECS = {
    "mp4": "mp4v",
    "mkv": "mp4v",
    "avi": "MJPG",
    "mov": "mp4v",
    "m4v": "mp4v",
    "3gp": "mp4v",
    "flv": "FLV1",
}
CODECS |= {
    "wmv": "WMV2",
    "ts": "mp2v",
    "mts": "mp2v",
    "mpg": "mp2v",
    "webm": "VP80",
    "asf": "WMV2",
    "vob": "mp2v",
}


@pytest.mark.parametrize("ending", CODECS)
def test_every_container_is_recognised_under_any_name(ending: str, tmp_path: Path) -> None:
    file = brightening(tmp_path / f"video.{ending}", 6, CODECS[ending])
    for name in (file.name, f"LOUD.{ending.upper()}", "none", "other.xyz"):
        shutil.copy(file, tmp_path / "copy")
        (tmp_path / "copy").rename(tmp_path / name) if name != file.name else None
        video = find(str(tmp_path / name))
        assert isinstance(video, Video) and len(list(video)) == 6, name


def test_image_without_an_ending_is_recognised(tmp_path: Path) -> None:
    for ending in ("jpg", "png", "webp", "avif", "tif", "bmp"):
        write_image(tmp_path / f"a.{ending}", np.zeros((16, 16, 3), np.uint8)).rename(
            tmp_path / ending
        )
        assert find(str(tmp_path / ending)) == tmp_path / ending
    (tmp_path / "phone").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert find(str(tmp_path / "phone")) == tmp_path / "phone"


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_playlist_is_refused_under_any_name(kind: str, tmp_path: Path) -> None:
    one_frame(tmp_path / "video.mp4")
    for name in ("list", "list.m3u8", "list.ffconcat", "list.sdp"):
        (tmp_path / name).write_text(PLAYLISTS[kind].format(folder=tmp_path))
        assert find(str(tmp_path / name)) == tmp_path / name  # refused later, as an image
    collection = find(str(tmp_path))
    assert isinstance(collection, ImageCollection)
    assert [path.name for path in collection.paths] == ["video.mp4"]


def test_videos_are_found_in_folders_patterns_and_lists(tmp_path: Path) -> None:
    for name in ("a.mp4", "sub/B.MOV", "plain"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(one_frame(tmp_path / "made.mp4"), tmp_path / name)
    (tmp_path / "made.mp4").rename(tmp_path / "odd.xyz")
    for name in ("a.png", "photo.HEIC"):
        write_image(tmp_path / "made.png", PIXELS).rename(tmp_path / name)
    (tmp_path / "README").write_text("no video")
    (tmp_path / "list.txt").write_text("a.mp4\nodd.xyz\na.png\ngone.mov\n")

    def seen(image: str) -> dict[str, bool]:
        collection = find(image)
        assert isinstance(collection, ImageCollection)
        return {path.name: path in collection.videos for path in collection.paths}

    some = {"a.mp4": True, "a.png": False}
    assert seen(str(tmp_path)) == some | {"photo.HEIC": False, "plain": True, "B.MOV": True}
    assert seen(str(tmp_path / "a.*")) == some and seen(str(tmp_path / "**/*.MOV")) == {
        "B.MOV": True
    }
    assert seen(str(tmp_path / "list.txt")) == some | {"odd.xyz": True, "gone.mov": True}


def test_names_of_results_are_unique(tmp_path: Path) -> None:
    files = [
        "a.jpg",
        "a.png",
        "a.jpg.webp",
        "A.bmp",
        "summary.png",
        "Faces.mp4",
        "unfinished.gif",
        "b.jpg",
        "b_1.jpg",
        "b_2.png",
        "b.mp4",
    ]
    collection = ImageCollection([tmp_path / file for file in files], tmp_path)
    names = [name.as_posix() for name in collection.names()]
    assert len({name.casefold() for name in names}) == len(files)
    assert not {"summary", "faces", "unfinished"} & {name.casefold() for name in names}
    assert names[7:10] == ["b.jpg", "b_1", "b_2"]
    # The faces of b are called b_1, b_2, …
    collection = ImageCollection([tmp_path / "b.jpg", tmp_path / "b_1.jpg"], tmp_path)
    numbered = [name.as_posix() for name in collection.names(numbered=True)]
    assert numbered == ["b", "b_1.jpg"]


def test_names_leave_room_for_endings_within_the_file_system_limit(tmp_path: Path) -> None:
    long = ["ä" * 125 + ".png", "ä" * 125 + ".jpg", "x" * 250 + "1.png", "x" * 250 + "2.png"]
    names = ImageCollection([tmp_path / name for name in long], tmp_path).names()
    assert len(set(names)) == 4 and all(len(os.fsencode(name)) <= 230 for name in names)
    assert isinstance(find(str(tmp_path / ("x" * 5000))), Path)
