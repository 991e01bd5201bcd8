"""What the scripts share: their arguments, and the returns they print and plot."""

from __future__ import annotations

import argparse
import importlib.util

from sbdqn.callbacks import BaseCallback

NO_LIMIT = 10**9


def arguments(
    description: str | None, timesteps: int = NO_LIMIT, episodes: int = NO_LIMIT
) -> argparse.ArgumentParser:
    """The arguments that every system takes; how long it trains by default is its own."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("timesteps", timesteps), ("episodes", episodes)):
        limit = "no limit" if default == NO_LIMIT else default
        text = f"train for at most so many ({limit})"
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=text)
    parser.add_argument("--seed", type=int, default=0, help="makes the run repeatable (0)")
    parser.add_argument("--plot", metavar="FILE", type=_drawable, help="draw the returns into FILE")
    return parser


def _drawable(file: str) -> str:
    if importlib.util.find_spec("matplotlib") is None:
        raise argparse.ArgumentTypeError('needs matplotlib: pip install "sbdqn[plot]"')
    return file


class Returns(BaseCallback):
    """Prints the returns, ten episodes to a line; ends training after `episodes` of them."""

    def __init__(self, episodes: int = NO_LIMIT, decimals: int = 0) -> None:
        super().__init__()
        self.episodes = episodes
        self.decimals = decimals
        self.returns: list[float] = []

    def _on_step(self) -> bool:
        for episode in self.locals["episodes"]:
            self.returns.append(episode.reward)
            if len(self.returns) % 10 == 0:
                self._print(self.returns[-10:])
        return len(self.returns) < self.episodes

    def _on_training_end(self) -> None:
        self._print(self.returns[len(self.returns) // 10 * 10 :])

    def _print(self, returns: list[float]) -> None:
        if returns:
            listed = "".join(f"{value:6.{self.decimals}f}" for value in returns)
            print(f"step {self.num_timesteps:7}  episode {len(self.returns):5}  returns{listed}")

    def means(self, window: int) -> list[float]:
        """For each episode, the mean return of the last `window` up to it."""
        ends = range(1, len(self.returns) + 1)
        recent = [self.returns[max(0, end - window) : end] for end in ends]
        return [sum(returns) / len(returns) for returns in recent]

    def plot(self, file: str | None, window: int) -> None:
        """Draw the returns and their running mean into a file, if there is a name for one."""
        if file is None:
            return
        from matplotlib.figure import Figure

        figure = Figure(layout="constrained")
        axes = figure.subplots()
        axes.plot(self.returns, linewidth=0.5, label="return")
        axes.plot(self.means(window), label=f"mean of the last {window}")
        axes.set(xlabel="episode", ylabel="return")
        axes.legend()
        figure.savefig(file)
