"""A replay of your own: of two uniform draws, the transition that came in later is taken."""

from dataclasses import dataclass

import numpy as np
import torch
from returns import Returns, arguments

from sbdqn import DQN, evaluate_policy
from sbdqn.replay import RingReplay, Storage
from sbdqn.testing import check_replay


class Later:  # says what is drawn; the ring and its n-step returns are the library's
    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.birth, self.births = np.zeros(storage.size, np.int64), 0
        storage.on_change = self.follow

    def follow(self, place, sampleable) -> None:
        self.birth[place] = self.births
        self.births += 1

    def draw(self, count, clock, rng):
        one, other = self.storage.draw(2 * count, rng).reshape(2, count)
        return np.where(self.birth[one] > self.birth[other], one, other), None  # weights of 1

    def feedback(self, index, surprise) -> None: ...

    def state_dict(self):
        return {"birth": torch.from_numpy(self.birth), "births": self.births}

    def require_fit(self, state, sampleable) -> None: ...

    def load_state_dict(self, state) -> None:
        self.birth[:], self.births = state["birth"].numpy(), state["births"]


@dataclass(frozen=True)
class Recent:
    def nbytes(self, layout) -> int:
        return Storage.nbytes(layout) + 8 * (layout.capacity + 2 * layout.n_envs)

    def build(self, layout) -> RingReplay:
        return RingReplay(storage := Storage(layout), Later(storage), layout.seed)


def main() -> None:
    options = arguments(__doc__, timesteps=20_000).parse_args()
    check_replay(Recent())
    model = DQN("MlpPolicy", "CartPole-v1", replay=Recent(), seed=options.seed)
    returns = Returns(options.episodes)
    model.learn(options.timesteps, callback=returns)
    print(f"Greedy mean of 10 episodes: {evaluate_policy(model, 'CartPole-v1')[0]:.1f}")
    returns.plot(options.plot, window=100)


if __name__ == "__main__":
    main()
