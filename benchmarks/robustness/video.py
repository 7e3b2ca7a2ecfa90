"""How much points tremble on a still face and lag on a moving one: `python benchmarks/robustness/video.py [path/to/photos]`.

Each photo ($FKP_SHARED/photos, if not given) becomes two films of 75 frames, 25 a second, each frame with noise of its
own (6 gray levels): one stands still, one moves to and fro, at most a face's size a second. Prints, as they come from
the predictor and smoothed by `fkp.inference.tracking.Tracker`:
  jitter   mean movement of points from frame to frame of the still film, percent of the outer-eye distance
  lag      by how many ms the moving points are behind

    --cutoff 1 --beta 20 --speed-cutoff 1      other settings of the filter
    --ckpt …    --detector haar|yunet    --model …
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np

from fkp import Face, Predictor
from fkp.console import track
from fkp.detectors import HaarCascade, YuNet
from fkp.files.images import read_image
from fkp.geometry import face_box, overlap, translation, warp
from fkp.inference.tracking import Tracker
from fkp.markup import IBUG68

RATE, FRAMES, NOISE = 25.0, 75, 6.0


def film(image: np.ndarray, path: np.ndarray) -> list[np.ndarray]:
    """The picture moved along a path (T, 2), each frame with noise of its own."""
    rng = np.random.default_rng(0)
    size = image.shape[1::-1]
    frames = []
    for x, y in path:
        moved = warp(image, translation(x, y), size)
        frames.append(np.clip(moved + rng.normal(0, NOISE, moved.shape), 0, 255).astype(np.uint8))
    return frames


def followed(
    found: list[list[Face]], first: Face, tracker: Tracker | None, path: np.ndarray
) -> np.ndarray:
    """(T, 68, 2) of the face that lies where `first` does, moved along the path."""
    points = []
    for number, faces in enumerate(found):
        faces = tracker(faces, number / RATE) if tracker else faces
        box = face_box(first.points + path[number])
        best = max(faces, key=lambda face: overlap(face_box(face.points), box), default=None)
        points.append(np.full((68, 2), np.nan) if best is None else best.points)
    return np.array(points)


def main() -> None:
    """Measure and print."""
    shared = os.environ.get("FKP_SHARED")
    told = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    told.add_argument("photos", type=Path, nargs="?", default=Path(shared or ".") / "photos")
    told.add_argument("--ckpt")
    told.add_argument("--detector", choices=("haar", "yunet"), default="haar")
    told.add_argument("--model", help="YuNet's file")
    for name, value in (("cutoff", 1.0), ("beta", 20.0), ("speed-cutoff", 1.0)):
        told.add_argument(f"--{name}", type=float, default=value)
    options = told.parse_args()
    detector = YuNet(options.model) if options.detector == "yunet" else HaarCascade()
    predictor = Predictor.load(options.ckpt, detector)
    filters = {"cutoff": options.cutoff, "beta": options.beta, "speed_cutoff": options.speed_cutoff}
    jitter: dict[str, list[float]] = {"raw": [], "smooth": []}
    lag: dict[str, list[float]] = {"raw": [], "smooth": []}
    photos = sorted(path for path in options.photos.iterdir() if path.suffix == ".jpg")
    seconds = np.arange(FRAMES) / RATE
    for photo in track(photos, "films", len(photos)):
        image = read_image(photo)
        first = max(predictor(image), key=lambda face: face.score)
        size = float(np.sqrt(np.ptp(first.points, axis=0).prod()))
        eyes = float(np.linalg.norm(np.diff(first.points[list(IBUG68.eyes)], axis=0)))
        still, amplitude = np.zeros((FRAMES, 2)), 0.25 * size
        moving = np.stack([amplitude * np.sin(size / amplitude * seconds), np.zeros(FRAMES)], -1)
        speed = np.gradient(moving[:, 0], 1 / RATE)
        for path, into in ((still, jitter), (moving, lag)):
            found = list(predictor.stream(film(image, path)))
            for name in ("raw", "smooth"):
                tracker = Tracker(**filters) if name == "smooth" else None
                points = followed(found, first, tracker, path)[10:]  # the filter has settled
                if into is jitter:
                    moves = np.linalg.norm(np.diff(points, axis=0), axis=2)
                    into[name].append(100 * float(np.nanmean(moves)) / eyes)
                else:
                    behind = (first.points + path[10:, None] - points)[..., 0].mean(1)
                    seen, fast = (
                        np.isfinite(behind),
                        speed[10:],
                    )  # the least-squares delay: behind = delay * speed
                    into[name].append(
                        1000 * float((behind * fast)[seen].sum() / (fast**2)[seen].sum())
                    )
    figures = {f"jitter_{name}": float(np.mean(values)) for name, values in jitter.items()}
    figures |= {f"lag_{name}_ms": float(np.mean(values)) for name, values in lag.items()}
    print(f"{len(photos)} faces, {FRAMES} frames each; filter {filters}")
    for name, value in figures.items():
        print(f"{name:16}{value:8.2f}")
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
