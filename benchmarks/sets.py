"""Read the real sets of the benchmarks, and define the options that the benchmarks share."""

import argparse
import json
import math
import os
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir

from fkp.data.table import FaceTable, Source, evenly_spaced
from fkp.geometry import face_box, overlap
from fkp.inference.evaluation import SAME_FACE
from fkp.runs import config

# The folder of youtube_faces/ and 300w_train/, if the command line does not name it.
FOLDER = Path(os.environ["FKP_SHARED"], "data") if "FKP_SHARED" in os.environ else Path("data")
CONF = Path(__file__).parents[1] / "conf"


def source(name: str, folder: Path = FOLDER, data: str = "joined") -> Source:
    """Build a real set as `data=joined` with `data.root=FOLDER` does, with its known duplicates."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("evaluate", [f"data={data}", f"data.root={folder.resolve()}"])
    return config.build(cfg.data).sources[name]


def nearest(faces: list[np.ndarray], box: np.ndarray) -> np.ndarray | None:
    """Return the points (K, 2) of the face that lies in a face box; None if there is none."""
    overlaps = [overlap(face_box(points), box) for points in faces]
    best = int(np.argmax(overlaps)) if overlaps else -1
    return faces[best] if overlaps and overlaps[best] >= SAME_FACE else None


def some(faces: FaceTable, count: int) -> FaceTable:
    """Select at most `count` evenly spaced faces."""
    return faces.select(evenly_spaced(len(faces), count))


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Make the command line of a benchmark of weights: the folder of the sets, and the weights."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("data", type=Path, nargs="?", default=FOLDER)
    made.add_argument("--ckpt", help="other weights than the shipped ones")
    return made


def last_line(metrics: dict[str, float], digits: int = 4) -> str:
    """Format metrics as one line of JSON, with null for what is not finite."""
    finite = {
        name: round(value, digits) if math.isfinite(value) else None
        for name, value in metrics.items()
    }
    return json.dumps(finite)
