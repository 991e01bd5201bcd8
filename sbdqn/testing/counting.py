"""Environments whose every step has a name, and what a replay must say of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from sbdqn.protocols import ReplayLayout
from sbdqn.testing.steps import expect, only_tensor
from sbdqn.types import Array, Batch, Row

_LENGTHS = (1, 4, 2, 7, 3, 30)
# Of the ends in turn: terminated, truncated, both, and a reset that nothing announces.
_ENDS = ("T", "U", "A", "B", "U")


class _Step(NamedTuple):
    """What one environment contributes to a row."""

    obs: Array
    action: int
    reward: float
    next_obs: Array
    terminated: bool
    truncated: bool
    first: bool
    valid: bool


class _Episode:
    """What has happened in an episode.

    Attributes:
        steps: action and reward of each.
        number: how many steps of this environment came before it.
        has_ended: whether there will be no more.
        is_terminal: whether it has ended in a terminal state.
    """

    def __init__(self, number: int) -> None:
        self.steps: list[tuple[int, float]] = []
        self.number = number
        self.has_ended = self.is_terminal = False


class CountingEnvs:
    """A vector of environments that names every observation (env, episode, t).

    Every second episode is followed by a row that is no transition, as where
    an environment spends a step on its reset.

    Args:
        layout: of the replay that is fed.

    Attributes:
        transitions: rows' entries given so far that are transitions.
    """

    def __init__(self, layout: ReplayLayout) -> None:
        self._layout = layout
        self._part = layout.parts[""]
        self._episodes: dict[tuple[int, int], _Episode] = {}
        self._counts = [0] * layout.n_envs
        self._columns = [self._column(env) for env in range(layout.n_envs)]

    @property
    def transitions(self) -> int:
        """Transitions given so far."""
        return sum(self._counts)

    @property
    def complete(self) -> int:
        """Transitions among them whose n-step window is complete."""
        n_open = sum(
            min(len(episode.steps), self._layout.n_steps - 1)
            for episode in self._episodes.values()
            if not episode.has_ended
        )
        return self.transitions - n_open

    def row(self) -> Row:
        """The next step of all environments, in arrays of its own."""
        steps = [next(column) for column in self._columns]
        return Row(*(np.array(values) for values in zip(*steps, strict=True)))

    def tails(self, batch: Batch) -> int:
        """How many transitions of a batch lie nearer to their end than `n_steps`."""
        named = [self._find(obs) for obs in only_tensor(batch.obs).numpy()]
        n_steps = self._layout.n_steps
        return sum(ended.has_ended and t + n_steps > len(ended.steps) for *_, t, ended in named)

    def expect_true(self, batch: Batch, gamma: float) -> None:
        """Fail unless every transition of a batch is what has happened.

        Raises:
            CheckFailedError: if one is not.
        """
        columns: list[Tensor] = [only_tensor(column) for column in batch]
        for place in range(len(batch.reward)):
            self._expect_true(Batch._make(column[place].numpy() for column in columns), gamma)

    def _column(self, env: int) -> Iterator[_Step]:
        count = 0
        while True:
            length, end = _LENGTHS[(count + env) % 6], _ENDS[(count + env) % 5]
            episode = self._episodes[env, count] = _Episode(self._counts[env])
            if count:
                self._episodes[env, count - 1].has_ended = True
            for t in range(length):
                yield self._step(env, count, t, length, end)
            count += 1
            if end != "A" and count % 2:
                last, first = self._obs(env, count - 1, length), self._obs(env, count, 0)
                yield _Step(last, 1, 999.0, first, False, False, False, False)
            assert len(episode.steps) == length

    def _step(self, env: int, count: int, t: int, length: int, end: str) -> _Step:
        episode = self._episodes[env, count]
        action = (env + count + t) % 3
        reward = float((env * 7919 + count * 104729 + t * 15485863) % 1009) / 100 - 5
        episode.steps.append((action, reward))
        self._counts[env] += 1
        is_last = t + 1 == length
        episode.is_terminal = is_last and end in "TB"
        truncated = is_last and end in "UB"
        episode.has_ended = episode.is_terminal or truncated
        here, there = self._obs(env, count, t), self._obs(env, count, t + 1)
        return _Step(here, action, reward, there, episode.is_terminal, truncated, t == 0, True)

    def _obs(self, env: int, episode: int, t: int) -> Array:
        return np.array([env, episode, t], self._part.dtype).reshape(self._part.shape)

    def _find(self, obs: Array) -> tuple[int, int, int, _Episode]:
        env, count, t = (int(value) for value in obs.reshape(-1))
        episode = self._episodes.get((env, count))
        known = episode is not None and 0 <= t <= len(episode.steps)
        found = f"an observation {obs.reshape(-1).tolist()} that no environment has had"
        advice = "copy what add is given, and draw places that have been written"
        expect(known, "an observation that was given to add", found, advice)
        assert episode is not None
        return env, count, t, episode

    def _expect_true(self, drawn: Any, gamma: float) -> None:
        """The same, of one transition whose fields are arrays."""
        env, count, t, episode = self._find(drawn.obs)
        name = f"step {t} of episode {count} in environment {env}"
        self._expect_complete(name, t, episode)
        action, _ = episode.steps[t]
        advice = "store actions in the rows of their observations"
        expect(drawn.action == action, f"action {action} at {name}", drawn.action, advice)
        span = min(self._layout.n_steps, len(episode.steps) - t)
        total = sum(gamma**k * reward for k, (_, reward) in enumerate(episode.steps[t:][:span]))
        expected = f"reward {total:.4f}, discounted over {span} step(s) from {name}"
        advice = "a window stops at the first end, and crosses neither episodes nor invalid rows"
        expect(abs(drawn.reward - total) < 1e-3, expected, drawn.reward, advice)
        successor = self._obs(env, count, t + span).reshape(-1).tolist()
        expected = f"next_obs {successor}, {span} step(s) from {name}"
        advice = "take Row.next_obs: at an end it is the true last observation"
        found = drawn.next_obs.reshape(-1).tolist()
        expect(found == successor, expected, found, advice)
        is_terminal = episode.is_terminal and t + span == len(episode.steps)
        discount = 0.0 if is_terminal else gamma**span
        kind = "which terminates" if is_terminal else f"which spans {span} step(s)"
        expected = f"discount {discount:.4f} at {name}, {kind}"
        advice = "it is gamma**m * (1 - terminated): truncation does not cut it, termination does"
        expect(abs(drawn.discount - discount) < 1e-4, expected, drawn.discount, advice)
        age = self._counts[env] - (episode.number + t)
        advice = "forget the oldest as new ones come in"
        expected = f"one of the latest {self._layout.capacity} transitions, the capacity"
        expect(age <= self._layout.capacity, expected, f"{name}, {age} steps ago", advice)

    def _expect_complete(self, name: str, t: int, episode: _Episode) -> None:
        length = len(episode.steps)
        begins = t < length
        advice = "the last observation of an episode begins no transition, nor does the newest"
        expect(begins, "the observation that a transition begins with", f"{name}, the last", advice)
        is_complete = episode.has_ended or t + self._layout.n_steps <= length
        advice = f"wait for {self._layout.n_steps} steps, or for the end of the episode"
        expect(is_complete, "a transition with a complete window", f"{name}: it is open", advice)
