"""Define the exception that fkp raises for a user's mistake, a bad file or a failed download."""

from __future__ import annotations

import re
from pathlib import Path

# Control characters, but for tab and line feed, and lone surrogates.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class FkpError(Exception):
    """Say what is wrong, where, and what to do, in one message that is shown without a traceback.

    A message may quote a file, and must not send commands to the terminal: control characters are
    written as escapes, as Python writes them.

    Args:
        message: the whole message; `str(error)` is this text alone.
        key: the configuration key at fault, such as `datamodule.batch_size`.
        file: the file at fault.
        row: the row at fault in `file`, as the message numbers it.
        hint: what to do.
    """

    def __init__(
        self,
        message: object,
        *,
        key: str | None = None,
        file: str | Path | None = None,
        row: int | None = None,
        hint: str | None = None,
    ):
        super().__init__(CONTROL.sub(lambda found: ascii(found[0])[1:-1], str(message)))
        self.key, self.file, self.row, self.hint = key, file, row, hint


def one_line(error: Exception) -> str:
    """Return an error's message in one line of at most 300 characters, or its type."""
    return " ".join(str(error).split())[:300] or type(error).__name__
