"""How far from the labels: fkp, dlib, MediaPipe and what needs no network, on the same photos, in one run.

    python benchmarks/accuracy/accuracy.py [path/to/data] [--dlib path/to/python] [--mediapipe path/to/python]

reads youtube_faces and 300w_train below path/to/data ($FKP_SHARED/data, or data, if not given) and scores
  identity     youtube_faces, people never seen in training
  official     youtube_faces, the publisher's 770 test rows: people seen, in other frames
  300w_val     300-W's photos of the validation part, by which settings were chosen
  300w_test    and of the test part
Percent of the outer-eye distance. `raw`: as it is. `corrected`: one offset a point, in the frame of the eye line,
fitted for each system on 500 training faces, is taken out. A missed face is a failure in FR@10 and has no NME.
Intervals: 95 %, people drawn with replacement. `fkp` looks into the label's face box, `fkp_end_to_end` and the peers at
the whole photo with detectors of their own, `fkp_no_box` into its middle, three times over. The peers (peers.py) are
optional; dlib's predictor was trained on iBUG 300-W, so it has seen these.

    --ckpt …        other weights than the shipped ones      --published …   a checkpoint of experiment=seed
    --faces 500     to fit the offsets on                    --out …         a sheet of the ten worst faces of 300w_val
                                                             --shapes …      the same without the photos
"""

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

command_line.tune_threads_and_malloc()  # as the scripts do, before torch comes

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

sys.path.insert(0, str(Path(__file__).parents[1]))  # what benchmarks share
from peers import PEERS, available  # noqa: E402
from sets import last_line, nearest, parser, some, source  # noqa: E402


class Photo(NamedTuple):
    """A labelled face, where it lies."""

    path: Path
    image: np.ndarray
    box: np.ndarray
    label: np.ndarray


System = Callable[[Photo], np.ndarray | None]


def answers(systems: dict[str, System], faces: FaceTable, title: str) -> dict[str, np.ndarray]:
    """(F, 68, 2) of every system, each photo by each in turn; infinite where a face is missed."""
    points = defaultdict(list)
    boxes = face_boxes(faces, IBUG68)
    for path, box, label in track(
        zip(faces.paths, boxes, faces.points, strict=True), title, len(faces)
    ):
        photo = Photo(path, read_image(path), box, label)
        for name, system in systems.items():
            found = system(photo)
            points[name].append(np.full_like(label, np.inf) if found is None else found)
    return {name: np.array(found, float) for name, found in points.items()}


