"""One kind of progress bar for everything that is not the Trainer's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def track(items: Iterable[Item], title: str, total: int | None) -> Iterator[Item]:
    """Go through the items and show, in a terminal, how far, how quickly and how long yet; say the title once where
    there is none.

    Args:
        total: how many there will be; None if nobody knows.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        console.print(title)
        yield from items
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress("{task.description}", *columns, console=console) as progress:
        bar = progress.add_task(title, total=total, speed="")
        for item in items:
            yield item
            progress.advance(bar)
            speed = progress.tasks[0].speed
            progress.update(bar, speed=f"{speed:.1f}/s" if speed else "")
