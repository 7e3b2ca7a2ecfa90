"""Read the set that the published system trained on: frames of YouTube Faces with 68 points."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pandas as pd

from fkp.data.labelled_csv import LabelledCsv
from fkp.data.shapes import moved
from fkp.data.table import FaceTable, Fault, OnBad
from fkp.errors import FkpError
from fkp.files.download import fetch_archive

COMMIT = "6e55adc6bd032d9fb1ad41a4c3e68aae847cdf81"
ARCHIVE = f"https://github.com/udacity/P1_Facial_Keypoints/archive/{COMMIT}.zip"
CHECKSUMS = {
    "training_frames_keypoints.csv": (
        "9f3d1213429893d4955e2789076f6ce11e297253fed86337cffb6ca85bd61ec8"
    ),
    "test_frames_keypoints.csv": (
        "348e5e1a5906001f64d3da627e4f61dc3de90771d6d92f5d93628029b3c85e65"
    ),
}
# The offset of each point from the convention of 300-W, by benchmarks/accuracy/conventions.py.
OFFSETS = Path(__file__).with_name("youtube_faces_offsets.csv")


class YoutubeFaces(LabelledCsv):
    """3462 training and 770 test frames of 347 people.

    All people of the official test split are in training, too, in neighbouring frames:
    `protocol=official` measures how well people are remembered. `protocol=identity` pools both
    splits, and never shares a person.

    Source: github.com/udacity/P1_Facial_Keypoints (MIT).

    Args:
        root: folder of the two CSVs, and of `training/` and `test/`.
        download: download the pinned archive (about 300 MB) to root if it is not there.
        protocol: `identity`, `official` or `strict`.
        on_bad: `stop` or `skip`.
        labels: `published`: as they are, which is not quite on the face; `human`: each point is
            moved by a fixed offset, in the eye-line frame, to the convention of 300-W's manual
            labels (`benchmarks/accuracy/conventions.py`).
        url: address of the archive.
        folds, fold: number of folds of a cross-validation by person, and the one that is tested on,
            see `Source`.
    """

    def __init__(
        self,
        root: str,
        download: bool = False,
        protocol: Literal["official", "identity", "strict"] = "identity",
        on_bad: OnBad = "stop",
        labels: Literal["published", "human"] = "published",
        url: str = ARCHIVE,
        folds: int | None = None,
        fold: int | Literal["all"] | None = None,
    ):
        # Files are named PERSON_VF.jpg, with V the video and F the frame.
        super().__init__(
            root,
            file="training_frames_keypoints.csv",
            images="training",
            test_file="test_frames_keypoints.csv",
            test_images="test",
            identity=r"(.+)_\d+\.\w+$",
            protocol=protocol,
            on_bad=on_bad,
            folds=folds,
            fold=fold,
        )
        if labels not in ("published", "human"):
            raise FkpError(f"data.labels={labels}: there is published and human")
        self.download, self.url, self.labels = download, url, labels

    def survey(self) -> tuple[FaceTable, list[Fault]]:
        """Read all 4232 faces; download them first if requested.

        Raises:
            FkpError: as `LabelledCsv.survey`; or the set is missing, or cannot be downloaded.
        """
        if self.download:
            fetch_archive(self.url, self.root, folder="data", checksums=CHECKSUMS)
        elif not self.root.is_dir():
            raise FkpError(
                f"{self.root}: no such folder; set data.root=… to it, or data.download=true to "
                "download it"
            )

        table, faults = super().survey()
        if self.labels == "human":
            offsets = -pd.read_csv(OFFSETS)[["x", "y"]].to_numpy()  # (K, 2)
            table.points = moved(table.points, offsets, self.markup)
        return table, faults
