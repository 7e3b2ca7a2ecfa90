"""Suggest which photos to label next: the function behind `python -m fkp.suggest`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig
from rich.table import Table

from fkp.console import CONSOLE, print_line, relative_path
from fkp.errors import FkpError
from fkp.runs import command_line, config, provenance

if TYPE_CHECKING:
    from fkp.data.table import Source
    from fkp.inference.media import ImageCollection
    from fkp.inference.suggestions import Suggestions
    from fkp.markup import Markup

# Lines about photos that cannot be used.
FAILURES = 20


@command_line.main("suggest")
def main(cfg: DictConfig) -> None:
    """Rank unlabelled photos, and write a table, a grid and pre-labels; the last line is JSON.

    Args:
        cfg: of conf/suggest.yaml.

    Raises:
        FkpError: a value, file or folder that a user can correct.
    """
    from fkp.inference.label_writer import LabelWriter
    from fkp.inference.media import find
    from fkp.inference.predictor import Predictor
    from fkp.inference.suggestions import labelled_images, suggest, write
    from fkp.runs import checkpoints

    # Photos and labels, before the model: their mistakes are found in a moment.
    collection = find(cfg.image, without=provenance.OUTPUTS)
    source = _labelled_source(cfg.labelled) if cfg.labelled else None
    labelled = sorted(set(source.read().paths)) if source else []
    collection, photos = _unlabelled(collection, cfg.image, labelled, cfg.count)

    # Model
    ckpt = checkpoints.resolve_checkpoint(cfg.ckpt)
    predictor = Predictor.load(ckpt, config.build(cfg.detector), cfg.device)
    labels = LabelWriter(config.plain(cfg.labels), predictor.markup, str(ckpt))
    labels.check_images(collection.relative(path) for path in photos)
    if source is not None and labels.formats:
        _check_points(predictor.markup, source.markup, ckpt)

    # Suggestions
    suggestions = suggest(predictor, photos, labelled, cfg.count)
    run_dir = Path(cfg.run_dir)
    written = write(suggestions, run_dir, collection, predictor.markup, cfg.shown)
    written += labels.write(
        run_dir / "labels",
        labelled_images(suggestions, collection),
        collection.root.absolute().name,
    )

    counts = _show(suggestions, cfg.count, len(labelled))
    for file in written:
        print_line(f"{'suggested' if file is written[0] else '':12}{relative_path(file)}")
    print(json.dumps(counts))


def _labelled_source(labelled: str) -> Source:
    """Return the source of the labels in a folder, or in one file."""
    from fkp.data.formats.auto import Auto

    path = Path(labelled).expanduser()
    if not path.exists():
        raise FkpError(f"labelled={labelled}: no such file or folder", key="labelled")
    if path.is_dir():
        return Auto(str(path), on_bad="skip")
    return Auto(str(path.parent), on_bad="skip", file=path.name)


def _unlabelled(
    found: Any, image: str, labelled: Sequence[Path], count: int
) -> tuple[ImageCollection, list[Path]]:
    """Return the collection and its photos that are not labelled.

    Raises:
        FkpError: it is one photo or a video, or has too few photos.
    """
    from fkp.inference.media import ImageCollection

    if not isinstance(found, ImageCollection):
        what = "one file" if Path(image).exists() else "no such file or folder"
        raise FkpError(f"image={image}: {what}; name a folder of photos", key="image")

    known = {os.path.realpath(path) for path in labelled}
    photos = [path for path in found.paths if path not in found.videos]
    new = [path for path in photos if os.path.realpath(path) not in known]
    if not new:
        what = (
            f"all {len(photos)} photos are labelled already" if photos else "no photo, but videos"
        )
        raise FkpError(f"image={image}: {what}; name a folder with others", key="image")
    if count > len(new):
        raise FkpError(
            f"count={count}: only {len(new)} unlabelled photos in image={image}; choose fewer, or "
            "label them all",
            key="count",
        )
    return found, new


def _check_points(markup: Markup, labelled: Markup, ckpt: Path) -> None:
    """Check that pre-labels would have the points that are being labelled.

    Raises:
        FkpError: they would have others.
    """
    if markup.points == labelled.points:
        return
    raise FkpError(
        f"labels: {ckpt} finds other points ({', '.join(markup.points)[:80]}, …) than are labelled "
        f"({', '.join(labelled.points)[:80]}, …); train on these first and name ckpt=…, or take "
        "labels=null",
        key="labels",
    )


def _show(found: Suggestions, count: int, labelled: int) -> dict[str, int]:
    """Print the counts, and what could not be used; return the counts."""
    counts = {
        "suggested": len(found.chosen),
        "others": found.others,
        "near_duplicates": len(found.duplicates),
        "without_face": len(found.without_face),
        "labelled": labelled,
        "failed": len(found.failed),
    }
    table = Table(show_header=False)
    for name, value in counts.items():
        table.add_row(name.replace("_", " "), str(value))
    CONSOLE.print(table)

    for path, reason in list(found.failed.items())[:FAILURES]:
        print_line(f"failed      {path}: {reason}")
    for copy, other in list(found.duplicates.items())[:FAILURES]:
        print_line(f"left out    {relative_path(copy)}: nearly the same as {relative_path(other)}")
    if len(found.chosen) < count:
        print_line(f"note        fewer than count={count}, as only so many photos show a new face")
    return counts
