"""The embedded default: faces that the project draws itself."""

from __future__ import annotations

import os
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

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
    """Drawn faces with 68 exact points, written once in the published layout and read like any other set.

    Args:
        count: number of faces; every face is a person of its own.
        seed: the same seed and index give the same face, whatever the count.
        root: a folder to keep the set in; None for one in fkp's cache that is named by what it holds.
        workers: processes that draw; None for one a core.
    """

    def __init__(
        self, count: int = 3000, seed: int = 0, root: str | None = None, workers: int | None = None
    ):
        # The name holds a fingerprint of all that the painter is: another painter, another set.
        files = sorted(
            path
            for path in Path(str(painter.__file__)).parent.iterdir()
            if path.suffix in (".py", ".json")
        )
        self.name = (
            f"synthetic-{fingerprint(*(path.read_bytes() for path in files))}-{seed}-{count}"
        )
        super().__init__(str(root or cache_folder() / self.name))
        self.count, self.seed, self.workers = count, seed, workers or os.cpu_count() or 1

    def survey(self) -> tuple[FaceTable, list[Fault]]:
        """Draw the faces if they are not there yet, and read them.

        Raises:
            FkpError: the folder holds something else.
        """
        note = self.root / "NAME"
        if not self.root.exists():
            self._draw()
        elif not note.is_file() or read_bytes(note, 1000) != self.name.encode():
            raise FkpError(
                f"{self.root}: holds something else than {self.name}; name another data.root, or none"
            )
        return super().survey()

    def _draw(self) -> None:
        self.root.parent.mkdir(parents=True, exist_ok=True)
        # Drawn into a folder of its own and renamed when whole: a killed run leaves no half set behind.
        half = Path(tempfile.mkdtemp(prefix=f".{self.root.name}-", dir=self.root.parent))
        try:
            write = partial(_write_face, half / "images", self.seed)
            with ProcessPoolExecutor(
                self.workers, get_context("spawn"), cv2.setNumThreads, (1,)
            ) as pool:
                drawn = pool.map(write, range(self.count), chunksize=16)
                faces = list(track(drawn, f"drawing {self.count} faces", self.count))
            write_csv(
                half / "keypoints.csv",
                [name for name, _ in faces],
                np.stack([points for _, points in faces]),
            )
            (half / "NAME").write_text(self.name, encoding="utf-8")
            half.chmod(0o755)
            try:
                half.rename(self.root)
            except OSError:
                if not self.root.exists():  # another run was quicker: its set is the same
                    raise
        finally:
            shutil.rmtree(half, ignore_errors=True)


def _write_face(folder: Path, seed: int, index: int) -> tuple[str, np.ndarray]:
    image, points = painter.paint(seed, index)
    name = f"face{index:06d}_00.png"
    write_image(folder / name, image)
    return name, points
