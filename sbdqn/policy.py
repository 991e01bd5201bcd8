"""The built policy: networks with the spaces that they act in."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from sbdqn.envs import ObservationAdapter
from sbdqn.networks import QNetwork, q_of
from sbdqn.observations import rows_of, take
from sbdqn.protocols import Exploration
from sbdqn.types import Arrays, Clock, FloatArray, Purpose, Tensors


class Policy(nn.Module):
    """Predicts the greedy action of a Q-network.

    Args:
        observation_space: of one observation.
        action_space: of one action.
        q_net: the network that acts.
        q_net_target: the network that targets come from; `q_net` itself where
            there is none.
        device: where the networks are.
    """

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: spaces.Discrete,
        q_net: QNetwork,
        q_net_target: QNetwork,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.observation_space = observation_space
        self.action_space = action_space
        self.q_net = q_net
        self.q_net_target = q_net_target
        self.device = device
        self.adapter = ObservationAdapter(observation_space)
        self._start = np.int64(action_space.start)

    def forward(self, obs: Tensors) -> Tensor:
        """Greedy actions (B,) of observations (B, ...), counted from 0."""
        q: Tensor = self.q_net(obs)
        return q.argmax(dim=1)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[Any, Any]:
        """The greedy action; see `DQN.predict`. `deterministic` changes nothing here."""
        batch, single = self.adapter.batch(observation)
        best = self.q_of(batch).argmax(axis=1)
        return (best[0] if single else best) + self._start, state

    def explore(
        self, observation: Any, exploration: Exploration, clock: Clock, rng: np.random.Generator
    ) -> Any:
        """The action for one observation, or for each of a batch, as data collection chooses it.

        Args:
            observation: as for `predict`.
            exploration: how actions are chosen.
            clock: the moment, for its schedules.
            rng: that it draws from.
        """
        batch, single = self.adapter.batch(observation)
        actions = exploration.select(
            lambda rows: self.q_of(take(batch, rows), Purpose.ACT),
            rows_of(batch),
            int(self.action_space.n),
            clock,
            rng,
        )
        return (actions[0] if single else actions) + self._start

    def q_values(self, observation: Any) -> FloatArray:
        """Expected returns; see `DQN.q_values`."""
        batch, single = self.adapter.batch(observation)
        values = self.q_of(batch)
        return values[0] if single else values

    def q_of(self, batch: Arrays, purpose: Purpose = Purpose.EVALUATE) -> FloatArray:
        """Expected returns (B, A) of observations (B, ...) as they are stored."""
        network: Any = self._modules["q_net"]  # an attribute of a module is slow to look up
        return q_of(network, batch, purpose)
