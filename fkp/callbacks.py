"""What watches a training: sheets of faces, and the mean shape as the baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BackboneFinetuning, RichProgressBar
from pytorch_lightning.strategies import DDPStrategy
from torchmetrics import MeanMetric

from fkp.draw import as_image, visualize_output
from fkp.files.images import write_image
from fkp.files.reading import safe_cell
from fkp.geometry import apply
from fkp.metrics import nme
from fkp.module import KeypointModule, to_crop_space


class Progress(RichProgressBar):
    """Lightning's progress bar, without the number of the logger's version, which is always 0."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """What stands beside the bar."""
        return {
            name: value
            for name, value in super().get_metrics(trainer, pl_module).items()
            if name != "v_num"
        }


class FaceGrids(pl.Callback):
    """Predicted (green) and true (orange) points on validation faces at the first, a middle and the last epoch, in
    TensorBoard; and on test faces as a picture in the run's folder.

    Args:
        count: faces on a sheet.
        file: where the sheet of test faces is written.
    """

    def __init__(self, file: str, count: int = 12):
        self.file, self.count = Path(file), count

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: KeypointModule) -> None:  # type: ignore[override]
        """Log a sheet if the epoch is one of the three."""
        last = (trainer.max_epochs or 1) - 1
        shown = trainer.current_epoch in {0, last // 2, last} and trainer.is_global_zero
        if (
            shown
            and isinstance(trainer.logger, pl.loggers.TensorBoardLogger)
            and not trainer.sanity_checking
        ):
            sheet = self.sheet(trainer, module, "val")
            trainer.logger.experiment.add_image(
                "val/faces", sheet, trainer.global_step - 1, dataformats="HWC"
            )

    def on_test_end(self, trainer: pl.Trainer, module: KeypointModule) -> None:  # type: ignore[override]
        """Write the sheet of test faces."""
        if trainer.is_global_zero:
            write_image(self.file, self.sheet(trainer, module, "test"))

    def sheet(self, trainer: pl.Trainer, module: KeypointModule, part: str) -> np.ndarray:
        """RGB uint8 sheet of `count` faces spread over a part."""
        dataset = trainer.datamodule.splits[part]  # type: ignore[attr-defined]
        chosen = np.unique(np.linspace(0, len(dataset) - 1, self.count).astype(int))
        items = [dataset[int(i)] for i in chosen]
        images = torch.stack([item["image"] for item in items])
        training = module.training
        module.eval()
        with torch.no_grad():
            points = module(images.to(module.device)).cpu().numpy()
        module.train(training)
        labels = [apply(item["to_crop"], item["points"]) for item in items]
        return visualize_output(
            [as_image(image) for image in images], points, labels, markup=module.markup
        )


class ValidationFaces(pl.Callback):
    """The NME of each validation face, by the weights that were tested, as a table: what trainings are compared by.

    Args:
        file: the table: face, identity, nme in percent.
    """

    def __init__(self, file: str):
        self.file = Path(file)

    def on_test_end(self, trainer: pl.Trainer, module: KeypointModule) -> None:  # type: ignore[override]
        """Write it."""
        if not trainer.is_global_zero:
            return
        dataset, errors = trainer.datamodule.splits["val"], []  # type: ignore[attr-defined]
        for faces in np.array_split(np.arange(len(dataset)), -(-len(dataset) // 64)):
            batch = {
                name: part.to(module.device)
                for name, part in dataset.__getitems__(faces.tolist()).items()
            }
            batch = dataset.finish(batch)
            with torch.no_grad():
                found, label = module(batch["image"]), module.label(batch)
            errors.append(100 * nme(found, label, module.markup, batch["side"]).cpu().numpy())
        names = [safe_cell(Path(row).name) for row in dataset.table.rows]
        table = {"face": names, "identity": dataset.table.identity, "nme": np.concatenate(errors)}
        pd.DataFrame(table).to_csv(self.file, index=False, float_format="%.4f")


class Release(BackboneFinetuning):
    """Lightning's BackboneFinetuning, whose resumed run goes on as an unbroken one: a backbone that had been released
    when the checkpoint was written is released again, where Lightning 2.6 leaves it frozen. And several processes then
    share what they learn of it, too: DDP never hears of weights that are frozen when it begins."""

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Restore the parameter groups, and what they train."""
        super().on_fit_start(trainer, module)
        if any(len(groups) > 1 for groups in self._internal_optimizer_metadata.values()):
            self.make_trainable(module.backbone)
            _share_all(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Freeze or release, as Lightning does."""
        super().on_train_epoch_start(trainer, module)
        if trainer.current_epoch == self.unfreeze_backbone_at_epoch:
            _share_all(trainer)


def _share_all(trainer: pl.Trainer) -> None:
    if isinstance(strategy := trainer.strategy, DDPStrategy):
        strategy.model = trainer.lightning_module
        strategy.configure_ddp()


class MeanShape(pl.Callback):
    """The baseline without a network: NME of the mean training face on test crops, logged as test/nme_mean_shape."""

    def on_test_start(self, trainer: pl.Trainer, module: KeypointModule) -> None:  # type: ignore[override]
        """The mean face."""
        self.errors = MeanMetric("ignore").to(module.device)
        mean = trainer.datamodule.mean_points()  # type: ignore[attr-defined]
        self.mean = torch.as_tensor(mean, dtype=torch.float32, device=module.device)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        module: KeypointModule,  # type: ignore[override]
        outputs: Any,
        batch: dict[str, torch.Tensor],
        batch_index: int,
        dataloader_index: int = 0,
    ) -> None:
        """Compare it with the labels."""
        label = to_crop_space(batch["points"], batch["to_crop"])
        self.errors.update(
            100 * nme(self.mean.expand_as(label), label, module.markup, batch["side"])
        )

    def on_test_epoch_end(self, trainer: pl.Trainer, module: KeypointModule) -> None:  # type: ignore[override]
        """Log it."""
        module.log("test/nme_mean_shape", self.errors.compute(), sync_dist=True)
