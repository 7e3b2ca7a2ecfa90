"""Read and write image files, so that training and prediction see the same pixels."""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from fkp.errors import FkpError
from fkp.files.reading import read_bytes
from fkp.files.writing import write_whole

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

# Endings of the images and videos that fkp reads, in lower case.
# fmt: off
IMAGE_ENDINGS = [
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".jfif", ".jp2", ".jpe",
    ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
]
VIDEO_ENDINGS = [
    ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".m1v", ".m2t", ".m2ts",
    ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts",
    ".mxf", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv",
]
# fmt: on

# Limits of a file, bytes, and of an image, pixels: as large as the largest cameras make them.
BYTES = 1 << 30
PIXELS = 200_000_000

# First bytes of a file, and Pillow's name for the format.
KINDS = {
    b"\xff\xd8\xff": "Jpeg",
    b"\x89PNG": "Png",
    b"GIF8": "Gif",
    b"BM": "Bmp",
    b"II*\0": "Tiff",
    b"MM\0*": "Tiff",
    b"II+\0": "Tiff",
    b"MM\0+": "Tiff",
    b"\0\0\0\x0cjP": "Jpeg2K",
    b"\xff\x4f\xff\x51": "Jpeg2K",
    **{b"P%d" % i: "Ppm" for i in range(1, 7)},
}
# Brands of files in the ISO base media format. AVIF has mif1, too, and is looked for first.
AVIF = {b"avif", b"avis"}
HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}

# EXIF and TIFF tags.
ORIENTATION, SAMPLE_FORMAT = 274, 339
SIGNED = 2
# How pixels are rotated and flipped for each EXIF orientation; any other value means upright.
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.flip(image, -1),
    4: lambda image: cv2.flip(image, 0),
    5: cv2.transpose,
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.flip(cv2.transpose(image), -1),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
# Orientations that swap width and height.
ON_ITS_SIDE = (5, 6, 7, 8)
# Resampling may carry floats out of 0 … 1 by this much.
OVERSHOOT = 0.1
UNKNOWN_TIFF = (
    "a TIFF whose numbers have no known range; fkp reads 8 or 16 unsigned bits a channel, and one "
    "channel of 32-bit floats from 0 to 1: convert it, or save it as PNG"
)

if "OPENCV_LOG_LEVEL" not in os.environ:
    # Problems of a file are raised; OpenCV would print lines about them, too. Its versions differ
    # in where this function lies.
    getattr(cv2.utils, "logging", cv2).setLogLevel(0)
# Warnings of damaged EXIF.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")


def read_image(path: str | Path, gray: bool = False) -> np.ndarray:
    """Read an image as a viewer shows it: 8 bits a channel, orientation applied, alpha dropped.

    The orientation is that of EXIF in JPEG, PNG, WebP and AVIF (there `irot` and `imir`), and the
    TIFF tag. Of 16 bits a channel the high byte is taken; in one channel of 32-bit floats, 0 to 1
    becomes 0 to 255. Other floats, signed integers and 32-bit integers have no range that defines
    white: they are refused. Of an animation, or of several pages, the first is read;
    `open_image` counts them.

    Args:
        path: JPEG, PNG, GIF, BMP, WebP, TIFF, JPEG 2000, PNM, AVIF, or HEIC if `pillow-heif` is
            installed; the name may contain any Unicode.
        gray: one channel instead of three.

    Returns:
        uint8, (H, W) if gray, else RGB (H, W, 3).

    Raises:
        FkpError: the file is missing or is not an image, its values have no known range, or it has
            more than 200 million pixels, which are not decoded.
    """
    return open_image(path).decode(gray)


