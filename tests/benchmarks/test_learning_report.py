"""Tables and figures come from the rows alone."""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import learning_report
import learning_statistics
import pytest
from learning_groups import GROUPS
from learning_recipes import of_recipes
from learning_report import (
    in_digits,
    percent,
    report_of,
    table,
    with_interval,
    with_range,
    write_between,
)
from learning_results import FOLDER, Results
from learning_settings import Setting
from learning_statistics import Estimate

SCRIPT = Path(learning_report.__file__).parent / "learning.py"


def setting_of(group: str, name: str) -> Setting:
    """One that the documentation has."""
    (setting,) = (each for each in GROUPS[group].settings if each.name == name)
    return setting


def runs_of(folder: Path, group: str, setting: Setting, curves: list[list[float]]) -> None:
    """Rows as if seeds had been evaluated to these means; the last is the final policy's."""
    results = Results(folder, group, setting)
    common = {
        "version": "sbdqn 0",
        "torch": "2",
        "gymnasium": "1",
        "cpu_seconds": 60,
        "seconds": 70,
    }
    for seed, means in enumerate(curves):
        rows = [
            {
                "kind": "evaluation",
                "timesteps": 5_000 * place,
                "episodes": 100 * place,
                "mean": each,
            }
            for place, each in enumerate(means[:-1], start=1)
        ]
        rows.append({"kind": "final", "timesteps": 50_000, "episodes": 900, "mean": means[-1]})
        results.append([{**common, **row, "seed": seed} for row in rows])


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for page in learning_report.PAGES:
        shutil.copy(learning_report.DOCS / page, folder)
    return folder


def cells(page: Path, name: str, first: str, place: int) -> list[str]:
    """Of one of the rows in a group's part of a page that begin so."""
    part = page.read_text().split(f"<!-- learning-{name} -->")[1].split("<!-- /")[0]
    rows = [line for line in part.splitlines() if line.startswith(f"| {first}")]
    return [cell.strip() for cell in rows[place].strip("|").split("|")]


def test_tables_and_figures_come_from_the_rows(tmp_path, docs, monkeypatch):
    monkeypatch.setattr(learning_statistics, "RESAMPLES", 99)
    ours = 3 * [[100, 500, 500, 500], [100, 100, 500, 480]]
    runs_of(tmp_path, "cartpole", setting_of("cartpole", "sbdqn"), ours)
    runs_of(
        tmp_path,
        "cartpole",
        setting_of("cartpole", "sb3"),
        3 * [[100, 500, 100, 400], [100, 100, 100, 100]],
    )
    runs_of(tmp_path, "cartpole", setting_of("cartpole", "sbdqn_100k"), [[100, 500]])
    runs_of(tmp_path, "forgetting", setting_of("forgetting", "base"), ours)
    runs_of(
        tmp_path,
        "forgetting",
        setting_of("forgetting", "1_step"),
        [[500, 100, 100, 80], [500, 500, 100, 100]],
    )
    learning_report.report(tmp_path, docs)

    page = docs / "learning.md"
    ends, way = (cells(page, "cartpole", "sbdqn, CartPole-v1", place) for place in (0, 2))
    assert ends[1] == "6"
    assert re.fullmatch(r"490\.0 \(48\d\.\d to (49\d|500)\.\d\)", ends[3])
    assert ends[4:] == ["480.0", "6 of 6"]
    assert way[1:4] == ["12,500 (10,000 to 15,000)", "250 (200 to 300)", "100.0 %"]
    assert way[4:] == ["60 (60 to 60)", "70 (70 to 70)"]
    ends, way = (cells(page, "cartpole", "SB3, CartPole-v1", place) for place in (0, 1))
    assert ends[4:] == ["100.0", "0 of 6"]
    assert way[1] == "never (10,000 to 10,000), 3 never"
    assert way[3] == "0.0 %"  # of three seeds, too few for an interval
    difference = cells(page, "cartpole", "sbdqn, CartPole-v1", 4)  # after two budgets' rows
    assert re.fullmatch(r"\+240\.0 \(\+\d+\.\d to \+\d+\.\d\)", difference[2])
    assert difference[3] == "+100.0"
    with pytest.raises(IndexError):  # the other budget has no pair
        cells(page, "cartpole", "sbdqn, CartPole-v1", 5)
    assert "With gymnasium 1, sbdqn 0, torch 2." in page.read_text()
    switch = cells(docs / "forgetting.md", "forgetting", "`1_step`", 0)
    assert switch[2:5] == ["25.0 %", "-75.0", "0 of 2"]

    pictures = {file: file.read_bytes() for file in (docs / "figures").iterdir()}
    assert {file.stem for file in pictures} == {"learning_cartpole", "learning_forgetting"}
    text = page.read_text()
    learning_report.report(tmp_path, docs)
    assert page.read_text() == text
    assert {file: file.read_bytes() for file in pictures} == pictures


