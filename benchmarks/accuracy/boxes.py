"""How detectors' boxes lie round the points: `python benchmarks/accuracy/boxes.py [path/to/youtube_faces [path/to/yunet.onnx]]`.

The constants of fkp/markups/*.yaml (box), the framing in conf/ and YuNet's in fkp/detectors.py are these medians, over
the training part of the identity split: no test face is looked at.
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

sys.path.insert(0, str(Path(__file__).parents[1]))  # what benchmarks share
from sets import FOLDER  # noqa: E402


def of_yunet(image: np.ndarray, box: np.ndarray, detector: YuNet) -> dict[str, float] | None:
    """Where the Haar-like box lies in YuNet's own; None where it finds no such face."""
    found = [face for face in detector.raw(image) if overlap(corners(face), box) >= 0.3]
    if not found:
        return None
    left, top, width, height = found[0][:4]
    x, y, side = centre_and_side(box)
    return {
        "yunet_right": (x + 0.5 - left) / width - 0.5,
        "yunet_down": (y + 0.5 - top) / height - 0.5,
        "yunet_side": side / np.sqrt(width * height),
    }


def corners(face: np.ndarray) -> np.ndarray:
    """Left, top, right, bottom of a row of YuNet's."""
    return np.array([face[0], face[1], face[0] + face[2], face[1] + face[3]]) - 0.5


def main(root: str = str(FOLDER / "youtube_faces"), model: str | None = None) -> None:
    """Print medians and scatter."""
    faces = YoutubeFaces(root).read().split("identity")["train"]
    detector = HaarCascade()
    yunet = YuNet(model) if model else None
    rows, missed, second, missed_yunet = [], 0, [], 0
    for path, points in track(zip(faces.paths, faces.points, strict=True), "detecting", len(faces)):
        image = read_image(path, gray=True)
        box = face_box(points)
        if yunet is not None:
            row = of_yunet(image, box, yunet)
            second += [row] if row else []
            missed_yunet += row is None
        boxes, _ = detector(image)
        found = max(boxes, key=lambda other: overlap(other, box), default=None)
        if found is None or overlap(found, box) < 0.3:
            missed += 1
            continue
        x, y, side = centre_and_side(found)
        unit = float(np.sqrt(np.prod(np.ptp(points, axis=0))))
        mean = points.mean(0)
        own_x, own_y, own_side = centre_and_side(box)
        low, high = points.min(0), points.max(0)
        five = np.stack(
            [points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]]
        )
        five_unit = float(np.sqrt(np.prod(np.ptp(five, axis=0))))
        rows.append(
            {
                "up": (mean[1] - y) / unit,
                "left": (mean[0] - x) / unit,
                "side": side / unit,
                "face5_up": (five[:, 1].mean() - own_y) / five_unit,
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
        )
    figures: dict[str, float] = {"faces": len(faces), "missed": missed}
    figures |= {"missed_yunet": missed_yunet} if yunet else {}
    print(
        f"{'':16}{'median':>8}{'scatter':>9}   (scatter: interquartile range / 1.349, a normal's standard deviation)"
    )
    columns = {
        name: [row[name] for row in table] for table in (rows, second) if table for name in table[0]
    }
    for name, values in columns.items():
        low, middle, high = np.percentile(values, [25, 50, 75])
        figures[name], figures[f"{name}_scatter"] = round(middle, 4), round((high - low) / 1.349, 4)
        print(f"{name:16}{middle:8.3f}{(high - low) / 1.349:9.3f}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
