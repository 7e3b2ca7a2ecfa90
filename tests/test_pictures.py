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

from fkp import painter
from fkp.errors import FkpError
from fkp.files import images
from fkp.files.images import count_frames, header, read_image, write_image

SIDE = 30_000  # its square is less than what OpenCV itself refuses: 2.7 GB of pixels
KINDS = ("png", "jpg", "gif", "bmp", "ppm", "pbm", "tif", "jp2", "webp", "avif")
LARGE = KINDS[
    :-2
]  # WebP has at most 16383 pixels a side; an AVIF that lies of its size is none to Pillow
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
    image = read_image(file)
    assert header(file.read_bytes()).size == image.shape[1::-1] == (24, 16)
    assert read_image(file, gray=True).shape == (16, 24)


@pytest.mark.parametrize("kind", LARGE)
def test_too_many_pixels_are_refused_by_the_header_and_the_limit_is_named(
    kind: str, tmp_path: Path
) -> None:
    file = tmp_path / f"bomb.{kind}"
    file.write_bytes(bomb(kind))
    with pytest.raises(
        FkpError, match=f"bomb.{kind}: {SIDE} x {SIDE} pixels, more than the 200000000"
    ):
        read_image(file)


def test_exactly_as_many_pixels_as_may_be_are_read_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_image(tmp_path / "some.png", np.zeros((40, 50), np.uint8))
    monkeypatch.setattr(images, "PIXELS", 2000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)  # at which Pillow itself would warn
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(file).shape == (40, 50, 3)
    monkeypatch.setattr(images, "PIXELS", 1999)
    with pytest.raises(FkpError, match="50 x 40 pixels, more than the 1999"):
        read_image(file)


