"""Reading and writing picture files, so that pixels are the same for training and for prediction."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from fkp.errors import FkpError


def read_picture(path: str | Path, gray: bool = False) -> np.ndarray:
    """Read a picture as a viewer shows it: EXIF orientation applied, alpha dropped, 8 bits a channel.

    Args:
        path: any format OpenCV reads; the name may hold any Unicode.
        gray: one channel instead of three.

    Returns:
        uint8, (H, W) if gray, else RGB (H, W, 3).

    Raises:
        FkpError: no such file, or not a picture.
    """
    path = Path(path)
    try:
        data = np.fromfile(path, np.uint8)  # not cv2.imread: it cannot open every Unicode path on Windows
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else (error.strerror or str(error))
        raise FkpError(f"{path}: {reason}") from None
    try:
        image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR) if data.size else None
    except cv2.error:
        image = None
    if image is None:
        raise FkpError(f"{path}: not a picture that can be read ({data.size} bytes)")
    return image if gray else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


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
