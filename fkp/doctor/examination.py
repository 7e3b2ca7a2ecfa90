"""All checks of a source, in one go."""

from __future__ import annotations

import textwrap

import numpy as np

from fkp.canvases import Canvases, decode
from fkp.doctor import labels, pictures, splits
from fkp.doctor.findings import Case, Finding, worst_first
from fkp.doctor.labels import Suspect
from fkp.draw import visualize_output
from fkp.errors import FkpError
from fkp.framing import boxed, measured
from fkp.geometry import apply, centre_and_side, compose, invert, rescaling, square, translation, warp
from fkp.markup import Markup
from fkp.sources.table import FaceTable, Source

TILE = 224


def examine(source: Source, worst: int) -> tuple[list[Finding], np.ndarray | None]:
    """Findings, worst first, and a sheet of the `worst` faces that may be labelled wrongly."""
    table, faults = source.survey()
    findings = [Finding("error", "bad rows", "rows that cannot be used", [Case(f.row, "", f.what) for f in faults])]
    findings = findings if faults else []
    if not len(table):
        return findings, None
    source.markup = measured(table, source.markup)
    table = boxed(table, source.markup)
    seen = pictures.look(table.paths)
    canvases, reasons = decode(table, source.markup, gray=True, margin=3.0)
    if reasons:
        paths = {i: table.paths[i] for i in sorted(reasons)}
        told = {i: seen[path].fault or reasons[i].removeprefix(f"{path.name}: ") for i, path in paths.items()}
        cases = [Case(table.rows[i], str(path), told[i]) for i, path in paths.items()]
        findings.append(Finding("error", "unusable", "pictures or labels that cannot be used", cases))
        seen = {path: picture for path, picture in seen.items() if path not in set(paths.values())}
    part = np.full(len(table), "", object)
    try:
        for name, chosen in table.parts(source.split).items():
            part[chosen] = name
    except FkpError as error:
        findings.append(Finding("error", "split", str(error)))
    findings += pictures.check(table, seen, part)
    findings += splits.check(table, source.split, part)
    good = np.setdiff1d(np.arange(len(table)), list(reasons))
    if not len(good):
        return worst_first(findings), None
    table, canvases = table.select(good), canvases.select(good)
    found, suspects = labels.check(table, canvases, source.markup)
    sheet = _sheet(table, canvases, source.markup, suspects[:worst]) if worst > 0 else None
    return worst_first(findings + found), sheet


def _sheet(table: FaceTable, canvases: Canvases, markup: Markup, suspects: list[Suspect]) -> np.ndarray:
    crops, points, captions = [], [], []
    for suspect in suspects:
        i = suspect.face
        x, y, side = centre_and_side(canvases.boxes[i])
        left, top, _, _ = square(x, y + 0.1 * side, 1.9 * side)
        to_tile = compose(translation(-left - 0.5, -top - 0.5), rescaling(TILE / (1.9 * side)))
        crops.append(warp(canvases[i], compose(invert(canvases.affines[i]), to_tile), (TILE, TILE)))
        points.append(apply(to_tile, table.points[i]))
        captions.append("\n".join([table.rows[i], *textwrap.wrap(suspect.why, 38)]))
    return visualize_output(crops, labels=points, side=TILE, markup=markup, captions=captions)
