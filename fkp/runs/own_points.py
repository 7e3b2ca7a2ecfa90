"""Fit a map to the user's own points, say how accurate it is on new people, and finetune it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from fkp import own_points
from fkp.calibration import WITHIN, calibrate
from fkp.callbacks import face_errors
from fkp.console import print_line
from fkp.data.folds import dealt
from fkp.data.table import evenly_spaced, label_sums
from fkp.draw import as_image, visualize_output
from fkp.errors import FkpError
from fkp.files.images import write_image
from fkp.files.reading import safe_cell
from fkp.geometry import apply
from fkp.markup import Markup
from fkp.metrics import summary
from fkp.point_map import PointMap
from fkp.runs import checkpoints, results, sweeps
from fkp.runs.provenance import CHECKPOINT, LAST

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from fkp.data.datamodule import FacesDataModule
    from fkp.data.dataset import FacialKeypointsDataset
    from fkp.module import KeypointModule
    from fkp.runs.provenance import Run

# Fewer faces than this determine no map, and cannot tell how good it is.
FEWEST = 10
# A finetuned network is kept if its NME is at most this fraction of the map's: a few faces that are
# left out are a coarse judge, and the map can still be fitted to all faces.
CLEARLY = 0.97
# Faces on the image of predictions.
DRAWN = 12
OUT_OF_FOLD = "out_of_fold.csv"


def fits(module: KeypointModule) -> bool:
    """Return whether the network of a module is fitted in closed form."""
    return isinstance(module.network, PointMap)


def fit_and_test(
    trainer: pl.Trainer, module: KeypointModule, data: FacesDataModule, run: Run
) -> dict[str, float]:
    """Fit the map, finetune it if epochs are asked for, and keep the better one.

    Without test faces of its own (the publisher's, or a fold), a set is used whole: each face is
    predicted by a map that was fitted without this person, which scores all of them, and the map
    that is kept is fitted to all of them.

    Returns:
        metrics, percent, by their logged names: `cv/…` of this cross-validation, `test/…` of test
        faces.

    Raises:
        FkpError: too few faces, or several processes.
    """
    if trainer.world_size > 1:
        what = "the map of experiment=own_points is fitted by one process; set trainer.devices=1"
        raise FkpError(what, key="trainer.devices")
    used = ["train"] if data.train_faces else ["train", "val"]
    count = sum(len(data.splits[name]) for name in used)
    if count < FEWEST:
        raise FkpError(f"{count} faces are too few for own points; label at least {FEWEST}")
    faces = data.select(np.arange(count))
    labelled = np.isfinite(faces.table.points).all(2).any(0)
    if not labelled.all():
        name = module.markup.points[int(labelled.argmin())]
        what = f"the point {name} is labelled in no face; label it, or leave it out of the markup"
        raise FkpError(what, key="data.markup")

    metrics = _finetuned(trainer, module, data, faces, run) if trainer.max_epochs else {}
    if not metrics:
        metrics = _fitted(module, data, faces, run.folder)
        trainer.strategy.connect(module)
        for name in (LAST, CHECKPOINT):
            trainer.save_checkpoint(run.folder / name, weights_only=False)

    if len(data.splits["test"]):
        (tested,) = trainer.test(module, data, run.folder / CHECKPOINT, False, weights_only=True)
        metrics |= tested
    return metrics


def _fitted(
    module: KeypointModule, data: FacesDataModule, faces: FacialKeypointsDataset, folder: Path
) -> dict[str, float]:
    """Fit the map to faces, and write what the cross-validation says of each."""
    assert isinstance(module.network, PointMap)
    network = module.network.eval()
    chosen = evenly_spaced(len(faces), own_points.MOST_FACES)
    if len(chosen) < len(faces):
        print_line(f"own points  the map is fitted to {len(chosen)} of {len(faces)} faces")
        faces = data.select(chosen)

    fitted = own_points.fit(network, faces, module.markup)
    known = torch.isfinite(fitted.errors)
    module.codec.calibration = calibrate(fitted.spread[known], fitted.errors[known] < WITHIN)
    module.untrained = False
    assert module.recipe is not None
    module.recipe = replace(module.recipe, trained_on=tuple(label_sums(faces.table.points)))

    nme = fitted.errors.nanmean(1)
    names = [safe_cell(Path(row).name) for row in faces.table.rows]
    table = pd.DataFrame({"face": names, "identity": faces.table.identity, "nme": 100 * nme})
    table.to_csv(folder / OUT_OF_FOLD, index=False, float_format="%.4f")
    _draw(folder / results.TEST_FACES, faces, fitted.points, module.markup)

    metrics = {f"cv/{name}": value for name, value in summary(nme).items()}
    return metrics | {sweeps.VALUE: metrics["cv/nme"], "cv/faces": len(faces)}


def _finetuned(
    trainer: pl.Trainer,
    module: KeypointModule,
    data: FacesDataModule,
    faces: FacialKeypointsDataset,
    run: Run,
) -> dict[str, float]:
    """Finetune the map of four fifths of the people, and compare both on the others.

    Returns:
        metrics, if the finetuned network is the better one, which is then kept; else none.
    """
    from fkp.runs import resume

    # One fold is validated on; the map and the finetuning see the others alone.
    people = list(faces.table.identity)
    fold = dealt(people, min(own_points.FOLDS, len(set(people))))
    data.splits = data.splits | {
        "train": data.select(np.flatnonzero(fold > 0)),
        "val": data.select(np.flatnonzero(fold == 0)),
    }
    _fitted(module, data, data.splits["train"], run.folder)
    state = deepcopy(module.network.state_dict())
    before = float(np.nanmean(face_errors(data.splits["val"], module.eval())))

    with resume.readable_errors(run.last):
        trainer.fit(module, data, ckpt_path=run.checkpoint, weights_only=True)
    _, after = checkpoints.keep_best(trainer, run.folder)
    better = after < CLEARLY * before
    print_line(
        f"own points  NME on the {len(data.splits['val'])} faces left out: {before:.2f} by the map,"
        f" {after:.2f} finetuned; {'the finetuned network' if better else 'the map'} is kept"
    )
    if not better:
        module.network.load_state_dict(state)
    compared = {"val/nme_map": before, "val/nme_finetuned": after}
    return compared | {sweeps.VALUE: after} if better else {}


def _draw(file: Path, faces: FacialKeypointsDataset, points: torch.Tensor, markup: Markup) -> None:
    """Draw some faces with their labels, and with points (F, K, 2), CROP pixels."""
    chosen = evenly_spaced(len(faces), DRAWN)
    items = [faces[int(face)] for face in chosen]
    labels = [apply(item["to_crop"], item["points"]) for item in items]
    images = [as_image(item["image"]) for item in items]
    write_image(file, visualize_output(images, list(points[chosen].numpy()), labels, markup=markup))
