"""What is wrong, or unwise, with an environment before anything is learned in it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
from gymnasium import Env, Space, spaces
from gymnasium.vector import SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import iterate

from sbdqn.collector import Stepper
from sbdqn.envs import (
    EnvLike,
    FaultReporting,
    ObservationAdapter,
    discrete_actions,
    has_time_limit,
    make_vector_env,
)
from sbdqn.errors import add_note, require_count
from sbdqn.networks import MlpPolicy
from sbdqn.networks.bodies import is_image
from sbdqn.observations import flattened, parts_of
from sbdqn.protocols import PolicySpec

_log = logging.getLogger(__name__)

LARGE_OBSERVATION = 100.0
LARGE_REWARD = 1_000.0
_UNBOUNDED = "infinity. This is probably too"  # no mistake: networks do not mind


def check_env(
    env: EnvLike,
    warn: bool = True,
    skip_render_check: bool = True,
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    steps: int = 1_000,
    seed: int = 0,
) -> list[str]:
    """Look for the common mistakes in an environment, by playing at random.

    What `gymnasium.utils.env_checker.check_env` finds is among the findings. An
    environment that is passed as an object is reset and stepped; make another one to
    train in.

    Args:
        env: what `DQN` takes for `env`.
        warn: whether the findings are logged too.
        skip_render_check: whether nothing is rendered.
        env_kwargs: keyword arguments of the environment.
        steps: to play.
        seed: of the first reset, and of the actions.

    Returns:
        What a model could be trained with and is yet likely to be a mistake; nothing, if
        there is no such thing.

    Raises:
        SpaceError: if the spaces cannot be used, or an observation is not of its space.
        ConfigurationError: if the environment cannot be made, or `steps` is no integer of
            at least 1.
        NonFiniteError: if a reward or an observation is NaN or infinite.
        Exception: what the environment raises; the findings so far are its notes.

    Example:
        >>> from sbdqn import check_env
        >>> check_env("CartPole-v1")
        []
    """
    require_count("steps", steps)
    vector_env = make_vector_env(env, env_kwargs=env_kwargs)
    try:
        action_space = discrete_actions(vector_env.single_action_space)
        space = vector_env.single_observation_space
        ObservationAdapter(space)
        findings = [*_of_interface(vector_env, skip_render_check), *_of_images(space)]
        played = _Played(space)
        try:
            stepper = Stepper(FaultReporting(vector_env), deepcopy)
            played.play(stepper, int(action_space.n), steps, seed)
        except Exception as error:
            for finding in findings:
                add_note(error, finding)
            raise
        findings += played.findings(has_time_limit(vector_env))
    finally:
        if not isinstance(env, (Env, VectorEnv)):
            vector_env.close()
    if warn:
        for finding in findings:
            _log.warning("%s", finding)
    return findings


def advice_before(space: Space[Any], policy: PolicySpec, missing: int, steps: int) -> list[str]:
    """What is likely to be a mistake in a training that is about to begin.

    Args:
        space: of one observation.
        policy: makes the networks.
        missing: transitions that must come before the first update.
        steps: of the training.

    Example:
        >>> from gymnasium import spaces
        >>> advice_before(spaces.Box(-1, 1, (3,)), MlpPolicy(), missing=100, steps=500)
        []
    """
    advice = list(_of_images(space))
    if is_image(space) and isinstance(policy, MlpPolicy) and policy.features_extractor is None:
        advice.append("MlpPolicy sees an image as a flat vector; CnnPolicy reads images")
    if steps < missing:
        advice.append(
            f"nothing will be learned in {steps} timesteps: learning_starts demands {missing} "
            f"transitions more before the first update; lower it, or train longer"
        )
    return advice


def _of_interface(env: VectorEnv[Any, Any, Any], skip_render_check: bool) -> list[str]:
    """What gymnasium says of an environment in this process."""
    from gymnasium.utils.env_checker import check_env as check_interface

    inner = env.unwrapped
    findings: list[str] = []
    if not isinstance(inner, SyncVectorEnv):
        return findings
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check_interface(inner.envs[0].unwrapped, None, skip_render_check, skip_close_check=True)
        except Exception as error:  # whatever it is, it is what was to be found
            findings.append(f"gymnasium's check_env raises {type(error).__name__}: {error}")
    texts = [_plain(str(warning.message)) for warning in caught]
    warned = [f"gymnasium's check_env warns: {text}" for text in texts if _UNBOUNDED not in text]
    return findings + warned


def _plain(warning: str) -> str:
    """A warning without the colours and the word that gymnasium's logger adds."""
    return warning.replace("\x1b[33m", "").replace("\x1b[0m", "").removeprefix("WARN: ").strip()


