"""Compare the accuracy of fkp, dlib, MediaPipe and simple baselines on the same photos in one run.

    python benchmarks/accuracy/accuracy.py [path/to/data]
        [--split val] [--dlib path/to/python] [--mediapipe path/to/python]

`--split val` scores 300w_val alone, and reads no test face: for choices between trainings.

The sets are youtube_faces and 300w_train below path/to/data (default: $FKP_SHARED/data, or data):
  identity     youtube_faces, people not seen in training
  official     youtube_faces, the publisher's 770 test rows: people seen, other frames
  300w_val     the validation split of 300-W, on which settings were chosen
  300w_test    the test split of 300-W

The systems are
  fkp              predicts in the face box of the label
  fkp_end_to_end   detects and predicts in the whole photo
  fkp_no_box       predicts in the middle of the photo, with three refinement steps
  mean_shape       the mean shape, in the face box of the label
  same_person      the nearest shape of another photo of the person
  published        the checkpoint of --published
  dlib, mediapipe  the peers (peers.py), optional, which detect and predict in the whole photo
dlib's predictor was trained on iBUG 300-W: it has seen these photos.

NME is in percent of the outer-eye distance. `raw`: the points as they are. `corrected`: without a
constant offset of each point, in the frame of the eye line, fitted for each system on 500 training
faces. A missed face counts as a failure in FR@10 and has no NME. The intervals are 95 % bootstrap
intervals over people.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from fkp.runs import command_line

# As the entry scripts do, before torch is imported.
command_line.tune_threads_and_malloc()

import torch  # noqa: E402

from fkp.console import track  # noqa: E402
from fkp.data.image_cache import face_boxes  # noqa: E402
from fkp.data.shapes import convention, moved  # noqa: E402
from fkp.data.table import FaceTable  # noqa: E402
from fkp.draw import visualize_output  # noqa: E402
from fkp.errors import FkpError  # noqa: E402
from fkp.files.images import read_image, write_image  # noqa: E402
from fkp.geometry import (  # noqa: E402
    apply,
    centre_and_side,
    compose,
    face_box,
    overlap,
    rescaling,
    square,
    translation,
    warp,
)
from fkp.inference.engines import Engine  # noqa: E402
from fkp.inference.evaluation import SAME_FACE, example_crops, mean_in_box  # noqa: E402
from fkp.inference.export import export  # noqa: E402
from fkp.inference.onnx_engine import OnnxEngine  # noqa: E402
from fkp.inference.predictor import Predictor  # noqa: E402
from fkp.inference.torch_engine import TorchEngine  # noqa: E402
from fkp.markup import IBUG68  # noqa: E402
from fkp.metrics import interval, nme, summary  # noqa: E402
from fkp.weights import shipped  # noqa: E402

# The modules that the benchmarks share.
sys.path.insert(0, str(Path(__file__).parents[1]))
from peers import PEERS, Peer, available  # noqa: E402
from sets import last_line, nearest, parser, some, source  # noqa: E402


class Photo(NamedTuple):
    """A photo with a labelled face: IMAGE pixels (H, W, 3), face box (4,), points (68, 2)."""

    path: Path
    image: np.ndarray
    box: np.ndarray
    label: np.ndarray


# Finds the points (68, 2) of the labelled face; None if it misses the face.
System = Callable[[Photo], np.ndarray | None]


class Fkp:
    """The ways in which fkp predicts.

    Args:
        ckpt: a checkpoint, or None for the shipped weights.

    Attributes:
        tally: the detected boxes that are missing or false, before and after the filter by
            confidence.
        times: milliseconds of each prediction in the label's box.
    """

    def __init__(self, ckpt: str | None):
        # Without a device the shipped weights are the exported ones, in int8.
        device = "cpu" if ckpt else None
        self.predictor = Predictor.load(ckpt, device=device)
        self.unfiltered = Predictor.load(ckpt, device=device, min_confidence=0)
        self.three_steps = Predictor.load(ckpt, device=device, refine_steps=3)
        self.tally: Counter[str] = Counter()
        self.times: list[float] = []

    def in_box(self, photo: Photo) -> np.ndarray:
        """Predict in the label's face box."""
        began = time.perf_counter()
        (face,) = self.predictor(photo.image, boxes=photo.box[None])
        self.times.append(1000 * (time.perf_counter() - began))
        return face.points

    def end_to_end(self, photo: Photo) -> np.ndarray | None:
        """Detect and predict; count the boxes."""
        least = self.predictor.min_confidence
        faces = self.unfiltered(photo.image)
        confident = [face for face in faces if face.confidence.mean() >= least]
        for name, kept in (("_unfiltered", faces), ("", confident)):
            correct = [overlap(face.box, photo.box) >= SAME_FACE for face in kept]
            self.tally[f"missed_boxes{name}"] += not any(correct)
            self.tally[f"false_boxes{name}"] += correct.count(False)
        return nearest([face.points for face in confident], photo.box)

    def no_box(self, photo: Photo) -> np.ndarray:
        """Predict in the middle of the photo.

        A median training image is two face boxes wide, and its middle lies a little below the
        middle of the face (boxes.py).
        """
        height, width = photo.image.shape[:2]
        side = min(height, width) / 2
        box = square(width / 2 - 0.5, height / 2 - 0.5 - 0.05 * side, side)
        return self.three_steps(photo.image, boxes=box[None])[0].points


