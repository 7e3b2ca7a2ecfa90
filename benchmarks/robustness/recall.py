"""Measure the recall of the detectors by size, rotation, yaw and occlusion, and their false boxes.

    python benchmarks/robustness/recall.py [path/to/data] [--faces 120] [--yunet path/to/yunet.onnx]
        [--mediapipe path/to/python] [--smallest 20] [--only size rotation_90]

The faces are those of the validation split of 300-W. Each is resized so that its face box has a
known side, and pasted on a painted background of 640 x 480 pixels, four faces to an image; its rim
fades into the background. Recall is the percentage of the faces that a box overlaps as much as
evaluation requires; a box that overlaps none of the pasted faces is false. Faces are 64 pixels
large but where the size is varied. Yaw is estimated from the 68 points, and binned by its amount.
`auto` is the default, with the cached model; `yunet` searches upright only. MediaPipe's detector
(0.10.21) sees each image as a whole, as its users call it. Last, the photos
themselves: faces missed, and false boxes (a second, unlabelled face counts as one).
"""

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from fkp.console import track
from fkp.data.image_cache import face_boxes
from fkp.data.table import FaceTable
from fkp.detectors import Auto, Detector, HaarCascade, YuNet
from fkp.files.images import read_image, write_image
from fkp.geometry import apply, centre_and_side, compose, overlap, rotation, square, translation
from fkp.inference.evaluation import SAME_FACE
from fkp.markup import IBUG68
from fkp.painter.scenery import paint_background

# The modules that the benchmarks share.
sys.path.insert(0, str(Path(__file__).parents[1]))
from peers import Peer, available  # noqa: E402
from sets import last_line, parser, some, source  # noqa: E402

# Width and height of the composed images, and the places of the faces in them.
SIZE = (640, 480)
CENTRES = [(180, 135), (460, 135), (180, 345), (460, 345)]

# A pasted face: its patch and the fading rim, in sides of its box.
PATCH, RIM = 1.7, 0.2

SIDES = [16, 24, 32, 64, 128]
ROLLS = list(range(0, 360, 30))
COVERED = [0.0, 0.2, 0.4, 0.6]
YAWS = [(0, 10), (10, 20), (20, 30), (30, 90)]
USUAL = 64

# How far the tip of the nose lies before the outer eye corners, in halves of their distance.
NOSE = 1.15

Sample = tuple[np.ndarray, np.ndarray]  # an image, and the box of its face
Condition = tuple[str, list[Sample], float, float, float]


def yaw(points: np.ndarray) -> float:
    """Estimate the yaw of a face from its 68 points, degrees, by where the tip of the nose lies."""
    right, left = points[IBUG68.eyes[0]], points[IBUG68.eyes[1]]
    across = (left - right) / 2
    offset = (points[30] - (left + right) / 2) @ across / (across @ across)
    return float(np.degrees(np.arctan(offset / NOSE)))


