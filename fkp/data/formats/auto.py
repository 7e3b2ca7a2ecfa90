"""Recognise the format of the labels in a folder, and read them with its source."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from fkp.data.csv_layout import find_layout
from fkp.data.csv_reader import is_image, open_csv
from fkp.data.formats.bioid import BioId
from fkp.data.formats.coco import Coco
from fkp.data.formats.cofw import Cofw
from fkp.data.formats.ddfa import Aflw2000, ThreeHundredWLp
from fkp.data.formats.deeplabcut import DeepLabCut
from fkp.data.formats.label_studio import LabelStudio
from fkp.data.formats.labelme import Labelme
from fkp.data.formats.lapa import JdLandmark, Lapa
from fkp.data.formats.sleap import Sleap
from fkp.data.formats.wflw import Wflw
from fkp.data.formats.yolo import Yolo
from fkp.data.labelled_csv import LabelledCsv
from fkp.data.point_columns import point_names
from fkp.data.pts_folders import PtsFolders
from fkp.data.pts_index import PtsIndex
from fkp.data.table import FaceTable, Fault, OnBad, Source
from fkp.data.youtube_faces import YoutubeFaces
from fkp.errors import FkpError
from fkp.markup import IBUG68, Markup

# Files that a message names.
SHOWN = 4

log = logging.getLogger(__name__)


def _youtube_faces(root: Path) -> list[Path]:
    file = root / "training_frames_keypoints.csv"
    return [file] if file.is_file() and (root / "training").is_dir() else []


def _csv(root: Path) -> list[Path]:
    """List the tables of key points: those with names of images beside numbers."""
    if _youtube_faces(root):
        return []
    files = {*root.glob("*.csv"), *root.glob("*.tsv")} - set(DeepLabCut.recognise(root))
    return [file for file in sorted(files) if _is_table(file)]


def _pts(root: Path) -> list[Path]:
    """List the `.pts` files, but for those of BioID, which count pixels from 0."""
    return [] if BioId.recognise(root) else PtsIndex(root).pts


# Name of the option of the group `data` -> its source, and the label files of its format in a
# folder. A format of one's own is added here.
FORMATS: dict[str, tuple[Callable[..., Source], Callable[[Path], list[Path]]]] = {
    "youtube_faces": (YoutubeFaces, _youtube_faces),
    "coco": (Coco, Coco.recognise),
    "labelstudio": (LabelStudio, LabelStudio.recognise),
    "labelme": (Labelme, Labelme.recognise),
    "yolo": (Yolo, Yolo.recognise),
    "deeplabcut": (DeepLabCut, DeepLabCut.recognise),
    "sleap": (Sleap, Sleap.recognise),
    "wflw": (Wflw, Wflw.recognise),
    "300w_lp": (ThreeHundredWLp, ThreeHundredWLp.recognise),
    "aflw2000": (Aflw2000, Aflw2000.recognise),
    "cofw": (Cofw, Cofw.recognise),
    "lapa": (Lapa, Lapa.recognise),
    "jd": (JdLandmark, JdLandmark.recognise),
    "bioid": (BioId, BioId.recognise),
    "csv": (LabelledCsv, _csv),
    "pts": (PtsFolders, _pts),
}
# Formats of which all files are read, if there are several.
PUBLISHED = ("wflw", "300w_lp", "aflw2000", "cofw", "lapa", "jd", "bioid")
OF_MANY_FILES = ("labelme", "deeplabcut", "pts", *PUBLISHED)


class Auto(Source):
    """The labels in a folder, in any format that fkp reads.

    Args:
        root: the folder.
        protocol: see the source of the format, as all others.
        identity: None for the default of the format.
        markup: None for the points that the files name.
        on_bad: `stop` or `skip`.
        folds, fold: see `Source`.
        file: name of the label file, relative to root; None for the only one that is recognised.
    """

    def __init__(
        self,
        root: str,
        protocol: Literal["official", "identity", "strict", "train"] = "identity",
        identity: str | None = None,
        markup: str | None = None,
        on_bad: OnBad = "stop",
        folds: int | None = None,
        fold: int | Literal["all"] | None = None,
        file: str | None = None,
    ):
        self.root, self.protocol, self.on_bad = Path(root), protocol, on_bad
        self.file, self.folds, self.fold = file, folds, fold
        self.given = {"protocol": protocol, "identity": identity, "markup": markup}
        self._source: Source | None = None

    @property
    def source(self) -> Source:
        """Return the source of the format; the first call looks into the folder.

        Raises:
            FkpError: no format is recognised, or several are.
        """
        if self._source is None:
            name, file = recognise(self.root, self.file)
            log.info("data=auto: %s is read as data=%s", file, name)
            self._source = self._make(name, file)
        return self._source

    def read_markup(self) -> Markup:
        """Return the markup of the format's source."""
        return self.source.markup

    def survey(self) -> tuple[FaceTable, list[Fault]]:
        """Read all faces with the format's source."""
        return self.source.survey()

    def _make(self, name: str, file: Path) -> Source:
        """Make the source of a format, with the arguments that it has."""
        kind, _ = FORMATS[name]
        values: dict[str, Any] = {k: v for k, v in self.given.items() if v is not None}
        values |= {"on_bad": self.on_bad}
        if name not in OF_MANY_FILES:
            values["file"] = file.relative_to(self.root).as_posix()
        if kind is LabelledCsv and "markup" not in values:
            values["markup"] = _markup_of_columns(file)
        known = inspect.signature(kind).parameters
        return kind(str(self.root), **{k: v for k, v in values.items() if k in known})


