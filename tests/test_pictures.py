"""A picture's size is known before it is decoded, and no file is opened that is none."""

import io
import os
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fkp import pictures
from fkp.errors import FkpError
from fkp.pictures import header, read_picture, write_picture
from fkp.sources import painter

SIDE = 30_000  # its square is less than what OpenCV itself refuses: 2.7 GB of pixels
KINDS = ("png", "jpg", "gif", "bmp", "ppm", "pbm", "tif", "jp2", "webp", "avif")
LARGE = KINDS[:-2]  # WebP has at most 16383 pixels a side; an AVIF that lies of its size is none to Pillow
PILLOWS = {"jpg": "jpeg", "tif": "tiff", "jp2": "jpeg2000", "pbm": "ppm"}


def saved(kind: str, size: tuple[int, int] = (24, 16)) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(cv2.resize(painter.paint(1, 0)[0], size))
    image.convert("1" if kind == "pbm" else "RGB").save(file, PILLOWS.get(kind, kind))
    return file.getvalue()


def bomb(kind: str, side: int = SIDE) -> bytes:
    """A small file whose header says that it is as large as that."""
    data = bytearray(saved(kind))
    if kind == "png":
        data[16:24] = struct.pack(">II", side, side)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif kind == "jpg":
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", side, side)
    elif kind == "gif":
        data[6:10] = struct.pack("<HH", side, side)
    elif kind == "bmp":
        data[18:26] = struct.pack("<ii", side, side)
    elif kind in ("ppm", "pbm"):
        data = bytearray(data.replace(b"24 16", b"%d %d" % (side, side)))
    elif kind == "tif":
        for tag in (256, 257):
            at = data.index(struct.pack("<HHI", tag, 4, 1))
            data[at + 8 : at + 12] = struct.pack("<I", side)
    elif kind == "jp2":
        for place in (b"ihdr", b"\xff\x51"):
            at = data.index(place) + (4 if place == b"ihdr" else 6)
            data[at : at + 8] = struct.pack(">II", side, side)
    return bytes(data)


@pytest.mark.parametrize("kind", KINDS)
def test_the_header_says_what_is_decoded(kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"picture.{kind}"
    file.write_bytes(saved(kind))
    image = read_picture(file)
    assert header(file.read_bytes()).size == image.shape[1::-1] == (24, 16)
    assert read_picture(file, gray=True).shape == (16, 24)


@pytest.mark.parametrize("kind", LARGE)
def test_too_many_pixels_are_refused_by_the_header_and_the_limit_is_named(kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"bomb.{kind}"
    file.write_bytes(bomb(kind))
    with pytest.raises(FkpError, match=f"bomb.{kind}: {SIDE} x {SIDE} pixels, more than the 200000000"):
        read_picture(file)


def test_exactly_as_many_pixels_as_may_be_are_read_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_picture(tmp_path / "some.png", np.zeros((40, 50), np.uint8))
    monkeypatch.setattr(pictures, "PIXELS", 2000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)  # at which Pillow itself would warn
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_picture(file).shape == (40, 50, 3)
    monkeypatch.setattr(pictures, "PIXELS", 1999)
    with pytest.raises(FkpError, match="50 x 40 pixels, more than the 1999"):
        read_picture(file)


# Reads every file of a folder; says by how many MB the largest memory has grown.
CHILD = """
import resource, sys
from pathlib import Path
from fkp.errors import FkpError
from fkp.pictures import read_picture, write_picture

good, *files = sorted(Path(sys.argv[1]).iterdir())
read_picture(good)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for file in files:
    try:
        read_picture(file)
        print(file, "was read")
    except FkpError as error:
        print(error, file=sys.stderr)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts kilobytes as Linux does")
def test_refusing_costs_no_memory(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    for kind in LARGE:
        for side in (SIDE, 65_000 if kind in ("jpg", "gif") else 100_000):
            (tmp_path / f"bomb{side}.{kind}").write_bytes(bomb(kind, side))
    lying = bytearray(saved("png"))
    at = lying.index(b"IDAT")
    lying[at - 4 : at] = struct.pack(">I", 0x7FFFFFF0)  # bytes of a chunk, for which OpenCV would make room
    (tmp_path / "lying.png").write_bytes(lying)
    done = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 30, done.stdout + done.stderr  # MB; one of them decoded would be 2700
    assert len(done.stderr.splitlines()) == 2 * len(LARGE) + 1


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    for name, told in (("pipe", "a pipe or a device"), ("endless", "a pipe or a device"), ("folder", "a folder")):
        with pytest.raises(FkpError, match=f"{name}.png: {told}, not a file"):
            read_picture(tmp_path / f"{name}.png")
    file = write_picture(tmp_path / "large.bmp", np.zeros((40, 50), np.uint8))
    monkeypatch.setattr(pictures, "BYTES", 1000)
    with pytest.raises(FkpError, match=r"large.bmp: \d{4} bytes, more than the 1000"):
        read_picture(file)
