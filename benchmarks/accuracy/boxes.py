"""Measure where the boxes of detectors lie relative to the points.

    python benchmarks/accuracy/boxes.py [path/to/youtube_faces [path/to/yunet.onnx]]

The medians are the constants of `box:` in fkp/markups/*.yaml, of the framing in conf/, and of YuNet
in fkp/detectors/. They are taken over the training split of the identity protocol; no test face
is used.
"""

import json
import sys
from pathlib import Path

import numpy as np

from fkp.console import track
from fkp.data.youtube_faces import YoutubeFaces
from fkp.detectors import HaarCascade, YuNet
from fkp.files.images import read_image
from fkp.geometry import centre_and_side, face_box, overlap

# The modules that the benchmarks share.
sys.path.insert(0, str(Path(__file__).parents[1]))
from sets import FOLDER  # noqa: E402

# A detection with less overlap is another face.
LEAST_OVERLAP = 0.3

# The indices of the eyes, the tip of the nose and the corners of the mouth among the 68 points.
RIGHT_EYE, LEFT_EYE = slice(36, 42), slice(42, 48)
NOSE_TIP, MOUTH_RIGHT, MOUTH_LEFT = 30, 48, 54

Row = dict[str, float]


def corners(face: np.ndarray) -> np.ndarray:
    """Convert a row of YuNet's output to left, top, right, bottom."""
    return np.array([face[0], face[1], face[0] + face[2], face[1] + face[3]]) - 0.5


def yunet_row(image: np.ndarray, box: np.ndarray, detector: YuNet) -> Row | None:
    """Measure where a face box lies in YuNet's own box; None if YuNet misses the face."""
    found = [face for face in detector.raw(image) if overlap(corners(face), box) >= LEAST_OVERLAP]
    if not found:
        return None

    left, top, width, height = found[0][:4]
    x, y, side = centre_and_side(box)
    return {
        "yunet_right": (x + 0.5 - left) / width - 0.5,
        "yunet_down": (y + 0.5 - top) / height - 0.5,
        "yunet_side": side / np.sqrt(width * height),
    }


def haar_row(image: np.ndarray, points: np.ndarray, detector: HaarCascade) -> Row | None:
    """Measure where the Haar cascade's box lies round points (68, 2); None if it misses them."""
    box = face_box(points)
    boxes, _ = detector(image)
    found = max(boxes, key=lambda other: overlap(other, box), default=None)
    if found is None or overlap(found, box) < LEAST_OVERLAP:
        return None

    x, y, side = centre_and_side(found)
    own_x, own_y, own_side = centre_and_side(box)
    unit, five_unit = extent(points), extent(five_points(points))
    mean, five_mean = points.mean(0), five_points(points).mean(0)
    low, high = points.min(0), points.max(0)
    return {
        "up": (mean[1] - y) / unit,
        "left": (mean[0] - x) / unit,
        "side": side / unit,
        "face5_up": (five_mean[1] - own_y) / five_unit,
        "face5_side": own_side / five_unit,
        "shift_x": (x - own_x) / own_side,
        "shift_y": (y - own_y) / own_side,
        "zoom": np.log(side / own_side),
        "lower": ((low[1] + high[1]) / 2 - y) / side,
        "points_width": (high[0] - low[0]) / side,
        "points_height": (high[1] - low[1]) / side,
        "picture": min(image.shape) / side,
        "picture_lower": (image.shape[0] / 2 - y) / side,
    }


def five_points(points: np.ndarray) -> np.ndarray:
    """Reduce 68 points to the five of the markup face5, (5, 2)."""
    eyes = [points[RIGHT_EYE].mean(0), points[LEFT_EYE].mean(0)]
    return np.stack([*eyes, points[NOSE_TIP], points[MOUTH_RIGHT], points[MOUTH_LEFT]])


def extent(points: np.ndarray) -> float:
    """Return sqrt(width * height) of the extent of points, pixels."""
    return float(np.sqrt(np.prod(np.ptp(points, axis=0))))


def summarise(rows: list[Row]) -> Row:
    """Print the median and the scatter of each column; return them."""
    metrics: Row = {}
    for name in rows[0] if rows else ():
        low, middle, high = np.percentile([row[name] for row in rows], [25, 50, 75])
        scatter = (high - low) / 1.349
        metrics |= {name: round(middle, 4), f"{name}_scatter": round(scatter, 4)}
        print(f"{name:16}{middle:8.3f}{scatter:9.3f}")
    return metrics


def main(root: str = str(FOLDER / "youtube_faces"), model: str | None = None) -> None:
    """Detect the faces and print medians and scatter."""
    faces = YoutubeFaces(root).read().split("identity")["train"]
    haar, yunet = HaarCascade(), YuNet(model) if model else None

    # One row for each face; None where the detector misses it.
    rows: list[Row | None] = []
    yunet_rows: list[Row | None] = []
    for path, points in track(zip(faces.paths, faces.points, strict=True), "detecting", len(faces)):
        image = read_image(path, gray=True)
        rows.append(haar_row(image, points, haar))
        if yunet is not None:
            yunet_rows.append(yunet_row(image, face_box(points), yunet))

    metrics: Row = {"faces": len(faces), "missed": rows.count(None)}
    metrics |= {"missed_yunet": yunet_rows.count(None)} if yunet else {}
    print(f"{'':16}{'median':>8}{'scatter':>9}")
    metrics |= summarise([row for row in rows if row])
    metrics |= summarise([row for row in yunet_rows if row])
    print("scatter: interquartile range / 1.349, the standard deviation if it is normal")
    print(json.dumps(metrics))


if __name__ == "__main__":
    main(*sys.argv[1:])
