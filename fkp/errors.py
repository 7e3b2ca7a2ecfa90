"""The one exception that fkp raises for a user's mistake, a bad file or a world that does not answer."""


class FkpError(Exception):
    """What is wrong, where, and the way out, in one message that is shown without a traceback."""
