"""One transition of the chain, followed by hand from the environment to the new weight."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from sbdqn.backups import Double
from sbdqn.collector import Collector, Stepper
from sbdqn.exploration import EpsilonGreedy
from sbdqn.heads import Scalar
from sbdqn.learner import Learner
from sbdqn.networks import MlpPolicy, QNetwork
from sbdqn.protocols import ObservationPart, ReplayLayout
from sbdqn.replay import Uniform
from sbdqn.types import Clock, Purpose
from tests.environments import ChainEnv

GAMMA, LEARNING_RATE = 0.9, 0.1
LEFT, RIGHT = 0, 1
KNOWN = torch.from_numpy(ChainEnv.optimal_q(GAMMA).T).float()  # (A, states): the known Q


def set_q(network: QNetwork, q: torch.Tensor) -> None:
    """With one-hot states and no hidden layer the weights are the table of Q."""
    with torch.no_grad():
        network.output.linear.weight.copy_(q)
        network.output.linear.bias.zero_()


@pytest.fixture
def env() -> ChainEnv:
    return ChainEnv()


@pytest.fixture
def collector(env: ChainEnv, learner: Learner) -> Collector:
    vector_env = SyncVectorEnv([lambda: env], autoreset_mode=AutoresetMode.NEXT_STEP)
    stepper = Stepper(vector_env, np.array)
    return Collector(stepper, learner.online, 2)


@pytest.fixture
def learner() -> Learner:
    policy = MlpPolicy(net_arch=(), optimizer_class="SGD")
    online, target = (policy.build(ChainEnv().observation_space, 2, Scalar()) for _ in range(2))
    learner = Learner(online, target, Scalar("huber"), Double(), max_gradient_norm=10.0)
    learner.set_optimizer(policy.build_optimizer(learner.flat, LEARNING_RATE))
    return learner


def test_the_known_q_is_the_solution_of_the_chain() -> None:
    # Right from state 4 earns 1; each step before it costs one factor of 0.9.
    assert KNOWN[RIGHT].tolist() == pytest.approx([0.6561, 0.729, 0.81, 0.9, 1.0])
    assert KNOWN[LEFT].tolist() == pytest.approx([0.59049, 0.59049, 0.6561, 0.729, 0.81])


def test_one_transition_by_hand(env: ChainEnv, collector: Collector, learner: Learner) -> None:
    # The online network knows the chain, but takes `right` in state 2 for 0.5, not 0.81; the
    # target network values right in state 3 at 0.7, and would itself go left, for 2.0.
    believed = KNOWN.clone()
    believed[RIGHT, 2] = 0.5
    set_q(learner.online, believed)
    stale = KNOWN.clone()
    stale[RIGHT, 3], stale[LEFT, 3] = 0.7, 2.0
    set_q(learner.target, stale)

    # The environment stands in state 2.
    stepper = collector.stepper
    while not stepper.is_reset or stepper.obs[0] != 2:
        stepper.reset()
    assert env.state == 2
    q = learner.online.q(torch.tensor([2]), Purpose.ACT)
    assert q.tolist() == [pytest.approx([0.6561, 0.5])]
    greedy = collector.choose(EpsilonGreedy(0.0), Clock(0), np.random.default_rng(0))
    assert greedy.tolist() == [LEFT]

    # It goes right all the same (exploration), to state 3, for nothing.
    collector.send(np.array([RIGHT]))
    row, episodes = collector.receive()
    assert env.state == 3
    assert episodes == []
    assert (row.obs.tolist(), row.action.tolist(), row.next_obs.tolist()) == ([2], [RIGHT], [3])
    assert (row.reward.tolist(), row.terminated.tolist(), row.truncated.tolist()) == (
        [0.0],
        [False],
        [False],
    )
    assert (row.first.tolist(), row.valid.tolist()) == ([True], [True])

    # The replay holds this one transition.
    layout = ReplayLayout(
        obs=ObservationPart((), np.dtype(np.int64)),
        n_envs=1,
        capacity=10,
        n_steps=1,
        gamma=GAMMA,
        device=torch.device("cpu"),
        seed=np.random.SeedSequence(0),
    )
    replay = Uniform().build(layout)
    replay.add(row)
    batch = replay.sample(1, Clock(1))
    assert (batch.obs.tolist(), batch.action.tolist(), batch.next_obs.tolist()) == ([2], [1], [3])
    assert (batch.reward.tolist(), batch.weight.tolist()) == ([0.0], [1.0])
    assert batch.discount.tolist() == pytest.approx([0.9])

    # Double: the online network chooses right in state 3 (0.9 against 0.729).
    following = learner.target.predict(batch.next_obs, Purpose.TARGET)
    bootstrap = learner.backup(
        batch,
        learner.head.q(following),
        lambda obs: learner.online.q(obs, Purpose.TARGET),
        lambda obs: learner.target.q(obs, Purpose.TARGET),
    )
    assert bootstrap.policy.tolist() == [[0.0, 1.0]]
    # The target network values it: 0 + 0.9 * 0.7 = 0.63, not 0.9 * 2.0.
    target = learner.head.target(batch, bootstrap, following)
    assert target.tolist() == pytest.approx([0.63])

    # The error is 0.5 - 0.63 = -0.13, within 1: the loss is half its square, 0.00845.
    loss = learner.update(batch)
    assert loss.surprise.tolist() == pytest.approx([0.13])
    assert loss.value.tolist() == pytest.approx([0.00845])
    # Its slope -0.13 meets the weight of (right, state 2), whose input is 1, and the bias.
    gradient = learner.online.output.linear.weight.grad
    expected = torch.zeros(2, 5)
    expected[RIGHT, 2] = -0.13
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(learner.online.output.linear.bias.grad, torch.tensor([0.0, -0.13]))
    assert learner.last is not None
    assert learner.last.gradient_norm.item() == pytest.approx(0.13 * 2**0.5)  # no clipping

    # One step of 0.1 against it: 0.5 + 0.013, and the bias of right 0 + 0.013.
    believed[RIGHT, 2] = 0.513
    torch.testing.assert_close(learner.online.output.linear.weight.data, believed)
    assert learner.online.output.linear.bias.tolist() == pytest.approx([0.0, 0.013])
    # What the network now says of right in state 2: 0.526, nearer to 0.63.
    after = learner.online.q(torch.tensor([2]), Purpose.EVALUATE)
    assert after.tolist() == [pytest.approx([0.6561, 0.526])]
    torch.testing.assert_close(learner.target.output.linear.weight.data, stale)

    # The target network follows by a quarter: 0.81 + 0.25 * (0.513 - 0.81) = 0.73575.
    learner.sync(0.25)
    assert learner.target.output.linear.weight[RIGHT, 2].item() == pytest.approx(0.73575)
    assert learner.target.output.linear.weight[LEFT, 3].item() == pytest.approx(
        2.0 + 0.25 * (0.729 - 2.0)
    )


def test_the_last_transition_of_an_episode_by_hand(collector: Collector, learner: Learner) -> None:
    believed = KNOWN.clone()
    believed[RIGHT, 4] = 2.5
    set_q(learner.online, believed)
    learner.sync(1.0)
    stepper = collector.stepper
    while not stepper.is_reset or stepper.obs[0] != 4:
        stepper.reset()

    collector.send(np.array([RIGHT]))
    row, episodes = collector.receive()

    assert (row.reward.tolist(), row.terminated.tolist()) == ([1.0], [True])
    assert [(episode.reward, episode.length) for episode in episodes] == [(1.0, 1)]
    layout = ReplayLayout(
        ObservationPart((), np.dtype(np.int64)),
        n_envs=1,
        capacity=10,
        n_steps=1,
        gamma=GAMMA,
        device=torch.device("cpu"),
        seed=np.random.SeedSequence(0),
    )
    replay = Uniform().build(layout)
    replay.add(row)
    batch = replay.sample(1, Clock(1))
    assert batch.discount.tolist() == [0.0]
    # The target is the reward alone: 1. The error 1.5 is beyond 1, so the slope is 1.
    loss = learner.update(batch)
    assert loss.surprise.tolist() == [1.5]
    assert loss.value.tolist() == [1.0]
    assert learner.online.output.linear.weight[RIGHT, 4].item() == pytest.approx(2.4)
    assert learner.online.output.linear.bias.tolist() == pytest.approx([0.0, -0.1])