def _of_images(space: Space[Any]) -> Iterator[str]:
    for name, part in _parts(space).items():
        if isinstance(part, spaces.Box) and _is_image_of_floats(part):
            yield (
                f"images{name} are of {part.dtype}, which takes {part.dtype.itemsize} times the "
                f"memory of bytes; let the environment give uint8 from 0 to 255, which CnnPolicy "
                f"scales"
            )


def _is_image_of_floats(space: spaces.Box) -> bool:
    shape = space.shape
    channels = min(shape) if len(shape) == 3 else 0
    return space.dtype.kind == "f" and 0 < channels <= 4 and sorted(shape)[1] >= 32


class _Played:
    """What was seen in an environment.

    Args:
        space: of one observation.
    """

    def __init__(self, space: Space[Any]) -> None:
        self._space = space
        self._outside = ""
        boxes = {n: each for n, each in _parts(space).items() if isinstance(each, spaces.Box)}
        # Of what networks take as it is.
        self._largest = {name: 0.0 for name, box in boxes.items() if not is_image(box)}
        self._rewards: list[float] = []
        self._ended = 0

    def play(self, stepper: Stepper, n_actions: int, steps: int, seed: int) -> None:
        """Step at random."""
        rng = np.random.default_rng(seed)
        stepper.reset(seed)
        self._look(stepper.env, stepper.obs)
        for _ in range(steps):
            row, _ = stepper.step(rng.integers(0, n_actions, stepper.n_envs))
            self._look(stepper.env, row.next_obs)
            if stepper.obs is not row.next_obs:  # episodes ended, and others began
                self._look(stepper.env, stepper.obs)
            self._rewards += row.reward.tolist()
            self._ended += int(np.count_nonzero(row.terminated | row.truncated))

    def findings(self, has_limit: bool) -> Iterator[str]:
        """What is likely to be a mistake."""
        if self._outside:
            yield self._outside
        for name, largest in self._largest.items():
            if largest > LARGE_OBSERVATION:
                yield (
                    f"observations{name} are up to {largest:.3g} in size, and networks learn best "
                    f"from numbers near 1; scale them with gymnasium.wrappers.RescaleObservation "
                    f"or TransformObservation"
                )
        largest = max(map(abs, self._rewards), default=0.0)
        if largest > LARGE_REWARD:
            yield (
                f"rewards are up to {largest:.3g} in size, and so are the errors that networks "
                f"learn from; scale or clip them with gymnasium.wrappers.TransformReward"
            )
        if largest == 0.0:
            yield (
                f"no reward but 0 came in {len(self._rewards)} random steps, so exploration may "
                f"never find one; reward steps on the way"
            )
        if not self._ended and not has_limit:
            yield (
                f"no episode ended in {len(self._rewards)} random steps, and nothing limits "
                f"their length; set one: gymnasium.wrappers.TimeLimit, or max_episode_steps where "
                f"the environment is registered"
            )

    def _look(self, env: VectorEnv[Any, Any, Any], observations: Any) -> None:
        for obs in iterate(env.observation_space, observations):
            if not self._outside and not self._space.contains(obs):
                self._outside = (
                    f"an observation lies outside of {self._space}: {obs!r}; correct the space, or "
                    f"the observation"
                )
            values = _values(self._space, obs)
            for name, largest in self._largest.items():
                self._largest[name] = max(largest, float(np.abs(values[name]).max(initial=0.0)))


def _parts(space: Space[Any]) -> dict[str, Space[Any]]:
    """The innermost spaces, by what follows a noun to name them."""
    parts = parts_of(space)
    return {"": space} if parts is None else {f" of {name!r}": part for name, part in parts.items()}


def _values(space: Space[Any], obs: Any) -> dict[str, Any]:
    """The parts of an observation, by the names of `_parts`."""
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        return {"": obs}
    return {f" of {name!r}": value for name, value in flattened(space, obs).items()}
