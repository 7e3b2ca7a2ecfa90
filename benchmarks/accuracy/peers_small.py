"""Compare fkp with small networks on the same hand-labelled faces in one run: error, time, size.

    python benchmarks/accuracy/peers_small.py [path/to/data] [--models path/to/models]
        [--ckpt best.ckpt] [--split val] [--dlib path/to/python] [--mediapipe path/to/python]

The faces are those of 300-W's validation split, in the label's box; `--split test` reads the test
split, which is for the last word alone. The systems are

  fkp, fkp_one_step   the shipped weights as they run: two steps, one step
  ckpt, …             the same of --ckpt, exported in 8 bits as the shipped weights are
  pfld_ghostone       PFLD-GhostOne, 98 points of WFLW (github.com/AnthonyF333/PFLD_GhostOne)
  openseeface         OpenSeeFace's lm0, 66 of the 68 points (github.com/emilianavt/OpenSeeFace)
  mediapipe           FaceMesh, 478 points, which detects the face itself (peers.py)
  dlib                68 points; it was trained on such photos of 300-W, perhaps on these very ones

`raw`: over the points that the system has of the 68, as they are. `ridge`: all 68, through one
linear map of the system's own points, fitted for each system on training faces; this takes out the
conventions of labels. NME is in percent of the outer-eye distance, over the faces that a system
finds; intervals are 95 % bootstrap intervals over people. The times are medians of one step, from a
crop to its points, on one thread, in turns; MediaPipe's is one frame of a video, dlib's includes
its features of the photo.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from fkp.runs import command_line

# As the entry scripts do, before torch is imported.
command_line.tune_threads_and_malloc()

import torch  # noqa: E402

from fkp.console import track  # noqa: E402
from fkp.data.table import FaceTable  # noqa: E402
from fkp.files.images import read_image  # noqa: E402
from fkp.geometry import face_box  # noqa: E402
from fkp.inference.evaluation import example_crops  # noqa: E402
from fkp.inference.onnx_engine import OnnxEngine  # noqa: E402
from fkp.inference.predictor import Predictor  # noqa: E402
from fkp.inference.shipped_ridge import ShippedRidge  # noqa: E402
from fkp.markup import IBUG68  # noqa: E402
from fkp.metrics import interval, nme  # noqa: E402
from fkp.weights import EXPORTED, shipped  # noqa: E402
from fkp.weights.__main__ import ship  # noqa: E402

# The modules that the benchmarks share.
sys.path.insert(0, str(Path(__file__).parents[1]))
from peers import MESH, PEERS, Peer, available, fit_dlib_box  # noqa: E402
from sets import FOLDER, last_line, nearest, parser, some, source  # noqa: E402
from small_networks import System, openseeface, pfld, timed  # noqa: E402

# Systems that were trained on photos of the set, which the picture says.
SEEN = {"dlib": " (trained on such photos)"}


class Ridge(ShippedRidge):
    """Fit a linear map from the points that a system has found.

    Args:
        found: row of a face -> its points (K, 2), IMAGE pixels.
    """

    def __init__(self, found: dict[str, np.ndarray]):
        super().__init__()
        self._found = found


def of_fkp(name: str, file: Path) -> dict[str, System]:
    """Make the systems of an exported file: with two refinement steps, and with one."""
    made, every = {}, list(range(68))
    for steps, end in ((2, ""), (1, "_one_step")):
        predictor = Predictor.load(file, refine_steps=steps)
        predictor.engine = OnnxEngine(file, threads=1)
        crop = example_crops(predictor, None, 1)

        def find(path: Path, label: np.ndarray, own: Predictor = predictor) -> np.ndarray:
            return own(read_image(path), boxes=face_box(label)[None])[0].points

        step = timed(partial(predictor.engine, crop))
        size = file.stat().st_size / 1e6
        made[f"{name}{end}"] = System(find, every, every, step, steps, size)
    return made


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process, and those that it starts meanwhile, on one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def of_dlib(peer: Peer, train: FaceTable) -> System:
    """Make dlib's system: its predictor, in the box that its own detector would have drawn."""
    few = some(train, 200)
    convert = fit_dlib_box(peer, few.paths, few.points)
    ask = {"image": str(few.paths[0]), "box": convert(face_box(few.points[0]))}

    def find(path: Path, label: np.ndarray) -> np.ndarray:
        return np.array(peer(str(path), convert(face_box(label)))["points"][0])

    every = list(range(68))
    return System(find, every, every, lambda: peer(**ask)["points_ms"], 1, peer(**ask)["file_mb"])


