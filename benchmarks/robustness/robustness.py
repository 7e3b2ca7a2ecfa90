"""Measure the error against shift, scale, rotation, blur, noise, darkness, occlusion and size.

    python benchmarks/robustness/robustness.py [path/to/data] [--out file.png]
        [--dlib path/to/python] [--mediapipe path/to/python]

The photos are those of the validation split of 300-W; the error is the median raw NME in percent of
the outer-eye distance, so that a few lost faces do not hide the rest. A missed face has an infinite
error.

fkp predicts in the face box of the label, dlib in the box that its own detector would draw there.
MediaPipe takes no box and finds the face itself, so it has no curve where only the box is moved.
fkp is measured as it is and with a single refinement step. dlib's predictor was trained on iBUG
300-W, which includes these photos: compare the shapes of its curves, not where they begin.
"""

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fkp.console import track
from fkp.data.table import FaceTable
from fkp.files.images import read_image, write_image
from fkp.geometry import apply, centre_and_side, face_box, rescaling, rotation, square, warp
from fkp.inference.predictor import Predictor
from fkp.markup import IBUG68
from fkp.metrics import nme

# The modules that the benchmarks share.
sys.path.insert(0, str(Path(__file__).parents[1]))
from peers import PEERS, Peer, available, fit_dlib_box  # noqa: E402
from sets import last_line, nearest, parser, some, source  # noqa: E402

# An image (H, W, 3) and its label (68, 2), IMAGE pixels.
Labelled = tuple[np.ndarray, np.ndarray]

# The title of each system in the table and the plot.
TITLES = {"fkp_one_look": "fkp, one refinement step"}

# By kind, amount and system.
Errors = dict[tuple[str, float, str], list[float]]
Medians = dict[tuple[str, float, str], float]


def rotate(
    image: np.ndarray, label: np.ndarray, degrees: float, random: np.random.Generator
) -> Labelled:
    """Rotate an image about its face, clockwise or anticlockwise."""
    affine = rotation(degrees * random.choice([-1, 1]), label.mean(0))
    return warp(image, affine, image.shape[1::-1]), apply(affine, label)


def blur(
    image: np.ndarray, label: np.ndarray, sigma: float, random: np.random.Generator
) -> Labelled:
    """Blur an image with a Gaussian; sigma is in percent of the face box's side."""
    pixels = sigma / 100 * float(centre_and_side(face_box(label))[2])
    return (cv2.GaussianBlur(image, (0, 0), pixels) if pixels > 0.05 else image), label


def add_noise(
    image: np.ndarray, label: np.ndarray, std: float, random: np.random.Generator
) -> Labelled:
    """Add independent normal noise, in gray levels."""
    return (image + random.normal(0, std, image.shape)).clip(0, 255).astype(np.uint8), label


def darken(
    image: np.ndarray, label: np.ndarray, fraction: float, random: np.random.Generator
) -> Labelled:
    """Keep a fraction of the light, and add the noise of a sensor (3 gray levels)."""
    dark = image * fraction + random.normal(0, 3, image.shape)
    return dark.clip(0, 255).astype(np.uint8), label


def occlude(
    image: np.ndarray, label: np.ndarray, fraction: float, random: np.random.Generator
) -> Labelled:
    """Cover a fraction of the face box with a gray square at a random place."""
    x, y, side = (float(value) for value in centre_and_side(face_box(label)))
    covered_side = side * np.sqrt(fraction)
    corner = np.array([x, y]) - side / 2 + random.uniform(0, side - covered_side, 2)

    covered = image.copy()
    if fraction:
        left, top = np.maximum(0, np.round(corner).astype(int))
        right, bottom = np.maximum(0, np.round(corner + covered_side).astype(int))
        covered[top:bottom, left:right] = 128
    return covered, label


def shrink(
    image: np.ndarray, label: np.ndarray, pixels: float, random: np.random.Generator
) -> Labelled:
    """Resize an image so that its face box has this side, pixels."""
    factor = pixels / float(centre_and_side(face_box(label))[2])
    size = tuple(max(1, round(side * factor)) for side in image.shape[1::-1])
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return cv2.resize(image, size, interpolation=method), apply(rescaling(factor), label)


# By kind: title, function, amounts.
IMAGES: dict[str, tuple[str, Callable[..., Labelled], list[float]]] = {
    "rotation": ("rotation, degrees", rotate, [0, 10, 20, 30, 45]),
    "blur": ("blur, % of the box", blur, [0, 1, 2, 4, 6]),
    "noise": ("noise, gray levels", add_noise, [0, 10, 20, 40, 60]),
    "dark": ("fraction of the light", darken, [1.0, 0.5, 0.25, 0.1, 0.05]),
    "occlusion": ("fraction of the box covered", occlude, [0, 0.05, 0.1, 0.2, 0.3]),
    "size": ("side of the box, pixels", shrink, [200, 100, 50, 32, 24, 16]),
}
BOXES: dict[str, tuple[str, list[float]]] = {
    "shift": ("box shifted, % of its side", [0, 5, 10, 15, 20]),
    "scale": ("box scaled by", [0.8, 0.9, 1, 1.1, 1.25]),
}
CURVES = BOXES | {kind: (title, amounts) for kind, (title, _, amounts) in IMAGES.items()}


def moved_box(box: np.ndarray, kind: str, amount: float, random: np.random.Generator) -> np.ndarray:
    """Scale a face box, or shift it in a random direction."""
    x, y, side = (float(value) for value in centre_and_side(box))
    if kind == "scale":
        return square(x, y, side * amount)

    angle, distance = random.uniform(0, 2 * np.pi), amount / 100 * side
    return square(x + np.cos(angle) * distance, y + np.sin(angle) * distance, side)


