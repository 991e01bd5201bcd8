"""Checks for the parts that you write yourself.

Each check returns None, or raises a `CheckFailedError` that says what was
expected, what was found and what to do about it. None of them needs pytest.
"""

from sbdqn.testing.backups import check_backup
from sbdqn.testing.bodies import check_body
from sbdqn.testing.errors import CheckFailedError
from sbdqn.testing.heads import check_head
from sbdqn.testing.replays import check_replay

__all__ = ["CheckFailedError", "check_backup", "check_body", "check_head", "check_replay"]
