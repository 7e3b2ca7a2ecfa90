"""Write the results of images, collections and videos, with a tiny trained model."""

import csv
import dataclasses
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest
from conftest import ROOT, call
from PIL import Image

from fkp import Face, Predictor, painter
from fkp.data.labelled_csv import LabelledCsv
from fkp.data.pts_folders import read_pts
from fkp.detectors import describe
from fkp.errors import FkpError
from fkp.files.images import write_image
from fkp.inference.media import ImageCollection, find
from fkp.inference.tracking import Tracker
from fkp.inference.unfinished import UNFINISHED, find_unfinished
from fkp.inference.video import Video
from fkp.inference.video_writer import AnnotatedVideo
from fkp.inference.writers import PredictionWriter

Run = tuple[Path, str]
pytestmark = pytest.mark.slow
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


class Middle:
    """Detect drawn faces: one box in the middle of every image that is not dark."""

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        height, width = image.shape[:2]
        side = 0.5 * min(height, width)
        box = [
            width / 2 - side / 2,
            height / 2 - side / 2,
            width / 2 + side / 2,
            height / 2 + side / 2,
        ]
        found = np.array([box], np.float32) if image.mean() > 5 else np.zeros((0, 4), np.float32)
        return found, np.ones(len(found), np.float32)


@pytest.fixture(scope="module")
def predictor(trained: Run) -> Predictor:
    return Predictor.load(trained[0] / "checkpoints/best.ckpt", Middle(), min_confidence=0)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 50 files as users have them: 44 good images, 4 damaged ones, 2 files of other kinds."""
    root = tmp_path_factory.mktemp("holiday images")
    for name in ("tiefer/ünter", "(brackets), commas"):
        (root / name).mkdir(parents=True)
    for i in range(20):
        write_image(root / "tiefer/ünter" / f"{i:02d}.png", painter.paint(5, i)[0])
    image = Image.fromarray(painter.paint(5, 99)[0])
    for mode, name in [
        ("L", "gray.png"),
        ("P", "palette.png"),
        ("RGBA", "rgba.png"),
        ("CMYK", "cmyk.jpg"),
    ]:
        image.convert(mode).save(root / name)
    for name in ("a.webp", "a.bmp", "a.tif", "a.jpg", "(brackets), commas/=1+1.jpg"):
        image.save(root / name)
    image.save(root / "moving.gif", save_all=True, append_images=[image.rotate(90)])
    cv2.imwrite(str(root / "sixteen.png"), np.asarray(image)[..., ::-1].astype(np.uint16) * 257)
    for orientation in range(1, 9):
        tags = Image.Exif()
        tags[274] = orientation
        image.save(root / f"exif{orientation}.jpg", exif=tags)
    image.resize((4000, 4000)).save(root / "huge.jpg", quality=40)
    Image.new("RGB", (300, 200)).save(root / "dark.png")
    Image.new("RGB", (1, 1)).save(root / "one.png")
    Image.new("RGB", (4000, 1)).save(root / "line.png")
    Image.new("L", (1, 4000)).save(root / "thin.png")
    (root / "empty.jpg").write_bytes(b"")
    (root / "text.png").write_text("not an image")
    (root / "cut.jpg").write_bytes((root / "a.jpg").read_bytes()[:400])
    (root / "folder.png").mkdir()
    (root / "notes.md").write_text("not an image")
    (root / "data.json").write_text("{}")
    (root / "gone.jpg").symlink_to(root / "nowhere.jpg")
    assert sum(path.is_file() or path.is_symlink() for path in root.rglob("*")) == 50
    return root


def test_folder_of_mixed_files_is_processed_completely(
    trained: Run, mixed: Path, tmp_path: Path
) -> None:
    ckpt = f"ckpt={trained[0] / 'checkpoints/best.ckpt'}"
    done = call("predict.py", f"image={mixed}", ckpt, "pts=true", "drawn=jpg", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("outputs/predictions/*/summary.json")
    summary = json.loads(file.read_text())
    assert sorted(Path(name).name for name in summary["failed"]) == [
        "cut.jpg",
        "empty.jpg",
        "gone.jpg",
        "text.png",
    ]
    assert (
        "no such file" in summary["failed"][str(mixed / "gone.jpg")]
        and "gone.jpg: no such file" in done.stdout
    )
    records = [path for path in file.parent.rglob("*.json") if path not in (file,)]
    assert summary["images"] == 48 and len(records) == 44
    found = {path: json.loads(path.read_text())["faces"] for path in records}
    assert summary["faces"] == sum(map(len, found.values())) and summary["without_face"] == list(
        found.values()
    ).count([])
    assert not (file.parent / UNFINISHED).exists() and not list(file.parent.rglob("*.part"))
    with (file.parent / "faces.csv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == summary["faces"]
    drawn = {
        path.relative_to(file.parent).with_suffix("").as_posix()
        for path in file.parent.rglob("*.jpg")
    }
    assert drawn == {path.relative_to(file.parent).with_suffix("").as_posix() for path in records}


def test_same_face_is_found_in_every_image_format(predictor: Predictor, mixed: Path) -> None:
    names = [
        "a.jpg",
        "rgba.png",
        "cmyk.jpg",
        "a.webp",
        "a.bmp",
        "a.tif",
        "sixteen.png",
        "moving.gif",
        "palette.png",
    ]
    seen = [predictor(mixed / name)[0].points for name in ("gray.png", *names)]
    for name, points in zip(names, seen[1:], strict=True):
        assert np.linalg.norm(points - seen[0], axis=1).mean() < 3, name


def test_table_can_be_read_as_a_data_set(predictor: Predictor, mixed: Path, tmp_path: Path) -> None:
    paths = sorted(mixed.glob("tiefer/**/*.png"))
    PredictionWriter(predictor, tmp_path, {}, drawn=None).write_collection(
        ImageCollection(paths, mixed)
    )
    table = LabelledCsv(str(tmp_path), file="faces.csv", images="/").read()
    assert len(table) == len(paths)
    faces = list(predictor.stream(paths))
    np.testing.assert_allclose(table.points, [face.points for (face,) in faces], atol=0.05)


def test_pts_files_count_from_one_and_round_trip(predictor: Predictor, tmp_path: Path) -> None:
    image, _ = painter.paint(5, 3)
    path = write_image(tmp_path / "my.face.png", image)
    (face,) = PredictionWriter(predictor, tmp_path / "out", {}, pts=True).write_image(path)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "my.face.png",
        "my.face.json",
        "my.face.pts",
    }
    np.testing.assert_allclose(read_pts(tmp_path / "out/my.face.pts"), face.points, atol=1e-3)


# Run predict.py, which never ends to write the results of an image in the middle.
WAITING = """
import runpy, sys, threading
from fkp.inference.image_writer import ImageWriter

