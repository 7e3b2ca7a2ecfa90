"""What shifts, turns, blur, dark and small faces do to the error, ours and the peers': a figure for the README.

    python benchmarks/robustness/robustness.py [path/to/data] [--dlib path/to/python] [--mediapipe path/to/python] [--out file.png]

Photos of 300-W's validation part, raw NME in percent of the outer-eye distance, medians over faces, so that a few lost
faces do not hide what becomes of the rest; a missed face counts as infinitely wrong. fkp is told the label's face box,
dlib where its own detector's box would lie round that; MediaPipe cannot be told and finds the face itself, so where the
box alone is moved it has no curve. fkp is shown as it is and with a single look. dlib's predictor was trained on iBUG
300-W, these very photos among them: read its curves for how they bend, not for where they begin.

    --faces 150     of the part, evenly spread
"""

import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from fkp.console import track
from fkp.data.table import FaceTable
from fkp.files.images import read_image, write_image
from fkp.geometry import apply, centre_and_side, face_box, rescaling, rotation, square, warp
from fkp.inference.predictor import Predictor
from fkp.markup import IBUG68
from fkp.metrics import nme

sys.path.insert(0, str(Path(__file__).parents[1]))  # what benchmarks share
from peers import PEERS, Peer, available  # noqa: E402
from sets import last_line, nearest, parser, some, source  # noqa: E402

Picture = tuple[np.ndarray, np.ndarray]  # image and label


def turn(
    image: np.ndarray, label: np.ndarray, degrees: float, random: np.random.Generator
) -> Picture:
    """About the face, clockwise or not."""
    affine = rotation(degrees * random.choice([-1, 1]), label.mean(0))
    return warp(image, affine, image.shape[1::-1]), apply(affine, label)


def blur(
    image: np.ndarray, label: np.ndarray, deviation: float, random: np.random.Generator
) -> Picture:
    """A Gaussian, its deviation in percent of the face box's side."""
    pixels = deviation / 100 * float(centre_and_side(face_box(label))[2])
    return (cv2.GaussianBlur(image, (0, 0), pixels) if pixels > 0.05 else image), label


def noise(
    image: np.ndarray, label: np.ndarray, deviation: float, random: np.random.Generator
) -> Picture:
    """Independent normal noise, in gray levels."""
    return (image + random.normal(0, deviation, image.shape)).clip(0, 255).astype(np.uint8), label


def darken(
    image: np.ndarray, label: np.ndarray, light: float, random: np.random.Generator
) -> Picture:
    """Of the light only this share is left, and a sensor's noise of 3 gray levels stays."""
    return (image * light + random.normal(0, 3, image.shape)).clip(0, 255).astype(np.uint8), label


def cover(
    image: np.ndarray, label: np.ndarray, share: float, random: np.random.Generator
) -> Picture:
    """A gray square over this share of the face box, anywhere in it."""
    x, y, side = (float(value) for value in centre_and_side(face_box(label)))
    part = side * np.sqrt(share)
    left, top = np.array([x, y]) - side / 2 + random.uniform(0, side - part, 2)
    covered = image.copy()
    if share:
        low, high = (
            np.round([left, top]).astype(int),
            np.round([left + part, top + part]).astype(int),
        )
        covered[max(0, low[1]) : max(0, high[1]), max(0, low[0]) : max(0, high[0])] = 128
    return covered, label


def shrink(
    image: np.ndarray, label: np.ndarray, pixels: float, random: np.random.Generator
) -> Picture:
    """The face box gets this side, pixels."""
    factor = pixels / float(centre_and_side(face_box(label))[2])
    size = tuple(max(1, round(side * factor)) for side in image.shape[1::-1])
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return cv2.resize(image, size, interpolation=method), apply(rescaling(factor), label)


PICTURES: dict[str, tuple[str, Callable[..., Picture], list[float]]] = {
    "rotation": ("turned by, degrees", turn, [0, 10, 20, 30, 45]),
    "blur": ("blur, % of the box", blur, [0, 1, 2, 4, 6]),
    "noise": ("noise, gray levels", noise, [0, 10, 20, 40, 60]),
    "dark": ("light that is left", darken, [1.0, 0.5, 0.25, 0.1, 0.05]),
    "occlusion": ("share of the box covered", cover, [0, 0.05, 0.1, 0.2, 0.3]),
    "size": ("side of the box, pixels", shrink, [200, 100, 50, 32, 24, 16]),
}
BOXES: dict[str, tuple[str, list[float]]] = {
    "shift": ("box shifted by, % of its side", [0, 5, 10, 15, 20]),
    "scale": ("box scaled by", [0.8, 0.9, 1, 1.1, 1.25]),
}


def moved_box(box: np.ndarray, kind: str, amount: float, random: np.random.Generator) -> np.ndarray:
    """A face box shifted in a random direction, or scaled."""
    x, y, side = (float(value) for value in centre_and_side(box))
    if kind == "scale":
        return square(x, y, side * amount)
    angle = random.uniform(0, 2 * np.pi)
    return square(
        x + np.cos(angle) * amount / 100 * side, y + np.sin(angle) * amount / 100 * side, side
    )


