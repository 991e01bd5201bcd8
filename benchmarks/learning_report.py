"""Tables and figures for the documentation, from the CSV files of `learning.py` alone."""

from __future__ import annotations

import math
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import learning_plots
import numpy as np
from learning_groups import GROUPS
from learning_results import FOLDER, Results, Row
from learning_settings import Group, Setting
from learning_statistics import (
    Curve,
    Estimate,
    difference,
    estimate,
    interquartile_mean,
    mean,
    stability,
    stability_difference,
    worst_tenth,
)

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("learning.md", "forgetting.md")


@dataclass(frozen=True)
class Measured:
    """A setting, its runs, and what they were made with."""

    setting: Setting
    curves: list[Curve]
    versions: set[str]

    @property
    def finals(self) -> list[float]:
        """The mean return of each seed's final policy."""
        return [curve.final for curve in self.curves]


def measured(folder: Path, name: str, group: Group) -> list[Measured]:
    """The settings of a group that have runs."""
    found = []
    for setting in group.settings:
        results = Results(folder, name, setting)
        runs = results.runs()
        if not runs:
            continue
        versions = {
            version for rows in runs.values() for row in rows for version in versions_in(row)
        }
        found.append(Measured(setting, [Curve.of(rows) for rows in runs.values()], versions))
    return found


def is_reported(group: Group, found: Sequence[Measured]) -> bool:
    """Whether an agent has been trained, and what a study compares with."""
    measured = [each.setting for each in found if each.setting.library != "random"]
    return group.settings[0] in measured if group.is_study else bool(measured)


def versions_in(row: Row) -> list[str]:
    """The packages of a row."""
    return [row["version"], f"torch {row['torch']}", f"gymnasium {row['gymnasium']}"]


# -- how figures are written ---------------------------------------------------


def digits_of(*values: float) -> int:
    """After the point, so that the largest has three that say something; one at least."""
    largest = max(map(abs, values))
    return 1 if largest >= 10 else 2 if largest >= 1 else 3


def in_digits(value: float) -> str:
    """With as many digits as say something."""
    return f"{value:.{digits_of(value)}f}"


def with_interval(
    figure: Estimate, digits: int | None = None, factor: float = 1.0, sign: str = ""
) -> str:
    """Such as `1.00 (0.50 to 1.50)`; a dash where there is nothing to count."""
    if math.isnan(figure.value):
        return "-"
    ends = [end for end in (figure.low, figure.high) if end is not None]
    digits = digits or digits_of(figure.value, *ends)
    value, *interval = (f"{factor * each:{sign}.{digits}f}" for each in (figure.value, *ends))
    return f"{value} ({' to '.join(interval)})" if interval else value


def points(figure: Estimate) -> str:
    """A difference of shares in percentage points."""
    return with_interval(figure, 1, 100.0, "+")


def percent(figure: Estimate) -> str:
    """Such as `99.0 % (98.0 to 100.0)`."""
    text = with_interval(figure, 1, 100.0)
    return text if text == "-" else text.replace(" (", " % (") if "(" in text else f"{text} %"


def with_range(values: Sequence[float]) -> str:
    """Median, lowest and highest; how many are infinite, which means never."""
    ever = [value for value in values if value < math.inf]
    never = len(values) - len(ever)
    if not ever:
        return "never"
    middle = statistics.median(values)
    text = "never" if middle == math.inf else f"{middle:,.0f}"
    return f"{text} ({min(ever):,.0f} to {max(ever):,.0f})" + (f", {never} never" if never else "")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# -- the tables ----------------------------------------------------------------

Column = tuple[str, Callable[[Measured], str]]


def label(each: Measured) -> str:
    """Who learned, and where."""
    setting = each.setting
    if setting.library == "random":
        return f"{setting.agent}, {setting.task.env_id}"
    return f"{setting.agent}, {setting.task.env_id}, {each.curves[0].timesteps[-1]:,} steps"


def at_threshold(each: Measured) -> str:
    """How many seeds end there."""
    threshold = each.setting.task.threshold
    assert threshold is not None
    reached = sum(final >= threshold for final in each.finals)
    return f"{reached} of {len(each.finals)}"


def to_threshold(count: Callable[[Curve, float], float]) -> Callable[[Measured], str]:
    """Median and range of how soon the threshold was reached first."""

    def cell(each: Measured) -> str:
        threshold = each.setting.task.threshold
        assert threshold is not None
        return with_range([count(curve, threshold) for curve in each.curves])

    return cell


def held(each: Measured) -> str:
    """The share of later evaluations at the threshold."""
    threshold = each.setting.task.threshold
    assert threshold is not None
    return percent(stability(each.curves, threshold))


def solved(each: Measured) -> str:
    """Training episodes before the 100 that count as solved."""
    counts = [curve.solved_after for curve in each.curves if curve.solved_after is not None]
    return with_range(counts) if counts else "-"


SEEDS: Column = ("seeds", lambda each: str(len(each.curves)))
IQM: Column = ("IQM", lambda each: with_interval(estimate(interquartile_mean, each.finals)))
MEAN: Column = ("mean", lambda each: with_interval(estimate(mean, each.finals)))
WORST: Column = ("worst tenth", lambda each: in_digits(worst_tenth(np.array(each.finals))))
AT_THRESHOLD: Column = ("end at the threshold", at_threshold)
STEPS: Column = ("steps to it", to_threshold(Curve.timesteps_to))
EPISODES: Column = ("episodes to it", to_threshold(Curve.episodes_to))
HELD: Column = ("later evaluations that hold it", held)
SOLVED: Column = ("solved after episodes", solved)
CPU: Column = ("CPU s", lambda each: with_range([curve.cpu_seconds for curve in each.curves]))
CLOCK: Column = ("wall-clock s", lambda each: with_range([curve.seconds for curve in each.curves]))


