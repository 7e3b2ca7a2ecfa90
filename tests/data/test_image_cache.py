"""Test the image cache: images are decoded once, named by content, and stored completely or not."""

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
from fkp.data import image_digests
from fkp.data.table import FaceTable
from fkp.errors import FkpError
from fkp.files.images import read_image, write_image
from fkp.geometry import apply, centre_and_side, invert
from fkp.markup import IBUG68


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test its own cache."""
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
    """Return four faces in files of this test alone."""
    shutil.copytree(painted[0], tmp_path / "faces")
    return table_of(tmp_path / "faces", painted[1].copy())


def table_of(folder: Path, points: np.ndarray) -> FaceTable:
    names = [str(i) for i in range(len(points))]
    return FaceTable([folder / f"{name}.png" for name in names], points, names, names)


@pytest.fixture()
def no_more_reading(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function after whose call no image can be read."""

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
def test_second_run_reads_nothing(
    gray: bool, margin: float | None, table: FaceTable, no_more_reading: Callable[[], None]
) -> None:
    first, reasons = c.decode(table, IBUG68, gray, margin)
    no_more_reading()
    again, again_reasons = c.decode(table, IBUG68, gray, margin)
    assert equal(first, again) and reasons == again_reasons == {} and len(first) == 4
    for other in (
        (gray, 2.0, 512),
        (not gray, margin, 512),
        (gray, margin, 50),
    ):  # other arguments, another cache
        with pytest.raises(AssertionError, match="read again"):
            c.decode(table, IBUG68, *other)


@pytest.mark.parametrize("gray", [True, False])
def test_cached_crop_is_the_part_of_the_image_that_its_affine_says(
    gray: bool, table: FaceTable
) -> None:
    cached = c.decode(table, IBUG68, gray, 1.5)[0]
    for i, path in enumerate(table.paths):
        image = read_image(path, gray)
        height, width = cached[i].shape[:2]
        left, top = (-cached.affines[i, :, 2]).astype(int)
        part = image[top : top + height, left : left + width].reshape(height, width, -1)
        np.testing.assert_array_equal(cached[i], part)
        np.testing.assert_array_equal(cached.affines[i], [[1, 0, -left], [0, 1, -top]])
        assert cached[i].shape[2] == (1 if gray else 3)
        assert cached.extents[i].tolist() == [image.shape[1], image.shape[0]]
        x, y, side = centre_and_side(
            cached.boxes[i]
        )  # all of the square that lies in the image is cached
        assert left <= max(x - 0.75 * side, 0) and left + width >= min(
            x + 0.75 * side, image.shape[1] - 1
        )
        assert top <= max(y - 0.75 * side, 0) and top + height >= min(
            y + 0.75 * side, image.shape[0] - 1
        )
        assert max(height, width) <= 1.5 * side + 3


def test_without_margin_whole_images_are_cached(table: FaceTable) -> None:
    cached = c.decode(table, IBUG68, True, None)[0]
    for i, path in enumerate(table.paths):
        np.testing.assert_array_equal(cached[i][..., 0], read_image(path, True))
        np.testing.assert_array_equal(cached.affines[i], np.eye(2, 3))


def test_longer_crops_are_resized_edge_to_edge(table: FaceTable) -> None:
    cached = c.decode(table, IBUG68, True, None, longest=64)[0]
    for i in range(4):
        height, width = cached[i].shape[:2]
        assert max(height, width) == 64
        edges = apply(invert(cached.affines[i]), [[-0.5, -0.5], [width - 0.5, height - 0.5]])
        np.testing.assert_allclose(edges[0], [-0.5, -0.5], atol=1e-9)
        np.testing.assert_allclose(
            edges[1], cached.extents[i] - 0.5, atol=0.5 * max(cached.extents[i]) / 64
        )
        assert cached[i].mean() == pytest.approx(read_image(table.paths[i], True).mean(), rel=0.02)


def test_given_boxes_are_kept_and_others_derived(table: FaceTable) -> None:
    drawn = c.decode(table, IBUG68, True, 1.0)[0].boxes
    table.boxes[1] = [30, 40, 90, 100]
    table.boxes[2, 0] = 5  # an incomplete box counts as none
    cached = c.decode(table, IBUG68, True, 1.0)[0]
    assert cached.boxes[1].tolist() == [30, 40, 90, 100] and cached[1].shape == (61, 61, 1)
    np.testing.assert_array_equal(cached.boxes[[0, 2, 3]], drawn[[0, 2, 3]])


def test_moved_files_are_not_decoded_again(
    table: FaceTable, tmp_path: Path, no_more_reading: Callable[[], None]
) -> None:
    first = c.decode(table, IBUG68, True, 3.0)[0]
    shutil.move(tmp_path / "faces", tmp_path / "moved")
    moved = table_of(tmp_path / "moved", table.points)
    for path in moved.paths:
        os.utime(path, (1, 1))
    no_more_reading()
    assert equal(first, c.decode(moved, IBUG68, True, 3.0)[0])


