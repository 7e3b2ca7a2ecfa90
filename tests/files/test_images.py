"""Test the image reader: limits before decoding, orientations, value ranges, damaged files."""

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
from fkp.files.images import header, open_image, read_image, write_image

# Pixels a side: 2.7 GB, which OpenCV itself would not refuse.
SIDE = 30_000
KINDS = ("png", "jpg", "gif", "bmp", "ppm", "pbm", "tif", "jp2", "webp", "avif")
# Without WebP, which has at most 16383 pixels a side, and AVIF, where Pillow checks the size.
LARGE = KINDS[:-2]
PILLOWS = {"jpg": "jpeg", "tif": "tiff", "jp2": "jpeg2000", "pbm": "ppm"}


def saved(kind: str, size: tuple[int, int] = (24, 16)) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(cv2.resize(painter.paint(1, 0)[0], size))
    image.convert("1" if kind == "pbm" else "RGB").save(file, PILLOWS.get(kind, kind))
    return file.getvalue()


def bomb(kind: str, side: int = SIDE) -> bytes:
    """Return a small file whose header declares `side` x `side` pixels."""
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
def test_the_header_has_the_size_of_the_decoded_image(kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"image.{kind}"
    file.write_bytes(saved(kind))
    image = read_image(file)
    assert header(file.read_bytes()).size == image.shape[1::-1] == (24, 16)
    assert read_image(file, gray=True).shape == (16, 24)


@pytest.mark.parametrize("kind", LARGE)
def test_too_many_pixels_are_refused_before_decoding(kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"bomb.{kind}"
    file.write_bytes(bomb(kind))
    with pytest.raises(
        FkpError, match=f"bomb.{kind}: {SIDE} x {SIDE} pixels, more than the 200000000"
    ):
        read_image(file)


def test_as_many_pixels_as_the_limit_are_read_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_image(tmp_path / "some.png", np.zeros((40, 50), np.uint8))
    monkeypatch.setattr(images, "PIXELS", 2000)
    # Where Pillow itself would warn.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(file).shape == (40, 50, 3)
    monkeypatch.setattr(images, "PIXELS", 1999)
    with pytest.raises(FkpError, match="50 x 40 pixels, more than the 1999"):
        read_image(file)


# Reads every file of a folder, and prints by how many MB the peak memory has grown.
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
def test_refusing_takes_no_memory(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    for kind in LARGE:
        for side in (SIDE, 65_000 if kind in ("jpg", "gif") else 100_000):
            (tmp_path / f"bomb{side}.{kind}").write_bytes(bomb(kind, side))

    # A chunk that declares 2 GB, which OpenCV would allocate.
    wrong = bytearray(saved("png"))
    at = wrong.index(b"IDAT")
    wrong[at - 4 : at] = struct.pack(">I", 0x7FFFFFF0)
    (tmp_path / "wrong.png").write_bytes(wrong)

    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)], capture_output=True, text=True, check=True
    )
    # MB; one of them decoded would take 2700.
    assert int(done.stdout) < 30, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 2 * len(LARGE) + 1


def test_pipes_devices_folders_and_large_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    for name, message in (
        ("pipe", "a pipe or a device"),
        ("endless", "a pipe or a device"),
        ("folder", "a folder"),
    ):
        with pytest.raises(FkpError, match=f"{name}.png: {message}, not a file"):
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
    8: "ROTATE_90",
}
EXACT = {
    "jpeg": {"quality": 100},
    "webp": {"lossless": True},
    "avif": {"quality": 100, "subsampling": "4:4:4"},
}


@pytest.fixture(scope="module")
def corner() -> Image.Image:
    """Return an image that looks different in each orientation."""
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
def test_every_orientation_of_every_format_is_applied(
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
    # No warning of orientations that do not exist.
    assert capfd.readouterr().err == ""


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_exif_behind_the_pixels_is_read_and_damaged_exif_ignored(
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


def test_values_of_a_known_range_are_scaled_and_others_refused(
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


def test_heic_is_read_or_the_message_names_the_package(
    corner: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pillow_heif", None)
        with pytest.raises(FkpError, match=r"a.heic: .*fkp\[heic\].*convert"):
            read_image(tmp_path / "a.heic")
    pytest.importorskip("pillow_heif").register_heif_opener()
    with pytest.raises(FkpError, match=r"a.heic: not an image"):
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
    assert open_image(tmp_path / "many").frames == 3 and open_image(tmp_path / "one").frames == 1
    assert abs(int(read_image(tmp_path / "many")[0, 0, 0]) - 10) < 4
