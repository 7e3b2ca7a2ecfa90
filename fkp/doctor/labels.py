"""Check the labels of a data set: their coordinates, their shapes, and the pixels below them."""

from __future__ import annotations

import warnings

import numpy as np

from fkp.data.image_cache import ImageCache
from fkp.data.shapes import aligned
from fkp.data.table import FaceTable
from fkp.doctor import label_appearance, label_coordinates, label_shapes
from fkp.doctor.findings import Case, Finding, Level, Suspect
from fkp.markup import Markup


def check(
    table: FaceTable, cache: ImageCache, markup: Markup
) -> tuple[list[Finding], list[Suspect]]:
    """Check labels that are possible, each by itself.

    Args:
        table: F faces.
        cache: the image around each.
        markup: of the points.

    Returns:
        Findings; and all faces, those most likely labelled wrongly first.
    """
    with warnings.catch_warnings():
        # NumPy warns of the mean of nothing, where a point has no label.
        warnings.simplefilter("ignore", RuntimeWarning)
        findings = list(label_coordinates.check(table, cache, markup))
        affines, mean = aligned(table.points)
        swapped = label_shapes.swapped_sides(table, markup, mean)
        odd, broken = label_shapes.odd_shapes(table, markup, affines, mean)
        misplaced, likeness = label_appearance.misplaced(cache, affines)
        shift = label_appearance.shift(table, markup, mean, cache)

    # A face with swapped sides has an odd shape, too: report it once.
    known = {suspect.face for suspect in swapped}
    odd = [suspect for suspect in odd if suspect.face not in known]
    broken = [suspect for suspect in broken if suspect.face not in known]

    findings += _report(table, swapped, broken, odd, misplaced)
    suspects = sorted([*swapped, *broken, *odd, *misplaced], key=lambda suspect: -suspect.score)
    return findings + shift, _ranked(suspects, likeness)


def _report(
    table: FaceTable,
    swapped: list[Suspect],
    broken: list[Suspect],
    odd: list[Suspect],
    misplaced: list[Suspect],
) -> list[Finding]:
    kinds: list[tuple[Level, str, str, list[Suspect]]] = [
        (
            "error",
            "left and right swapped",
            "the labels fit a face only with left and right swapped",
            swapped,
        ),
        (
            "error",
            "broken shape",
            "a point is too far from where the other points predict it for any face",
            broken,
        ),
        (
            "warning",
            "odd shape",
            "a point is far from where the other points predict it",
            odd,
        ),
        (
            "warning",
            "unlike a face",
            "labelled wrongly or hard to see: another place is more like the mean face",
            misplaced,
        ),
    ]
    findings = []
    for level, name, what, suspects in kinds:
        cases = [Case(table.rows[s.face], str(table.paths[s.face]), s.why) for s in suspects]
        if cases:
            findings.append(Finding(level, name, what, cases))
    return findings


def _ranked(suspects: list[Suspect], likeness: np.ndarray) -> list[Suspect]:
    """Return each face once: suspects first, then the rest by likeness (F,) to the mean face."""
    ranked: dict[int, Suspect] = {}
    for suspect in suspects:
        ranked.setdefault(suspect.face, suspect)
    for i in np.argsort(likeness).tolist():
        ranked.setdefault(i, Suspect(0.0, i, f"likeness to the mean face {likeness[i]:.2f}"))
    return list(ranked.values())