def spoil(folder: Path, how: str) -> None:
    """Damage a cache as a full or broken disk does, or as another program may."""
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
def test_damaged_cache_is_decoded_again(how: str, table: FaceTable, cache: Path) -> None:
    first, (folder,) = c.decode(table, IBUG68, True, 3.0)[0], cache.glob("canvases-*/")
    wanted = first[1].copy()
    spoil(folder, how)
    again, reasons = c.decode(table, IBUG68, True, 3.0)
    np.testing.assert_array_equal(again[1], wanted)
    assert not reasons and not incomplete(cache)


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY\x01\0", b"\xff" * 4 * 48, b"x" * 10_000])
def test_damaged_digests_are_computed_again(
    data: bytes, table: FaceTable, cache: Path, no_more_reading: Callable[[], None]
) -> None:
    first, (contents,) = c.decode(table, IBUG68, True, 3.0)[0], cache.glob("contents-*")
    contents.write_bytes(data)
    no_more_reading()
    assert equal(first, c.decode(table, IBUG68, True, 3.0)[0])


def test_changed_bytes_of_the_same_size_and_time_are_noticed(table: FaceTable) -> None:
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


def test_labels_change_the_cached_pixels_only_with_a_margin(
    table: FaceTable, no_more_reading: Callable[[], None]
) -> None:
    whole, part = (c.decode(table, IBUG68, True, margin)[0] for margin in (None, 1.0))
    table.points[0] += 9
    moved = c.decode(table, IBUG68, True, 1.0)[0]
    assert not np.array_equal(moved.affines[0], part.affines[0]) and np.array_equal(
        moved[1], part[1]
    )
    no_more_reading()
    again = c.decode(table, IBUG68, True, None)[0]
    np.testing.assert_array_equal(again.pixels, whole.pixels)
    np.testing.assert_allclose(
        again.boxes[0] - whole.boxes[0], 9, atol=1e-4
    )  # boxes are not stored with the pixels


def test_unreadable_images_are_reported_by_index_and_others_served(table: FaceTable) -> None:
    good = c.decode(table, IBUG68, True, 3.0)[0]
    table.paths[1].write_bytes(b"not an image")
    table.paths[3].unlink()
    for _ in range(2):  # decoded, then found in the cache
        cached, reasons = c.decode(table, IBUG68, True, 3.0)
        assert sorted(reasons) == [1, 3]
        assert reasons[1].startswith("1.png: not a") and reasons[3] == "3.png: no such file"
        for i in (0, 2):
            np.testing.assert_array_equal(cached[i], good[i])
        assert not cached[1].size


def test_reasons_name_the_current_file(table: FaceTable) -> None:
    """The file of the same bytes may have had another name when it was cached."""
    table.paths[1].write_bytes(b"not an image")
    c.decode(table, IBUG68, True, 3.0)
    other = table.paths[1].with_name("other.png")
    table.paths[1].rename(other)
    table.paths[1] = other
    reasons = c.decode(table, IBUG68, True, 3.0)[1]
    assert reasons[1].startswith("other.png: not a")


def test_all_images_may_be_unreadable_and_a_table_empty(table: FaceTable) -> None:
    for path in table.paths:
        path.write_bytes(b"")
    cached, reasons = c.decode(table, IBUG68, True, 3.0)
    assert sorted(reasons) == [0, 1, 2, 3] and len(cached) == 4
    cached, reasons = c.decode(table.select(np.zeros(0, int)), IBUG68, True, 3.0)
    assert len(cached) == 0 and reasons == {}


def test_labels_on_one_line_are_unusable_unless_a_box_is_given(table: FaceTable) -> None:
    table.points[2:, :, 1] = 50
    table.boxes[3] = [10, 10, 60, 60]
    reasons = c.decode(table, IBUG68, True, 3.0)[1]
    assert list(reasons) == [2] and "lie on one line" in reasons[2]


def test_select_copies_no_pixels(table: FaceTable) -> None:
    cached = c.decode(table, IBUG68, True, 3.0)[0]
    some = cached.select(np.array([3, 1]))
    assert some.pixels is cached.pixels and len(some) == 2
    for place, i in enumerate((3, 1)):
        np.testing.assert_array_equal(some[place], cached[i])
        assert np.shares_memory(some[place], cached[i])
        np.testing.assert_array_equal(some.boxes[place], cached.boxes[i])
        np.testing.assert_array_equal(some.affines[place], cached.affines[i])
        np.testing.assert_array_equal(some.extents[place], cached.extents[i])


