"""Reading and writing picture files, so that pixels are the same for training and for prediction."""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from fkp.errors import FkpError
from fkp.files.reading import read_bytes

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

# Endings of the images and videos that fkp reads, lower case.
IMAGE_ENDINGS = [
    ".apng",
    ".avif",
    ".bmp",
    ".dib",
    ".gif",
    ".heic",
    ".heif",
    ".hif",
    ".jfif",
    ".jp2",
    ".jpe",
    ".jpeg",
]
IMAGE_ENDINGS += [".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"]
VIDEO_ENDINGS = [
    ".3g2",
    ".3gp",
    ".asf",
    ".avi",
    ".divx",
    ".dv",
    ".f4v",
    ".flv",
    ".m1v",
    ".m2t",
    ".m2ts",
    ".m2v",
    ".m4v",
]
VIDEO_ENDINGS += [
    ".mjpeg",
    ".mjpg",
    ".mkv",
    ".mov",
    ".mp4",
    ".mpe",
    ".mpeg",
    ".mpg",
    ".mts",
    ".mxf",
    ".ogm",
    ".ogv",
    ".qt",
]
VIDEO_ENDINGS += [".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv"]
BYTES, PIXELS = (
    1 << 30,
    200_000_000,
)  # of a file and of a picture, at most: what the largest cameras make
# What a file begins with, and Pillow's name for the kind.
KINDS = {b"\xff\xd8\xff": "Jpeg", b"\x89PNG": "Png", b"GIF8": "Gif", b"BM": "Bmp"}
KINDS |= {b"II*\0": "Tiff", b"MM\0*": "Tiff", b"II+\0": "Tiff", b"MM\0+": "Tiff"}
KINDS |= {b"\0\0\0\x0cjP": "Jpeg2K", b"\xff\x4f\xff\x51": "Jpeg2K"} | {
    b"P%d" % i: "Ppm" for i in range(1, 7)
}
HEIC = {
    b"heic",
    b"heix",
    b"heim",
    b"heis",
    b"hevc",
    b"hevx",
    b"mif1",
    b"msf1",
}  # brands; AVIF has mif1, too
# How pixels are turned and mirrored for each orientation of EXIF; any other value means upright.
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.flip(image, -1),
    4: lambda image: cv2.flip(image, 0),
    5: cv2.transpose,
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.flip(cv2.transpose(image), -1),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
UNKNOWN_TIFF = (
    "a TIFF whose numbers have no known range; fkp reads 8 or 16 bits a channel without a sign, and one channel of "
    "32-bit floats from 0 to 1: convert it, or save it as PNG"
)
OVERSHOOT = 0.1  # by which resampling may carry floats out of 0 … 1

if "OPENCV_LOG_LEVEL" not in os.environ:
    # What is wrong with a file is raised; OpenCV would print lines about it, too. Versions differ in where this lies.
    getattr(cv2.utils, "logging", cv2).setLogLevel(0)
warnings.filterwarnings(
    "ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin"
)  # of EXIF that is damaged


def read_image(path: str | Path, gray: bool = False) -> np.ndarray:
    """Read an image as a viewer shows it, with 8 bits a channel: orientation applied, alpha dropped.

    The orientation is that of EXIF in JPEG, PNG, WebP and AVIF (there `irot` and `imir`), and the TIFF tag. Of 16 bits
    a channel the high byte is taken; of one channel of 32-bit floats, 0 to 1 become 0 to 255. Other floats, signed
    integers and 32-bit integers have no range that says what is white: they are refused. Of an animation or of several
    pages the first is read; `count_frames` says how many there are.

    Args:
        path: JPEG, PNG, GIF, BMP, WebP, TIFF, JPEG 2000, PNM, AVIF, or HEIC if `pillow-heif` is installed; the name
            may hold any Unicode.
        gray: one channel instead of three.

    Returns:
        uint8, (H, W) if gray, else RGB (H, W, 3).

    Raises:
        FkpError: no such file, not an image, values of no known range, or more than 200 million pixels, which are not
            decoded.
    """
    path = Path(path)
    data = read_bytes(path, BYTES)
    try:
        with header(data) as opened:
            if opened.mode == "F" or opened.format == "HEIF":
                pixels = _by_pillow(opened)
                return to_gray(pixels) if gray else pixels
            turn = (
                None if opened.format == "TIFF" else TURNS.get(_orientation(opened))
            )  # OpenCV turns TIFF itself
        flag = (cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR) | cv2.IMREAD_IGNORE_ORIENTATION
        # Not cv2.imread: it cannot open every Unicode path on Windows.
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except FkpError as error:
        raise FkpError(f"{path}: {error}") from None
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise FkpError(f"{path}: no memory for its pixels") from None
        image = None
    if image is None:
        raise FkpError(f"{path}: not a picture that can be read ({len(data)} bytes)")
    image = image if gray else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return turn(image) if turn else image


def count_frames(path: Path) -> int:
    """Count the frames of an animation, or the pages of a TIFF; 1 for any other image, and for what is none."""
    try:
        with header(read_bytes(path, BYTES)) as image:
            return int(getattr(image, "n_frames", 1))
    except Exception:  # Pillow says that a later frame is damaged in many ways
        return 1