class Benchmark:
    """Predict by fkp and the peers, and collect the errors.

    Args:
        predictors: the variants of fkp, by name.
        peers: the peers that are installed, by name.
        train: faces on which to fit dlib's boxes.
    """

    def __init__(
        self, predictors: dict[str, Predictor], peers: dict[str, Peer], train: FaceTable
    ) -> None:
        self.predictors, self.peers = predictors, peers
        few = some(train, 200)
        self.to_dlib = (
            fit_dlib_box(peers["dlib"], few.paths, few.points) if "dlib" in peers else None
        )
        self.errors: Errors = defaultdict(list)

    def measure(self, path: Path, label: np.ndarray, seed: int, file: Path) -> None:
        """Measure every kind and amount on one face; `file` is where changed images are written."""
        random, image = np.random.default_rng(seed), read_image(path)
        for kind, (_, amounts) in BOXES.items():
            for amount in amounts:
                box = moved_box(face_box(label), kind, amount, random)
                self._predict((kind, amount), image, label, box, path)

        for kind, (_, change, amounts) in IMAGES.items():
            for amount in amounts:
                changed, moved = change(image, label, amount, random)
                write_image(file, changed)
                self._predict((kind, amount), changed, moved, face_box(moved), file)

    def _predict(
        self,
        key: tuple[str, float],
        image: np.ndarray,
        label: np.ndarray,
        box: np.ndarray,
        path: Path,
    ) -> None:
        """Predict by every system, and add the errors."""
        found = {
            name: predictor(image, boxes=box[None])[0].points
            for name, predictor in self.predictors.items()
        }
        if self.to_dlib:
            found["dlib"] = np.array(self.peers["dlib"](str(path), self.to_dlib(box))["points"][0])
        if "mediapipe" in self.peers and key[0] not in BOXES:
            answer = self.peers["mediapipe"](str(path))["points"]
            best = nearest([np.array(points) for points in answer], face_box(label))
            found["mediapipe"] = np.full_like(label, np.inf) if best is None else best

        for name, points in found.items():
            self.errors[(*key, name)].append(100 * float(nme(points, label, IBUG68)))


def print_table(names: list[str], medians: Medians) -> None:
    """Print the median errors of every curve."""
    for kind, (title, amounts) in CURVES.items():
        print(f"{title:32}" + "".join(f"{amount:>8g}" for amount in amounts))
        for name in names:
            if (kind, amounts[0], name) in medians:
                values = "".join(f"{medians[kind, amount, name]:8.2f}" for amount in amounts)
                print(f"  {TITLES.get(name, name):30}{values}")


def plot(names: list[str], medians: Medians, out: Path) -> None:
    """Plot every curve in its own axes, with one scale for all errors."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 4, figsize=(12, 5.2), sharey=True)
    for axis, (kind, (title, amounts)) in zip(axes.flat, CURVES.items(), strict=True):
        _plot_curves(axis, kind, amounts, names, medians)
        axis.set(
            xlabel=title,
            xticks=range(len(amounts)),
            xticklabels=[f"{amount:g}" for amount in amounts],
            ylim=(0, 15),
        )
        axis.grid(alpha=0.3)
    for row in axes:
        row[0].set_ylabel("median NME, %")
    axes[0, 1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(out, dpi=80)


def _plot_curves(
    axis: Any, kind: str, amounts: list[float], names: list[str], medians: Medians
) -> None:
    """Plot the errors of each system against the amount."""
    for name in names:
        values = [medians.get((kind, amount, name), np.nan) for amount in amounts]
        axis.plot(
            range(len(amounts)),
            values,
            marker="o",
            markersize=3,
            linestyle=":" if name in TITLES else "-",
            label=TITLES.get(name, name),
        )


def read_options() -> argparse.Namespace:
    """Read the command line."""
    arguments = parser(__doc__)
    for peer in PEERS:
        arguments.add_argument(f"--{peer}", default=sys.executable, help=f"a Python with {peer}")
    arguments.add_argument("--out", help="file for a plot of the curves")
    arguments.add_argument("--faces", type=int, default=150, help="number, evenly spaced")
    return arguments.parse_args()


def main() -> None:
    """Measure, print and draw."""
    options = read_options()
    splits = source("300w", options.data).read().split("identity")
    faces = some(splits["val"], options.faces)
    predictors = {
        "fkp": Predictor.load(options.ckpt),
        "fkp_one_look": Predictor.load(options.ckpt, refine_steps=1),
    }
    peers = available({name: getattr(options, name) for name in PEERS})

    benchmark = Benchmark(predictors, peers, splits["train"])
    with tempfile.TemporaryDirectory() as folder:
        for i in track(range(len(faces)), f"{len(faces)} faces", len(faces)):
            file = Path(folder) / "photo.png"
            benchmark.measure(faces.paths[i], faces.points[i], i, file)

    medians = {key: float(np.median(values)) for key, values in benchmark.errors.items()}
    names = list(dict.fromkeys(name for *_, name in medians))
    print_table(names, medians)
    if options.out:
        plot(names, medians, Path(options.out))

    means = {key: float(np.mean(values)) for key, values in benchmark.errors.items()}
    metrics = {
        f"{kind}_{amount:g}_{name}": value for (kind, amount, name), value in medians.items()
    }
    metrics["shift_20_over_0_mean"] = means["shift", 20, "fkp"] / means["shift", 0, "fkp"]
    metrics["shift_20_over_0"] = medians["shift", 20, "fkp"] / medians["shift", 0, "fkp"]
    print(last_line(metrics, 3))


if __name__ == "__main__":
    main()