class OpenedImage(NamedTuple):
    """An image file that has been read and checked, and not decoded yet.

    Args:
        path: of the file.
        data: its bytes.
        header: Pillow's image.
    """

    path: Path
    data: bytes
    header: ImageFile

    @property
    def pixels(self) -> int:
        """The number of pixels."""
        width, height = self.header.size
        return int(width * height)

    @property
    def frames(self) -> int:
        """The number of frames of an animation, or of pages of a TIFF."""
        try:
            return int(getattr(self.header, "n_frames", 1))
        except Exception:
            # Pillow raises errors of many types for damaged frames.
            return 1

    def decode(self, gray: bool = False) -> np.ndarray:
        """Decode the pixels once, as `read_image` says; the header is closed."""
        try:
            with self.header as opened:
                if opened.mode == "F" or opened.format == "HEIF":
                    pixels = _decode_by_pillow(opened)
                    return to_gray(pixels) if gray else pixels

                # OpenCV applies the orientation of a TIFF itself.
                turn = None if opened.format == "TIFF" else TURNS.get(_orientation(opened))
            image = _decode_by_opencv(self.data, gray)
        except FkpError as error:
            raise FkpError(f"{self.path}: {error}") from None
        return turn(image) if turn else image


def open_image(path: str | Path) -> OpenedImage:
    """Read an image file and check its header; `decode` makes the pixels.

    Raises:
        FkpError: as `read_image`.
    """
    path = Path(path)
    data = read_bytes(path, BYTES)
    try:
        return OpenedImage(path, data, header(data))
    except FkpError as error:
        raise FkpError(f"{path}: {error}") from None


def _decode_by_opencv(data: bytes, gray: bool) -> np.ndarray:
    """Decode to (H, W) or RGB (H, W, 3) uint8, without the orientation of EXIF."""
    colours = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR_RGB
    flag = colours | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        # Not cv2.imread, which cannot open every Unicode path on Windows.
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise FkpError("no memory for its pixels") from None
        image = None
    if image is None:
        raise FkpError(f"not an image that can be read ({len(data)} bytes)")
    return image


def _decode_by_pillow(image: ImageFile) -> np.ndarray:
    """Decode what OpenCV does not read, HEIC and floats, to upright RGB (H, W, 3) uint8."""
    try:
        image.load()
        values = np.asarray(image if image.mode == "F" else image.convert("RGB"))
    except Exception as error:
        # Pillow raises errors of many types for damaged images.
        raise FkpError(f"cut off or damaged: {error}") from None
    if image.mode != "F":
        return values

    # Written so that NaN fails.
    least, most = float(values.min()), float(values.max())
    if not (least >= -OVERSHOOT and most <= 1 + OVERSHOOT):
        raise FkpError(
            f"floats from {least:g} to {most:g}, not from 0 to 1: scale them, or save 8 bits a "
            "channel"
        )
    return cv2.cvtColor((values.clip(0, 1) * 255).round().astype(np.uint8), cv2.COLOR_GRAY2RGB)


def reads_heic() -> bool:
    """Return whether HEIC can be read here."""
    return find_spec("pillow_heif") is not None


def is_image_file(start: bytes) -> bool:
    """Return whether a file is an image, given its first 16 bytes or more."""
    webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    return webp or bool(_brands(start)) or any(map(start.startswith, KINDS))


def header(data: bytes) -> ImageFile:
    """Open an image without decoding its pixels.

    Args:
        data: the bytes of the file.

    Returns:
        Pillow's image, which decodes its pixels on demand.

    Raises:
        FkpError: not an image, values of no known range, or too many pixels.
    """
    kind = next((kind for magic, kind in KINDS.items() if data.startswith(magic)), "WebP")
    if brands := _brands(data):
        kind = "Avif" if brands & AVIF else "Heif"
    try:
        # Not Image.open, which warns of half as many pixels, and imports thirty other formats for
        # a file that is none.
        module = import_module("pillow_heif" if kind == "Heif" else f"PIL.{kind}ImagePlugin")
        image: ImageFile = getattr(module, f"{kind}ImageFile")(io.BytesIO(data))
        if kind == "Png":
            _check_chunks(data, image)
    except Exception as error:
        # Pillow raises errors of many types for damaged headers.
        raise FkpError(_reason(kind, error, len(data))) from None

    if kind == "Tiff" and _is_signed(image):
        raise FkpError(UNKNOWN_TIFF)
    width, height = image.size
    if width * height > PIXELS:
        raise FkpError(f"{width} x {height} pixels, more than the {PIXELS} that fkp reads")

    # Pillow would read an orientation from XMP, too; viewers do not.
    for name in ("xmp", "XML:com.adobe.xmp"):
        image.info.pop(name, None)
    return image