# Reads every file of a folder; says by how many MB the largest memory has grown.
CHILD = """
import resource, sys
from pathlib import Path
from fkp.errors import FkpError
from fkp.files.images import read_image, write_image

good, *files = sorted(Path(sys.argv[1]).iterdir())
read_image(good)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for file in files:
    try:
        read_image(file)
        print(file, "was read")
    except FkpError as error:
        print(error, file=sys.stderr)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts kilobytes as Linux does")
def test_refusing_costs_no_memory(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    for kind in LARGE:
        for side in (SIDE, 65_000 if kind in ("jpg", "gif") else 100_000):
            (tmp_path / f"bomb{side}.{kind}").write_bytes(bomb(kind, side))
    lying = bytearray(saved("png"))
    at = lying.index(b"IDAT")
    lying[at - 4 : at] = struct.pack(
        ">I", 0x7FFFFFF0
    )  # bytes of a chunk, for which OpenCV would make room
    (tmp_path / "lying.png").write_bytes(lying)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 30, done.stdout + done.stderr  # MB; one of them decoded would be 2700
    assert len(done.stderr.splitlines()) == 2 * len(LARGE) + 1


def test_what_is_no_regular_file_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    for name, told in (
        ("pipe", "a pipe or a device"),
        ("endless", "a pipe or a device"),
        ("folder", "a folder"),
    ):
        with pytest.raises(FkpError, match=f"{name}.png: {told}, not a file"):
            read_image(tmp_path / f"{name}.png")
    file = write_image(tmp_path / "large.bmp", np.zeros((40, 50), np.uint8))
    monkeypatch.setattr(images, "BYTES", 1000)
    with pytest.raises(FkpError, match=r"large.bmp: \d{4} bytes, more than the 1000"):
        read_image(file)


TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
}
TURNS |= {8: "ROTATE_90"}
EXACT = {
    "jpeg": {"quality": 100},
    "webp": {"lossless": True},
    "avif": {"quality": 100, "subsampling": "4:4:4"},
}


@pytest.fixture(scope="module")
def corner() -> Image.Image:
    """Another picture for each orientation."""
    image = np.full((32, 48, 3), 90, np.uint8)
    image[:10, :14], image[-6:, :20] = 250, 10
    return Image.fromarray(image)


def oriented(image: Image.Image, kind: str, file: Path, orientation: int) -> Path:
    if kind == "tiff":
        image.save(file, kind, tiffinfo={274: orientation})
    else:
        tags = Image.Exif()
        tags[274] = orientation
        image.save(file, kind, exif=tags.tobytes(), **EXACT.get(kind, {}))
    return file


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff", "avif", "heif"])
def test_every_orientation_of_every_kind_is_read_as_a_viewer_shows_it(
    kind: str, corner: Image.Image, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if kind == "heif":
        pytest.importorskip("pillow_heif").register_heif_opener()
    for orientation in range(11):
        file = oriented(corner, kind, tmp_path / f"{orientation}.{kind}", orientation)
        turn = TURNS.get(orientation)
        wanted = np.asarray(corner.transpose(Image.Transpose[turn]) if turn else corner).astype(int)
        image = read_image(file)
        assert image.shape == wanted.shape and np.abs(image - wanted).mean() < 4, orientation
        gray = read_image(file, gray=True)
        assert gray.shape == wanted.shape[:2] and np.abs(gray - wanted[..., 0]).mean() < 4, (
            orientation
        )
    assert capfd.readouterr().err == ""  # of an orientation that does not exist


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_exif_behind_the_pixels_counts_and_damaged_exif_does_not(
    corner: Image.Image, tmp_path: Path
) -> None:
    png = oriented(corner, "png", tmp_path / "a.png", 6).read_bytes()
    at = png.index(b"eXIf") - 4
    chunk = png[at : at + 12 + int.from_bytes(png[at : at + 4], "big")]
    rest = png.replace(chunk, b"")
    (tmp_path / "late.png").write_bytes(rest[:-12] + chunk + rest[-12:])
    assert read_image(tmp_path / "late.png").shape == (48, 32, 3)
    for name, exif in (
        ("word", b"Exif\0\0no tags"),
        ("cut", b"Exif\0\0II*\0\x08\0\0\0\x01\0"),
        ("none", b""),
    ):
        corner.save(tmp_path / f"{name}.jpg", exif=exif)
        assert read_image(tmp_path / f"{name}.jpg").shape == (32, 48, 3)


def test_what_numbers_mean_is_a_rule_or_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    levels = np.linspace(0, 1, 12 * 16).reshape(12, 16).astype(np.float32)
    eight = (levels * 255).round().astype(np.uint8)
    sixteen = (levels * 65535).astype(np.uint16)
    for name, values, wanted in [
        ("float.tif", levels, eight),
        (
            "overshoot.tif",
            levels * 1.1 - 0.05,
            ((levels * 1.1 - 0.05).clip(0, 1) * 255).round().astype(np.uint8),
        ),
        ("sixteen.tif", sixteen, sixteen >> 8),
        ("sixteen.png", sixteen, sixteen >> 8),
    ]:
        Image.fromarray(values).save(tmp_path / name)
        np.testing.assert_array_equal(read_image(tmp_path / name, gray=True), wanted)
        np.testing.assert_array_equal(
            read_image(tmp_path / name), np.repeat(wanted[..., None], 3, 2)
        )
    holed = levels.copy()
    holed[3, 4] = np.nan
    for name, values in [
        ("large.tif", levels * 4095),
        ("negative.tif", levels - 0.5),
        ("nan.tif", holed),
        ("int32.tif", sixteen.astype(np.int32)),
    ]:
        Image.fromarray(values).save(tmp_path / name)
    for name, array in [
        ("colours.tif", np.repeat(levels[..., None], 3, 2)),
        ("double.tif", levels.astype(np.float64)),
        ("int16.tif", sixteen.astype(np.int16)),
        ("int8.tif", eight.astype(np.int8)),
    ]:
        assert cv2.imwrite(str(tmp_path / name), array)
    for name in ["large", "negative", "nan", "int32", "colours", "double", "int16", "int8"]:
        with pytest.raises(FkpError, match=rf"{name}.tif: .*(save|convert)"):
            read_image(tmp_path / f"{name}.tif")
    assert capfd.readouterr().err == ""


def test_heic_is_read_or_the_message_says_how(
    corner: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pillow_heif", None)
        with pytest.raises(FkpError, match=r"a.heic: .*fkp\[heic\].*convert"):
            read_image(tmp_path / "a.heic")
    pytest.importorskip("pillow_heif").register_heif_opener()
    with pytest.raises(FkpError, match=r"a.heic: not a picture"):
        read_image(tmp_path / "a.heic")
    corner.save(tmp_path / "b.heic", quality=90)
    whole = (tmp_path / "b.heic").read_bytes()
    (tmp_path / "c.heic").write_bytes(whole[:-200])
    with pytest.raises(FkpError, match=r"c.heic: cut off or damaged"):
        read_image(tmp_path / "c.heic")


@pytest.mark.parametrize("kind", ["gif", "png", "webp", "tiff", "avif"])
def test_frames_are_counted_and_the_first_is_read(kind: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (32, 24), (level, 0, 0)) for level in (10, 120, 240)]
    frames[0].save(tmp_path / "many", kind, save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "one", kind)
    assert count_frames(tmp_path / "many") == 3 and count_frames(tmp_path / "one") == 1
    assert abs(int(read_image(tmp_path / "many")[0, 0, 0]) - 10) < 4
