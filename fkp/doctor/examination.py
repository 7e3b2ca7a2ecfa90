"""Run all checks of a data set, and draw its suspect faces."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fkp.data import label_values
from fkp.data.framing import boxed, measured
from fkp.data.image_cache import ImageCache, decode
from fkp.data.mirror_pairs import with_proved_pairs
from fkp.data.table import FaceTable, Fault, Source
from fkp.doctor import images, labels, places, splits
from fkp.doctor.findings import Case, Finding, Suspect, worst_first
from fkp.doctor.images import FileFacts
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

# Side of a face on the grid, pixels.
TILE = 224

# The part of an image that is cached, and drawn, around a face box: sides of the box.
CACHE_MARGIN, GRID_MARGIN = 3.0, 1.9


def examine(source: Source, worst: int) -> tuple[list[Finding], np.ndarray | None]:
    """Run all checks.

    Args:
        source: of the data.
        worst: number of faces on the grid, at most.

    Returns:
        Findings, worst first; and a grid, RGB uint8, of the faces most likely labelled wrongly,
        None if there are none.
    """
    # Read the labels, and the images around them.
    table, faults = source.survey()
    findings = list(_bad_rows(faults))
    if not len(table):
        return findings, None
    source.markup = _completed(table, source.markup)
    table = boxed(table, source.markup)
    facts = images.read_all(table.paths)
    cache, failures = decode(table, source.markup, gray=True, margin=CACHE_MARGIN)

    # Find labels that are impossible, and images that cannot be used.
    wrong = label_values.check(table.points, cache.extents, source.markup)
    findings += [places.finding(kind, table) for kind in wrong]
    impossible = {i: kind.check for kind in wrong for i in kind.cases}
    failures = {i: failures[i] for i in sorted(failures) if i not in impossible}
    findings += _unusable(table, facts, failures)

    # Check files and splits.
    unusable = {table.paths[i] for i in failures}
    usable = {path: fact for path, fact in facts.items() if path not in unusable}
    split_names, split_findings = _split_names(table, source)
    findings += split_findings
    findings += images.check(table, usable, split_names)
    findings += splits.check(table, source.protocol, split_names)
    if twice := label_values.twice(table):
        findings.append(places.finding(twice, table))

    # Compare the remaining labels with each other and with the images.
    suspects = [Suspect(np.inf, i, name) for i, name in impossible.items()]
    good = np.setdiff1d(np.arange(len(table)), [*failures, *impossible])
    if len(good):
        found, others = _compare(table.select(good), cache.select(good), source.markup)
        findings += found
        suspects += [suspect._replace(face=int(good[suspect.face])) for suspect in others]

    has_grid = worst > 0 and suspects
    grid = _grid(table, cache, source.markup, suspects[:worst]) if has_grid else None
    return worst_first(findings), grid


def _completed(table: FaceTable, markup: Markup) -> Markup:
    """Complete a markup by what can be measured, and by the mirror pairs that labels prove."""
    markup = measured(table, markup)
    if markup.sided or not markup.mirror:
        return markup
    return with_proved_pairs(table.points, markup) or markup


def _bad_rows(faults: list[Fault]) -> Iterator[Finding]:
    cases = [Case(fault.row, "", fault.what) for fault in faults]
    if cases:
        yield Finding("error", "bad rows", "rows that cannot be used", cases)


def _unusable(
    table: FaceTable, facts: dict[Path, FileFacts], failures: dict[int, str]
) -> Iterator[Finding]:
    """Report faces that could not be cached; `failures` is face -> reason."""
    cases = []
    for i, failure in failures.items():
        path = table.paths[i]
        what = facts[path].fault or failure.removeprefix(f"{path.name}: ")
        cases.append(Case(table.rows[i], str(path), what))
    if cases:
        yield Finding("error", "unusable", "images or labels that cannot be used", cases)


def _split_names(table: FaceTable, source: Source) -> tuple[np.ndarray, list[Finding]]:
    """Return the split of each face, (F,), empty where there is none; and a failure to split."""
    names = np.full(len(table), "", object)
    try:
        for name, chosen in source.split_indices(table).items():
            names[chosen] = name
    except FkpError as error:
        return names, [Finding("error", "split", str(error))]
    return names, []


def _compare(
    table: FaceTable, cache: ImageCache, markup: Markup
) -> tuple[list[Finding], list[Suspect]]:
    """Compare possible labels with each other, and with the faces found in the images."""
    findings, suspects = labels.check(table, cache, markup)
    misplaced = list(places.check(table, cache.extents, markup, [s.face for s in suspects]))
    findings += [places.finding(kind, table) for kind in misplaced]

    # Misplaced faces come first among the suspects.
    first = [Suspect(np.inf, i, kind.check) for kind in misplaced for i in kind.cases]
    known = {suspect.face for suspect in first}
    return findings, [*first, *(suspect for suspect in suspects if suspect.face not in known)]


def _grid(
    table: FaceTable, cache: ImageCache, markup: Markup, suspects: list[Suspect]
) -> np.ndarray:
    """Draw suspect faces with their labels, and the reason below each."""
    crops, points, captions = [], [], []
    for suspect in suspects:
        i = suspect.face
        # An impossible label does not say where the face is: draw the full image.
        if np.isinf(suspect.score):
            crop, to_tile = _full_image(table.paths[i])
        else:
            crop, to_tile = _surroundings(cache, i)
        crops.append(crop)
        points.append(apply(to_tile, table.points[i]))
        captions.append("\n".join([table.rows[i], *textwrap.wrap(suspect.why, 38)]))
    return visualize_output(crops, labels=points, side=TILE, markup=markup, captions=captions)


def _surroundings(cache: ImageCache, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the tile around a face's box, and the affine IMAGE -> tile."""
    x, y, side = centre_and_side(cache.boxes[i])
    left, top, _, _ = square(x, y + 0.1 * side, GRID_MARGIN * side)
    scale = rescaling(TILE / (GRID_MARGIN * side))
    to_tile = compose(translation(-left - 0.5, -top - 0.5), scale)
    cached_to_tile = compose(invert(cache.affines[i]), to_tile)
    return warp(cache[i], cached_to_tile, (TILE, TILE)), to_tile


def _full_image(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the tile of a full image, and the affine IMAGE -> tile."""
    image = read_image(path, gray=True)
    to_tile = rescaling(TILE / max(image.shape[:2]))
    return np.atleast_3d(warp(image, to_tile, (TILE, TILE))), to_tile