def image_size(path: Path) -> tuple[int, int]:
    """Read the width and height of an image as a viewer shows it, without decoding its pixels.

    Raises:
        FkpError: the file is missing, or is not an image.
    """
    data = read_bytes(path, BYTES)
    try:
        with header(data) as image:
            width, height = image.size
            on_its_side = image.format != "HEIF" and _orientation(image) in ON_ITS_SIDE
    except FkpError as error:
        raise FkpError(f"{path}: {error}", file=path) from None
    return (height, width) if on_its_side else (width, height)


def _brands(data: bytes) -> set[bytes]:
    """Return the brands of an image in the ISO base media format.

    The set is empty for any other file, such as a video in that format.
    """
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))}
    return brands if data[8:12] in AVIF | HEIC else set()


def _reason(kind: str, error: Exception, size: int) -> str:
    """Say why a header cannot be read, and what to do."""
    if kind == "Heif" and isinstance(error, ImportError):
        return (
            "a HEIC image: pip install 'fkp[heic]' (that is pillow-heif) to read it, or convert it "
            "to JPEG"
        )
    if kind == "Tiff" and "mode" in str(error):
        return UNKNOWN_TIFF
    return f"not an image that can be read ({size} bytes)"


def _is_signed(tiff: ImageFile) -> bool:
    """Return whether a TIFF holds signed or 32-bit integers."""
    tags: Any = vars(tiff)["tag_v2"]
    formats = tags.get(SAMPLE_FORMAT, 1)
    signed = SIGNED in (formats if isinstance(formats, tuple) else (formats,))
    return signed or tiff.mode == "I"


def _orientation(image: ImageFile) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:
        # Pillow raises errors of many types for damaged EXIF.
        return 1


def _check_chunks(png: bytes, image: ImageFile) -> None:
    """Check that all chunks of a PNG lie in the file, and keep EXIF that follows the pixels.

    OpenCV allocates as many bytes as a chunk declares, which may be 2 GB. Pillow would decode the
    pixels to find EXIF behind them.

    Raises:
        struct.error: a chunk ends behind the file.
    """
    # A chunk: size (4 bytes), name (4), content (size), checksum (4).
    at, exif = 8, b""
    while (name := png[at + 4 : at + 8]) != b"IEND":
        (size,) = struct.unpack_from(">I", png, at)
        if name == b"eXIf":
            exif = png[at + 8 : at + 8 + size]
        at += 12 + size
    if "Raw profile type exif" not in image.info or exif:
        image.info["exif"] = exif


def write_image(path: str | Path, image: np.ndarray) -> Path:
    """Write an image atomically; the ending of the name selects the format.

    Args:
        path: the file; its folders are made.
        image: RGB (H, W, 3) or gray (H, W), uint8.

    Returns:
        the path.

    Raises:
        FkpError: no image can be written in this format.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    try:
        done, data = cv2.imencode(path.suffix or ".png", pixels)
    except cv2.error:
        # OpenCV does not know the format.
        done = False
    if not done:
        raise FkpError(f"{path}: no image can be written in this format; use .png or .jpg")
    write_whole(path, data.tobytes())
    return path


def to_gray(image: np.ndarray) -> np.ndarray:
    """Convert RGB (H, W, 3) or gray (H, W) uint8 to gray (H, W)."""
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