def mean_shape(mean: np.ndarray) -> System:
    """Make a system that puts the mean shape (68, 2), in units of the box, into the face box."""

    def system(photo: Photo) -> np.ndarray:
        x, y, side = centre_and_side(photo.box)
        return mean * side + (x, y)

    return system


def checkpoint(file: str) -> System:
    """Make a system of a checkpoint that predicts in the label's face box."""
    predictor = Predictor.load(file, device="cpu")
    return lambda photo: predictor(photo.image, boxes=photo.box[None])[0].points


def of_peer(peer: Peer, times: list[float]) -> System:
    """Make a system of a peer, which notes the milliseconds of each prediction."""

    def system(photo: Photo) -> np.ndarray | None:
        answer = peer(str(photo.path))
        times.append(answer["points_ms"])
        return nearest([np.array(points) for points in answer["points"]], photo.box)

    return system


def predict(systems: dict[str, System], faces: FaceTable, title: str) -> dict[str, np.ndarray]:
    """Predict the points (F, 68, 2) by every system, photo by photo; infinite for missed faces."""
    points = defaultdict(list)
    boxes = face_boxes(faces, IBUG68)
    rows = zip(faces.paths, boxes, faces.points, strict=True)
    for path, box, label in track(rows, title, len(faces)):
        photo = Photo(path, read_image(path), box, label)
        for name, system in systems.items():
            found = system(photo)
            points[name].append(np.full_like(label, np.inf) if found is None else found)
    return {name: np.array(found, float) for name, found in points.items()}


