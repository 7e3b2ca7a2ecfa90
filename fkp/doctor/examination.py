"""All checks of a source, in one go."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np

from fkp.data import label_values
from fkp.data.framing import boxed, measured
from fkp.data.image_cache import ImageCache, decode
from fkp.data.table import FaceTable, Source
from fkp.doctor import labels, pictures, places, splits
from fkp.doctor.findings import Case, Finding, worst_first
from fkp.doctor.labels import Suspect
from fkp.draw import visualize_output
from fkp.errors import FkpError
from fkp.files.images import read_image
from fkp.geometry import (
    apply,
    centre_and_side,
    compose,
    invert,
    rescaling,
    square,
    translation,
    warp,
)
from fkp.markup import Markup

TILE = 224


def examine(source: Source, worst: int) -> tuple[list[Finding], np.ndarray | None]:
    """Findings, worst first, and a sheet of the `worst` faces that may be labelled wrongly."""
    table, faults = source.survey()
    findings = [
        Finding(
            "error",
            "bad rows",
            "rows that cannot be used",
            [Case(f.row, "", f.what) for f in faults],
        )
    ]
    findings = findings if faults else []
    if not len(table):
        return findings, None
    source.markup = measured(table, source.markup)
    table = boxed(table, source.markup)
    seen = pictures.look(table.paths)
    canvases, reasons = decode(table, source.markup, gray=True, margin=3.0)
    wrong = label_values.check(table.points, canvases.extents, source.markup)
    findings += [places.finding(kind, table) for kind in wrong]
    impossible = {i: kind.check for kind in wrong for i in kind.cases}
    reasons = {i: reason for i, reason in reasons.items() if i not in impossible}
    if reasons:
        paths = {i: table.paths[i] for i in sorted(reasons)}
        told = {
            i: seen[path].fault or reasons[i].removeprefix(f"{path.name}: ")
            for i, path in paths.items()
        }
        cases = [Case(table.rows[i], str(path), told[i]) for i, path in paths.items()]
        findings.append(
            Finding("error", "unusable", "pictures or labels that cannot be used", cases)
        )
        seen = {path: picture for path, picture in seen.items() if path not in set(paths.values())}
    part = np.full(len(table), "", object)
    try:
        for name, chosen in table.split_indices(source.protocol).items():
            part[chosen] = name
    except FkpError as error:
        findings.append(Finding("error", "split", str(error)))
    findings += pictures.check(table, seen, part)
    findings += splits.check(table, source.protocol, part)
    if twice := label_values.twice(table):
        findings.append(places.finding(twice, table))
    good = np.setdiff1d(np.arange(len(table)), [*reasons, *impossible])
    suspects = [Suspect(np.inf, i, check) for i, check in impossible.items()]
    if len(good):
        found, others = _compared(table.select(good), canvases.select(good), source.markup)
        findings += found
        suspects += [suspect._replace(face=int(good[suspect.face])) for suspect in others]
    sheet = (
        _sheet(table, canvases, source.markup, suspects[:worst]) if worst > 0 and suspects else None
    )
    return worst_first(findings), sheet


def _compared(
    table: FaceTable, canvases: ImageCache, markup: Markup
) -> tuple[list[Finding], list[Suspect]]:
    """Compare labels that are possible with each other, and with what can be seen at their place."""
    findings, suspects = labels.check(table, canvases, markup)
    beside = list(
        places.check(table, canvases.extents, markup, [suspect.face for suspect in suspects])
    )
    first = [Suspect(np.inf, i, kind.check) for kind in beside for i in kind.cases]
    known = {suspect.face for suspect in first}
    findings += [places.finding(kind, table) for kind in beside]
    return findings, [*first, *(suspect for suspect in suspects if suspect.face not in known)]


def _sheet(
    table: FaceTable, canvases: ImageCache, markup: Markup, suspects: list[Suspect]
) -> np.ndarray:
    crops, points, captions = [], [], []
    for suspect in suspects:
        i = suspect.face
        if np.isinf(suspect.score):  # the label is of no use as a frame: the whole image
            crop, to_tile = _whole(table.paths[i])
        else:
            crop, to_tile = _surroundings(canvases, i)
        crops.append(crop)
        points.append(apply(to_tile, table.points[i]))
        captions.append("\n".join([table.rows[i], *textwrap.wrap(suspect.why, 38)]))
    return visualize_output(crops, labels=points, side=TILE, markup=markup, captions=captions)


def _surroundings(canvases: ImageCache, i: int) -> tuple[np.ndarray, np.ndarray]:
    """The tile round a face's box, and the affine IMAGE -> tile."""
    x, y, side = centre_and_side(canvases.boxes[i])
    left, top, _, _ = square(x, y + 0.1 * side, 1.9 * side)
    to_tile = compose(translation(-left - 0.5, -top - 0.5), rescaling(TILE / (1.9 * side)))
    return warp(canvases[i], compose(invert(canvases.affines[i]), to_tile), (TILE, TILE)), to_tile


def _whole(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The tile of a whole image, and the affine IMAGE -> tile."""
    image = read_image(path, gray=True)
    to_tile = rescaling(TILE / max(image.shape[:2]))
    return np.atleast_3d(warp(image, to_tile, (TILE, TILE))), to_tile