@pytest.mark.skipif(not hasattr(mmap, "MADV_WILLNEED"), reason="this system takes no advice")
def test_prefetch_requests_exactly_the_pixels_of_a_batch(table: FaceTable) -> None:
    requests: list[tuple[int, int, int]] = []

    class Recorder(mmap.mmap):
        def madvise(self, *arguments: int) -> None:  # type: ignore[override]
            requests.append(arguments)  # type: ignore[arg-type]
            super().madvise(*arguments)

    cached, _ = c.decode(table, IBUG68, True, 3.0)
    assert cached.file and isinstance(cached.pixels.base, mmap.mmap)
    with cached.file.open("rb") as file:
        pixels = np.ndarray(
            len(cached.pixels), np.uint8, Recorder(file.fileno(), 0, access=mmap.ACCESS_READ)
        )
    replace(cached, pixels=pixels).select(np.array([3, 1, 0])).prefetch([0, 1])
    for (advice, start, size), i in zip(requests, (3, 1), strict=True):
        assert advice == mmap.MADV_WILLNEED and start % mmap.PAGESIZE == 0
        assert (
            0 <= cached.starts[i] - start < mmap.PAGESIZE
            and start + size == cached.starts[i] + cached[i].size
        )


def test_pickled_cache_maps_the_file_again(table: FaceTable) -> None:
    """The pickle that a spawned loader process gets holds no pixels."""
    cached, _ = c.decode(table, IBUG68, True, 3.0)
    data = pickle.dumps(cached)
    assert len(data) < len(cached.pixels) / 4
    np.testing.assert_array_equal(pickle.loads(data)[1], cached[1])


def test_failure_leaves_nothing(
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


def test_more_faces_than_are_decoded_ahead_keep_their_order(
    table: FaceTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_digests, "AHEAD", 3)
    cached = c.decode(table, IBUG68, True, None)[0]
    for i, path in enumerate(table.paths):
        np.testing.assert_array_equal(cached[i][..., 0], read_image(path, True))


# Decode the images of a folder slowly, and leave a file for each image that is read.
CHILD = """
import sys, time
from pathlib import Path
import numpy as np
from fkp.data import image_cache as c
from fkp.data import image_digests
from fkp.markup import IBUG68
from fkp.data.table import FaceTable

folder, slowly = Path(sys.argv[1]), float(sys.argv[2])
read = c.read_image
def read_slowly(path, gray=False):
    (folder / f"{path.stem}.read-{sys.argv[3]}").touch()
    time.sleep(slowly)
    return read(path, gray)
c.read_image = read_slowly
image_digests.AHEAD = 1
points = np.load(folder / "points.npy")
names = [str(i) for i in range(len(points))]
table = FaceTable([folder / f"{name}.png" for name in names], points, names, names)
while not (folder / "go").exists():
    time.sleep(0.01)
cached, reasons = c.decode(table, IBUG68, True, 3.0)
np.save(folder / f"pixels-{sys.argv[3]}.npy", cached.pixels)
"""


def child(table: FaceTable, slowly: float, name: str) -> subprocess.Popen[str]:
    folder = table.paths[0].parent
    np.save(folder / "points.npy", table.points)
    command = [sys.executable, "-c", CHILD, str(folder), str(slowly), name]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def incomplete(cache: Path) -> list[Path]:
    return [
        path for path in cache.iterdir() if path.is_dir() and path.name.startswith(".canvases-")
    ]


@pytest.mark.slow
def test_remains_of_a_killed_run_are_removed_and_decoded_again(
    table: FaceTable, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = table.paths[0].parent
    (folder / "go").touch()
    victim = child(table, 1.0, "victim")
    try:
        deadline = time.monotonic() + 60
        while not (
            folder / "2.read-victim"
        ).exists():  # two faces are written, the third is being read
            assert victim.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        victim.send_signal(signal.SIGKILL)
    finally:
        victim.kill()
        victim.communicate()
    assert len(incomplete(cache)) == 1 and not list(cache.glob("canvases-*/"))
    cached, reasons = c.decode(table, IBUG68, True, 3.0)
    assert not incomplete(cache) and not reasons
    monkeypatch.setenv("FKP_CACHE", str(cache.parent / "another"))
    assert equal(cached, c.decode(table, IBUG68, True, 3.0)[0])


@pytest.mark.slow
def test_of_two_simultaneous_runs_one_decodes_and_both_are_right(table: FaceTable) -> None:
    folder = table.paths[0].parent
    both = [child(table, 0.2, name) for name in ("one", "two")]
    time.sleep(3)  # both have finished importing by now
    (folder / "go").touch()
    for process in both:
        _, output = process.communicate(timeout=60)
        assert process.returncode == 0, output
    wanted = c.decode(table, IBUG68, True, 3.0)[0].pixels
    for name in ("one", "two"):
        np.testing.assert_array_equal(np.load(folder / f"pixels-{name}.npy"), wanted)
    assert (
        len(list(folder.glob("*.read-*"))) == 4
        and len({path.suffix for path in folder.glob("*.read-*")}) == 1
    )


def test_missing_image_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FkpError, match="no such file"):
        read_image(tmp_path / "gone.png")
