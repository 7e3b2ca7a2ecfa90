"""Callbacks that report on a training: grids of faces, errors per face, and a baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BackboneFinetuning, RichProgressBar
from pytorch_lightning.strategies import DDPStrategy
from torchmetrics import MeanMetric

from fkp.data.dataset import Batch, FacialKeypointsDataset
from fkp.data.table import evenly_spaced
from fkp.draw import as_image, visualize_output
from fkp.files.images import write_image
from fkp.files.reading import safe_cell
from fkp.geometry import apply
from fkp.metrics import nme
from fkp.module import KeypointModule, data_of, to_crop_space

# Faces that the network sees at once when it is evaluated outside of Lightning's loops.
BATCH_SIZE = 64
# Epochs whose progress bars stay on the console.
LINES = 100


class Progress(RichProgressBar):
    """Show Lightning's progress bar without the logger's version number, which is always 0.

    Of more than 100 epochs, which are then short ones, only the current one keeps its line.
    """

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the bar."""
        self._leave = self._leave and (trainer.max_epochs or 0) <= LINES
        super().on_train_start(trainer, module)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Return the metrics beside the bar."""
        metrics = super().get_metrics(trainer, pl_module)
        return {name: value for name, value in metrics.items() if name != "v_num"}


class FaceGrids(pl.Callback):
    """Draw predicted (green) and labelled (orange) points on a grid of face crops.

    Validation faces go to TensorBoard in the first, a middle and the last epoch; test faces go to
    an image file.

    Args:
        file: the image of test faces.
        count: faces on a grid.
    """

    def __init__(self, file: str, count: int = 12):
        self.file, self.count = Path(file), count

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Log a grid if the epoch is one of the three."""
        logger = trainer.logger
        if not isinstance(logger, pl.loggers.TensorBoardLogger):
            return
        if not trainer.is_global_zero or trainer.sanity_checking:
            return

        last = (trainer.max_epochs or 1) - 1
        if trainer.current_epoch in {0, last // 2, last}:
            grid = self.grid(data_of(trainer).splits["val"], _keypoints(module))
            logger.experiment.add_image(
                "val/faces", grid, trainer.global_step - 1, dataformats="HWC"
            )

    def on_test_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Write the grid of test faces."""
        if trainer.is_global_zero:
            grid = self.grid(data_of(trainer).splits["test"], _keypoints(module))
            write_image(self.file, grid)

    def grid(self, dataset: FacialKeypointsDataset, module: KeypointModule) -> np.ndarray:
        """Draw `count` faces, spread evenly over a data set, as an RGB (H, W, 3) uint8 image."""
        chosen = evenly_spaced(len(dataset), self.count)
        items = [dataset[int(face)] for face in chosen]
        images = torch.stack([item["image"] for item in items])  # (B, C, h, w)

        # Predict in evaluation mode, and return to the mode of before.
        training = module.training
        module.eval()
        with torch.no_grad():
            points = module(images.to(module.device)).cpu().numpy()  # (B, K, 2)
        module.train(training)

        labels = [apply(item["to_crop"], item["points"]) for item in items]
        crops = [as_image(image) for image in images]
        return visualize_output(crops, points, labels, markup=module.markup)


def face_errors(dataset: FacialKeypointsDataset, module: KeypointModule) -> np.ndarray:
    """Compute the NME of each face of a dataset, (F,), percent; module: in evaluation mode."""
    errors = []
    batches = -(-len(dataset) // BATCH_SIZE)
    for faces in np.array_split(np.arange(len(dataset)), batches):
        cached = dataset.__getitems__(faces.tolist())
        batch = dataset.finish(module.transfer_batch_to_device(cached, module.device, 0))
        with torch.no_grad():
            points, label = module(batch["image"]), module.label(batch)  # (B, K, 2)
        errors.append(100 * nme(points, label, module.markup, batch["side"]).cpu().numpy())
    return np.concatenate(errors)


class ValidationFaces(pl.Callback):
    """Write the NME of each validation face as a table, by which runs are compared.

    The weights are those that were tested.

    Args:
        file: CSV with the columns face, identity and nme (percent).
    """

    split = "val"

    def __init__(self, file: str):
        self.file = Path(file)

    def on_test_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Write the table."""
        if not trainer.is_global_zero:
            return
        dataset = data_of(trainer).splits[self.split]
        errors = face_errors(dataset, _keypoints(module))

        names = [safe_cell(Path(row).name) for row in dataset.table.rows]
        table = {"face": names, "identity": dataset.table.identity, "nme": errors}
        pd.DataFrame(table).to_csv(self.file, index=False, float_format="%.4f")


class TestFaces(ValidationFaces):
    """Write the NME of each test face as a table, from which a cross-validation is pooled."""

    __test__ = False  # for pytest, which takes it for a test

    split = "test"


class BackboneRelease(BackboneFinetuning):
    """Freeze the backbone, and release it after some epochs, also in resumed and in DDP runs.

    Lightning 2.6 leaves a backbone frozen if the run is resumed after its release; here it is
    released again. And DDP ignores weights that are frozen when it starts; here it is set up again
    after the release, so that all processes average the backbone's gradients.
    """

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Restore the parameter groups, and release the backbone if it had been released."""
        super().on_fit_start(trainer, module)
        if any(len(groups) > 1 for groups in self._internal_optimizer_metadata.values()):
            self.make_trainable(_keypoints(module).backbone)
            _configure_ddp(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Release the backbone in its epoch."""
        super().on_train_epoch_start(trainer, module)
        if trainer.current_epoch == self.unfreeze_backbone_at_epoch:
            _configure_ddp(trainer)


def _configure_ddp(trainer: pl.Trainer) -> None:
    """Wrap the module in DDP anew, so that it averages the gradients of all weights."""
    if isinstance(strategy := trainer.strategy, DDPStrategy):
        strategy.model = trainer.lightning_module
        strategy.configure_ddp()


class MeanShapeBaseline(pl.Callback):
    """Log the NME of the mean training face on test crops as test/nme_mean_shape.

    This is the baseline without a network.
    """

    def on_test_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Compute the mean face."""
        self.errors = MeanMetric("ignore").to(module.device)
        mean = data_of(trainer).mean_points()  # (K, 2)
        self.mean = torch.as_tensor(mean, dtype=torch.float32, device=module.device)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_index: int,
        dataloader_index: int = 0,
    ) -> None:
        """Compare the mean face with the labels."""
        label = to_crop_space(batch["points"], batch["to_crop"])  # (B, K, 2)
        mean = self.mean.expand_as(label)
        self.errors.update(100 * nme(mean, label, _keypoints(module).markup, batch["side"]))

    def on_test_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Log the mean over faces."""
        module.log("test/nme_mean_shape", self.errors.compute(), sync_dist=True)


def _keypoints(module: pl.LightningModule) -> KeypointModule:
    """Return the module as what it is, for its types."""
    return cast(KeypointModule, module)
