"""Environments in the middle of their episodes, as bytes."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

from gymnasium.utils import EzPickle
from gymnasium.vector import AsyncVectorEnv, VectorEnv

from sbdqn.errors import CheckpointError


class Environments(NamedTuple):
    """What a checkpoint holds of environments.

    Attributes:
        env: the vector environment.
        given: what the user described it by, if that is no id.
    """

    env: VectorEnv[Any, Any, Any]
    given: Any


def pickled_environments(environments: Environments) -> tuple[bytes, str]:
    """Environments as cloudpickle writes them, with all of their state.

    Returns:
        The bytes, none if the environments cannot be copied; and why not.
    """
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def persistent_id(self, value: object) -> None:
            """Look at everything that is to be copied, however deep in an environment."""
            _require_copyable(value)

    file = io.BytesIO()
    try:
        Pickler(file).dump(tuple(environments))
        return file.getvalue(), ""
    except _NotCopyableError as error:
        return b"", str(error)
    except Exception as error:  # of whatever class has something that cannot be pickled
        return b"", f"they cannot be pickled: {error}"


def _require_copyable(value: object) -> None:
    if isinstance(value, AsyncVectorEnv):
        raise _NotCopyableError("they run in processes of their own")
    if isinstance(value, EzPickle):  # which writes how it was made, and not what it became
        raise _NotCopyableError(f"{type(value).__name__} cannot be copied with its state")


class _NotCopyableError(Exception):
    """Something of which a pickle is no copy."""


def unpickled_environments(pickled: bytes) -> Environments:
    """Environments in the state that they had. Executes what is in the bytes.

    Raises:
        CheckpointError: if they cannot be read.
    """
    import cloudpickle

    try:
        environments = Environments(*cloudpickle.loads(pickled))
    except Exception as error:
        raise CheckpointError(
            f"the environments cannot be unpickled, which another version of Python or of their "
            f"classes may have written: {error!r}; make importable what they are made of, or pass "
            f"env, which begins new episodes"
        ) from error
    if not isinstance(environments.env, VectorEnv):
        raise CheckpointError(f"the file's environments are a {type(environments.env).__name__}")
    return environments
