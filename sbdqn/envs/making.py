"""From whatever describes an environment to a gymnasium vector environment."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from sbdqn.envs import atari
from sbdqn.envs.faults import start_workers
from sbdqn.envs.in_process import InProcessVectorEnv
from sbdqn.envs.namespaces import ATARI, namespace_of, register_namespace_of
from sbdqn.errors import ConfigurationError, MissingDependencyError, SpaceError

EnvLike: TypeAlias = (
    str
    | gymnasium.Env[Any, Any]
    | VectorEnv[Any, Any, Any]
    | Callable[..., gymnasium.Env[Any, Any]]
)
Vectorization = Literal["auto", "sync", "async", "vector_entry_point"]
VECTORIZATIONS = ("auto", "sync", "async", "vector_entry_point")
_UNFIT = re.compile(
    r"(?:unexpected keyword|multiple values for(?: keyword)?) argument '(\w+)'"
    r"|'(\w+)' is an invalid keyword|takes no (?:keyword )?arguments"
)
"""How Python says that a function does not take a keyword argument."""


def make_vector_env(
    env: EnvLike,
    n_envs: int = 1,
    vectorization: Vectorization = "auto",
    env_kwargs: Mapping[str, Any] | None = None,
) -> VectorEnv[Any, Any, Any]:
    """Make a vector environment.

    Args:
        env: a registered id, an environment, a vector environment, or a
            callable that makes an environment.
        n_envs: how many environments.
        vectorization: `"sync"` steps them one after the other, `"async"` in
            processes of their own, `"vector_entry_point"` uses the id's own
            vectorised implementation; `"auto"` does the last where there is
            one and more than one environment is wanted, and for Atari games
            (`sbdqn.envs.atari`), else the first.
        env_kwargs: keyword arguments of the environment.

    Raises:
        ConfigurationError: if the parts do not go together.
        MissingDependencyError: if the package of Atari, MinAtar or Box2D is not installed.
        WorkerError: if an environment cannot be made in a process of its own.
    """
    if isinstance(env, str):
        return _from_id(env, n_envs, vectorization, dict(env_kwargs or {}))
    if isinstance(env, (gymnasium.Env, VectorEnv)):
        if env_kwargs:
            raise ConfigurationError(
                f"env_kwargs={dict(env_kwargs)!r} cannot change an environment that is already "
                f"made; pass its id, or a callable that makes it"
            )
        if vectorization != "auto":
            raise ConfigurationError(
                f"vectorization={vectorization!r} cannot change an environment that is already "
                f"made; pass its id, or a callable that makes it"
            )
        return _from_made(env, n_envs)
    if callable(env):
        return _from_makers(_Maker(env, dict(env_kwargs or {})), n_envs, vectorization)
    raise ConfigurationError(
        f"env must be a registered id, a gymnasium.Env, a gymnasium.vector.VectorEnv or a "
        f"callable that makes a gymnasium.Env, not {env!r}"
    )


def make_evaluation_env(
    env: object,
    n_envs: int = 1,
    vectorization: Vectorization = "auto",
    env_kwargs: Mapping[str, Any] | None = None,
) -> VectorEnv[Any, Any, Any]:
    """Make further environments like those of training, to evaluate in.

    They are the same, but Atari games are full ones with raw rewards.

    Args:
        env: an id, or a callable that makes an environment.
        n_envs: how many environments.
        vectorization: as in training.
        env_kwargs: as in training.

    Raises:
        ConfigurationError: if `env` is an environment that is made already.
    """
    if isinstance(env, (gymnasium.Env, VectorEnv)) or not (isinstance(env, str) or callable(env)):
        raise ConfigurationError(
            f"further environments can be made of an id or a callable alone, not of {env!r}; make "
            f"the environment for evaluation as you made that one"
        )
    kwargs = dict(env_kwargs or {})
    if isinstance(env, str) and _makes_atari_games(_registered(env), vectorization):
        kwargs = atari.for_full_games(kwargs)
    return make_vector_env(env, n_envs, vectorization, kwargs)


def reward_threshold(env: VectorEnv[Any, Any, Any]) -> float | None:
    """The mean return at which the environment counts as solved, if it says."""
    spec = _spec_of(env)
    return None if spec is None else spec.reward_threshold


def has_time_limit(env: VectorEnv[Any, Any, Any]) -> bool:
    """Whether its registration cuts every episode after so many steps."""
    spec = _spec_of(env)
    return spec is not None and spec.max_episode_steps is not None


def _spec_of(env: VectorEnv[Any, Any, Any]) -> EnvSpec | None:
    inner = env.unwrapped
    if env.spec is None and isinstance(inner, (SyncVectorEnv, AsyncVectorEnv)):
        spec: EnvSpec | None = inner.get_attr("spec")[0]
        return spec
    return env.spec


@dataclass(frozen=True)
class _Maker:
    """Makes one environment."""

    make: Callable[..., Any]
    kwargs: dict[str, Any]

    def __call__(self) -> gymnasium.Env[Any, Any]:
        with _naming_unfit(self.kwargs, self.make):
            env = self.make(**self.kwargs)
        if not isinstance(env, gymnasium.Env):
            raise ConfigurationError(
                f"the callable passed as env must return a gymnasium.Env, not {env!r}; pass a "
                f"vector environment as it is"
            )
        return _with_spaces(env)


class _Borrowing(InProcessVectorEnv):
    """Around an environment that is somebody else's."""

    def __del__(self) -> None:
        """Leave the environment open; gymnasium before 1.3 would close it here."""