write = ImageWriter.write
wait = threading.Event().wait
ImageWriter.write = lambda self, path, *rest: (
    wait() if path.name == "33.png" else write(self, path, *rest)
)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_killed_prediction_of_a_folder_is_continued(trained: Run, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for i in range(41):
        write_image(folder / f"{i:02d}.png", painter.paint(5, i)[0])
    arguments = (f"image={folder}", f"ckpt={trained[0] / 'checkpoints/best.ckpt'}", "drawn=null")
    script = [sys.executable, "-c", WAITING, str(ROOT / "predict.py"), *arguments]
    process = subprocess.Popen(script, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while process.poll() is None and not list(tmp_path.glob("outputs/predictions/*/0*.json")):
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    (run,) = tmp_path.glob("outputs/predictions/*")
    done = [path for path in run.rglob("*.json") if path.name != UNFINISHED]
    assert (
        0 < len(done) <= 32 and (run / UNFINISHED).is_file() and not (run / "summary.json").exists()
    )
    kept = {path: path.stat().st_mtime_ns for path in done}

    # Another request, the same one, and the same one when nothing is left to continue.
    other = call("predict.py", *arguments[:2], "drawn=jpg", "pts=true", cwd=tmp_path)
    again = call("predict.py", *arguments, cwd=tmp_path)
    anew = call("predict.py", *arguments, cwd=tmp_path)
    assert (other.returncode, again.returncode, anew.returncode) == (0, 0, 0), again.stderr
    folders = sorted(tmp_path.glob("outputs/predictions/*"), key=lambda path: path.stat().st_ctime)
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in folders]
    assert sorted(summary["done_before"] for summary in summaries) == [0, 0, len(kept)]
    assert json.loads((run / "summary.json").read_text())["done_before"] == len(kept)
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())
    assert len({(folder / "faces.csv").read_bytes() for folder in folders}) == 1