def of_mediapipe(mesh: Peer, tracking: Peer, photo: str) -> System:
    """Make MediaPipe's system: it detects, and the face nearest to the label's is taken."""

    def find(path: Path, label: np.ndarray) -> np.ndarray | None:
        faces = [np.array(points) for points in mesh(str(path))["points"]]
        best = nearest([face[MESH] for face in faces], face_box(label))
        return next(
            (face for face in faces if best is not None and (face[MESH] == best).all()), None
        )

    def step() -> float:
        return tracking(photo)["points_ms"]

    return System(find, MESH, list(range(68)), step, 1, mesh(photo)["file_mb"])


def find_all(system: System, faces: FaceTable, title: str) -> dict[str, np.ndarray]:
    """Find the points of faces, by the rows of those that are found."""
    found = {}
    for i in track(range(len(faces)), title, len(faces)):
        points = system.find(faces.paths[i], faces.points[i])
        if points is not None:
            found[faces.rows[i]] = np.asarray(points, float)
    return found


def score(system: System, train: FaceTable, faces: FaceTable, name: str) -> dict[str, float]:
    """Compute the errors of a system on faces, raw and through a map fitted on training faces."""
    found = find_all(system, train, f"{name}: training") | find_all(system, faces, f"{name}: faces")
    fitted_on, seen = (
        table.select(np.array([row in found for row in table.rows])) for table in (train, faces)
    )
    people = np.asarray(seen.identity)

    # Points that the system lacks are not scored raw.
    raw = np.full_like(seen.points, np.nan)
    raw[:, system.of] = np.stack([found[row][system.own] for row in seen.rows])
    through_map = Ridge(found)(fitted_on)(seen)

    metrics: dict[str, float] = {"missed": len(faces) - len(seen), "file_mb": system.file_mb}
    for kind, points in (("raw", raw), ("ridge", through_map)):
        errors = 100 * nme(points, seen.points, IBUG68)
        low, high = interval(errors, people)
        metrics |= {f"nme_{kind}": errors.mean(), f"nme_{kind}_low": low, f"nme_{kind}_high": high}
    return metrics


def step_times(systems: dict[str, System], rounds: int) -> dict[str, float]:
    """Measure the median milliseconds of a step of each system, in turns."""
    times: dict[str, list[float]] = {name: [] for name in systems}
    for number in range(rounds + 5):
        for name, system in systems.items():
            took = system.step()
            if number >= 5:  # the first ones warm up
                times[name].append(took)
    return {name: statistics.median(values) for name, values in times.items()}


def print_table(metrics: dict[str, dict[str, float]]) -> None:
    """Print the metrics of every system."""
    table = Table(
        "", "of the 68", "NME raw", "NME ridge", "95 %", "missed", "step ms", "steps", "MB"
    )
    for name, row in metrics.items():
        table.add_row(
            name,
            f"{row['points']:.0f}",
            f"{row['nme_raw']:.2f}",
            f"{row['nme_ridge']:.2f}",
            f"{row['nme_ridge_low']:.2f} … {row['nme_ridge_high']:.2f}",
            f"{row['missed']:.0f}",
            f"{row['step_ms']:.2f}",
            f"{row['steps']:.0f}",
            f"{row['file_mb']:.2f}",
        )
    Console(width=120).print(table)


