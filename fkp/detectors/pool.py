"""Pool: lend objects that keep state while they work, each to one thread at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

Resource = TypeVar("Resource")


class Pool(Generic[Resource]):
    """Lend objects that keep state while they work, each to one thread at a time.

    As many are made as are used at once.
    """

    def __init__(self, make: Callable[[], Resource]):
        self.make, self.idle = make, list[Resource]()

    @contextmanager
    def borrow(self) -> Iterator[Resource]:
        """Lend an object, made if all others are lent."""
        # `pop` and `append` are atomic: no lock is needed.
        try:
            resource = self.idle.pop()
        except IndexError:
            resource = self.make()
        yield resource
        # Not after an exception, which may leave the object in any state.
        self.idle.append(resource)

    def __getstate__(self) -> dict[str, Any]:
        # Objects of OpenCV and MediaPipe can be neither copied nor pickled.
        return {"make": self.make, "idle": []}
