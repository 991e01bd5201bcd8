"""System B, double: a target network, double DQN, and an observer that drives epsilon.

Stops when CartPole-v0 is solved: a mean return of 195 over 100 episodes. The observer can drive
any other parameter too. A loss that is not finite ends training with an error. --tensorboard
logs the greatest Q (train/q_max), the loss (train/loss) and the weights over time.

Ours: the sizes of the network, batch and memory, and all rates and intervals. A squared error
whose gradient is clipped to -1 ... 1 is the Huber loss, so that is what it is called here.
"""

import warnings

from returns import Returns, arguments

from sbdqn import DQN, MlpPolicy
from sbdqn.callbacks import ScheduleCallback, StopTrainingWhenSolved
from sbdqn.exploration import EpsilonGreedy
from sbdqn.schedules import Exponential


def log_weights(step: dict, _: dict) -> None:
    model: DQN = step["self"]
    if model.num_timesteps % 1_000 == 0:
        for name, weights in model.q_net.named_parameters():
            model.logger.record(f"weights/{name}", weights, exclude=("stdout", "csv"))


def main() -> None:
    parser = arguments(__doc__, timesteps=100_000)
    parser.add_argument("--tensorboard", metavar="DIR", help="log there")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", ".*CartPole-v0 is out of date", DeprecationWarning)
    model = DQN(
        MlpPolicy((64,), "Tanh", layer_norm=False, optimizer_class="SGD"),
        "CartPole-v0",
        learning_rate=0.05,
        exploration=EpsilonGreedy(1.0),
        backup="double",
        n_steps=1,
        target_update_interval=500,
        tau=1.0,
        loss="huber",
        max_grad_norm=None,
        gamma=0.99,
        buffer_size=50_000,
        batch_size=64,
        learning_starts=500,
        train_freq=1,
        tensorboard_log=options.tensorboard,
        seed=options.seed,
    )
    returns, solved = Returns(options.episodes), StopTrainingWhenSolved(195, verbose=1)
    observer = ScheduleCallback("exploration__epsilon", Exponential(1.0, 0.01, rate=0.001))
    model.learn(options.timesteps, callback=[returns, solved, observer, log_weights])
    returns.plot(options.plot, window=100)


if __name__ == "__main__":
    main()
