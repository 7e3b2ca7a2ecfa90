"""Find the images that a table names, also where a name matches only by its last parts."""

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

# Files of a folder that are searched, at most: as many as the rows of a table.
MOST = 1 << 21
# Files that a message names.
SHOWN = 3

log = logging.getLogger(__name__)


class ImageFolder:
    """The images of a table.

    If a name is not the path of a file below the folder, the folder is searched for the file that
    agrees in most of the name's last parts. Ignored are letter case, the Unicode normal form, `\\`
    against `/`, and leading folders (of another computer, or the images folder itself); a name
    without an ending matches by the stem. The match must be unique.

    Args:
        root: the folder of the table.
        images: the folder of the images, relative to root.
        sample: names in the table.

    Raises:
        FkpError: the folder is missing, and there is not exactly one other with images.
    """

    def __init__(self, root: Path, images: str, sample: list[str]):
        self.folder = root / images
        if not self.folder.is_dir():
            self.folder = _other_folder(root, self.folder, sample)

        # A folder above the table's, such as `/`, holds more than images: it is not searched.
        self._searched = not (root != self.folder and inside(self.folder, root))
        self._index: dict[str, list[str]] | None = None

    def find(self, name: str) -> tuple[Path, bool] | str:
        """Find the image of a name.

        Returns:
            the file, and whether it was found by search; or what is wrong with the name.
        """
        path = self.folder / name
        outside = f"{name} leads out of {self.folder}; set data.images to a folder above both"
        if os.path.isfile(path):
            return (path, False) if inside(self.folder, path) else outside

        found = self._search(name)
        if len(found) == 1:
            return self.folder / found[0], True
        if found:
            shown = ", ".join(found[:SHOWN]) + (", …" if len(found) > SHOWN else "")
            return f"no image {path}, and {len(found)} files that may be meant: {shown}"
        if not inside(self.folder, path) and "\0" not in name:
            return outside
        return f"no image {path}"

    def _search(self, name: str) -> list[str]:
        """Return the files, relative to the folder, that agree in most of the name's last parts."""
        parts = [part for part in re.split(r"[\\/]+", name) if part not in ("", ".", "..")]
        if not parts or not self._searched:
            return []
        if self._index is None:
            self._index = _index(self.folder)

        # Compare one more part at a time, as long as any file agrees.
        found = self._index.get(_key(parts[-1]), [])
        for count in range(2, len(parts) + 1):
            end = "/" + _key("/".join(parts[-count:]))
            agreeing = [file for file in found if f"/{_key(file)}".endswith(end)]
            if not agreeing:
                break
            found = agreeing

        # Letter case decides between several.
        if len(found) > 1:
            same_case = [file for file in found if os.path.basename(file) == parts[-1]]
            found = same_case if len(same_case) == 1 else found
        return [file for file in found if inside(self.folder, self.folder / file)]


def without_clashes(table: FaceTable, searched: dict[str, str]) -> tuple[FaceTable, list[Fault]]:
    """Leave out faces whose image was found by search if another row names it differently.

    Args:
        table: the faces.
        searched: for rows whose image was found by search, the name in the table.

    Returns:
        the other faces, and a fault for each row that is left out.
    """
    if not searched:
        return table, []

    # All names of each image.
    names = defaultdict[str, set[str]](set)
    for path, row in zip(table.paths, table.rows, strict=True):
        names[str(path)].add(searched.get(row, str(path)))
    clash = [i for i, path in enumerate(table.paths) if len(names[str(path)]) > 1]

    faults = []
    for i in clash:
        path = table.paths[i]
        shown = ", ".join(sorted(names[str(path)])[:SHOWN])
        what = f"its image {path.name} is the only match of different names in the table: {shown}"
        faults.append(Fault(table.rows[i], what))

    row, name = next(iter(searched.items()))
    log.warning(
        "%d names in the table are no paths below the images folder; each was matched with the "
        "only file that can be meant, as %r in %s",
        len(searched),
        name,
        row,
    )
    return table.select(np.setdiff1d(np.arange(len(table)), clash)), faults


def _index(folder: Path) -> dict[str, list[str]]:
    """Map names, with and without ending, to the images below a folder, relative to it."""
    index = defaultdict[str, list[str]](list)
    for file in islice(_walk(folder), MOST):
        name = os.path.basename(file)
        index[_key(name)].append(file)
        index[_key(os.path.splitext(name)[0])].append(file)
    return index


def _walk(folder: Path) -> Iterator[str]:
    """Yield the images below a folder, relative to it, in a fixed order."""
    for place, folders, files in os.walk(folder):
        folders.sort()
        below = os.path.relpath(place, folder)
        for name in sorted(files):
            if is_image(name):
                yield name if below == "." else f"{below}/{name}".replace(os.sep, "/")


def _key(name: str) -> str:
    """Return what names that differ in letter case or Unicode normal form have in common."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def _other_folder(root: Path, missing: Path, sample: list[str]) -> Path:
    """Return the folder of images if the expected one is missing.

    It is root, if the sample's files lie there, or the only folder in root that holds images.

    Raises:
        FkpError: no folder holds images, or several do.
    """
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
    others = f"; there are images in {names}" if found else ", and no images beside the table"
    raise FkpError(
        f"{missing}: no such folder{others}; set data.images to the folder of the images"
    )


def _has_images(folder: Path) -> bool:
    try:
        return any(is_image(entry.name) for entry in os.scandir(folder))
    except OSError:
        return False
