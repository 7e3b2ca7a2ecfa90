"""Several sources as one."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Literal

import numpy as np

from fkp.data.columns import Texts
from fkp.data.table import FaceTable, Fault, OnBad, Source
from fkp.errors import FkpError


class Joined(Source):
    """The faces of several sources in one set. A person's part (train, val, test) is what it is in the source alone.

    Args:
        sources: names of those that are read, out of `known`.
        known: name -> source.
        root: the folder from which their own roots start, unless those are absolute.
        weights: for each of `sources`, how often an epoch shows each of its training faces: 1 once, 2 twice, 0.5 every
            other epoch, and so on; None for once.
        protocol: `identity`; `official`, where only the publishers' test faces are tested on; or `strict`.
        on_bad: `stop` or `skip`, for all of them.

    Raises:
        FkpError: a name that is not known or comes twice, weights of another number, or markups that differ.
    """

    def __init__(
        self,
        sources: list[str],
        known: dict[str, Source],
        root: str = ".",
        weights: list[float] | None = None,
        protocol: Literal["official", "identity", "strict"] = "identity",
        on_bad: OnBad = "stop",
    ):
        strange = [name for name in sources if name not in known]
        if strange or not sources:
            raise FkpError(
                f"data.sources: no {', '.join(map(str, strange)) or 'name'}; there is {', '.join(known)}"
            )
        twice = sorted({name for name in sources if sources.count(name) > 1})
        if twice:
            raise FkpError(
                f"data.sources: {', '.join(twice)} twice; data.weights says how often faces are shown"
            )
        weights = [1.0] * len(sources) if weights is None else weights
        if len(weights) != len(sources) or not all(0 < weight < inf for weight in weights):
            raise FkpError(
                f"data.weights: give a positive number for each of {', '.join(sources)}, not {weights}"
            )
        self.sources, self.weights = {name: known[name] for name in sources}, weights
        self.protocol, self.on_bad, self.root = protocol, on_bad, Path(root)
        for source in self.sources.values():
            source.root = self.root / source.root
        self.markup, *others = (source.markup for source in self.sources.values())
        if any(markup != self.markup for markup in others):
            names = " and ".join(dict.fromkeys(markup.name for markup in (self.markup, *others)))
            raise FkpError(
                f"data.sources: they have different markups, {names}; join only like with like"
            )

    def survey(self) -> tuple[FaceTable, list[Fault]]:
        """All faces, source by source; rows begin with the source's name."""
        tables, faults = [], []
        for (name, source), weight in zip(self.sources.items(), self.weights, strict=True):
            table, bad = source.survey()
            table.rows = Texts.of((f"{name}/{row}" for row in table.rows), str)
            table.weights = np.full(len(table), float(weight))
            tables.append(table)
            faults += [Fault(f"{name}/{fault.row}", fault.what) for fault in bad]
        return FaceTable.joined(tables), faults