BROKEN = {
    "empty": "",
    "half": '{"image": "',
    "deep": "[" * 100_000,
    "no_faces": '{"image": "IMAGE"}',
    "a_list": "[1, 2]",
    "other_image": '{"image": "/etc/passwd", "faces": []}',
    "other_points": '{"image": "IMAGE", "faces": [{"points": [[1, 2]], "confidence": [1], '
    '"box": [1, 2], "score": 1}]}',
    "huge": '{"image": "IMAGE", "faces": [{"points": 1e999, "confidence": 1, '
    '"box": 1, "score": 1}]}',
    "number": '{"image": "IMAGE", "faces": [{"points": ' + "9" * 5000 + "}]}",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_damaged_results_are_written_again(kind: str, predictor: Predictor, tmp_path: Path) -> None:
    path = write_image(tmp_path / "images/a.png", painter.paint(5, 3)[0])
    out, collection = (
        PredictionWriter(predictor, tmp_path / "out", {"request": 1}, drawn=None),
        ImageCollection([path], path.parent),
    )
    assert out.write_collection(collection)["done_before"] == 0
    whole, table = (tmp_path / "out/a.json").read_bytes(), (tmp_path / "out/faces.csv").read_bytes()
    (tmp_path / "out/a.json").write_text(BROKEN[kind].replace("IMAGE", str(path)))
    (tmp_path / "out" / UNFINISHED).write_text(BROKEN[kind])
    assert find_unfinished(tmp_path / "new", {"request": 1}) == tmp_path / "new"
    assert out.write_collection(collection)["done_before"] == 0
    assert (tmp_path / "out/a.json").read_bytes() == whole and (
        tmp_path / "out/faces.csv"
    ).read_bytes() == table
    assert out.write_collection(collection)["done_before"] == 1


NAMES = [
    "=1+1",
    "+1",
    "-1",
    "@a",
    "\ttab",
    "\rreturn",
    " blank",
    "a,b",
    'a"b',
    "a\nb",
    "ünter",
    "a;=1",
    "a\r\nb",
]


def test_table_has_no_formulas_and_names_the_same_images(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [
        write_image(Path(f"{name}.png"), painter.paint(5, i)[0]) for i, name in enumerate(NAMES)
    ]
    PredictionWriter(predictor, Path("out"), {}, drawn=None).write_collection(
        ImageCollection(paths, Path())
    )
    with Path("out/faces.csv").open(encoding="utf-8", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert {cell for cell in cells if cell[:1] in tuple("=+-@\t\r\n ")} <= {
        cell for cell in cells if NUMBER.fullmatch(cell)
    }
    table = LabelledCsv("out", file="faces.csv", images=str(tmp_path)).read()
    assert len(table) == len(NAMES) and all(map(os.path.samefile, table.paths, paths))


def test_name_of_an_image_that_is_not_utf8_is_kept(predictor: Predictor, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    shutil.copy(write_image(tmp_path / "a.png", painter.paint(5, 3)[0]), path)
    PredictionWriter(predictor, tmp_path / "out", {}).write_collection(
        ImageCollection([path], tmp_path)
    )
    assert b"caf\xe9.png," in (tmp_path / "out/faces.csv").read_bytes()


def test_name_of_a_video_that_is_not_utf8_is_kept(predictor: Predictor, tmp_path: Path) -> None:
    video = tmp_path / os.fsdecode(b"caf\xe9.avi")
    writer = cv2.VideoWriter(os.fsencode(video), cv2.VideoWriter.fourcc(*"MJPG"), 20.0, (64, 64))
    writer.write(np.zeros((64, 64, 3), np.uint8))
    writer.release()
    assert (
        PredictionWriter(predictor, tmp_path / "out", {}).write_video(Video(video), Tracker())[
            "frames"
        ]
        == 1
    )
    assert (
        os.listdir(os.fsencode(tmp_path / "out"))
        and (tmp_path / "out" / video.name).with_suffix(".mp4").is_file()
    )


def test_video_is_tracked_and_written(predictor: Predictor, tmp_path: Path) -> None:
    image, label = painter.paint(5, 7)
    frame = cv2.resize(image, (240, 240))
    writer = cv2.VideoWriter(
        str(tmp_path / "video.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 20.0, (240, 240)
    )
    for i in range(12):
        writer.write(np.roll(frame, i, 1)[..., ::-1].copy() if i != 6 else np.zeros_like(frame))
    writer.release()
    summary = PredictionWriter(predictor, tmp_path / "out", {}).write_video(
        Video(tmp_path / "video.avi"), Tracker()
    )
    assert (summary["frames"], summary["faces"], summary["tracks"], summary["without_face"]) == (
        12,
        11,
        1,
        1,
    )
    with (tmp_path / "out/video.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["frame"]) for row in rows] == [i for i in range(12) if i != 6]
    assert float(rows[-1]["seconds"]) == pytest.approx(11 / 20) and {
        row["track"] for row in rows
    } == {"1"}
    drawn = Video(tmp_path / "out/video.mp4")
    assert drawn.rate == pytest.approx(20) and len(list(drawn)) == 12
    short = PredictionWriter(predictor, tmp_path / "short", {}, drawn=None).write_video(
        Video(tmp_path / "video.avi"), Tracker(), max_frames=3
    )
    assert short["frames"] == 3 and not list((tmp_path / "short").glob("*.mp4"))


def test_missing_camera_is_one_message(trained: Run, tmp_path: Path) -> None:
    done = call(
        "predict.py",
        "image=camera:77",
        f"ckpt={trained[0] / 'checkpoints/best.ckpt'}",
        cwd=tmp_path,
    )
    assert (
        done.returncode == 2
        and "camera:77: cannot be opened" in done.stderr
        and "Traceback" not in done.stderr
    )


def test_names_at_the_length_limit_of_the_file_system(predictor: Predictor, tmp_path: Path) -> None:
    """Results have unique names that fit, and are found again."""

    class Two:
        """Detect two faces."""

        def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return np.array([[0.0, 0, 9, 9]] * 2, np.float32), np.ones(2, np.float32)

    twice = dataclasses.replace(predictor, detector=Two())
    paths = [tmp_path / f"{letter}{chr(228) * 124}x{i}.jpg" for i in range(2) for letter in "ab"]
    for path in paths:
        assert len(path.name.encode()) == 255
        write_image(path, np.zeros((9, 9, 3), np.uint8))
    out = PredictionWriter(twice, tmp_path / "out", {}, drawn="jpg", pts=True)
    assert out.write_collection(ImageCollection(paths, tmp_path))["faces"] == 8
    assert len(list((tmp_path / "out").iterdir())) == 4 * (1 + 1 + 2) + 2 + len(
        [*(tmp_path / "out").glob(".*.lock")]
    )
    assert out.write_collection(ImageCollection(paths, tmp_path))["done_before"] == 4


def make_video(file: Path, frames: int = 4, times: list[int] | None = None) -> Path:
    """Write a video of one face; `times`, in milliseconds, for a Matroska file."""
    pixels = cv2.resize(painter.paint(5, 7)[0], (96, 96))[..., ::-1].copy()
    codec = "MJPG" if file.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*codec), 10.0, (96, 96))
    for _ in times or range(frames):
        writer.write(pixels)
    writer.release()
    data, at = bytearray(file.read_bytes()), 0
    for number, milliseconds in enumerate(times or []):
        at = data.index(b"\x81" + struct.pack(">h", 100 * number), at) + 1
        data[at : at + 2] = struct.pack(">h", milliseconds)
    file.write_bytes(data)
    return file


def strict(file: Path) -> Any:
    """Read a JSON file and refuse what RFC 8259 does not allow."""

    def refused(word: str) -> None:
        raise AssertionError(word)

    return json.loads(file.read_text(encoding="ascii"), parse_constant=refused)


def test_video_of_variable_rate_keeps_its_times_and_duration(
    predictor: Predictor, tmp_path: Path
) -> None:
    video = Video(make_video(tmp_path / "a.mkv", times=[0, 40, 80, 280, 480, 1000]))
    seen: list[float] = []

    def follow(faces: list[Face], seconds: float) -> list[Face]:
        seen.append(seconds)
        return faces

    PredictionWriter(predictor, tmp_path / "out", {}).write_video(video, follow)
    with (tmp_path / "out/a.csv").open(encoding="utf-8", newline="") as file:
        times = [float(row["seconds"]) for row in csv.DictReader(file)]
    assert times == pytest.approx([0, 0.04, 0.08, 0.28, 0.48, 1.0]) and seen == pytest.approx(times)
    drawn = Video(tmp_path / "out/a.mp4")
    assert drawn.rate == pytest.approx(25) and len(list(drawn)) == 26


def test_frames_of_another_size_are_written(predictor: Predictor, tmp_path: Path) -> None:
    copy = AnnotatedVideo(tmp_path / "a.mp4", 10.0)
    for number, side in enumerate((64, 48, 64)):
        copy.write(np.zeros((side, side, 3), np.uint8), number / 10)
    copy.close()
    assert [frame.shape for frame in Video(tmp_path / "a.mp4")] == [(64, 64, 3)] * 3


def test_folder_with_videos_and_animations_is_summarised_with_notes(
    predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mixed"
    image = Image.fromarray(painter.paint(5, 3)[0])
    image_file = write_image(folder / "clip.png", np.asarray(image))
    image.save(folder / "moving.gif", save_all=True, append_images=[image.rotate(90)])
    make_video(folder / "clip.avi")
    make_video(folder / "PHONE.MOV")
    make_video(folder / "broken.mp4").write_bytes(b"no video")
    collection, out = find(str(folder)), tmp_path / "out"
    assert isinstance(collection, ImageCollection)
    predictions = PredictionWriter(predictor, out, {"ckpt": "a"}, drawn="png")
    summary = predictions.write_collection(collection, Tracker, 3)
    assert (summary["images"], summary["videos"], list(summary["failed"])) == (
        2,
        3,
        [str(folder / "broken.mp4")],
    )
    assert summary["notes"] == {str(folder / "moving.gif"): "first of 2 frames"}
    assert strict(out / "summary.json") == summary and strict(out / "moving.json")["notes"] == [
        "first of 2 frames"
    ]
    assert strict(out / "clip.png.json")["image"] == str(image_file)
    record = strict(out / "clip.avi.json")
    assert (record["video"], record["frames"], record["tracks"]) == (str(folder / "clip.avi"), 3, 1)
    assert (
        (out / "PHONE.csv").is_file()
        and (out / "PHONE.mp4").is_file()
        and not (out / "broken.csv").exists()
    )
    before = {file: file.stat().st_mtime_ns for file in out.glob("*.mp4")}
    assert predictions.write_collection(collection, Tracker, 3)["notes"] == summary["notes"]
    assert {file: file.stat().st_mtime_ns for file in out.glob("*.mp4")} == before  # done before
    PredictionWriter(predictor, tmp_path / "one", {}).write_image(folder / "moving.gif")
    assert "moving.gif: first of 2 frames" in capsys.readouterr().out


def test_interrupted_video_of_a_folder_is_written_again(
    predictor: Predictor, tmp_path: Path
) -> None:
    make_video(tmp_path / "in.avi")
    collection, presses = (
        ImageCollection([tmp_path / "in.avi"], tmp_path, {tmp_path / "in.avi"}),
        iter([False, True]),
    )

    def follow(faces: list[Face], seconds: float) -> list[Face]:
        if next(presses, False):
            raise KeyboardInterrupt
        return faces

    out = PredictionWriter(predictor, tmp_path / "out", {}, drawn=None)
    with pytest.raises(KeyboardInterrupt):
        out.write_collection(collection, lambda: follow)
    assert (tmp_path / "out" / UNFINISHED).exists()
    assert (
        out.write_collection(collection, lambda: follow)["videos"] == 1
        and strict(tmp_path / "out/in.json")["frames"] == 4
    )


def test_json_is_strict_and_names_are_escaped(tmp_path: Path, predictor: Predictor) -> None:
    face = Face(np.full((68, 2), np.nan), np.full(68, np.inf), np.arange(4.0), -np.inf)
    out = PredictionWriter(predictor, tmp_path, {"ckpt": os.fsdecode(b"m\xf6.ckpt")}, drawn=None)
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    out.images.write(path, Path("a"), np.zeros((8, 8, 3), np.uint8), [face])
    record = strict(tmp_path / "a.json")
    assert record["image"].endswith(r"caf\xe9.png") and record["ckpt"] == r"m\xf6.ckpt"
    assert record["detector"] == describe(predictor.detector)
    assert record["faces"][0]["points"][0] == [None, None] and record["faces"][0]["score"] is None
    (again,), _ = out.images.read(path, Path("a")) or ([], [])
    assert np.isnan(again.points).all()


def test_written_numbers_are_rounded(predictor: Predictor, tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", painter.paint(5, 3)[0])
    PredictionWriter(predictor, tmp_path / "out", {}, drawn=None).write_collection(
        ImageCollection([path], tmp_path)
    )
    text = (tmp_path / "out/a.json").read_text() + (tmp_path / "out/faces.csv").read_text()
    assert not re.search(r"[0-9]\.[0-9]{5}", text)


@pytest.mark.parametrize("letters", ["x" * 251, "ä" * 125])
def test_longest_name_has_results(letters: str, predictor: Predictor, tmp_path: Path) -> None:
    path = tmp_path / f"{letters}.png"
    shutil.copy(write_image(tmp_path / "a.png", painter.paint(5, 3)[0]), path)
    out = PredictionWriter(predictor, tmp_path / "out", {}, pts=True)
    out.write_image(path)
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".json", ".png", ".pts"]
    assert out.write_collection(ImageCollection([path], tmp_path))["done_before"] == 1


def test_results_never_overwrite_the_source(predictor: Predictor, tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", painter.paint(5, 3)[0])
    video = make_video(tmp_path / "b.mp4")
    before = path.read_bytes(), video.read_bytes()
    out = PredictionWriter(predictor, tmp_path, {})
    with pytest.raises(FkpError, match="a.png: .*run_dir"):
        out.write_image(path)
    with pytest.raises(FkpError, match="b.mp4: .*run_dir"):
        out.write_video(Video(video), Tracker())
    assert set(
        out.write_collection(ImageCollection([path, video], tmp_path, {video}))["failed"]
    ) == {
        str(path),
        str(video),
    }
    assert (path.read_bytes(), video.read_bytes()) == before


@pytest.mark.parametrize("max_frames", [0, -3, 2.5, "two"])
def test_invalid_number_of_frames_is_refused(
    max_frames: Any, predictor: Predictor, tmp_path: Path
) -> None:
    video = make_video(tmp_path / "a.avi")
    out = PredictionWriter(predictor, tmp_path / "out", {})
    for call_it in (
        lambda: out.write_video(Video(video), Tracker(), max_frames),
        lambda: out.write_collection(ImageCollection([], tmp_path), None, max_frames),
    ):
        with pytest.raises(FkpError, match=f"frames={max_frames}"):
            call_it()


def test_pre_labels_cover_images_that_were_done_before(
    predictor: Predictor, tmp_path: Path
) -> None:
    for i in range(3):
        write_image(tmp_path / f"photos/{i}/face.png", painter.paint(5, i)[0])
    write_image(tmp_path / "photos/dark.png", np.zeros((60, 80, 3), np.uint8))
    (tmp_path / "photos/cut.jpg").write_text("not an image")
    request: dict[str, Any] = {"ckpt": None}

    # One image is done, and the next run writes the labels of all.
    out = tmp_path / "out"
    done = find(str(tmp_path / "photos/0"))
    assert isinstance(done, ImageCollection)
    done.root = tmp_path / "photos"
    PredictionWriter(predictor, out, request).write_collection(done)
    collection = find(str(tmp_path / "photos"))
    assert isinstance(collection, ImageCollection)
    writer = PredictionWriter(predictor, out, request, labels=["coco", "labelme"])
    assert writer.write_collection(collection)["done_before"] == 1

    coco = json.loads((out / "labels/coco.json").read_text())
    names = [image["file_name"] for image in coco["images"]]
    assert names == ["dark.png", "0/face.png", "1/face.png", "2/face.png"]
    assert coco["images"][0] | {"width": 80, "height": 60} == coco["images"][0]
    assert [annotation["image_id"] for annotation in coco["annotations"]] == [2, 3, 4]
    assert len(list((out / "labels/labelme").rglob("*.json"))) == 3


def test_a_single_image_has_pre_labels_but_a_video_has_none(
    predictor: Predictor, tmp_path: Path
) -> None:
    photo = write_image(tmp_path / "face.png", painter.paint(5, 1)[0])
    writer = PredictionWriter(predictor, tmp_path / "out", {}, labels="labelstudio")
    writer.write_image(photo)
    (task,) = json.loads((tmp_path / "out/labels/labelstudio.json").read_text())
    assert task["data"]["image"].endswith(f"{tmp_path.name}/face.png")

    with pytest.raises(FkpError) as raised:
        writer.write_video(cast(Video, SimpleNamespace(source="face.mp4")), None)
    assert raised.value.key == "labels"