def reads_heic() -> bool:
    """Whether HEIC can be read here."""
    return find_spec("pillow_heif") is not None


def is_picture(start: bytes) -> bool:
    """Whether a file is an image, by its first 16 bytes or more."""
    webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    return webp or bool(_brands(start)) or any(map(start.startswith, KINDS))


def header(data: bytes) -> ImageFile:
    """What a picture is, by its first bytes; its pixels are not decoded until they are asked for.

    Raises:
        FkpError: not a picture, one whose values have no known range, or one of too many pixels.
    """
    kind = next((kind for magic, kind in KINDS.items() if data.startswith(magic)), "WebP")
    if brands := _brands(data):
        kind = "Avif" if brands & {b"avif", b"avis"} else "Heif"
    try:
        # Not Image.open, which warns of half as many pixels, and imports thirty other kinds for a file that is none.
        module = import_module("pillow_heif" if kind == "Heif" else f"PIL.{kind}ImagePlugin")
        image: ImageFile = getattr(module, f"{kind}ImageFile")(io.BytesIO(data))
        if kind == "Png":
            _check_chunks(data, image)
    except Exception as error:  # Pillow says that a header is damaged in many ways
        raise FkpError(_reason(kind, error, len(data))) from None
    if kind == "Tiff" and _is_signed(image):
        raise FkpError(UNKNOWN_TIFF)
    width, height = image.size
    if width * height > PIXELS:
        raise FkpError(f"{width} x {height} pixels, more than the {PIXELS} that fkp reads")
    for name in ("xmp", "XML:com.adobe.xmp"):
        image.info.pop(
            name, None
        )  # Pillow would take an orientation from there, too; viewers do not
    return image


def _brands(data: bytes) -> set[bytes]:
    """What an image in a file of boxes says it is; empty for any other file, such as a video in such a file."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))}
    return brands if data[8:12] in {b"avif", b"avis", *HEIC} else set()


def _reason(kind: str, error: Exception, size: int) -> str:
    """Why a header cannot be read, and the way out."""
    if kind == "Heif" and isinstance(error, ImportError):
        return "a HEIC image: pip install 'fkp[heic]' (that is pillow-heif) to read it, or convert it to JPEG"
    if kind == "Tiff" and "mode" in str(error):
        return UNKNOWN_TIFF
    return f"not a picture that can be read ({size} bytes)"


def _is_signed(tiff: ImageFile) -> bool:
    """Whether it holds numbers of 32 bits or with a sign."""
    formats = tiff.tag_v2.get(339, 1)  # type: ignore[attr-defined]
    signed = 2 in (formats if isinstance(formats, tuple) else (formats,))
    return signed or tiff.mode == "I"


def _orientation(image: ImageFile) -> int:
    try:
        return int(image.getexif().get(274, 1))
    except Exception:  # Pillow says that EXIF is damaged in many ways
        return 1


def _by_pillow(image: ImageFile) -> np.ndarray:
    """RGB (H, W, 3) uint8 of what OpenCV does not read, turned upright: HEIC, and floats."""
    try:
        image.load()
        values = np.asarray(image if image.mode == "F" else image.convert("RGB"))
    except Exception as error:  # Pillow says that an image is damaged in many ways
        raise FkpError(f"cut off or damaged: {error}") from None
    if image.mode != "F":
        return values
    least, most = float(values.min()), float(values.max())
    if not (least >= -OVERSHOOT and most <= 1 + OVERSHOOT):  # and no NaN
        raise FkpError(
            f"floats from {least:g} to {most:g}, not from 0 to 1: scale them, or save 8 bits a channel"
        )
    return cv2.cvtColor((values.clip(0, 1) * 255).round().astype(np.uint8), cv2.COLOR_GRAY2RGB)


def _check_chunks(png: bytes, image: ImageFile) -> None:
    """That all chunks lie in the file: OpenCV makes room for as many bytes as one says it has, and that may be 2 GB.
    EXIF that lies behind the pixels is taken along; Pillow would decode them to find it."""
    at, exif = 8, b""
    while png[at + 4 : at + 8] != b"IEND":
        (size,) = struct.unpack_from(">I", png, at)
        if png[at + 4 : at + 8] == b"eXIf":
            exif = png[at + 8 : at + 8 + size]
        at += 12 + size
    if "Raw profile type exif" not in image.info or exif:
        image.info["exif"] = exif


def write_image(path: str | Path, image: np.ndarray) -> Path:
    """Write an RGB or gray uint8 picture; the ending of the name says the format."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    try:
        done, data = cv2.imencode(path.suffix or ".png", pixels)
    except cv2.error:  # no such kind
        done = False
    if not done:
        raise FkpError(f"{path}: this kind of picture cannot be written")
    data.tofile(path)
    return path


def to_gray(image: np.ndarray) -> np.ndarray:
    """RGB (H, W, 3) or gray (H, W) uint8 to gray (H, W)."""
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