@dataclass(frozen=True)
class _ById:
    id: str

    def __repr__(self) -> str:
        return repr(self.id)

    def __call__(self, **kwargs: Any) -> gymnasium.Env[Any, Any]:
        register_namespace_of(self.id)  # this may be a process that does not know it yet
        try:
            return gymnasium.make(self.id, **kwargs)
        except gymnasium.error.DependencyNotInstalled as error:
            if "box2d" not in str(error) or not isinstance(error.__cause__, ModuleNotFoundError):
                raise
            raise MissingDependencyError(
                f"{self.id} needs more packages: pip install 'sbdqn[box2d]'"
            ) from error


def _from_id(
    env_id: str, n_envs: int, vectorization: Vectorization, kwargs: dict[str, Any]
) -> VectorEnv[Any, Any, Any]:
    spec = _registered(env_id)
    native = vectorization == "vector_entry_point"
    try:
        if _makes_atari_games(spec, vectorization):
            with _naming_unfit(kwargs, env_id):
                return atari.make_atari(spec, n_envs, kwargs)
        if native or (vectorization == "auto" and _has_own_vector_env(spec) and n_envs > 1):
            with _naming_unfit(kwargs, env_id):
                made = gymnasium.make_vec(
                    env_id, n_envs, vectorization_mode="vector_entry_point", **kwargs
                )
            return _with_own_autoreset(made)
        return _from_makers(_Maker(_ById(env_id), kwargs), n_envs, vectorization)
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        raise ConfigurationError(f"env {env_id!r} cannot be made: {error}") from error


def _registered(env_id: str) -> EnvSpec:
    """What an id is registered with, after its module has been imported."""
    module, _, name = env_id.rpartition(":")
    register_namespace_of(env_id)
    try:
        if module:  # "module:Name-v0": the module registers it
            importlib.import_module(module)
        return gymnasium.spec(name)
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        advice = ""
        if not module and isinstance(error, gymnasium.error.NameNotFound):
            advice = f" If a module of yours registers it, name that too: 'module:{env_id}'."
        raise ConfigurationError(f"env {env_id!r} cannot be made: {error}{advice}") from error


def _has_own_vector_env(spec: EnvSpec) -> bool:
    return spec.vector_entry_point is not None and not spec.additional_wrappers


def _makes_atari_games(spec: EnvSpec, vectorization: Vectorization) -> bool:
    """Whether ALE's vector environment is used; for a single game too."""
    its_own = vectorization in ("auto", "vector_entry_point") and _has_own_vector_env(spec)
    return its_own and namespace_of(spec.id) == ATARI


@contextmanager
def _naming_unfit(kwargs: Mapping[str, Any], env: object) -> Iterator[None]:
    """Name the keyword arguments that an environment does not take.

    A `TypeError` about anything else is the environment's own and stays as it is.
    """
    try:
        yield
    except TypeError as error:
        unfit = _UNFIT.search(str(error))
        name = unfit and (unfit[1] or unfit[2])
        if unfit is None or not kwargs or (name and name not in kwargs):
            raise
        raise ConfigurationError(
            f"env_kwargs={dict(kwargs)!r} do not fit the environment {env!r}: {error}; pass what "
            f"its constructor takes"
        ) from error


def _from_makers(
    maker: _Maker, n_envs: int, vectorization: Vectorization
) -> VectorEnv[Any, Any, Any]:
    if vectorization == "vector_entry_point":
        raise ConfigurationError(
            "vectorization='vector_entry_point' needs the id of an environment that registers "
            "one; make the vector environment and pass it as it is"
        )
    makers = [maker] * n_envs
    made = start_workers(makers) if vectorization == "async" else InProcessVectorEnv(makers)
    return _with_own_autoreset(made)


def _from_made(
    env: gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any], n_envs: int
) -> VectorEnv[Any, Any, Any]:
    if isinstance(env, gymnasium.Env):
        if n_envs != 1:
            raise ConfigurationError(
                f"n_envs={n_envs}, but a single environment was passed; pass its id, or a callable "
                f"that makes it, to have several"
            )
        return _with_own_autoreset(_Borrowing([lambda: _with_spaces(env)]))
    if n_envs not in (1, env.num_envs):
        raise ConfigurationError(
            f"n_envs={n_envs}, but the vector environment has {env.num_envs}; leave n_envs out"
        )
    return _with_own_autoreset(env)


def _with_spaces(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """The environment, if it says what it observes and what can be done in it."""
    for name in ("observation_space", "action_space"):
        space = getattr(env, name, None)
        if not isinstance(space, gymnasium.Space):
            raise SpaceError(
                f"the environment's {name} must be a gymnasium.Space, not {space!r}; set "
                f"self.{name} in its __init__"
            )
    return env


def _with_own_autoreset(env: VectorEnv[Any, Any, Any]) -> VectorEnv[Any, Any, Any]:
    """The environment, with metadata of its own that name its autoreset mode."""
    mode = _autoreset_mode(env)
    if not isinstance(mode, AutoresetMode):
        raise ConfigurationError(
            f"the vector environment does not say how it resets itself: "
            f"metadata['autoreset_mode'] is {mode!r}; set it to a member of "
            f"gymnasium.vector.AutoresetMode, in metadata of the environment's own"
        )
    env.metadata = {**env.metadata, "autoreset_mode": mode}
    return env


def _autoreset_mode(env: VectorEnv[Any, Any, Any]) -> object:
    """How it resets itself, as it says, not as another one wrote into shared metadata.

    ALE's vector environment writes into the dict that all vector environments
    without one of their own share, and `SyncVectorEnv`, before gymnasium 1.4, into
    that of the class of its environments.
    """
    said, inner = env.metadata.get("autoreset_mode"), env.unwrapped
    if env.metadata is not inner.metadata or not isinstance(said, AutoresetMode):
        return said  # a wrapper has the last word
    own = getattr(inner, "autoreset_mode", None)
    if own is None and inner.metadata is not VectorEnv.metadata:
        own = said
    return own
