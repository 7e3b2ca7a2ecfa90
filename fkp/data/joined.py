"""Join several sources to one."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Literal

import numpy as np

from fkp.data.columns import Texts
from fkp.data.table import EXTRA, FaceTable, Fault, OnBad, Source
from fkp.errors import FkpError
from fkp.markup import Markup


class Joined(Source):
    """The faces of several sources in one set.

    The split (train, val, test) of a person is the same as in the source alone. Faces of a source
    with `protocol: train` are for training only.

    Args:
        sources: names of the sources that are read, out of `known`.
        known: name -> source.
        root: the folder to which the sources' own roots are relative, unless they are absolute.
        weights: for each of `sources`, how often an epoch shows each of its training faces: 1 once,
            2 twice, 0.5 every other epoch, and so on; None for once.
        protocol: `identity`; `official`, which tests on the publishers' test faces only; `strict`;
            or `all`, which trains on every face, for a last training whose settings are chosen.
        on_bad: `stop` or `skip`, for all sources.
        folds, fold: number of folds of a cross-validation by person, and the one that is tested on,
            see `Source`.

    Raises:
        FkpError: a name that is unknown or comes twice, weights of another number, or folds of a
            single source.
    """

    def __init__(
        self,
        sources: list[str],
        known: dict[str, Source],
        root: str = ".",
        weights: list[float] | None = None,
        protocol: Literal["official", "identity", "strict", "all"] = "identity",
        on_bad: OnBad = "stop",
        folds: int | None = None,
        fold: int | Literal["all"] | None = None,
    ):
        _check_names(sources, known)
        self.sources = {name: known[name] for name in sources}
        self.weights = _checked_weights(weights, sources)
        self.protocol, self.on_bad, self.root = protocol, on_bad, Path(root)
        self.folds, self.fold = folds, fold
        for name, source in self.sources.items():
            if (source.folds, source.fold) != (None, None):
                key = f"data.known.{name}.folds"
                raise FkpError(f"{key}: the folds are of all sources; set data.folds", key=key)
            source.root = self.root / source.root

    def read_markup(self) -> Markup:
        """Return the markup that the sources share.

        Markups that were read from files of labels are the same if they name the same points.

        Raises:
            FkpError: they differ.
        """
        first, *others = markups = [source.markup for source in self.sources.values()]
        if any(_meaning(markup) != _meaning(first) for markup in others):
            names = " and ".join(dict.fromkeys(markup.name for markup in markups))
            raise FkpError(
                f"data.sources: they have different markups, {names}; join sources of one markup",
                key="data.sources",
            )
        return next((markup for markup in markups if markup.pairs is not None), first)

    def survey(self) -> tuple[FaceTable, list[Fault]]:
        """Read all faces, source by source; rows begin with the source's name."""
        _ = self.markup  # which refuses sources of different points
        tables, faults = [], []
        for (name, source), weight in zip(self.sources.items(), self.weights, strict=True):
            table, bad = source.survey()
            table.rows = Texts.of((f"{name}/{row}" for row in table.rows), str)
            table.weights = table.weights * weight
            if source.protocol == "train":
                table.official = np.full(len(table), EXTRA)
            tables.append(table)
            faults += [Fault(f"{name}/{fault.row}", fault.what) for fault in bad]
        return FaceTable.joined(tables), faults


def _meaning(markup: Markup) -> Markup:
    """Return a markup without its name, lines and pairs, which two files may give differently."""
    return replace(markup, name="joined", lines={}, pairs=None, mirror=True)


def _check_names(sources: list[str], known: dict[str, Source]) -> None:
    """Raise an FkpError for names that are unknown or come twice, or if there is none."""
    unknown = [name for name in sources if name not in known]
    if unknown or not sources:
        names = ", ".join(map(str, unknown)) or "name"
        raise FkpError(f"data.sources: no {names}; there is {', '.join(known)}")

    twice = sorted({name for name in sources if sources.count(name) > 1})
    if twice:
        raise FkpError(
            f"data.sources: {', '.join(twice)} twice; data.weights says how often faces are shown"
        )


def _checked_weights(weights: list[float] | None, sources: list[str]) -> list[float]:
    """Return one positive weight for each source; raise an FkpError for others."""
    weights = [1.0] * len(sources) if weights is None else weights
    if len(weights) != len(sources) or not all(0 < weight < inf for weight in weights):
        raise FkpError(
            f"data.weights: give a positive number for each of {', '.join(sources)}, not {weights}"
        )
    return weights