def recognise(root: Path, file: str | None = None) -> tuple[str, Path]:
    """Return the format of the labels in a folder, by its name in the group `data`, and a file.

    Args:
        root: the folder.
        file: name of the label file, relative to root; None for the only one.

    Raises:
        FkpError: no format is recognised, or several are.
    """
    if not root.is_dir():
        raise FkpError(f"data.root={root}: no such folder", key="data.root")
    found = {name: files for name, (_, look) in FORMATS.items() if (files := look(root))}
    if file is not None:
        named = root / file
        found = {name: [named] for name, files in found.items() if named in files}
    several = any(len(files) > 1 for name, files in found.items() if name not in OF_MANY_FILES)
    if len(found) == 1 and not several:
        ((name, files),) = found.items()
        return name, files[0]

    if not found:
        known = ", ".join(FORMATS)
        what = f"{root}: no labels of a known format below it; data= reads {known}"
        raise FkpError(what, key="data.root", file=root, hint=f"data= one of {known}")
    choices = [_choice(root, name, files) for name, files in found.items()]
    listed = "\n  ".join(line for lines in choices for line in lines)
    raise FkpError(
        f"{root}: several files of labels; choose one:\n  {listed}",
        key="data",
        file=root,
        hint=listed,
    )


def _choice(root: Path, name: str, files: list[Path]) -> list[str]:
    """Return what chooses each of the files of a format."""
    if name in OF_MANY_FILES:
        first = files[0].relative_to(root).as_posix()
        return [f"data={name}  ({len(files)} files, such as {first})"]
    lines = [f"data={name} data.file={file.relative_to(root).as_posix()}" for file in files[:SHOWN]]
    return lines + ([f"… and {len(files) - SHOWN} more"] if len(files) > SHOWN else [])


def _markup_of_columns(file: Path) -> str | None:
    """Return None if the columns name the points, else the name of the usual markup."""
    with open_csv(file) as table:
        names = point_names(table.header)
        if not names:
            return IBUG68.name
        try:
            find_layout(file, table.header, table.sample, IBUG68)
        except FkpError:
            return None
    return IBUG68.name


def _is_table(file: Path) -> bool:
    """Return whether a table names images."""
    try:
        with open_csv(file) as table:
            return any(is_image(cell) for cells in table.sample for cell in cells)
    except FkpError:
        return False
