"""Measure the jitter of points on a still face and their lag on a moving face.

    python benchmarks/robustness/video.py [path/to/photos]

Each photo (default: $FKP_SHARED/photos) becomes two videos of 75 frames at 25 frames per second,
each frame with its own noise (6 gray levels). One is still; in the other the face moves to and fro,
at most by its own size per second. Prints, for the points of the predictor (`raw`) and for those
smoothed by `fkp.inference.tracking.Tracker` (`smooth`):
  jitter   mean movement of points between frames of the still video, % of the outer-eye distance
  lag      the delay of the moving points, ms
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from fkp import Face, Predictor
from fkp.console import track
from fkp.detectors import HaarCascade, YuNet
from fkp.files.images import read_image
from fkp.geometry import face_box, overlap, translation, warp
from fkp.inference.tracking import Tracker
from fkp.markup import IBUG68

# Frames per second, frames of a video, and the standard deviation of the noise in gray levels.
RATE, FRAMES, NOISE = 25.0, 75, 6.0

# Frames until the filter has settled, which are not measured.
SETTLING = 10


def make_video(image: np.ndarray, path: np.ndarray) -> list[np.ndarray]:
    """Move an image along a path (T, 2), and add noise to each frame."""
    rng = np.random.default_rng(0)
    size = image.shape[1::-1]
    frames = []
    for x, y in path:
        moved = warp(image, translation(x, y), size)
        frames.append(np.clip(moved + rng.normal(0, NOISE, moved.shape), 0, 255).astype(np.uint8))
    return frames


def follow(
    found: list[list[Face]], first: Face, tracker: Tracker | None, path: np.ndarray
) -> np.ndarray:
    """Select the points (T, 68, 2) of the face that lies where `first`, moved by the path, does."""
    points = []
    for number, faces in enumerate(found):
        faces = tracker(faces, number / RATE) if tracker else faces
        box = face_box(first.points + path[number])
        best = max(faces, key=lambda face: overlap(face_box(face.points), box), default=None)
        points.append(np.full((68, 2), np.nan) if best is None else best.points)
    return np.array(points)


def jitter_of(points: np.ndarray, first: Face) -> float:
    """Return the mean movement of points (T, 68, 2) between frames, % of the outer-eye distance."""
    eyes = float(np.linalg.norm(np.diff(first.points[list(IBUG68.eyes)], axis=0)))
    moves = np.linalg.norm(np.diff(points, axis=0), axis=2)
    return 100 * float(np.nanmean(moves)) / eyes


def lag_of(points: np.ndarray, first: Face, path: np.ndarray, speed: np.ndarray) -> float:
    """Fit the delay of points (T, 68, 2), ms, by least squares: distance = delay * speed."""
    distance = (first.points + path[:, None] - points)[..., 0].mean(1)
    found = np.isfinite(distance)
    return 1000 * float((distance * speed)[found].sum() / (speed**2)[found].sum())


def measure(photo: Path, predictor: Predictor, filters: dict[str, Any]) -> dict[str, float]:
    """Measure jitter and lag on the videos of one photo."""
    image = read_image(photo)
    first = max(predictor(image), key=lambda face: face.score)

    # The movement: a sine whose largest speed is one face size per second.
    seconds = np.arange(FRAMES) / RATE
    size = float(np.sqrt(np.ptp(first.points, axis=0).prod()))
    amplitude = 0.25 * size
    still = np.zeros((FRAMES, 2))
    moving = np.stack([amplitude * np.sin(size / amplitude * seconds), np.zeros(FRAMES)], -1)
    speed = np.gradient(moving[:, 0], 1 / RATE)

    still_faces = list(predictor.stream(make_video(image, still)))
    moving_faces = list(predictor.stream(make_video(image, moving)))
    metrics = {}
    for name in ("raw", "smooth"):
        trackers = [Tracker(**filters) if name == "smooth" else None for _ in range(2)]
        points = follow(still_faces, first, trackers[0], still)[SETTLING:]
        metrics[f"jitter_{name}"] = jitter_of(points, first)
        points = follow(moving_faces, first, trackers[1], moving)[SETTLING:]
        metrics[f"lag_{name}_ms"] = lag_of(points, first, moving[SETTLING:], speed[SETTLING:])
    return metrics


def read_options() -> argparse.Namespace:
    """Read the command line."""
    shared = os.environ.get("FKP_SHARED")
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("photos", type=Path, nargs="?", default=Path(shared or ".") / "photos")
    arguments.add_argument("--ckpt", help="other weights than the shipped ones")
    arguments.add_argument("--detector", choices=("haar", "yunet"), default="haar")
    arguments.add_argument("--model", help="YuNet's model file")
    for name, value in (("cutoff", 1.0), ("beta", 20.0), ("speed-cutoff", 1.0)):
        arguments.add_argument(f"--{name}", type=float, default=value, help="of the filter")
    return arguments.parse_args()


def main() -> None:
    """Measure on each photo and print the means."""
    options = read_options()
    detector = YuNet(options.model) if options.detector == "yunet" else HaarCascade()
    predictor = Predictor.load(options.ckpt, detector)
    filters = {name: getattr(options, name) for name in ("cutoff", "beta", "speed_cutoff")}

    photos = sorted(path for path in options.photos.iterdir() if path.suffix == ".jpg")
    rows = [measure(photo, predictor, filters) for photo in track(photos, "videos", len(photos))]
    names = ("jitter_raw", "jitter_smooth", "lag_raw_ms", "lag_smooth_ms")
    metrics = {name: float(np.mean([row[name] for row in rows])) for name in names}

    print(f"{len(photos)} faces, {FRAMES} frames each; filter {filters}")
    for name, value in metrics.items():
        print(f"{name:16}{value:8.2f}")
    print(json.dumps({name: round(value, 3) for name, value in metrics.items()}))


if __name__ == "__main__":
    main()
