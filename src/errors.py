"""The one exception that a user is meant to read."""


class StrataError(Exception):
    """Bad input or a bad state of the disk: the message names the thing and the remedy.

    Stages print the message alone (no traceback) and exit with status 1.
    """


class NotApplicableError(StrataError):
    """What a stage does means nothing for this model: a pipeline goes on without it."""
