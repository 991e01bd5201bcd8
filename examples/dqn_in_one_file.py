"""DQN in one file: the algorithm that sbdqn runs by default, without sbdqn.

Read it from top to bottom as a map: every step acts and stores the n-step transitions that it
completes; every few steps one batch is replayed; now and then the target network catches up.

    python dqn_in_one_file.py --env CartPole-v1 --timesteps 50000 --plot returns.png

Sources: DQN (Mnih et al., 2015), double DQN (van Hasselt et al., 2016), n-step returns as in
Rainbow (Hessel et al., 2018), time limits (Pardo et al., 2018).
"""

import argparse
import copy
from collections import deque
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
from torch import nn


@dataclass(frozen=True)
class Settings:
    """What can be tuned. Every interval counts environment steps."""

    learning_rate: float = 1e-3
    buffer_size: int = 100_000
    learning_starts: int = 100
    batch_size: int = 64
    gamma: float = 0.99
    n_steps: int = 8
    train_freq: int = 4
    gradient_steps: int = 1
    target_update_interval: int = 500
    tau: float = 1.0  # 1 copies the network (a hard sync); less moves towards it (Polyak)
    exploration_fraction: float = 0.2
    exploration_initial_eps: float = 1.0
    exploration_final_eps: float = 0.05
    max_grad_norm: float = 10.0
    hidden: int = 64


def make_network(obs_size: int, n_actions: int, hidden: int) -> nn.Module:
    """A network from observations (B, D) to action values (B, A)."""
    return nn.Sequential(
        *(nn.Linear(obs_size, hidden), nn.LayerNorm(hidden), nn.ReLU()),
        *(nn.Linear(hidden, hidden), nn.LayerNorm(hidden), nn.ReLU()),
        nn.Linear(hidden, n_actions),
    )


@torch.no_grad()
def greedy(network: nn.Module, obs: np.ndarray) -> int:
    """The best action for one observation (D,)."""
    return int(network(torch.as_tensor(obs, dtype=torch.float32)).argmax())


class Replay:
    """A preallocated ring of n-step transitions, drawn uniformly with replacement.

    `discount` is gamma**m for the m steps that a transition really spans, or 0 if it ends in a
    terminal state: all that the update has to know about gamma, n-step windows and ends.
    """

    def __init__(self, capacity: int, obs_size: int, gamma: float, n_steps: int):
        self.obs = torch.zeros(capacity, obs_size)
        self.action = torch.zeros(capacity, dtype=torch.int64)
        self.reward = torch.zeros(capacity)
        self.next_obs = torch.zeros(capacity, obs_size)
        self.discount = torch.zeros(capacity)
        self.capacity, self.gamma, self.n_steps = capacity, gamma, n_steps
        self.stored = 0  # ever; the ring holds the last `capacity` of them
        self.window = deque()  # (obs, action, reward) of steps whose n-step return is still open

    def add(self, obs, action, reward, next_obs, terminated, truncated) -> None:
        """Stores the transitions that one environment step completes."""
        self.window.append((obs, action, reward))
        ended = terminated or truncated  # no window crosses an end: the steps left get shorter ones
        while self.window and (ended or len(self.window) == self.n_steps):
            rewards = [reward for _, _, reward in self.window]
            row, self.stored = self.stored % self.capacity, self.stored + 1
            first_obs, first_action, _ = self.window.popleft()
            self.obs[row] = torch.as_tensor(first_obs)
            self.action[row] = first_action
            self.reward[row] = sum(self.gamma**k * reward for k, reward in enumerate(rewards))
            self.next_obs[row] = torch.as_tensor(next_obs)
            # A time limit (truncated) does not end the task: only `terminated` cuts the bootstrap.
            self.discount[row] = 0.0 if terminated else self.gamma ** len(rewards)

    def sample(self, size: int, rng: np.random.Generator):
        """A batch: obs (B, D), action (B,), reward (B,), next_obs (B, D), discount (B,)."""
        rows = torch.from_numpy(rng.integers(min(self.stored, self.capacity), size=size))
        ring = (self.obs, self.action, self.reward, self.next_obs, self.discount)
        return tuple(column[rows] for column in ring)


