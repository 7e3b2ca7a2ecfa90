"""Find the image that a table names: as written, or, if there is no such file, the only one that can be meant."""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from fkp.data.csv_reader import is_image
from fkp.data.table import FaceTable, Fault
from fkp.errors import FkpError
from fkp.files.reading import inside

MOST = 1 << 21  # files of a folder that is searched, at most: as many as rows of a table
SHOWN = 3  # files that a message names

log = logging.getLogger(__name__)


class ImageFolder:
    """The images of a table.

    A name that is no file below the folder is looked for by its last parts: without regard to letter case, Unicode
    normal form, `\\` or `/`, and folders in front of it (another machine's, or the images folder itself); a name
    without an ending, by its stem.

    Args:
        root: the folder of the table.
        images: the folder of the images, relative to root.
        sample: names in the table.

    Raises:
        FkpError: there is no such folder, and not just one other that the images can lie in.
    """

    def __init__(self, root: Path, images: str, sample: list[str]):
        self.folder = root / images
        if not self.folder.is_dir():
            self.folder = _other_folder(root, self.folder, sample)
        # A folder above the table's, such as `/`, is not a folder of images alone.
        self._searched = not (root != self.folder and inside(self.folder, root))
        self._index: dict[str, list[str]] | None = None

    def find(self, name: str) -> tuple[Path, bool] | str:
        """The file, and whether it was found by search; or what is wrong with the name."""
        path = self.folder / name
        if os.path.isfile(path):
            if inside(self.folder, path):
                return path, False
            return f"{name} leads out of {self.folder}; set data.images to a folder above both"
        found = self._similar(name)
        if len(found) == 1:
            return self.folder / found[0], True
        if found:
            shown = ", ".join(found[:SHOWN]) + (", …" if len(found) > SHOWN else "")
            return f"no picture {path}, and {len(found)} files that may be meant: {shown}"
        if not inside(self.folder, path) and "\0" not in name:
            return f"{name} leads out of {self.folder}; set data.images to a folder above both"
        return f"no picture {path}"

    def _similar(self, name: str) -> list[str]:
        """Files below the folder, relative to it, that agree with the most of the name's last parts."""
        parts = [part for part in re.split(r"[\\/]+", name) if part not in ("", ".", "..")]
        if not parts or not self._searched:
            return []
        if self._index is None:
            self._index = _index(self.folder)
        found = self._index.get(_key(parts[-1]), [])
        for count in range(2, len(parts) + 1):
            end = "/" + _key("/".join(parts[-count:]))
            nearer = [file for file in found if f"/{_key(file)}".endswith(end)]
            if not nearer:
                break
            found = nearer
        if len(found) > 1:  # letter case may tell
            same = [file for file in found if os.path.basename(file) == parts[-1]]
            found = same if len(same) == 1 else found
        return [file for file in found if inside(self.folder, self.folder / file)]


def without_clashes(table: FaceTable, searched: dict[str, str]) -> tuple[FaceTable, list[Fault]]:
    """Leave out faces whose image was found by search, if another row names the same image in another way.

    Args:
        table: the faces.
        searched: for rows whose image was found by search, the name in the table.
    """
    if not searched:
        return table, []
    names = defaultdict[str, set[str]](set)
    for path, row in zip(table.paths, table.rows, strict=True):
        names[str(path)].add(searched.get(row, str(path)))
    clash = [i for i, path in enumerate(table.paths) if len(names[str(path)]) > 1]

    what = "its image {} is the only one that can be meant by different names in the table: {}"
    faults = [
        Fault(table.rows[i], what.format(path.name, ", ".join(sorted(names[str(path)])[:SHOWN])))
        for i in clash
        if (path := table.paths[i])
    ]
    row, name = next(iter(searched.items()))
    log.warning(
        "%d names in the table are no paths below the images folder; they were matched with the only file that can be "
        "meant, as %r in %s",
        len(searched),
        name,
        row,
    )
    return table.select(np.setdiff1d(np.arange(len(table)), clash)), faults


def _index(folder: Path) -> dict[str, list[str]]:
    """Images below a folder, relative to it: by their names, and by their names without ending."""
    index = defaultdict[str, list[str]](list)
    for file in islice(_walk(folder), MOST):
        name = os.path.basename(file)
        index[_key(name)].append(file)
        index[_key(os.path.splitext(name)[0])].append(file)
    return index


def _walk(folder: Path) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders.sort()
        below = os.path.relpath(place, folder)
        for name in sorted(files):
            if is_image(name):
                yield name if below == "." else f"{below}/{name}".replace(os.sep, "/")


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def _other_folder(root: Path, missing: Path, sample: list[str]) -> Path:
    """Where images lie if the folder of that name is missing: beside the table, or in the only other folder."""
    if any(os.path.isfile(root / name) for name in sample):
        found = [root]
    else:
        places = sorted(
            Path(entry.path) for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False)
        )
        found = [place for place in (root, *places) if _has_images(place)]
    if len(found) == 1:
        log.warning("data.images: no folder %s; the images are taken from %s", missing, found[0])
        return found[0]
    names = ", ".join(place.name if place != root else "." for place in found[:SHOWN])
    told = f"; there are images in {names}" if found else ", and no images beside the table"
    raise FkpError(f"{missing}: no such folder{told}; set data.images to the folder of the images")


def _has_images(folder: Path) -> bool:
    try:
        return any(is_image(entry.name) for entry in os.scandir(folder))
    except OSError:
        return False
