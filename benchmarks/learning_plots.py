"""Figures of `learning.py`: learning curves, and what a study says of stability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from learning_settings import LIBRARIES, Setting, Task
from learning_statistics import (
    Curve,
    Estimate,
    estimate,
    interquartile_mean,
    interval,
    mean,
    stability,
)
from matplotlib.figure import Figure

Runs = Mapping[Setting, Sequence[Curve]]
COLOURS = {"sbdqn": "C0", "sb3": "C1", "random": "grey"}

mpl.rcParams["svg.hashsalt"] = "sbdqn"  # the same file for the same curves


def draw_curves(runs: Runs, file: Path) -> None:
    """IQM of the evaluations with its interval, a panel for each task and budget."""
    panels: dict[tuple[Task, int], list[Setting]] = {}
    for setting in runs:
        if setting.library != "random":
            panels.setdefault((setting.task, setting.timesteps), []).append(setting)
    figure = Figure(figsize=(6.4, 0.4 + 2.9 * len(panels)), layout="constrained")
    all_axes = figure.subplots(len(panels), squeeze=False)[:, 0]
    for axes, ((task, _), settings) in zip(all_axes, panels.items(), strict=True):
        for setting in settings:
            draw_curve(axes, setting, runs[setting])
        for setting, curves in runs.items():
            if setting.library == "random" and setting.task == task:
                level = np.mean([curve.final for curve in curves])
                axes.axhline(level, color="grey", linestyle="--", linewidth=1, label="random")
        if task.threshold is not None:
            axes.axhline(task.threshold, color="black", linestyle=":", linewidth=1)
        axes.set(title=task.env_id, xlabel="timesteps", ylabel="mean return, greedy")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.legend()
    save(figure, file)


def draw_curve(axes: Any, setting: Setting, curves: Sequence[Curve]) -> None:
    """One line, and a band where there are several seeds."""
    means = np.stack([curve.means for curve in curves])  # (seeds, evaluations)
    timesteps = curves[0].timesteps
    colour = COLOURS[setting.library]
    label = f"{LIBRARIES[setting.library]}, {len(curves)} seeds"
    axes.plot(timesteps, interquartile_mean(means, axis=0), color=colour, label=label)
    if len(curves) > 1:
        low, high = interval(interquartile_mean, means)
        axes.fill_between(timesteps, low, high, color=colour, alpha=0.2, linewidth=0)


def draw_study(runs: Runs, file: Path) -> None:
    """How much is held and how well it ends, a row for each setting; the first is the base."""
    names = [setting.name.replace("_", " ") for setting in runs]
    held, ends = [], []
    for setting, curves in runs.items():
        assert setting.task.threshold is not None
        held.append(scaled(stability(curves, setting.task.threshold), 100.0))
        ends.append(estimate(mean, [curve.final for curve in curves]))
    figure = Figure(figsize=(7.2, 0.9 + 0.27 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    draw_estimates(left, held)
    draw_estimates(right, ends)
    left.set(xlabel="% of later evaluations that hold the threshold", yticks=range(len(names)))
    left.set_yticklabels(names)
    left.invert_yaxis()
    right.set(xlabel="mean return of the final policy")
    save(figure, file)


def draw_estimates(axes: Any, figures: Sequence[Estimate]) -> None:
    """A point and its interval in each row, and a line through the first."""
    axes.axvline(figures[0].value, color="grey", linestyle="--", linewidth=1)
    for place, (value, low, high) in enumerate(figures):
        axes.plot([value], [place], "o", color="C0", markersize=4)
        if low is not None:
            axes.plot([low, high], [place, place], color="C0", linewidth=1.5)
    axes.grid(axis="x", linewidth=0.3)


def scaled(figure: Estimate, factor: float) -> Estimate:
    """In another unit."""
    low, high = (None if end is None else factor * end for end in (figure.low, figure.high))
    return Estimate(factor * figure.value, low, high)


def save(figure: Figure, file: Path) -> None:
    """As SVG, without the date."""
    figure.savefig(file, metadata={"Date": None})
