"""Anybody's CSV and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fkp.markup import load_markup
from fkp.sources.table import FaceTable, read_csv


class LabelledCsv:
    """A CSV of key points (file name, then x, y of each point, IMAGE pixels) and a folder of pictures.

    Args:
        root: folder of the CSV.
        file: the CSV's name, relative to root.
        images: folder of the pictures, relative to root.
        identity: regular expression; group 1 of a file name is the person. The whole name, if it does not match.
        split: `identity`; `official` needs test_file.
        test_file: a second CSV with the publisher's test rows, if there is one.
        markup: name of the markup.
    """

    def __init__(
        self,
        root: str,
        file: str = "keypoints.csv",
        images: str = "images",
        identity: str = r"(.+)_\d+\.\w+$",
        split: Literal["official", "identity"] = "identity",
        test_file: str | None = None,
        test_images: str | None = None,
        markup: str = "ibug68",
    ):
        self.root, self.split, self.identity = Path(root), split, identity
        self.parts = {"train": (file, images)}
        if test_file is not None:
            self.parts["test"] = (test_file, test_images or images)
        self.markup = load_markup(markup)

    def read(self) -> FaceTable:
        """All faces of all files."""
        return FaceTable.joined(
            [
                read_csv(self.root / file, self.root / images, self.markup, self.identity, part)
                for part, (file, images) in self.parts.items()
            ]
        )
