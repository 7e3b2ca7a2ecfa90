"""Compare the error of fkp between groups of people: age, gender and race, as UTKFace names them.

    python benchmarks/accuracy/groups.py [path/to/data] [--ckpt best.ckpt]

The faces are those of `data=teachers` from UTKFace (pseudo/utkface below path/to/data): the file
names say age, gender and race, as their publisher estimated them. What the numbers do not say:

- The labels are those of an ensemble of teachers, not of hands. fkp was one of the teachers, and is
  trained on the labels: errors that all teachers share do not show. Compare groups with each other,
  and do not read the numbers as the error on unseen photos.
- Faces on which the teachers disagree most were left out, in some groups more than in others.
  `spread` is the median disagreement of the teachers in the group: where it is large, the labels
  are worse, too.

NME is in percent of the outer-eye distance, in the label's box. The intervals are 95 % bootstrap
intervals over faces, as who is the same person is not known. `gap` is the largest difference
between two groups of at least 100 faces, or of all if there are fewer.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from fkp.runs import command_line

# As the entry scripts do, before torch is imported.
command_line.tune_threads_and_malloc()

from fkp.console import track  # noqa: E402
from fkp.data.image_cache import face_boxes  # noqa: E402
from fkp.data.label_weights import read_spreads  # noqa: E402
from fkp.data.table import FaceTable  # noqa: E402
from fkp.inference.predictor import Predictor  # noqa: E402
from fkp.markup import IBUG68  # noqa: E402
from fkp.metrics import interval, nme  # noqa: E402

# The module that the benchmarks share.
sys.path.insert(0, str(Path(__file__).parents[1]))
from sets import last_line, parser, some, source  # noqa: E402

# [age]_[gender]_[race]_[date&time].jpg; a few names lack a part.
NAME = re.compile(r"(?P<age>\d{1,3})_(?P<gender>[01])_(?P<race>[0-4])_\d+\..+")
GENDERS = ("male", "female")
RACES = ("white", "black", "asian", "indian", "other")
AGES = (0, 6, 13, 20, 40, 60)  # the first year of each group
FEW = 100  # faces of a group that does not count for the gap


class Groups(NamedTuple):
    """The groups of one face."""

    age: str
    gender: str
    race: str


def groups_of(path: Path) -> Groups | None:
    """Read the groups of a face from its file name; None if it does not say them."""
    match = NAME.fullmatch(path.name)
    if match is None:
        return None
    first = max(year for year in AGES if year <= int(match["age"]))
    later = [year for year in AGES if year > first]
    age = f"{first}_to_{later[0] - 1}" if later else f"{first}_and_more"
    return Groups(age, GENDERS[int(match["gender"])], RACES[int(match["race"])])


def errors_of(predictor: Predictor, faces: FaceTable) -> np.ndarray:
    """Compute the NME of each face (F,), percent."""
    boxes = face_boxes(faces, IBUG68)
    found = predictor.stream(iter(faces.paths), iter(boxes[:, None]))
    points = np.stack([face.points for (face,) in track(found, "predicting", len(faces))])
    return 100 * nme(points.astype(float), faces.points, IBUG68)


def spreads_of(faces: FaceTable) -> np.ndarray:
    """Read how far the teachers disagree on each face (F,); NaN where that is not known."""
    file = faces.paths[0].parents[1] / "spread.csv"
    known = read_spreads(file) if file.is_file() else {}
    return np.array([float(known.get(path.name) or "nan") for path in faces.paths])


def compare(
    kind: str, names: np.ndarray, errors: np.ndarray, spreads: np.ndarray
) -> dict[str, float]:
    """Compute and print the metrics of each group of a kind.

    Args:
        kind: `age`, `gender` or `race`.
        names: (F,) the group of each face.
        errors: (F,) NME, percent.
        spreads: (F,) of the teachers.
    """
    ordered = sorted(set(names), key=lambda name: int(re.match(r"\d*", name)[0] or 0))  # type: ignore[index]
    table = Table(kind, "faces", "NME", "95 %", "spread")
    metrics: dict[str, float] = {}
    means: dict[str, tuple[int, float]] = {}
    for name in ordered:
        own = names == name
        count, mean = int(own.sum()), float(errors[own].mean())
        low, high = interval(errors[own], np.arange(count))
        spread = float(np.nanmedian(spreads[own])) if np.isfinite(spreads[own]).any() else np.nan
        means[name] = (count, mean)
        values = {"faces": count, "nme": mean, "nme_low": low, "nme_high": high, "spread": spread}
        metrics |= {f"{kind}_{name}_{end}": value for end, value in values.items()}
        cells = (str(count), f"{mean:.2f}", f"{low:.2f} … {high:.2f}", f"{spread:.2f}")
        table.add_row(name.replace("_", " "), *cells)
    Console(width=100).print(table)

    large = [mean for count, mean in means.values() if count >= FEW]
    compared = large if len(large) > 1 else [mean for _, mean in means.values()]
    return metrics | {f"{kind}_gap": max(compared) - min(compared)}


def main() -> None:
    """Predict, compare the groups and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--faces", type=int, default=10**6, help="number, evenly spaced")
    options = arguments.parse_args()
    every = some(source("utkface", options.data, data="teachers").read(), options.faces)
    groups = [groups_of(path) for path in every.paths]
    faces = every.select(np.array([group is not None for group in groups]))
    named = [group for group in groups if group is not None]

    predictor = Predictor.load(options.ckpt, device="cpu" if options.ckpt else None)
    errors, spreads = errors_of(predictor, faces), spreads_of(faces)
    metrics = {"faces": len(faces), "unnamed": len(every) - len(faces), "nme": errors.mean()}
    for kind in Groups._fields:
        metrics |= compare(kind, np.array([getattr(g, kind) for g in named]), errors, spreads)
    print(last_line(metrics))


if __name__ == "__main__":
    main()
