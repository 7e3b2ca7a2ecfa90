"""The one exception that fkp raises for a user's mistake, a bad file or a world that does not answer."""

import re

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class FkpError(Exception):
    """What is wrong, where, and the way out, in one message that is shown without a traceback. What a file says in it
    commands no terminal: control characters stand as they are written in Python."""

    def __init__(self, message: object):
        super().__init__(CONTROL.sub(lambda found: ascii(found[0])[1:-1], str(message)))
