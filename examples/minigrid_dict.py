"""Observations of several parts: MiniGrid, in which a key opens the door to the goal.

The agent sees the 7 x 7 cells before it, and the direction it faces. The mission is a text that
is always the same here, so it is left out. A return is 1 less a bit for every step, or 0.

A cell is three codes: object, colour and state. They are stored as bytes, from 0 to 255 as the
space has it, but are no brightness and none is above 10: divided by 255 they would all be
nearly 0. So normalize_images is off, and the image is flattened, not convolved. Needs
`pip install minigrid`.
"""

import gymnasium
import minigrid  # noqa: F401  # registers its environments
from gymnasium.wrappers import FilterObservation
from returns import Returns, arguments

from sbdqn import DQN, MultiInputPolicy, evaluate_policy
from sbdqn.schedules import Linear


def make_env() -> gymnasium.Env:
    return FilterObservation(gymnasium.make("MiniGrid-DoorKey-5x5-v0"), ["image", "direction"])


def make_model(seed: int) -> DQN:
    policy = MultiInputPolicy((128, 128), features_extractor=None, normalize_images=False)
    # What is behind it the agent does not see. Weights that still move much at the end can have
    # it turn round and round, without the random actions of training.
    rate = Linear(0.001, 0.00001, duration=100_000)
    return DQN(policy, make_env, n_envs=8, learning_rate=rate, seed=seed)


def main() -> None:
    options = arguments(__doc__, timesteps=100_000).parse_args()
    returns = Returns(options.episodes, decimals=2)
    model = make_model(options.seed)
    model.learn(options.timesteps, callback=returns)
    played, _ = evaluate_policy(model, make_env, 20, return_episode_rewards=True)
    print(f"Greedy: {sum(value > 0 for value in played)} of 20 episodes reach the goal")
    returns.plot(options.plot, window=100)


if __name__ == "__main__":
    main()
