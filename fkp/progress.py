"""One kind of progress bar for everything that is not the Trainer's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def track(items: Iterable[Item], title: str, total: int) -> Iterator[Item]:
    """Go through the items and show how far, in a terminal; say the title once where there is none."""
    from rich.console import Console
    from rich.progress import track as rich_track

    console = Console(stderr=True)
    if not console.is_terminal:
        console.print(title)
        yield from items
    else:
        yield from rich_track(items, title, total=total, console=console)