def corrected(points: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Move points (F, 68, 2) by offsets (68, 2); missed faces stay missed."""
    found = np.isfinite(points).all((1, 2))
    out = points.copy()
    out[found] = moved(points[found], offsets, IBUG68)
    return out


def offsets_of(points: np.ndarray, faces: FaceTable) -> np.ndarray:
    """Fit the offsets (68, 2) from a system's points to the labels, over the faces it finds."""
    found = np.isfinite(points).all((1, 2))
    return convention(points[found], faces.points[found], IBUG68)


def of_the_same_person(faces: FaceTable) -> np.ndarray:
    """Find for each face the nearest shape of another photo of its person, in its own face box.

    This is what a system that remembers shapes, but does not see the image, could reach at best.

    Returns:
        Points (F, 68, 2), infinite for people with one photo.
    """
    boxes = face_boxes(faces, IBUG68)
    x, y, side = (part[:, None] for part in centre_and_side(boxes))  # (F, 1) each
    shapes = (faces.points - np.stack([x, y], -1)) / side[..., None]  # (F, 68, 2)

    points = np.full_like(faces.points, np.inf)
    for i, person in enumerate(faces.identity):
        others = np.flatnonzero((faces.identity == person) & (np.arange(len(faces)) != i))
        if len(others):
            distances = np.linalg.norm(shapes[others] - shapes[i], axis=2).mean(1)
            points[i] = shapes[others[distances.argmin()]] * side[i] + (x[i, 0], y[i, 0])
    return points


def score(points: np.ndarray, faces: FaceTable, offsets: np.ndarray) -> dict[str, float]:
    """Compute the metrics of points (F, 68, 2), raw and corrected by offsets (68, 2)."""
    raw = nme(points, faces.points, IBUG68)
    fitted = nme(corrected(points, offsets), faces.points, IBUG68)
    low, high = (100 * edge for edge in interval(fitted, np.asarray(faces.identity)))
    before, after = summary(raw), summary(fitted)
    return {
        "nme_raw": before["nme"],
        "nme": after["nme"],
        "nme_low": low,
        "nme_high": high,
        "fr10_raw": before["fr10"],
        "fr10": after["fr10"],
        "missed": int(np.isinf(raw).sum()),
    }


def print_table(console: Console, scores: dict[str, dict[str, float]]) -> None:
    """Print the metrics of every system on one set."""
    table = Table("", "NME raw", "NME corrected", "95 %", "FR@10 raw", "FR@10 corrected", "missed")
    for name, metrics in scores.items():
        table.add_row(
            name,
            f"{metrics['nme_raw']:.2f}",
            f"{metrics['nme']:.2f}",
            f"{metrics['nme_low']:.2f} … {metrics['nme_high']:.2f}",
            f"{metrics['fr10_raw']:.1f}",
            f"{metrics['fr10']:.1f}",
            str(metrics["missed"]),
        )
    console.print(table)


def engine_times(
    engine: TorchEngine, ckpt: Path, crops: np.ndarray, rounds: int = 200
) -> dict[str, float]:
    """Measure the median milliseconds from one crop to its points on one thread.

    The engines are torch and, where it is installed, onnxruntime in single precision and in int8.
    """
    engines: dict[str, Engine] = {"points_torch_ms": engine}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name, int8 in (("onnxruntime", False), ("int8", True)):
                file = Path(folder) / f"{name}.onnx"
                export(ckpt, file, crops, int8)
                engines[f"points_{name}_ms"] = OnnxEngine(file, threads=1)
        except FkpError as error:
            print(f"onnxruntime: skipped; {error}", file=sys.stderr)

    times = defaultdict(list)
    for _ in range(rounds):
        for name, run in engines.items():
            began = time.perf_counter()
            run(crops[:1])
            times[name].append(1000 * (time.perf_counter() - began))
    return {name: statistics.median(values) for name, values in times.items()}


def draw_worst(
    points: np.ndarray, faces: FaceTable, out: Path, photos: bool, count: int = 10, tile: int = 224
) -> str:
    """Draw a grid of the faces with the largest errors; return their names and errors.

    Args:
        points: the predictions (F, 68, 2), drawn green; the labels are orange.
        faces: the labelled faces.
        out: the file of the grid.
        photos: draw the photos, too, instead of a dark background.
        count: number of faces.
        tile: side of a tile, pixels.
    """
    errors = 100 * nme(points, faces.points, IBUG68)
    order = np.argsort(-errors)[:count]

    images, found, labels = [], [], []
    for i in order:
        x, y, side = (float(value) for value in centre_and_side(face_box(faces.points[i])))
        to_tile = compose(
            translation(0.8 * side - x, 0.7 * side - y), rescaling(tile / (1.6 * side))
        )
        image = warp(read_image(faces.paths[i]), to_tile, (tile, tile))
        images.append(image if photos else np.full_like(image, 24))
        found.append(apply(to_tile, points[i]))
        labels.append(apply(to_tile, faces.points[i]))

    names = [f"{faces.rows[i]} {errors[i]:.1f}" for i in order]
    write_image(out, visualize_output(images, found, labels, columns=5, side=tile, captions=names))
    return ", ".join(names)


def read_options() -> argparse.Namespace:
    """Read the command line."""
    arguments = parser(__doc__)
    for peer in PEERS:
        arguments.add_argument(f"--{peer}", default=sys.executable, help=f"a Python with {peer}")
    arguments.add_argument("--published", help="a checkpoint of experiment=seed")
    arguments.add_argument(
        "--split", choices=("all", "val"), default="all", help="val: no test face is read"
    )
    arguments.add_argument("--out", help="file for a grid of the ten worst faces of 300w_val")
    arguments.add_argument("--shapes", help="file for the same grid without the photos")
    arguments.add_argument("--faces", type=int, default=500, help="to fit the offsets on")
    return arguments.parse_args()


def read_sets(options: argparse.Namespace) -> tuple[dict[str, FaceTable], dict[str, FaceTable]]:
    """Read the sets to score, and the training faces to fit offsets on.

    With `--split val` the only set is the validation split of 300-W.
    """
    youtube, hand_labelled = (
        source(name, options.data).read() for name in ("youtube_faces", "300w")
    )
    splits, hand_splits = youtube.split("strict"), hand_labelled.split("identity")
    sets = {
        "identity": splits["test"],
        "official": youtube.select(youtube.official == "test"),
        "300w_val": hand_splits["val"],
        "300w_test": hand_splits["test"],
    }
    if options.split == "val":
        sets = {"300w_val": sets["300w_val"]}
    return sets, {"youtube": splits["train"], "300w": hand_splits["train"]}


def headline(
    scores: dict[str, dict[str, dict[str, float]]], times: dict[str, list[float]]
) -> dict[str, float]:
    """Select the metrics that the documentation quotes, by their short names."""
    short: dict[str, float] = {}
    for name, end in (("fkp", ""), ("dlib", "_dlib"), ("mediapipe", "_mediapipe")):
        if name not in times:
            continue
        short |= {
            f"nme_300w_val{end}": scores["300w_val"][name]["nme_raw"],
            f"points{end}_ms": statistics.median(times[name]),
        }
        if "official" not in scores:  # --split val
            continue
        detecting = scores["official"]["fkp_end_to_end" if name == "fkp" else name]
        short |= {
            f"nme_identity{end}": scores["identity"][name]["nme"],
            f"fr10_identity{end}": scores["identity"][name]["fr10"],
            f"nme_official_end_to_end{end}": detecting["nme"],
            f"missed_official{end}": detecting["missed"],
            f"nme_300w_test{end}": scores["300w_test"][name]["nme_raw"],
        }
    return short


def main() -> None:  # noqa: PLR0915
    """Predict by every system, score and print."""
    options = read_options()
    sets, train = read_sets(options)

    # Times are those of one thread.
    torch.set_num_threads(1)

    # The systems.
    fkp = Fkp(options.ckpt)
    times = {"fkp": fkp.times}
    systems: dict[str, System] = {
        "fkp": fkp.in_box,
        "fkp_end_to_end": fkp.end_to_end,
        "fkp_no_box": fkp.no_box,
        "mean_shape": mean_shape(mean_in_box(train["youtube"], IBUG68)),
    }
    if options.published:
        systems["published"] = checkpoint(options.published)
    for name, peer in available({name: getattr(options, name) for name in PEERS}).items():
        times[name] = []
        systems[name] = of_peer(peer, times[name])

    # Fit the offsets of each system to each convention.
    offsets: dict[str, dict[str, np.ndarray]] = {}
    for convention_name, table in train.items():
        fitted_on = some(table, options.faces)
        points = predict(systems, fitted_on, f"fitting on {convention_name}")
        offsets[convention_name] = {
            name: offsets_of(found, fitted_on) for name, found in points.items()
        }

    # Score each set.
    metrics: dict[str, float] = {}
    scores: dict[str, dict[str, dict[str, float]]] = {}
    console = Console(width=120)
    for place, faces in sets.items():
        fkp.tally.clear()
        found = predict(systems, faces, f"scoring {place}")
        found["same_person"] = of_the_same_person(faces)
        fitted = offsets["300w" if place.startswith("300w") else "youtube"]
        scores[place] = {
            name: score(points, faces, fitted.get(name, np.zeros((68, 2))))
            for name, points in found.items()
        }

        metrics |= {f"{place}_{name}": count for name, count in fkp.tally.items()}
        metrics |= {
            f"{place}_{system}_{name}": value
            for system, values in scores[place].items()
            for name, value in values.items()
        }
        console.print(f"{place}: {len(faces)} faces of {len(set(faces.identity))} people")
        print_table(console, scores[place])
        console.print("boxes:", ", ".join(f"{name} {n}" for name, n in fkp.tally.items()))

        for file in (options.out, options.shapes) if place == "300w_val" else ():
            if file:
                photos = file == options.out
                console.print("worst:", draw_worst(found["fkp"], faces, Path(file), photos))

    # The size and speed of the network.
    weights = Path(options.ckpt) if options.ckpt else shipped()
    engine = TorchEngine.load(weights, "cpu")
    steps = engine_times(engine, weights, example_crops(fkp.predictor, None, 16))
    metrics |= {
        "parameters": sum(p.numel() for p in engine.network.parameters()),
        "file_mb": round(weights.stat().st_size / 1e6, 3),
        "step_ms": steps.get("points_int8_ms", steps["points_torch_ms"]),  # as it is shipped
        **steps,
    }
    print(last_line(metrics | headline(scores, times)))


if __name__ == "__main__":
    main()