def as_dlib_draws(
    peer: Peer, faces: FaceTable, folder: Path
) -> Callable[[np.ndarray], list[float]]:
    """Fit, in medians, how dlib's own boxes lie to the label's face boxes."""
    rows = []
    for path, label in zip(faces.paths, faces.points, strict=True):
        for edges in peer(str(path))["boxes"]:
            x, y, side = (float(value) for value in centre_and_side(face_box(label)))
            found_x, found_y, found_side = (float(value) for value in centre_and_side(edges))
            if np.hypot(found_x - x, found_y - y) < 0.5 * side:
                rows.append([(found_x - x) / side, (found_y - y) / side, found_side / side])
    right, down, larger = np.median(rows, 0)

    def convert(box: np.ndarray) -> list[float]:
        x, y, side = (float(value) for value in centre_and_side(box))
        return square(x + right * side, y + down * side, side * larger).tolist()

    return convert


def main() -> None:
    """Measure, print and draw."""
    arguments = parser(__doc__)
    for peer in PEERS:
        arguments.add_argument(f"--{peer}", default=sys.executable)
    arguments.add_argument("--out")
    arguments.add_argument("--faces", type=int, default=150)
    told = arguments.parse_args()
    parts = source("300w", told.data).read().split("identity")
    faces = some(parts["val"], told.faces)
    looks = {
        "fkp": Predictor.load(told.ckpt),
        "fkp, one look": Predictor.load(told.ckpt, refine_steps=1),
    }
    peers = available({name: getattr(told, name) for name in PEERS})
    errors: dict[tuple[str, float, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "photo.png"
        to_dlib = (
            as_dlib_draws(peers["dlib"], some(parts["train"], 200), Path(folder))
            if "dlib" in peers
            else None
        )

        def ask(
            key: tuple[str, float],
            image: np.ndarray,
            label: np.ndarray,
            box: np.ndarray,
            photo: str,
        ) -> None:
            found = {name: look(image, boxes=box[None])[0].points for name, look in looks.items()}
            if to_dlib:
                found["dlib"] = np.array(peers["dlib"](photo, to_dlib(box))["points"][0])
            if "mediapipe" in peers and key[0] not in BOXES:
                answer = [np.array(points) for points in peers["mediapipe"](photo)["points"]]
                best = nearest(answer, face_box(label))
                found["mediapipe"] = np.full_like(label, np.inf) if best is None else best
            for name, points in found.items():
                errors[(*key, name)].append(100 * float(nme(points, label, IBUG68)))

        for i in track(range(len(faces)), f"{len(faces)} faces", len(faces)):
            random, label, image = (
                np.random.default_rng(i),
                faces.points[i],
                read_image(faces.paths[i]),
            )
            photo = str(faces.paths[i])
            for kind, (_, amounts) in BOXES.items():
                for amount in amounts:
                    ask(
                        (kind, amount),
                        image,
                        label,
                        moved_box(face_box(label), kind, amount, random),
                        photo,
                    )
            for kind, (_, change, amounts) in PICTURES.items():
                for amount in amounts:
                    changed, there = change(image, label, amount, random)
                    write_image(file, changed)
                    ask((kind, amount), changed, there, face_box(there), str(file))

    medians = {key: float(np.median(values)) for key, values in errors.items()}
    titles = BOXES | {kind: (title, amounts) for kind, (title, _, amounts) in PICTURES.items()}
    names = list(dict.fromkeys(name for *_, name in medians))
    for kind, (title, amounts) in titles.items():
        print(f"{title:32}" + "".join(f"{amount:>8g}" for amount in amounts))
        for name in names:
            if (kind, amounts[0], name) in medians:
                print(
                    f"  {name:30}"
                    + "".join(f"{medians[kind, amount, name]:8.2f}" for amount in amounts)
                )
    if told.out:
        plot(titles, names, medians, Path(told.out))
    means = {key: float(np.mean(values)) for key, values in errors.items()}
    figures = {
        f"{kind}_{amount:g}_{name.replace(', ', '_').replace(' ', '_')}": value
        for (kind, amount, name), value in medians.items()
    }
    figures["shift_20_over_0_mean"] = means["shift", 20, "fkp"] / means["shift", 0, "fkp"]
    figures["shift_20_over_0"] = medians["shift", 20, "fkp"] / medians["shift", 0, "fkp"]
    print(last_line(figures, 3))


def plot(
    titles: dict[str, tuple[str, list[float]]],
    names: list[str],
    medians: dict[tuple[str, float, str], float],
    out: Path,
) -> None:
    """Small multiples, one scale for all errors."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 4, figsize=(12, 5.2), sharey=True)
    for axis, (kind, (title, amounts)) in zip(axes.flat, titles.items(), strict=True):
        for name in names:
            values = [medians.get((kind, amount, name), np.nan) for amount in amounts]
            axis.plot(
                range(len(amounts)),
                values,
                marker="o",
                markersize=3,
                linestyle=":" if "one" in name else "-",
                label=name,
            )
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


if __name__ == "__main__":
    main()
