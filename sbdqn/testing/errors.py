"""What a check raises."""

from sbdqn.errors import SbdqnError


class CheckFailedError(SbdqnError, AssertionError):
    """A part does not keep what its protocol promises."""
