"""Render a data set of synthetic faces: the default, which needs no download."""

from __future__ import annotations

import os
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from fkp import painter
from fkp.console import track
from fkp.data.labelled_csv import LabelledCsv, write_csv
from fkp.data.table import FaceTable, Fault
from fkp.errors import FkpError
from fkp.files.cache import cache_folder, fingerprint
from fkp.files.images import write_image
from fkp.files.reading import read_bytes


class Synthetic(LabelledCsv):
    """Rendered faces with 68 exact points, written once, in the published CSV layout.

    Args:
        count: number of faces; each is a person of its own.
        seed: the same seed and index give the same face, whatever the count.
        root: folder of the set; None for a folder in fkp's cache with a name of its own for each
            renderer, seed and count.
        workers: processes that render; None for one a core.
        folds, fold: number of folds of a cross-validation by person, and the one that is tested on,
            see `Source`.
    """

    def __init__(
        self,
        count: int = 3000,
        seed: int = 0,
        root: str | None = None,
        workers: int | None = None,
        folds: int | None = None,
        fold: int | Literal["all"] | None = None,
    ):
        # The fingerprint of the renderer's files: another renderer, another set.
        folder = Path(str(painter.__file__)).parent
        files = sorted(path for path in folder.iterdir() if path.suffix in (".py", ".json"))
        renderer = fingerprint(*(path.read_bytes() for path in files))
        self.name = f"synthetic-{renderer}-{seed}-{count}"

        super().__init__(str(root or cache_folder() / self.name), folds=folds, fold=fold)
        self.count, self.seed, self.workers = count, seed, workers or os.cpu_count() or 1

    def survey(self) -> tuple[FaceTable, list[Fault]]:
        """Render the faces if they are missing, and read them.

        Raises:
            FkpError: the folder holds another set.
        """
        note = self.root / "NAME"
        if not self.root.exists():
            self._render()
        elif not note.is_file() or read_bytes(note, 1000) != self.name.encode():
            raise FkpError(
                f"{self.root}: holds something else than {self.name}; set another data.root, or "
                "data.root=null"
            )
        return super().survey()

    def _render(self) -> None:
        """Render into a temporary folder and rename it: a killed run leaves no half set behind."""
        self.root.parent.mkdir(parents=True, exist_ok=True)
        half = Path(tempfile.mkdtemp(prefix=f".{self.root.name}-", dir=self.root.parent))
        try:
            # Images.
            write = partial(_write_face, half / "images", self.seed)
            with ProcessPoolExecutor(
                self.workers, get_context("spawn"), cv2.setNumThreads, (1,)
            ) as pool:
                rendered = pool.map(write, range(self.count), chunksize=16)
                faces = list(track(rendered, f"rendering {self.count} faces", self.count))

            # Labels, and the name of the set.
            names = [name for name, _ in faces]
            points = np.stack([points for _, points in faces])  # (F, K, 2)
            write_csv(half / "keypoints.csv", names, points)
            (half / "NAME").write_text(self.name, encoding="utf-8")

            half.chmod(0o755)
            try:
                half.rename(self.root)
            except OSError:
                # Another run was faster: its set is the same.
                if not self.root.exists():
                    raise
        finally:
            shutil.rmtree(half, ignore_errors=True)


def _write_face(folder: Path, seed: int, index: int) -> tuple[str, np.ndarray]:
    """Render one face; return the name of its image, and its points (K, 2), IMAGE pixels."""
    image, points = painter.paint(seed, index)
    name = f"face{index:06d}_00.png"
    write_image(folder / name, image)
    return name, points
