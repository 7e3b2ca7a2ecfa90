"""Console output: lines, paths and progress bars; the Trainer has a progress bar of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from rich.console import Console

CONSOLE = Console()
Item = TypeVar("Item")


def track(items: Iterable[Item], title: str, total: int | None) -> Iterator[Item]:
    """Iterate over items and show the progress, the speed and the time left on standard error.

    Without a terminal, only the title is printed.

    Args:
        items: any.
        title: before the bar.
        total: number of items; None if unknown.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        console.print(title)
        yield from items
        return

    from rich import progress as rich_progress

    columns = (
        "{task.description}",
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("{task.fields[speed]}"),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns, console=console) as progress:
        bar = progress.add_task(title, total=total, speed="")
        for item in items:
            yield item
            progress.advance(bar)
            speed = progress.tasks[0].speed
            progress.update(bar, speed=f"{speed:.1f}/s" if speed else "")


def print_line(line: str) -> None:
    """Print a line as it is, without markup, highlighting or wrapping."""
    CONSOLE.print(line, markup=False, highlight=False, soft_wrap=True)


def relative_path(path: Path) -> Path:
    """Return a path below the working directory relative to it, and any other as absolute."""
    path = path.resolve()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