def double_dqn_loss(online: nn.Module, target: nn.Module, batch) -> torch.Tensor:
    """The Huber loss of Q(s, a) against r + discount * Q_target(s', argmax_a' Q(s', a'))."""
    obs, action, reward, next_obs, discount = batch
    with torch.no_grad():
        best = online(next_obs).argmax(dim=1, keepdim=True)  # the online network chooses, (B, 1)
        value = target(next_obs).gather(1, best).squeeze(1)  # the target network values, (B,)
        goal = reward + discount * value
    chosen = online(obs).gather(1, action.unsqueeze(1)).squeeze(1)
    return nn.functional.smooth_l1_loss(chosen, goal)


@torch.no_grad()
def sync(target: nn.Module, online: nn.Module, tau: float) -> None:
    """Moves the target network towards the online one; tau = 1 copies it."""
    for slow, fast in zip(target.parameters(), online.parameters(), strict=True):
        slow.lerp_(fast, tau)


def epsilon(step: int, timesteps: int, settings: Settings) -> float:
    """Linear from the initial to the final value over the first part of training."""
    annealed = min(1.0, step / (settings.exploration_fraction * timesteps))
    start, end = settings.exploration_initial_eps, settings.exploration_final_eps
    return start + annealed * (end - start)


def train(env: gym.Env, timesteps: int, seed: int, settings: Settings):
    """Learns; returns the online network and, per episode, (step at its end, return)."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    (obs_size,), n_actions = env.observation_space.shape, int(env.action_space.n)
    online = make_network(obs_size, n_actions, settings.hidden)
    target = copy.deepcopy(online)
    optimizer = torch.optim.Adam(online.parameters(), lr=settings.learning_rate)
    replay = Replay(settings.buffer_size, obs_size, settings.gamma, settings.n_steps)

    (obs, _), episodes, episode_return = env.reset(seed=seed), [], 0.0
    for step in range(1, timesteps + 1):
        eps = 1.0 if step <= settings.learning_starts else epsilon(step, timesteps, settings)
        action = int(rng.integers(n_actions)) if rng.random() < eps else greedy(online, obs)
        next_obs, reward, terminated, truncated, _ = env.step(action)
        replay.add(obs, action, float(reward), next_obs, terminated, truncated)
        obs, episode_return = next_obs, episode_return + float(reward)
        if terminated or truncated:
            episodes.append((step, episode_return))
            print(f"step {step:7d}  episode {len(episodes):5d}  return {episode_return:8.1f}")
            (obs, _), episode_return = env.reset(), 0.0
        if replay.stored >= settings.learning_starts and step % settings.train_freq == 0:
            for _ in range(settings.gradient_steps):
                loss = double_dqn_loss(online, target, replay.sample(settings.batch_size, rng))
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(online.parameters(), settings.max_grad_norm)
                optimizer.step()
        if step % settings.target_update_interval == 0:
            sync(target, online, settings.tau)
    return online, episodes


def evaluate(env: gym.Env, network: nn.Module, n_episodes: int, seed: int) -> list[float]:
    """The returns of the greedy policy, without exploration."""
    returns = []
    for episode in range(n_episodes):
        (obs, _), total, ended = env.reset(seed=seed + episode), 0.0, False
        while not ended:
            obs, reward, terminated, truncated, _ = env.step(greedy(network, obs))
            total, ended = total + float(reward), terminated or truncated
        returns.append(total)
    return returns


def plot(episodes, path: str, window: int = 20) -> None:
    """Draws each episode's return and the running mean of the last `window`."""
    import matplotlib.pyplot as plt

    steps, returns = np.array(episodes).reshape(-1, 2).T
    means = [returns[max(0, i + 1 - window) : i + 1].mean() for i in range(len(returns))]
    figure, axes = plt.subplots()
    axes.plot(steps, returns, ".", steps, means, "-")
    axes.set(xlabel="environment steps", ylabel=f"return, and the mean of the last {window}")
    figure.savefig(path)


def main() -> None:
    """Trains, evaluates greedily, prints and plots."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--env", default="CartPole-v1", help="vector observations, start-0 actions")
    parser.add_argument("--timesteps", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", metavar="FILE", help="draw the returns of training into FILE")
    args = parser.parse_args()
    if args.plot:
        import matplotlib  # noqa: F401, where it is missing say so before training

    torch.set_num_threads(1)  # the network is small: more threads only wait for each other
    network, episodes = train(gym.make(args.env), args.timesteps, args.seed, Settings())
    returns = evaluate(gym.make(args.env), network, n_episodes=20, seed=args.seed + 10_000)
    print(f"greedy: {np.mean(returns):.1f} +- {np.std(returns):.1f} over {len(returns)} episodes")
    if args.plot:
        plot(episodes, args.plot)


if __name__ == "__main__":
    main()
