"""Run the stages of a prediction in threads: order is kept, and memory is bounded."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from fkp.errors import FkpError

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

Item = TypeVar("Item")
Result = TypeVar("Result")

# Pixels of the images that one stage holds. With many threads, so much per thread: an image of a
# phone's camera.
STAGE_PIXELS = 25_000_000
THREAD_PIXELS = 12_500_000

# Items that one stage holds, per thread: enough to keep threads busy while a later stage works off
# a batch. Their memory is bounded by their pixels.
AHEAD = 8


def cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Pipeline:
    """Run functions over streams of items in one pool of threads.

    OpenCV and onnxruntime release Python's lock while they compute, so threads use all cores. The
    thread that iterates pulls the items; leaving the context ends all threads.

    Args:
        threads: number of threads; None for as many as there are cores; 1 for no thread at all: the
            iterating thread does the work, item by item.

    Raises:
        FkpError: `threads` is not a whole number from 1.
    """

    def __init__(self, threads: int | None = None):
        if threads is not None and (type(threads) is not int or threads < 1):
            raise FkpError(
                f"threads={threads}: must be a whole number from 1, or null for all cores",
                key="threads",
            )
        self.threads = threads or cores()
        self.pixels = max(STAGE_PIXELS, self.threads * THREAD_PIXELS)
        self.pool: ThreadPoolExecutor | None = None
        if self.threads > 1:
            from concurrent.futures import ThreadPoolExecutor  # here: single images do not need it

            self.pool = ThreadPoolExecutor(self.threads, "fkp")

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)

    def map(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        pixels: Callable[[Item], int] | None = None,
        ahead: int | None = None,
    ) -> Iterator[Result]:
        """Apply a function to items, ahead of the one that is asked for.

        An error, of the function or of `items`, is raised where its result would be.

        Args:
            function: is called in the threads.
            items: are pulled by the thread that iterates; may be endless.
            pixels: number of pixels that an item holds; None if items are small. Items are pulled
                ahead up to `self.pixels`; one item may hold more.
            ahead: number of items that are pulled ahead; None for `AHEAD` per thread.

        Yields:
            the results, in the order of the items.
        """
        if self.pool is None:
            yield from map(function, items)
            return

        ahead = ahead or AHEAD * self.threads
        pending: deque[tuple[Future[Result], int]] = deque()
        held, failure, source = 0, None, iter(items)
        while True:
            # Pull. An error waits for the results before it.
            try:
                item = next(source)
            except StopIteration:
                break
            except Exception as error:
                failure = error
                break

            # Wait until there is room, and submit.
            size = pixels(item) if pixels else 0
            while pending and (len(pending) >= ahead or held + size > self.pixels):
                held -= pending[0][1]
                yield pending.popleft()[0].result()
            pending.append((self.pool.submit(function, item), size))
            held += size
            del item  # the function's alone

            # Hand on what is ready.
            while pending and pending[0][0].done():
                held -= pending[0][1]
                yield pending.popleft()[0].result()

        while pending:
            yield pending.popleft()[0].result()
        if failure is not None:
            raise failure
