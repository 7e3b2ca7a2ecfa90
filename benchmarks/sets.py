"""The real faces that the benchmarks read: youtube_faces and 300w_train in one folder."""

import argparse
import json
import math
import os
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir

from fkp.data.table import FaceTable, Source
from fkp.runs import config

# Where they lie if the command line does not say.
FOLDER = Path(os.environ["FKP_SHARED"], "data") if "FKP_SHARED" in os.environ else Path("data")


def source(name: str, folder: Path = FOLDER, data: str = "joined") -> Source:
    """A real set as `data=joined` (or `real`) `data.root=…` would read it, its own duplicates known."""
    with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base="1.3"):
        return config.build(
            compose("evaluate", [f"data={data}", f"data.root={folder.resolve()}"]).data
        ).sources[name]


def some(faces: FaceTable, count: int) -> FaceTable:
    """At most `count` faces, spread over all."""
    return faces.select(np.unique(np.linspace(0, len(faces) - 1, count).astype(int)))


def parser(doc: str | None) -> argparse.ArgumentParser:
    """What the benchmarks of weights are told: the folder of the sets, and the weights."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("data", type=Path, nargs="?", default=FOLDER)
    made.add_argument("--ckpt", help="other weights than the shipped ones")
    return made


def last_line(figures: dict[str, float], digits: int = 4) -> str:
    """Figures as a line of JSON, which knows no infinity: what is not finite is null."""
    return json.dumps(
        {
            name: round(value, digits) if math.isfinite(value) else None
            for name, value in figures.items()
        }
    )