def test_a_study_without_its_base_is_not_reported(tmp_path, docs, capsys):
    runs_of(tmp_path, "forgetting", setting_of("forgetting", "1_step"), [[500, 100], [500, 500]])
    learning_report.report(tmp_path, docs)
    assert capsys.readouterr().out == ""
    assert not (docs / "figures").exists()


def test_every_group_has_its_place_on_a_page():
    text = "".join((learning_report.DOCS / page).read_text() for page in learning_report.PAGES)
    for name in GROUPS:
        assert write_between(text, name, "new").count("\nnew\n") == 1


def test_a_range_says_how_many_never_got_there():
    assert with_range([1_000, 3_000]) == "2,000 (1,000 to 3,000)"
    assert with_range([1.0, 2.0, math.inf]) == "2 (1 to 2), 1 never"
    assert with_range([10.0, 20.0, 30.0, math.inf]) == "25 (10 to 30), 1 never"
    assert with_range([1.0, 2.0, math.inf, math.inf]) == "never (1 to 2), 2 never"
    assert with_range([math.inf]) == "never"


def test_figures_are_written_with_their_intervals():
    assert with_interval(Estimate(1.26, 1.0, 1.5)) == "1.26 (1.00 to 1.50)"
    assert with_interval(Estimate(9.0, -10.0, 28.0)) == "9.0 (-10.0 to 28.0)"
    assert with_interval(Estimate(0.04, None, None), sign="+") == "+0.040"
    assert [in_digits(value) for value in (-10.0, -1.0, 0.0)] == ["-10.0", "-1.00", "0.000"]
    assert with_interval(Estimate(math.nan, None, None)) == "-"
    assert percent(Estimate(0.5, 0.25, 0.75)) == "50.0 % (25.0 to 75.0)"
    assert percent(Estimate(0.5, None, None)) == "50.0 %"
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_recipes_that_are_not_in_the_documentation_have_a_page_of_their_own(tmp_path, capsys):
    (group,) = of_recipes(["cartpole@CartPole-v1", "c51_classic@CartPole-v1"], 50_000).values()
    report_of(tmp_path, "CartPole-v1", group)
    assert not (tmp_path / "CartPole-v1").exists()  # nothing has run
    runs_of(tmp_path, "CartPole-v1", group.settings[1], [[100, 500]])
    report_of(tmp_path, "CartPole-v1", group)
    page = tmp_path / "CartPole-v1" / "report.md"
    assert "| c51_classic, CartPole-v1, 5,000 steps | 1 | 500.0 |" in page.read_text()
    assert "(report.svg)" in page.read_text()
    assert (page.parent / "report.svg").exists()
    assert capsys.readouterr().out == f"{page}\n"


@pytest.mark.slow
def test_the_pages_are_what_the_report_makes(docs, capsys):
    learning_report.report(FOLDER, docs)
    assert "note" not in capsys.readouterr().out  # no setting has changed since it was measured
    for page in learning_report.PAGES:
        assert (docs / page).read_text() == (learning_report.DOCS / page).read_text()


@pytest.mark.slow
def test_runs_go_on_after_they_were_killed_and_are_reported(tmp_path):
    command = [sys.executable, str(SCRIPT), "run", "cartpole", "--results", str(tmp_path)]
    command += ["--only", "sbdqn", "sb3", "--seeds", "0-1", "--timesteps", "1000"]
    with subprocess.Popen([*command, "--workers", "1"], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline().startswith("4 of 4 runs are missing; ")
        assert first.stdout.readline().startswith("1 of 4: cartpole/sbdqn seed 0: ")
        os.kill(first.pid, signal.SIGKILL)
    before = {file: file.read_text() for file in tmp_path.glob("cartpole/*.csv")}
    assert 1 <= sum(text.count(",final,") for text in before.values()) < 4

    again = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert again.splitlines()[-1].startswith("3 of 3: ")
    for file, text in before.items():
        assert file.read_text().startswith(text)
    for setting in GROUPS["cartpole"].settings[:2]:
        runs = Results(tmp_path, "cartpole", setting).runs()
        assert [len(rows) for rows in runs.values()] == [11, 11]
    complete = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert complete.startswith(f"all 4 runs are in {tmp_path}; ")

    changed = [*command, "--timesteps", "900"]
    refused = subprocess.run(changed, check=False, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "timesteps: 1000, now 900" in refused.stderr

    report = [sys.executable, str(SCRIPT), "report", "--results", str(tmp_path)]
    subprocess.run(report, check=True, capture_output=True)
    page = tmp_path / "cartpole" / "report.md"
    assert "| SB3, CartPole-v1, 1,000 steps | 2 |" in page.read_text()
    assert page.with_name("report.svg").exists()


@pytest.mark.slow
def test_a_run_that_fails_stops_no_other(tmp_path, monkeypatch):
    from learning_runs import Run, finished
    from learning_settings import Setting, Task

    good, bad = (Setting("name", "random", Task("CartPole-v1"), steps) for steps in (0, 10))
    ended = dict(finished([Run(bad, 0), Run(good, 0)], workers=1))
    assert ended[Run(bad, 0)] is None
    assert [row["kind"] for row in ended[Run(good, 0)]] == ["final"]
