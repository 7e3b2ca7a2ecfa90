"""What the points are, as data: names, mirror pairs, regions, lines and the pair that normalises errors."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fkp.errors import FkpError
from fkp.files import harmless, read_text

MOST = 1 << 16  # bytes of a file: those that come with fkp have 2000


@dataclass(frozen=True)
class Markup:
    """The meaning of an ordered set of K key points.

    Args:
        name: how the markup is called in messages.
        points: K names, which head the columns of tables; those that differ only in `right` and `left` (of the words
            between their underscores) mirror each other.
        pair: the two names whose distance normalises errors (NME).
        regions: name -> [first, last] point, both included.
        lines: `open` and `ring` lists of [first, last] points, for drawing.
        box: `up` and `side` of the face box, see `fkp.geometry.face_box`.
    """

    name: str
    points: list[str]
    pair: list[str]
    regions: dict[str, list[int]] = field(default_factory=dict)
    lines: dict[str, list[list[int]]] = field(default_factory=dict)
    box: dict[str, float] = field(default_factory=lambda: {"up": 0.0, "side": 1.5})

    def __post_init__(self) -> None:
        for name in (self.name, *self.points):
            if not isinstance(name, str) or not name.isprintable() or harmless(name) != name or not name:
                raise FkpError(f"markup {self.name!r:.40}: a name is a word that begins like one, not {name!r:.40}")
        if len(set(self.points)) != len(self.points):
            twice = sorted({p for p in self.points if self.points.count(p) > 1})
            raise FkpError(f"markup {self.name}: points named twice: {', '.join(twice)}")
        unknown = [p for p in self.pair if p not in self.points]
        if unknown or len(self.pair) != 2:
            raise FkpError(f"markup {self.name}: pair must name two of its points, got {self.pair!r:.200}")
        ranges = [*self.regions.values(), *(line for lines in self.lines.values() for line in lines)]
        outside = [span for span in ranges if len(span) != 2 or not 0 <= span[0] <= span[1] < len(self.points)]
        numbers = all(isinstance(value, (int, float)) and abs(value) < 100 for value in self.box.values())
        if outside or set(self.lines) - {"open", "ring"} or set(self.box) != {"up", "side"} or not numbers:
            raise FkpError(
                f"markup {self.name}: regions and lines (open, ring) are [first, last] of points 0 to "
                f"{len(self.points) - 1}{f', not {outside[0]!r:.200}' if outside else ''}; box has numbers up and side"
            )
        _ = self.flip  # each left has its right

    @cached_property
    def flip(self) -> np.ndarray:
        """(K,) int: where each point's mirror partner stands, so `points[flip]` renames a mirrored face."""
        swap = {"right": "left", "left": "right"}
        order = []
        for name in self.points:
            partner = "_".join(swap.get(part, part) for part in name.split("_"))
            if partner not in self.points:
                raise FkpError(f"markup {self.name}: {name} has no partner {partner}")
            order.append(self.points.index(partner))
        return np.array(order)

    @property
    def eyes(self) -> tuple[int, int]:
        """Indices of the normalising pair."""
        return self.points.index(self.pair[0]), self.points.index(self.pair[1])

    def region(self, name: str) -> slice:
        """The points of one region, as a slice."""
        first, last = self.regions[name]
        return slice(first, last + 1)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as kept in a checkpoint; `Markup(**markup.as_dict()) == markup`."""
        return asdict(self)


class _Plain(yaml.SafeLoader):
    """YAML without aliases: those of aliases of aliases are a few lines that nobody can print."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it has aliases, which a markup does without")
        return super().compose_node(parent, index)


def load_markup(name: str) -> Markup:
    """Read one of the markups that come with the package, or a YAML file with the arguments of `Markup`.

    >>> load_markup("ibug68").eyes
    (36, 45)
    """
    own = Path(__file__).with_name("markups")
    file = Path(name) if name.endswith((".yaml", ".yml")) else own / f"{name}.yaml"
    if not file.is_file():
        known = sorted(f.name.removesuffix(".yaml") for f in own.iterdir())
        raise FkpError(f"no markup {name!r}; there is {', '.join(known)}, or give the path of a YAML file")
    text = read_text(file, MOST)
    try:
        return Markup(**yaml.load(text, _Plain))
    except FkpError:
        raise
    except Exception as error:  # PyYAML says that a value is wrong in many ways
        told = " ".join(str(error).split())
        raise FkpError(f"{file}: not a markup ({told:.300}); see fkp/markups/face5.yaml") from None


IBUG68 = load_markup("ibug68")
