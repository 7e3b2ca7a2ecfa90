"""Console output: progress bars, lines and paths; the Trainer has a progress bar of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from rich.console import Console

CONSOLE = Console()
Item = TypeVar("Item")


def track(items: Iterable[Item], title: str, total: int | None) -> Iterator[Item]:
    """Go through the items and show, in a terminal, how far, how quickly and how long yet; say the title once where
    there is none.

    Args:
        total: how many there will be; None if nobody knows.
    """
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


def print_line(line: str) -> None:
    """Print a line as it is, however long."""
    CONSOLE.print(line, markup=False, highlight=False, soft_wrap=True)


def relative_path(path: Path) -> Path:
    """Relative to the working directory if it lies below it: shorter to read, as good to type."""
    path = path.resolve()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