def tables(group: Group, found: Sequence[Measured]) -> list[str]:
    """A row for each setting: how it ends, and how it gets there."""
    if group.is_study:
        base = found[0]
        name: Column = ("setting", lambda each: f"`{each.setting.name}`")
        more: Column = ("points more than `base`", lambda each: held_beyond(base, each))
        return [of_columns(found, name, SEEDS, HELD, more, AT_THRESHOLD, MEAN, WORST, STEPS, CPU)]
    agent: Column = ("agent", label)
    trained = [each for each in found if each.setting.library != "random"]
    if all(setting.task.threshold is None for setting in group.settings):
        ends = of_columns(found, agent, SEEDS, IQM, MEAN, WORST)
        return [ends, of_columns(trained, agent, CPU, CLOCK)]
    asks_solved = any(setting.solved_at is not None for setting in group.settings)
    way = [STEPS, EPISODES, HELD, *([SOLVED] if asks_solved else []), CPU, CLOCK]
    ends = of_columns(found, agent, SEEDS, IQM, MEAN, WORST, AT_THRESHOLD)
    return [ends, of_columns(trained, agent, *way)]


def of_columns(found: Sequence[Measured], *columns: Column) -> str:
    """A table with a row for each setting."""
    heads = [head for head, _ in columns]
    return table(heads, [[cell(each) for _, cell in columns] for each in found])


def held_beyond(base: Measured, each: Measured) -> str:
    """How much more is held than by the base."""
    threshold = base.setting.task.threshold
    assert threshold is not None
    if each is base:
        return ""
    return points(stability_difference(each.curves, base.curves, threshold))


def comparisons(found: Sequence[Measured]) -> str:
    """Ours less SB3's, on the same task with the same budget; empty without a pair."""
    rows = []
    for ours in (each for each in found if each.setting.library == "sbdqn"):
        for theirs in (each for each in found if each.setting.library == "sb3"):
            one, other = ours.setting, theirs.setting
            if (one.task, one.timesteps) == (other.task, other.timesteps):
                rows.append([label(ours), *differences(ours, theirs)])
    heads = ["ours less SB3's", "IQM", "mean", "points of later evaluations that hold"]
    return table(heads, rows) if rows else ""


def differences(ours: Measured, theirs: Measured) -> list[str]:
    """Of the final returns and of stability, with their intervals."""
    statistics_ = (interquartile_mean, mean)
    finals = [estimate(difference(each), ours.finals, theirs.finals) for each in statistics_]
    threshold = ours.setting.task.threshold
    assert threshold is not None
    stable = stability_difference(ours.curves, theirs.curves, threshold)
    return [*(with_interval(each, sign="+") for each in finals), points(stable)]


# -- the pages -----------------------------------------------------------------


def section(group: Group, found: Sequence[Measured], figure: str) -> str:
    """All that is generated of a group."""
    versions = ", ".join(sorted(set().union(*(each.versions for each in found))))
    what = "Later evaluations that hold the threshold" if group.is_study else "Learning curves"
    parts = [
        f"![{what}: {group.title}]({figure})",
        *tables(group, found),
        comparisons(found),
        f"With {versions}.",
    ]
    return "\n\n".join(part for part in parts if part)


def write_between(text: str, name: str, content: str) -> str:
    """The page with new content between the markers of a group; as it is without them."""
    pattern = re.compile(rf"(<!-- learning-{name} -->\n).*?(<!-- /learning-{name} -->)", re.DOTALL)
    return pattern.sub(lambda match: f"{match[1]}\n{content}\n\n{match[2]}", text)


def report(results: Path = FOLDER, docs: Path = DOCS) -> None:
    """Write the tables and figures of all groups that have results into the pages."""
    texts = {page: (docs / page).read_text() for page in PAGES}
    for name, group in GROUPS.items():
        found = measured(results, name, group)
        if not is_reported(group, found):
            continue
        for each in found:
            for change in Results(results, name, each.setting).changes():
                print(f"note: {name}/{each.setting.name} was measured with another {change}")
        figure = f"figures/learning_{name}.svg"
        (docs / "figures").mkdir(exist_ok=True)
        draw(group, found, docs / figure)
        content = section(group, found, figure)
        texts = {page: write_between(text, name, content) for page, text in texts.items()}
        print(f"{name}: {sum(len(each.curves) for each in found)} runs")
    for page, text in texts.items():
        if text != (docs / page).read_text():
            (docs / page).write_text(text)
            print(docs / page)


def draw(group: Group, found: Sequence[Measured], figure: Path) -> None:
    """Draw a group's figure."""
    draw_as = learning_plots.draw_study if group.is_study else learning_plots.draw_curves
    draw_as({each.setting: each.curves for each in found}, figure)


def report_beside(results: Path) -> None:
    """Write a page beside the rows of each of the documentation's groups that has some.

    Exits if none has.
    """
    written = [report_of(results, name, group) for name, group in GROUPS.items()]
    if not any(written):
        sys.exit(
            f"{results} has no rows of a group that `list` prints (a study begins with `base`)"
        )


def report_of(results: Path, name: str, group: Group) -> bool:
    """Write a page on one group beside its rows, if there are any; says whether it did."""
    found = measured(results, name, group)
    if not is_reported(group, found):
        return False
    page, figure = (results / name / f"report.{kind}" for kind in ("md", "svg"))
    draw(group, found, figure)
    threshold = found[0].setting.task.threshold
    notes = "" if threshold is None else f"The threshold is {threshold:g}. "
    notes += "docs/learning.md says how it is measured, and what the columns mean."
    page.write_text(f"# {group.title}\n\n{notes}\n\n{section(group, found, figure.name)}\n")
    print(page)
    return True