def plot(metrics: dict[str, dict[str, float]], out: str) -> None:
    """Plot the error through the map against the time of a face, with intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 4))
    for name, row in metrics.items():
        x, y = row["steps"] * row["step_ms"], row["nme_ridge"]
        reach = [[y - row["nme_ridge_low"]], [row["nme_ridge_high"] - y]]
        colour = "C0" if name.startswith(("fkp", "ckpt")) else "C7"
        filled = "none" if name in SEEN else colour
        axis.errorbar(x, y, reach, fmt="o", color=colour, markerfacecolor=filled)
        text = f"{name}, {row['file_mb']:.1f} MB{SEEN.get(name, '')}"
        axis.annotate(text, (x, y), xytext=(6, 4), textcoords="offset points", fontsize=8)
    axis.set(xlabel="milliseconds a face, one thread", xscale="log", ylabel="NME, %")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("{x:g}")
    axis.margins(x=0.25)
    axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(out, dpi=100)


def read_options() -> argparse.Namespace:
    """Read the command line."""
    arguments = parser(__doc__)
    for peer in PEERS:
        arguments.add_argument(f"--{peer}", default=sys.executable, help=f"a Python with {peer}")
    models = FOLDER.parent / "models"
    arguments.add_argument("--models", type=Path, default=models, help="the peers' ONNX files")
    arguments.add_argument("--split", choices=("val", "test"), default="val")
    arguments.add_argument("--faces", type=int, default=10**6, help="to score, at most")
    arguments.add_argument("--fit", type=int, default=10**6, help="training faces, at most")
    arguments.add_argument("--rounds", type=int, default=300, help="of the times")
    arguments.add_argument("--out", help="file for the picture: NME against milliseconds")
    return arguments.parse_args()


def make_systems(options: argparse.Namespace, train: FaceTable, folder: Path) -> dict[str, System]:
    """Load fkp and the peers that are there; the weights of --ckpt are exported to a folder."""
    systems = of_fkp("fkp", shipped(EXPORTED))
    if options.ckpt:
        exported = ship(Path(options.ckpt), folder / "candidate.ckpt").with_suffix(".onnx")
        systems |= of_fkp("ckpt", exported)
    for name, file, make in (
        ("pfld_ghostone", "pfld_ghostone_98.onnx", pfld),
        ("openseeface", "openseeface_lm0_66.onnx", openseeface),
    ):
        if (options.models / file).is_file():
            systems[name] = make(options.models / file)
        else:
            print(f"{name}: skipped; no {options.models / file}; see --models", file=sys.stderr)

    meshes = ("mediapipe_mesh", "mediapipe_tracking")
    with one_core():
        peers = available({"dlib": options.dlib} | dict.fromkeys(meshes, options.mediapipe))
    if all(name in peers for name in meshes):
        mesh, tracking = (peers[name] for name in meshes)
        systems["mediapipe"] = of_mediapipe(mesh, tracking, str(train.paths[0]))
    if "dlib" in peers:
        systems["dlib"] = of_dlib(peers["dlib"], train)
    return systems


def main() -> None:
    """Score and time every system, and print."""
    options = read_options()
    splits = source("300w", options.data).read().split("identity")
    faces, train = some(splits[options.split], options.faces), some(splits["train"], options.fit)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        systems = make_systems(options, train, Path(folder))

    # Errors, then times.
    metrics = {name: score(system, train, faces, name) for name, system in systems.items()}
    for name, took in step_times(systems, options.rounds).items():
        counts = {"points": len(systems[name].own), "steps": systems[name].steps}
        metrics[name] |= {"step_ms": took, **counts}

    print(f"300-W, {options.split}: {len(faces)} faces, maps fitted on {len(train)}")
    print_table(metrics)
    if options.out:
        plot(metrics, options.out)
    flat = {f"{name}_{key}": value for name, row in metrics.items() for key, value in row.items()}
    print(last_line({"faces": len(faces), "fitted_on": len(train), **flat}))


if __name__ == "__main__":
    main()