def compose_scene(
    faces: list[Sample], side: float, roll: float, covered: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Paste up to four faces on a background; return the image and their boxes (F, 4)."""
    scene = 255 * paint_background(SIZE[::-1], random)
    boxes = []
    for face, place in zip(faces, CENTRES, strict=False):
        pasted, radius = patch(face, side, roll, covered, random)
        weight = np.clip((PATCH / 2 - radius) / RIM, 0, 1)[..., None]
        top, left = (middle - len(pasted) // 2 for middle in place[::-1])
        below = scene[top : top + len(pasted), left : left + len(pasted)]
        below[:] = weight * pasted + (1 - weight) * below
        boxes.append(square(place[0] - 0.5, place[1] - 0.5, side))
    return np.clip(scene, 0, 255).astype(np.uint8), np.array(boxes)


def patch(
    face: Sample, side: float, roll: float, covered: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Resize, rotate and cover a face.

    Returns:
        a square image (n, n, 3) around its box, and the distance of each pixel from the centre of
        the box, in sides of the box (n, n).
    """
    image, box = face
    x, y, old = (float(value) for value in centre_and_side(box))
    size = 2 * round(PATCH * side / 2)
    middle = size / 2 - 0.5

    # The box's centre to the origin; then resized, rotated and moved to the patch's centre.
    zoom = np.array([[side / old, 0.0, 0.0], [0.0, side / old, 0.0]])
    affine = compose(
        translation(-x, -y), zoom, rotation(roll, (0.0, 0.0)), translation(middle, middle)
    )
    blurred = cv2.GaussianBlur(image, (0, 0), max(0.01, 0.4 * (old / side - 1)))
    pasted = cv2.warpAffine(blurred, affine, (size, size), borderMode=cv2.BORDER_REFLECT)

    if covered:
        # The lower part of the box, in a flat colour.
        left, right, bottom = x - 0.6 * old, x + 0.6 * old, y + 0.6 * old
        top = y + (0.5 - covered) * old
        corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        colour = random.integers(0, 256, 3).tolist()
        cv2.fillPoly(pasted, [np.round(apply(affine, corners)).astype(np.int32)], colour)

    rows, columns = np.mgrid[:size, :size]
    return pasted, np.hypot(columns - middle, rows - middle) / side


def read(faces: FaceTable) -> list[Sample]:
    """Read the images and the face boxes of a table."""
    boxes = face_boxes(faces, IBUG68)
    return [(read_image(path), box) for path, box in zip(faces.paths, boxes, strict=True)]


def scenes(faces: list[Sample], by_yaw: dict[int, list[Sample]]) -> Iterator[Condition]:
    """Yield name, faces, side, roll and covered fraction of each condition."""
    yield from ((f"size_{side}", faces, side, 0.0, 0.0) for side in SIDES)
    yield from ((f"rotation_{roll}", faces, USUAL, float(roll), 0.0) for roll in ROLLS)
    yield from ((f"occlusion_{100 * part:.0f}", faces, USUAL, 0.0, part) for part in COVERED)
    yield from ((f"yaw_{least}", own, USUAL, 0.0, 0.0) for least, own in by_yaw.items())


def peer_detector(peer: Peer, folder: Path) -> Detector:
    """Make a detector of a peer, which reads images from files."""

    def detector(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        answer = peer(str(write_image(folder / "scene.png", image)))
        return np.reshape(answer["boxes"], (-1, 4)), np.array(answer["scores"])

    return detector


def hits(found: np.ndarray, truth: np.ndarray) -> tuple[int, int]:
    """Count the true boxes that are found, and the found boxes that are false."""
    same = np.array([[overlap(box, true) >= SAME_FACE for box in found] for true in truth])
    same = same.reshape(len(truth), len(found))
    return int(same.any(1).sum()), int((~same.any(0)).sum())


def measure(
    detectors: dict[str, Detector], conditions: list[Condition]
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, int]]]:
    """Return recall in percent and the number of false boxes, by condition and detector."""
    recall: dict[str, dict[str, float]] = defaultdict(dict)
    false: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for name, faces, side, roll, covered in track(conditions, "composed", len(conditions)):
        random, found = np.random.default_rng(17), dict.fromkeys(detectors, 0)
        for start in range(0, len(faces), len(CENTRES)):
            few = faces[start : start + len(CENTRES)]
            image, truth = compose_scene(few, side, roll, covered, random)
            for key, detector in detectors.items():
                hit, wrong = hits(detector(image)[0], truth)
                found[key] += hit
                false[name][key] += wrong
        recall[name] = {key: 100 * n / max(len(faces), 1) for key, n in found.items()}
    return recall, false


def read_options() -> argparse.Namespace:
    """Read the command line."""
    arguments = parser(__doc__)
    arguments.add_argument("--faces", type=int, default=120, help="how many faces, at most")
    arguments.add_argument("--yunet", help="YuNet's model file; without it, that of the cache")
    arguments.add_argument("--mediapipe", default=sys.executable, help="a Python that has it")
    arguments.add_argument("--smallest", type=float, help="detector.smallest; else the default")
    arguments.add_argument("--only", nargs="*", help="conditions, by the start of their names")
    return arguments.parse_args()


def main() -> None:
    """Measure and print."""
    options = read_options()
    detectors: dict[str, Detector] = {
        "haar": HaarCascade(smallest=options.smallest),
        "auto": Auto(smallest=options.smallest),
    }
    if options.yunet:
        detectors["yunet"] = YuNet(options.yunet, smallest=options.smallest, turned=False)

    table = source("300w", options.data).read().split("identity")["val"]
    faces = some(table, options.faces)
    photos = read(faces)
    amounts = np.array([abs(yaw(points)) for points in table.points])
    bins = {
        least: read(some(table.select((amounts >= least) & (amounts < most)), options.faces))
        for least, most in YAWS
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, peer in available({"mediapipe_boxes": options.mediapipe}).items():
            detectors[name.removesuffix("_boxes")] = peer_detector(peer, Path(folder))
        only = tuple(options.only or [""])
        chosen = [of for of in scenes(photos, bins) if of[0].startswith(only)]
        recall, false = measure(detectors, chosen)

        # The photos themselves.
        for name, detector in detectors.items():
            counts = [hits(detector(image)[0], box[None]) for image, box in photos]
            recall["photos"][name] = 100 * sum(found for found, _ in counts) / len(photos)
            false["photos"][name] = sum(wrong for _, wrong in counts)

    metrics: dict[str, float] = {}
    shown = Table("recall, % (false boxes)", *detectors)
    for condition, of in recall.items():
        shown.add_row(
            condition, *(f"{of[name]:.1f} ({false[condition][name]})" for name in detectors)
        )
        metrics |= {f"{condition}_{name}": value for name, value in of.items()}
        metrics |= {f"{condition}_{name}_false": false[condition][name] for name in detectors}
    Console(width=100).print(f"{len(photos)} faces", shown)
    print(last_line(metrics))


if __name__ == "__main__":
    main()
