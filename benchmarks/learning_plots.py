"""Figures of `learning.py`: learning curves, and what a study says of stability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from learning_settings import Setting, Task
from learning_statistics import (
    FEWEST_SEEDS,
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

mpl.rcParams["svg.hashsalt"] = "sbdqn"  # the same file for the same curves


def draw_curves(runs: Runs, file: Path) -> None:
    """A row for each task and budget: the returns, and how many seeds are at the threshold."""
    rows: dict[tuple[Task, int], list[Setting]] = {}
    for setting in runs:
        if setting.library != "random":
            rows.setdefault((setting.task, setting.timesteps), []).append(setting)
    has_thresholds = all(task.threshold is not None for task, _ in rows)
    size = (8.0 if has_thresholds else 6.4, 0.2 + 2.7 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(rows), 2 if has_thresholds else 1, squeeze=False)
    for row, ((task, _), settings) in zip(grid, rows.items(), strict=True):
        draw_returns(row[0], task, {each: runs[each] for each in settings})
        for setting, curves in runs.items():
            if setting.library == "random" and setting.task == task:
                level = np.mean([curve.final for curve in curves])
                row[0].axhline(level, color="grey", linestyle="--", linewidth=1, label="random")
        if task.threshold is not None:
            draw_shares(row[1], task.threshold, {each: runs[each] for each in settings})
        row[0].legend(fontsize="small")
        for axes in row:
            axes.set_xlabel("timesteps")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            axes.tick_params(labelsize="small")
    save(figure, file)


def draw_returns(axes: Any, task: Task, runs: Runs) -> None:
    """IQM of the evaluations, with its interval, or each seed where they are too few for one."""
    for place, (setting, curves) in enumerate(runs.items()):
        means = np.stack([curve.means for curve in curves])  # (seeds, evaluations)
        timesteps = curves[0].timesteps
        colour = f"C{place}"
        label = f"{setting.agent}, {len(curves)} seeds"
        axes.plot(timesteps, interquartile_mean(means, axis=0), color=colour, label=label)
        if len(curves) >= FEWEST_SEEDS:
            low, high = interval(interquartile_mean, means)
            axes.fill_between(timesteps, low, high, color=colour, alpha=0.2, linewidth=0)
        else:
            axes.plot(timesteps, means.T, color=colour, alpha=0.4, linewidth=0.7)
    if task.threshold is not None:
        axes.axhline(task.threshold, color="black", linestyle=":", linewidth=1)
    axes.set(title=task.env_id, ylabel="greedy return, IQM of seeds")


def draw_shares(axes: Any, threshold: float, runs: Runs) -> None:
    """How many of the seeds are at the threshold, at each evaluation."""
    for place, curves in enumerate(runs.values()):
        shares = 100.0 * np.mean([curve.means >= threshold for curve in curves], axis=0)
        axes.plot(curves[0].timesteps, shares, color=f"C{place}")
    axes.set(title=f"at {threshold:g} or more", ylabel="% of seeds", ylim=(-4, 104))


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
    left.set(xlabel="later evaluations that hold it, %", yticks=range(len(names)))
    left.set_yticklabels(names)
    left.invert_yaxis()
    right.set(xlabel="final return, mean")
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