def corrected(points: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Points moved by the offsets, missed faces left missed."""
    found = np.isfinite(points).all((1, 2))
    out = points.copy()
    out[found] = moved(points[found], offsets, IBUG68)
    return out


def offsets_of(points: np.ndarray, faces: FaceTable) -> np.ndarray:
    """(68, 2): how the labels differ from what a system finds, over the faces that it finds."""
    found = np.isfinite(points).all((1, 2))
    return convention(points[found], faces.points[found], IBUG68)


def of_the_same_person(faces: FaceTable) -> np.ndarray:
    """(F, 68, 2): for each face the nearest shape of another photo of its person, put into its label's face box. What a
    memory of shapes without eyes would answer; infinite for people with one photo."""
    boxes = face_boxes(faces, IBUG68)
    x, y, side = (part[:, None] for part in centre_and_side(boxes))
    shapes = (faces.points - np.stack([x, y], -1)) / side[..., None]
    answer = np.full_like(faces.points, np.inf)
    for i, person in enumerate(faces.identity):
        others = np.flatnonzero((faces.identity == person) & (np.arange(len(faces)) != i))
        if len(others):
            best = others[np.linalg.norm(shapes[others] - shapes[i], axis=2).mean(1).argmin()]
            answer[i] = shapes[best] * side[i] + (x[i, 0], y[i, 0])
    return answer


def main() -> None:
    """Score and print."""
    arguments = parser(__doc__)
    for peer in PEERS:
        arguments.add_argument(f"--{peer}", default=sys.executable)
    for option in ("--published", "--out", "--shapes"):
        arguments.add_argument(option)
    arguments.add_argument("--faces", type=int, default=500)
    told = arguments.parse_args()
    torch.set_num_threads(1)  # what is timed is timed on one thread

    device = (
        "cpu" if told.ckpt else None
    )  # the shipped weights as they come: exported, in whole numbers
    predictor = Predictor.load(told.ckpt, device=device)
    keen = Predictor.load(told.ckpt, device=device, min_confidence=0)
    thrice = Predictor.load(told.ckpt, device=device, refine_steps=3)
    youtube, hand_made = (source(name, told.data).read() for name in ("youtube_faces", "300w"))
    parts, hand_parts = youtube.split("strict"), hand_made.split("identity")
    sets = {
        "identity": parts["test"],
        "official": youtube.select(youtube.official == "test"),
        "300w_val": hand_parts["val"],
        "300w_test": hand_parts["test"],
    }
    fitted_on = {
        "youtube": some(parts["train"], told.faces),
        "300w": some(hand_parts["train"], told.faces),
    }
    mean = mean_in_box(parts["train"], IBUG68)
    times: dict[str, list[float]] = defaultdict(list)
    tally: Counter[str] = Counter()  # of the detector's boxes

    def ours(photo: Photo) -> np.ndarray:
        began = time.perf_counter()
        (face,) = predictor(photo.image, boxes=photo.box[None])
        times["fkp"].append(1000 * (time.perf_counter() - began))
        return face.points

    def end_to_end(photo: Photo) -> np.ndarray | None:
        faces = keen(photo.image)
        sure = [face for face in faces if face.confidence.mean() >= predictor.min_confidence]
        for name, some_faces in (("_unfiltered", faces), ("", sure)):
            right = [overlap(face.box, photo.box) >= SAME_FACE for face in some_faces]
            tally[f"missed_boxes{name}"] += not any(right)
            tally[f"false_boxes{name}"] += right.count(False)
        return nearest([face.points for face in sure], photo.box)

    def no_box(photo: Photo) -> np.ndarray:
        # A median training picture is two face boxes wide, its middle a little below the face's (boxes.py).
        height, width = photo.image.shape[:2]
        side = min(height, width) / 2
        box = square(width / 2 - 0.5, height / 2 - 0.5 - 0.05 * side, side)
        return thrice(photo.image, boxes=box[None])[0].points

    def mean_shape(photo: Photo) -> np.ndarray:
        x, y, side = centre_and_side(photo.box)
        return mean * side + (x, y)

    systems: dict[str, System] = {"fkp": ours, "fkp_end_to_end": end_to_end, "fkp_no_box": no_box}
    systems["mean_shape"] = mean_shape
    if told.published:
        published = Predictor.load(told.published, device="cpu")
        systems["published"] = lambda photo: published(photo.image, boxes=photo.box[None])[0].points
    peers = available({name: getattr(told, name) for name in PEERS})
    for name in peers:

        def theirs(photo: Photo, name: str = name) -> np.ndarray | None:
            answer = peers[name](str(photo.path))
            times[name].append(answer["points_ms"])
            return nearest([np.array(points) for points in answer["points"]], photo.box)

        systems[name] = theirs

    learnt = {
        name: answers(systems, faces, f"fitting on {name}") for name, faces in fitted_on.items()
    }
    offsets = {
        (place, name): offsets_of(points, fitted_on[place])
        for place, of in learnt.items()
        for name, points in of.items()
    }
    figures: dict[str, float] = {}
    console = Console(width=120)
    for place, faces in sets.items():
        table = Table(
            "", "NME raw", "NME corrected", "95 %", "FR@10 raw", "FR@10 corrected", "missed"
        )
        tally.clear()
        found = answers(systems, faces, f"scoring {place}") | {
            "same_person": of_the_same_person(faces)
        }
        figures |= {f"{place}_{name}": count for name, count in tally.items()}
        for name, points in found.items():
            fit = offsets.get(
                ("300w" if place.startswith("300w") else "youtube", name), np.zeros((68, 2))
            )
            raw, right = (nme(p, faces.points, IBUG68) for p in (points, corrected(points, fit)))
            low, high = (100 * edge for edge in interval(right, faces.identity))
            before, after, missed = summary(raw), summary(right), int(np.isinf(raw).sum())
            table.add_row(
                name,
                *(f"{value:.2f}" for value in (before["nme"], after["nme"])),
                f"{low:.2f} … {high:.2f}",
                *(f"{value:.1f}" for value in (before["fr10"], after["fr10"])),
                str(missed),
            )
            figures |= {
                f"{place}_{name}_nme_raw": before["nme"],
                f"{place}_{name}_nme": after["nme"],
                f"{place}_{name}_nme_low": low,
                f"{place}_{name}_nme_high": high,
                f"{place}_{name}_fr10_raw": before["fr10"],
                f"{place}_{name}_fr10": after["fr10"],
                f"{place}_{name}_missed": missed,
            }
        console.print(f"{place}: {len(faces)} faces of {len(set(faces.identity))} people")
        console.print(table)
        console.print("boxes:", ", ".join(f"{name} {count}" for name, count in tally.items()))
        for file in (told.out, told.shapes) if place == "300w_val" else ():
            if file:
                console.print(
                    "worst:", worst(found["fkp"], faces, Path(file), photos=file == told.out)
                )
    weights = Path(told.ckpt) if told.ckpt else shipped()
    engine = TorchEngine.load(weights, "cpu")
    short = {
        "parameters": sum(p.numel() for p in engine.network.parameters()),
        "file_mb": round(weights.stat().st_size / 1e6, 3),
        **engine_times(engine, weights, example_crops(predictor, None, 16)),
    }
    for name, end in (("fkp", ""), ("dlib", "_dlib"), ("mediapipe", "_mediapipe")):
        if name in systems:
            detecting = "fkp_end_to_end" if name == "fkp" else name
            short |= {
                f"nme_identity{end}": figures[f"identity_{name}_nme"],
                f"fr10_identity{end}": figures[f"identity_{name}_fr10"],
                f"nme_official_end_to_end{end}": figures[f"official_{detecting}_nme"],
                f"missed_official{end}": figures[f"official_{detecting}_missed"],
                f"nme_300w_val{end}": figures[f"300w_val_{name}_nme_raw"],
                f"points{end}_ms": statistics.median(times[name]),
            }
    print(last_line(figures | short))


def engine_times(
    engine: TorchEngine, ckpt: Path, crops: np.ndarray, rounds: int = 200
) -> dict[str, float]:
    """Median ms from one crop to its points on one thread, by torch, and by onnxruntime where that is installed, in
    single precision and in whole numbers."""
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


def worst(
    points: np.ndarray, faces: FaceTable, out: Path, photos: bool, count: int = 10, tile: int = 224
) -> str:
    """Draw the faces with the largest errors, found green and true orange, and name them."""
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


if __name__ == "__main__":
    main()
