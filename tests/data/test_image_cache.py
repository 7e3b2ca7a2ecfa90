"""Laws of the decoded pixels: decoded once, named by content, whole or not at all."""

import mmap
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fkp import painter
from fkp.data import image_cache as c
from fkp.data.table import FaceTable
from fkp.errors import FkpError
from fkp.files.images import read_image, write_image
from fkp.geometry import apply, centre_and_side, invert
from fkp.markup import IBUG68


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for every test."""
    monkeypatch.setenv("FKP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    folder = tmp_path_factory.mktemp("painted")
    faces = [painter.paint(4, i) for i in range(4)]
    for i, (image, _) in enumerate(faces):
        write_image(folder / f"{i}.png", image)
    return folder, np.stack([points for _, points in faces])


@pytest.fixture()
def table(painted: tuple[Path, np.ndarray], tmp_path: Path) -> FaceTable:
    """Four faces, files of this test alone."""
    shutil.copytree(painted[0], tmp_path / "faces")
    return table_of(tmp_path / "faces", painted[1].copy())


def table_of(folder: Path, points: np.ndarray) -> FaceTable:
    names = [str(i) for i in range(len(points))]
    return FaceTable([folder / f"{name}.png" for name in names], points, names, names)


@pytest.fixture()
def stubborn(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and no picture can be read any more."""

    def refuse(path: Path, gray: bool = False) -> np.ndarray:
        raise AssertionError(f"{path} was read again")

    return lambda: monkeypatch.setattr(c, "read_image", refuse)


def equal(one: c.ImageCache, other: c.ImageCache) -> bool:
    return all(
        np.array_equal(column, vars(other)[name])
        for name, column in vars(one).items()
        if name != "file"
    )


@pytest.mark.parametrize("gray", [True, False])
@pytest.mark.parametrize("margin", [None, 3.0, 1.2])
def test_the_second_time_nothing_is_read(
    gray: bool, margin: float | None, table: FaceTable, stubborn: Callable[[], None]
) -> None:
    first, reasons = c.decode(table, IBUG68, gray, margin)
    stubborn()
    again, again_reasons = c.decode(table, IBUG68, gray, margin)
    assert equal(first, again) and reasons == again_reasons == {} and len(first) == 4
    for other in (
        (gray, 2.0, 512),
        (not gray, margin, 512),
        (gray, margin, 50),
    ):  # another question, another answer
        with pytest.raises(AssertionError, match="read again"):
            c.decode(table, IBUG68, *other)


@pytest.mark.parametrize("gray", [True, False])
def test_a_canvas_is_the_part_of_the_picture_its_affine_says(gray: bool, table: FaceTable) -> None:
    canvases = c.decode(table, IBUG68, gray, 1.5)[0]
    for i, path in enumerate(table.paths):
        image = read_image(path, gray)
        height, width = canvases[i].shape[:2]
        left, top = (-canvases.affines[i, :, 2]).astype(int)
        part = image[top : top + height, left : left + width].reshape(height, width, -1)
        np.testing.assert_array_equal(canvases[i], part)
        np.testing.assert_array_equal(canvases.affines[i], [[1, 0, -left], [0, 1, -top]])
        assert canvases[i].shape[2] == (1 if gray else 3)
        assert canvases.extents[i].tolist() == [image.shape[1], image.shape[0]]
        x, y, side = centre_and_side(
            canvases.boxes[i]
        )  # all of the wanted square that lies in the picture is there
        assert left <= max(x - 0.75 * side, 0) and left + width >= min(
            x + 0.75 * side, image.shape[1] - 1
        )
        assert top <= max(y - 0.75 * side, 0) and top + height >= min(
            y + 0.75 * side, image.shape[0] - 1
        )
        assert max(height, width) <= 1.5 * side + 3


def test_without_a_margin_the_whole_picture_is_kept(table: FaceTable) -> None:
    canvases = c.decode(table, IBUG68, True, None)[0]
    for i, path in enumerate(table.paths):
        np.testing.assert_array_equal(canvases[i][..., 0], read_image(path, True))
        np.testing.assert_array_equal(canvases.affines[i], np.eye(2, 3))


