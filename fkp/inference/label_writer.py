"""Write predicted faces as pre-labels, which labelling tools import: `labels=coco`, …"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from fkp.data.formats.writing import (
    LabelledImage,
    as_coco,
    as_label_studio,
    as_labelme,
    label_studio_interface,
)
from fkp.errors import FkpError
from fkp.files.reading import short
from fkp.files.writing import write_whole
from fkp.inference.image_writer import ImageWriter, write_table
from fkp.inference.media import ImageCollection
from fkp.inference.result_files import as_json
from fkp.markup import Markup
from fkp.weights import sha256

FORMATS = ("coco", "labelstudio", "labelme", "csv")
# Why a video has none.
NO_LABELS = "labels are written for images; for those of a video, export its frames first"


class LabelWriter:
    """Write the faces of many images in the formats of labelling tools.

    Args:
        formats: None, one of `FORMATS`, or a list of them.
        markup: of the points.
        ckpt: path of the checkpoint, whose name and digest are the model's version in Label Studio.

    Raises:
        FkpError: there is no such format.
    """

    def __init__(
        self, formats: str | Sequence[str] | None, markup: Markup, ckpt: str | None = None
    ):
        names = [] if formats is None else [formats] if isinstance(formats, str) else formats
        for name in names:
            if name not in FORMATS:
                raise FkpError(
                    f"labels={name!s:.80}: no such format; choose {', '.join(FORMATS)}, a list of "
                    "them, or null",
                    key="labels",
                )
        self.formats, self.markup, self.ckpt = list(dict.fromkeys(names)), markup, ckpt

    def check_images(self, names: Iterable[PurePosixPath]) -> None:
        """Check that each image can have labels of its own.

        Raises:
            FkpError: two images that differ only in their ending, which labelme cannot tell apart.
        """
        known: dict[Path, PurePosixPath] = {}
        for name in names if "labelme" in self.formats else ():
            first = known.setdefault(_labelme_file(name), name)
            if first != name:
                raise FkpError(
                    f"labels=labelme: {first} and {name} would share one label file; rename one of "
                    "them, or choose labels=coco",
                    key="labels",
                )

    def notes(self, videos: Iterable[tuple[Path, Path]]) -> dict[str, str]:
        """Return a note for each video that has no labels: its path -> the note."""
        return {str(path): NO_LABELS for path, _ in videos if self.formats}

    def write_collection(
        self, results: ImageWriter, collection: ImageCollection, images: Sequence[tuple[Path, Path]]
    ) -> list[Path]:
        """Write the labels of images whose results are written, as `write` does.

        The folder is `labels` in the folder of results, or `labels_2`, … if images lie in a folder
        of that name.

        Args:
            results: reads the faces of each image.
            collection: of which the images are.
            images: path and name of the results of each.
        """
        if not self.formats:
            return []
        labelled = []
        for path, name in images:
            result = results.read(path, name)
            if result is not None:
                faces, _ = result
                size = results.read_size(name)
                labelled.append(LabelledImage(collection.relative(path), size, faces))

        taken = {name.parts[0].casefold() for _, name in images}
        candidates = (f"labels_{i}" if i > 1 else "labels" for i in itertools.count(1))
        folder = next(candidate for candidate in candidates if candidate not in taken)
        root = collection.root.absolute().name
        return self.write(results.results.folder / folder, labelled, root)

    def write(self, folder: Path, images: Sequence[LabelledImage], root: str) -> list[Path]:
        """Write all formats, each file whole or not at all.

        Args:
            folder: where to; it is made if there is any format.
            images: all images, also those without a face.
            root: name of the folder that the images' names are relative to.

        Returns:
            a path for each format: `coco.json`, `labelstudio.json` (with the labelling interface
            `labelstudio.xml` beside it), `keypoints.csv`, or the folder `labelme` with a file for
            each image with a face, which is to be copied beside the image.

        Raises:
            FkpError: a file cannot be written.
        """
        try:
            return [self._write(name, folder, images, root) for name in self.formats]
        except OSError as error:
            what = f"{error.filename or folder}: cannot be written ({error.strerror})"
            raise FkpError(what, file=error.filename or folder) from None

    def _write(self, name: str, folder: Path, images: Sequence[LabelledImage], root: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        if name == "coco":
            return _write_json(folder / "coco.json", as_coco(images, self.markup))
        if name == "labelstudio":
            write_whole(folder / "labelstudio.xml", label_studio_interface(self.markup))
            tasks = as_label_studio(images, self.markup, root, self._model())
            return _write_json(folder / "labelstudio.json", tasks)
        if name == "csv":
            file = folder / "keypoints.csv"
            write_table(file, [(image.name, image.faces) for image in images], self.markup)
            return file

        # labelme takes an image with an empty file for finished: those without a face have none.
        for image in (image for image in images if image.faces):
            file = folder / "labelme" / _labelme_file(image.name)
            file.parent.mkdir(parents=True, exist_ok=True)
            _write_json(file, as_labelme(image, self.markup))
        return folder / "labelme"

    def _model(self) -> str:
        """Return the name and the digest of the checkpoint."""
        file = Path(self.ckpt or "")
        return f"{file.name} {sha256(file)[:8]}" if file.is_file() else "fkp"


def _labelme_file(image: PurePosixPath) -> Path:
    """Return the name by which labelme finds the labels of an image beside it."""
    return Path(image.parent, f"{short(image.stem)}.json")


def _write_json(file: Path, value: Any) -> Path:
    write_whole(file, as_json(value, indent=None))
    return file
