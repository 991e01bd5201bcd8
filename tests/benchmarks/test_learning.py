"""The command: what it runs, what it keeps, and what it refuses."""

from __future__ import annotations

import sys

import learning
import learning_runs
import pytest
from learning_groups import GROUPS
from learning_results import COLUMNS, Results

BLANK = {**dict.fromkeys(COLUMNS, ""), "timesteps": 20, "seconds": 1.5, "cpu_seconds": 1.0}
ROWS = [
    {**BLANK, "kind": "evaluation", "episodes": 2, "mean": 9.0},
    {**BLANK, "kind": "final", "episodes": 2, "mean": 10.0},
]


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Runs the command without training: each run ends with `ROWS`, or fails."""
    monkeypatch.setattr(learning, "ONE_THREAD", {})  # for this process has begun

    def finished(runs, workers):
        for run in runs:
            called.meanwhile(run)
            rows = [{**row, "seed": run.seed} for row in ROWS]
            yield run, None if run.seed in called.fails else rows

    monkeypatch.setattr(learning_runs, "finished", finished)

    def called(*arguments):
        words = ["learning.py", "run", *arguments, "--results", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", words)
        learning.main()

    called.folder, called.fails, called.meanwhile = tmp_path, set(), lambda run: None
    return called


SETTINGS = {each.name: learning.shortened(each, 20) for each in GROUPS["cartpole"].settings}
SHORT = ("cartpole", "--only", "sbdqn", "sb3", "--timesteps", "20")


def test_what_is_missing_is_run_by_seed_and_only_once(command, capsys):
    command(*SHORT, "--seeds", "3,1-2,1")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"6 runs, 2 at a time; 0 others are in {command.folder}"
    assert lines[1] == "1 of 6: cartpole/sbdqn seed 1: 10.0 in 1.5 s"
    assert lines[-1] == "6 of 6: cartpole/sb3 seed 3: 10.0 in 1.5 s"
    command(*SHORT, "--seeds", "0-3")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 runs, 2 at a time; 6 others")
    assert lines[1].startswith("1 of 2: cartpole/sbdqn seed 0")
    command(*SHORT, "--seeds", "0-3")
    assert capsys.readouterr().out.startswith("all 8 runs are in ")
    command(*SHORT, "--seeds", "0", "--restart")
    assert capsys.readouterr().out.startswith("2 runs, 2 at a time; 0 others")
    assert list(Results(command.folder, "cartpole", SETTINGS["sb3"]).runs()) == [0]


def test_the_seeds_of_a_group_are_run_by_default(command, capsys):
    command("acrobot", "--timesteps", "20")
    assert capsys.readouterr().out.splitlines()[-1].startswith("20 of 20: acrobot/sb3 seed 19")


def test_a_run_that_another_process_made_meanwhile_is_not_added(command, capsys):
    results = Results(command.folder, "cartpole", SETTINGS["sb3"])
    command.meanwhile = lambda run: results.append([{**row, "seed": run.seed} for row in ROWS])
    command("cartpole", "--only", "sb3", "--timesteps", "20", "--seeds", "0")
    assert "there already" in capsys.readouterr().out
    assert list(results.runs()) == [0]


def test_an_interrupted_command_says_how_it_goes_on(command):
    def interrupt(run):
        if run.seed == 2:
            raise KeyboardInterrupt

    command.meanwhile = interrupt
    with pytest.raises(SystemExit, match=r"^interrupted; the same command goes on"):
        command(*SHORT, "--seeds", "1-3")
    assert list(Results(command.folder, "cartpole", SETTINGS["sb3"]).runs()) == [1]


def test_what_is_not_installed_is_told_before_anything_is_trained(command, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    with pytest.raises(SystemExit, match=r"stable_baselines3.*pip install -e '\.\[bench"):
        command(*SHORT, "--seeds", "0")
    assert capsys.readouterr().out == ""


def test_other_results_are_reported_beside_their_rows(command, monkeypatch, capsys):
    command(*SHORT, "--seeds", "0")
    page = command.folder / "cartpole" / "report.md"
    monkeypatch.setattr(sys, "argv", ["learning.py", "report", "--results", str(command.folder)])
    learning.main()
    assert capsys.readouterr().out.splitlines()[-1] == str(page)
    assert page.read_text().startswith("# CartPole-v1\n\nThe threshold is 475. ")


def test_failed_runs_are_named_and_the_others_kept(command, capsys):
    command.fails.add(1)
    with pytest.raises(SystemExit, match=r"^1 failed: cartpole/sb3 seed 1$"):
        command("cartpole", "--only", "sb3", "--timesteps", "20", "--seeds", "0-2")
    assert "2 of 3: cartpole/sb3 seed 1: failed" in capsys.readouterr().out
    rows = (command.folder / "cartpole" / "sb3.csv").read_text()
    assert rows.count(",final,") == 2


def test_a_changed_setting_is_refused(command):
    command("cartpole", "--only", "sb3", "--timesteps", "20", "--seeds", "0")
    with pytest.raises(SystemExit, match="timesteps: 20, now 30"):
        command("cartpole", "--only", "sb3", "--timesteps", "30", "--seeds", "0")


def test_recipes_are_compared_on_a_page(command, capsys):
    pairs = ["cartpole@CartPole-v1", "c51_classic@CartPole-v1"]
    command(*pairs, pairs[0], "--timesteps", "20", "--seeds", "0")
    page = command.folder / "CartPole-v1" / "report.md"
    assert capsys.readouterr().out.splitlines()[-1] == str(page)
    assert "| c51_classic, CartPole-v1, 20 steps | 1 | 10.0 |" in page.read_text()
    assert "| cartpole, CartPole-v1, 20 steps | 1 | 10.0 |" in page.read_text()


def test_libraries_count_one_thread_from_the_beginning(monkeypatch):
    environment: dict[str, str] = {}
    monkeypatch.setattr(learning.os, "environ", environment)
    monkeypatch.setattr(sys, "argv", ["learning.py", "list"])
    learning.main()
    assert environment["OMP_NUM_THREADS"] == environment["OPENBLAS_NUM_THREADS"] == "1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["carpole"], "unknown: carpole; did you mean cartpole?"),
        (["cartpole", "--timesteps", "200000", "--results", "elsewhere"], "100,000 timesteps at"),
        (["cartpole", "--results", __file__], "cannot be a folder: File exists"),
        (["cartpole", "--only", "sb4"], "unknown: sb4"),
        (["cart@CartPole-v1", "--results", "elsewhere"], "no recipe has this name"),
        (["cartpole@CartPol-v1", "--results", "elsewhere"], "`CartPol` doesn't exist"),
        (["cartpole", "--timesteps", "10"], "give it a --results of its own"),
        (["cartpole@CartPole-v1"], "give it a --results of its own"),
        (["cartpole", "--timesteps", "0"], "0 is no whole number above 0"),
        (["cartpole", "--workers", "two"], "two is no whole number above 0"),
        (["cartpole", "--seeds", "5-3"], "5-3 names no seed"),
        (["cartpole", "--seeds", "1-"], "1- is not such as 7 or 0-9"),
    ],
)
def test_what_cannot_be_done_is_refused(arguments, message, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(learning, "ONE_THREAD", {})
    monkeypatch.setattr(learning_runs, "finished", lambda *_: pytest.fail("it was about to run"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["learning.py", "run", *arguments])
    with pytest.raises(SystemExit) as raised:
        learning.main()
    assert message in f"{raised.value} {capsys.readouterr().err}"