def test_longer_canvases_are_shrunk_edge_on_edge(table: FaceTable) -> None:
    canvases = c.decode(table, IBUG68, True, None, longest=64)[0]
    for i in range(4):
        height, width = canvases[i].shape[:2]
        assert max(height, width) == 64
        edges = apply(invert(canvases.affines[i]), [[-0.5, -0.5], [width - 0.5, height - 0.5]])
        np.testing.assert_allclose(edges[0], [-0.5, -0.5], atol=1e-9)
        np.testing.assert_allclose(
            edges[1], canvases.extents[i] - 0.5, atol=0.5 * max(canvases.extents[i]) / 64
        )
        assert canvases[i].mean() == pytest.approx(
            read_image(table.paths[i], True).mean(), rel=0.02
        )


def test_given_boxes_are_taken_and_others_drawn(table: FaceTable) -> None:
    drawn = c.decode(table, IBUG68, True, 1.0)[0].boxes
    table.boxes[1] = [30, 40, 90, 100]
    table.boxes[2, 0] = 5  # half a box is none
    canvases = c.decode(table, IBUG68, True, 1.0)[0]
    assert canvases.boxes[1].tolist() == [30, 40, 90, 100] and canvases[1].shape == (61, 61, 1)
    np.testing.assert_array_equal(canvases.boxes[[0, 2, 3]], drawn[[0, 2, 3]])


def test_the_same_bytes_elsewhere_are_not_decoded_again(
    table: FaceTable, tmp_path: Path, stubborn: Callable[[], None]
) -> None:
    first = c.decode(table, IBUG68, True, 3.0)[0]
    shutil.move(tmp_path / "faces", tmp_path / "moved")
    moved = table_of(tmp_path / "moved", table.points)
    for path in moved.paths:
        os.utime(path, (1, 1))
    stubborn()
    assert equal(first, c.decode(moved, IBUG68, True, 3.0)[0])


