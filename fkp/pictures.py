"""Reading and writing picture files, so that pixels are the same for training and for prediction."""

from __future__ import annotations

import io
import struct
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from fkp.errors import FkpError
from fkp.files import read_bytes

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

BYTES, PIXELS = 1 << 30, 200_000_000  # of a file and of a picture, at most: what the largest cameras make
# What a file begins with, and Pillow's name for the kind.
KINDS = {b"\xff\xd8\xff": "Jpeg", b"\x89PNG": "Png", b"GIF8": "Gif", b"BM": "Bmp", b"RIFF": "WebP"}
KINDS |= {b"II*\0": "Tiff", b"MM\0*": "Tiff", b"II+\0": "Tiff", b"MM\0+": "Tiff"}
KINDS |= {b"\0\0\0\x0cjP": "Jpeg2K", b"\xff\x4f\xff\x51": "Jpeg2K"} | {b"P%d" % i: "Ppm" for i in range(1, 7)}


def read_picture(path: str | Path, gray: bool = False) -> np.ndarray:
    """Read a picture as a viewer shows it: EXIF orientation applied, alpha dropped, 8 bits a channel.

    Args:
        path: JPEG, PNG, GIF, BMP, WebP, TIFF, JPEG 2000, PNM or AVIF; the name may hold any Unicode.
        gray: one channel instead of three.

    Returns:
        uint8, (H, W) if gray, else RGB (H, W, 3).

    Raises:
        FkpError: no such file, not a picture, or one of more than 200 million pixels, which is not decoded.
    """
    path = Path(path)
    data = read_bytes(path, BYTES)
    try:
        with header(data):
            pass
        flag = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR
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
    return image if gray else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def header(data: bytes) -> ImageFile:
    """What a picture is, by its first bytes; its pixels are not decoded until they are asked for.

    Raises:
        FkpError: not a picture, or one of too many pixels.
    """
    kind = next((kind for magic, kind in KINDS.items() if data.startswith(magic)), "Avif")
    try:
        # Not Image.open, which warns of half as many pixels, and imports thirty other kinds for a file that is none.
        image: ImageFile = getattr(import_module(f"PIL.{kind}ImagePlugin"), f"{kind}ImageFile")(io.BytesIO(data))
        if kind == "Png":
            _check_chunks(data)
    except Exception:  # Pillow says that a header is damaged in many ways
        raise FkpError(f"not a picture that can be read ({len(data)} bytes)") from None
    width, height = image.size
    if width * height > PIXELS:
        raise FkpError(f"{width} x {height} pixels, more than the {PIXELS} that fkp reads")
    return image


def _check_chunks(png: bytes) -> None:
    """That all chunks lie in the file: OpenCV makes room for as many bytes as one says it has, and that may be 2 GB."""
    at = 8
    while png[at + 4 : at + 8] != b"IEND":
        at += 12 + struct.unpack_from(">I", png, at)[0]


def write_picture(path: str | Path, image: np.ndarray) -> Path:
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