def spoil(folder: Path, how: str) -> None:
    """What a full disk, a bad one or somebody else may do to a cache."""
    file = folder / ("pixels.bin" if how == "short" else "index")
    data = bytearray(file.read_bytes())
    if how == "gone":
        file.unlink()
    elif how == "flipped":
        data[len(data) // 2] ^= 1
    elif how == "pickled":
        data = bytearray(pickle.dumps(print))
    elif how == "short":
        data = data[:-1]
    if how != "gone":
        file.write_bytes(data if how != "empty" else b"")


@pytest.mark.parametrize("how", ["gone", "flipped", "pickled", "short", "empty"])
def test_what_has_been_damaged_is_decoded_anew(how: str, table: FaceTable, cache: Path) -> None:
    first, (folder,) = c.decode(table, IBUG68, True, 3.0)[0], cache.glob("canvases-*/")
    wanted = first[1].copy()
    spoil(folder, how)
    again, reasons = c.decode(table, IBUG68, True, 3.0)
    np.testing.assert_array_equal(again[1], wanted)
    assert not reasons and not halves(cache)


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY\x01\0", b"\xff" * 4 * 48, b"x" * 10_000])
def test_damaged_digests_are_made_anew(
    data: bytes, table: FaceTable, cache: Path, stubborn: Callable[[], None]
) -> None:
    first, (contents,) = c.decode(table, IBUG68, True, 3.0)[0], cache.glob("contents-*")
    contents.write_bytes(data)
    stubborn()
    assert equal(first, c.decode(table, IBUG68, True, 3.0)[0])


def test_changed_bytes_are_seen_behind_the_same_size_and_time(table: FaceTable) -> None:
    image = read_image(table.paths[0])
    for path in table.paths[:2]:
        write_image(path.with_suffix(".bmp"), image)
        path.with_suffix(".bmp").rename(path)
    first, before = c.decode(table, IBUG68, True, None)[0], table.paths[0].stat()
    write_image(table.paths[0].with_suffix(".bmp"), 255 - image)
    table.paths[0].write_bytes(
        table.paths[0].with_suffix(".bmp").read_bytes()
    )  # in place: the same inode
    os.utime(table.paths[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    after = table.paths[0].stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (
        before.st_size,
        before.st_mtime_ns,
        before.st_ino,
    )
    second = c.decode(table, IBUG68, True, None)[0]
    np.testing.assert_array_equal(second[0][..., 0], read_image(table.paths[0], True))
    assert not np.array_equal(second[0], first[0]) and np.array_equal(second[1], first[1])


def test_other_labels_keep_other_pixels_only_where_there_is_a_margin(
    table: FaceTable, stubborn: Callable[[], None]
) -> None:
    whole, part = (c.decode(table, IBUG68, True, margin)[0] for margin in (None, 1.0))
    table.points[0] += 9
    moved = c.decode(table, IBUG68, True, 1.0)[0]
    assert not np.array_equal(moved.affines[0], part.affines[0]) and np.array_equal(
        moved[1], part[1]
    )
    stubborn()
    again = c.decode(table, IBUG68, True, None)[0]
    np.testing.assert_array_equal(again.pixels, whole.pixels)
    np.testing.assert_allclose(
        again.boxes[0] - whole.boxes[0], 9, atol=1e-4
    )  # boxes are not kept with the pixels


def test_unreadable_pictures_are_told_by_index_and_the_others_served(table: FaceTable) -> None:
    good = c.decode(table, IBUG68, True, 3.0)[0]
    table.paths[1].write_bytes(b"not a picture")
    table.paths[3].unlink()
    for _ in range(2):  # decoded, and found again
        canvases, reasons = c.decode(table, IBUG68, True, 3.0)
        assert sorted(reasons) == [1, 3]
        assert reasons[1].startswith("1.png: not a picture") and reasons[3] == "3.png: no such file"
        for i in (0, 2):
            np.testing.assert_array_equal(canvases[i], good[i])
        assert not canvases[1].size


def test_reasons_name_the_file_of_today(table: FaceTable) -> None:
    """What is kept under the same bytes may have been called something else."""
    table.paths[1].write_bytes(b"not a picture")
    c.decode(table, IBUG68, True, 3.0)
    other = table.paths[1].with_name("other.png")
    table.paths[1].rename(other)
    table.paths[1] = other
    reasons = c.decode(table, IBUG68, True, 3.0)[1]
    assert reasons[1].startswith("other.png: not a picture")


def test_all_pictures_may_be_unreadable_and_a_table_empty(table: FaceTable) -> None:
    for path in table.paths:
        path.write_bytes(b"")
    canvases, reasons = c.decode(table, IBUG68, True, 3.0)
    assert sorted(reasons) == [0, 1, 2, 3] and len(canvases) == 4
    canvases, reasons = c.decode(table.select(np.zeros(0, int)), IBUG68, True, 3.0)
    assert len(canvases) == 0 and reasons == {}


def test_labels_on_one_line_are_a_reason_unless_a_box_is_given(table: FaceTable) -> None:
    table.points[2:, :, 1] = 50
    table.boxes[3] = [10, 10, 60, 60]
    reasons = c.decode(table, IBUG68, True, 3.0)[1]
    assert list(reasons) == [2] and "lie on one line" in reasons[2]


def test_selecting_copies_no_pixels(table: FaceTable) -> None:
    canvases = c.decode(table, IBUG68, True, 3.0)[0]
    some = canvases.select(np.array([3, 1]))
    assert some.pixels is canvases.pixels and len(some) == 2
    for place, i in enumerate((3, 1)):
        np.testing.assert_array_equal(some[place], canvases[i])
        assert np.shares_memory(some[place], canvases[i])
        np.testing.assert_array_equal(some.boxes[place], canvases.boxes[i])
        np.testing.assert_array_equal(some.affines[place], canvases.affines[i])
        np.testing.assert_array_equal(some.extents[place], canvases.extents[i])


@pytest.mark.skipif(not hasattr(mmap, "MADV_WILLNEED"), reason="this system takes no advice")
def test_the_pixels_of_a_batch_are_asked_for_at_once_and_nothing_else(table: FaceTable) -> None:
    asked: list[tuple[int, int, int]] = []

    class Told(mmap.mmap):
        def madvise(self, *arguments: int) -> None:  # type: ignore[override]
            asked.append(arguments)  # type: ignore[arg-type]
            super().madvise(*arguments)

    canvases, _ = c.decode(table, IBUG68, True, 3.0)
    assert canvases.file and isinstance(canvases.pixels.base, mmap.mmap)
    with canvases.file.open("rb") as file:
        pixels = np.ndarray(
            len(canvases.pixels), np.uint8, Told(file.fileno(), 0, access=mmap.ACCESS_READ)
        )
    replace(canvases, pixels=pixels).select(np.array([3, 1, 0])).prefetch([0, 1])
    for (advice, start, size), i in zip(asked, (3, 1), strict=True):
        assert advice == mmap.MADV_WILLNEED and start % mmap.PAGESIZE == 0
        assert (
            0 <= canvases.starts[i] - start < mmap.PAGESIZE
            and start + size == canvases.starts[i] + canvases[i].size
        )


def test_canvases_handed_to_a_process_map_the_file_anew(table: FaceTable) -> None:
    """Their pickle, as a spawned loader process gets it, holds no pixels."""
    canvases, _ = c.decode(table, IBUG68, True, 3.0)
    data = pickle.dumps(canvases)
    assert len(data) < len(canvases.pixels) / 4
    np.testing.assert_array_equal(pickle.loads(data)[1], canvases[1])


def test_a_failure_in_the_middle_leaves_nothing(
    table: FaceTable, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, gray: bool = False) -> np.ndarray:
        if path == table.paths[2]:
            raise MemoryError
        return read_image(path, gray)

    monkeypatch.setattr(c, "read_image", fail)
    with pytest.raises(MemoryError):
        c.decode(table, IBUG68, True, 3.0)
    assert not [path for path in cache.iterdir() if path.is_dir()]
    monkeypatch.undo()


def test_more_faces_than_are_read_ahead_keep_their_order(
    table: FaceTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(c, "AHEAD", 3)
    canvases = c.decode(table, IBUG68, True, None)[0]
    for i, path in enumerate(table.paths):
        np.testing.assert_array_equal(canvases[i][..., 0], read_image(path, True))


# Decodes what the folder holds; says each picture it reads, and takes its time for it.
CHILD = """
import sys, time
from pathlib import Path
import numpy as np
from fkp.data import image_cache as c
from fkp.markup import IBUG68
from fkp.data.table import FaceTable

folder, slowly = Path(sys.argv[1]), float(sys.argv[2])
read = c.read_image
def read_slowly(path, gray=False):
    (folder / f"{path.stem}.read-{sys.argv[3]}").touch()
    time.sleep(slowly)
    return read(path, gray)
c.read_image = read_slowly
c.AHEAD = 1
points = np.load(folder / "points.npy")
names = [str(i) for i in range(len(points))]
table = FaceTable([folder / f"{name}.png" for name in names], points, names, names)
while not (folder / "go").exists():
    time.sleep(0.01)
canvases, reasons = c.decode(table, IBUG68, True, 3.0)
np.save(folder / f"pixels-{sys.argv[3]}.npy", canvases.pixels)
"""


def child(table: FaceTable, slowly: float, name: str) -> subprocess.Popen[str]:
    folder = table.paths[0].parent
    np.save(folder / "points.npy", table.points)
    command = [sys.executable, "-c", CHILD, str(folder), str(slowly), name]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def halves(cache: Path) -> list[Path]:
    return [
        path for path in cache.iterdir() if path.is_dir() and path.name.startswith(".canvases-")
    ]


@pytest.mark.slow
def test_what_a_killed_run_leaves_is_cleared_and_decoded_anew(
    table: FaceTable, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = table.paths[0].parent
    (folder / "go").touch()
    victim = child(table, 1.0, "victim")
    try:
        deadline = time.monotonic() + 60
        while not (
            folder / "2.read-victim"
        ).exists():  # two faces are done, the third is being read
            assert victim.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        victim.send_signal(signal.SIGKILL)
    finally:
        victim.kill()
        victim.communicate()
    assert len(halves(cache)) == 1 and not list(cache.glob("canvases-*/"))
    canvases, reasons = c.decode(table, IBUG68, True, 3.0)
    assert not halves(cache) and not reasons
    monkeypatch.setenv("FKP_CACHE", str(cache.parent / "another"))
    assert equal(canvases, c.decode(table, IBUG68, True, 3.0)[0])


@pytest.mark.slow
def test_of_two_that_start_together_one_decodes_and_both_are_right(table: FaceTable) -> None:
    folder = table.paths[0].parent
    both = [child(table, 0.2, name) for name in ("one", "two")]
    time.sleep(3)  # both have imported what they need; if not, the law holds all the more easily
    (folder / "go").touch()
    for process in both:
        _, told = process.communicate(timeout=60)
        assert process.returncode == 0, told
    wanted = c.decode(table, IBUG68, True, 3.0)[0].pixels
    for name in ("one", "two"):
        np.testing.assert_array_equal(np.load(folder / f"pixels-{name}.npy"), wanted)
    assert (
        len(list(folder.glob("*.read-*"))) == 4
        and len({path.suffix for path in folder.glob("*.read-*")}) == 1
    )


def test_a_missing_picture_says_so(tmp_path: Path) -> None:
    with pytest.raises(FkpError, match="no such file"):
        read_image(tmp_path / "gone.png")
