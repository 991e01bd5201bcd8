"""The command: what it runs, what it keeps, and what it refuses."""

from __future__ import annotations

import sys

import gymnasium
import learning
import learning_results
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
    plan = "6 of 6 runs are missing; 2 are made at a time"
    assert lines[0] == f"{plan}, for {command.folder}"
    assert lines[1] == "1 of 6: cartpole/sbdqn seed 1: 10.0 in 1.5 s"
    assert lines[-1] == "6 of 6: cartpole/sb3 seed 3: 10.0 in 1.5 s"
    command(*SHORT, "--seeds", "0-3")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 of 8 runs are missing")
    assert lines[1].startswith("1 of 2: cartpole/sbdqn seed 0")
    command(*SHORT, "--seeds", "0-3")
    assert capsys.readouterr().out.startswith("all 8 runs are in ")
    command(*SHORT, "--seeds", "0", "--restart")
    assert capsys.readouterr().out.startswith("2 of 2 runs are missing")
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
    with pytest.raises(SystemExit, match=r"^interrupted; without --restart, the command goes on"):
        command(*SHORT, "--seeds", "1-3", "--restart")


def test_nothing_is_removed_if_anything_is_refused(command):
    command(*SHORT, "--seeds", "0")
    for refused in (["cartpole_fast", "--timesteps", "40000"], ["acrobot", "--only", "sb4"]):
        with pytest.raises(SystemExit, match=r"can only shorten|unknown: sb4"):
            command("cartpole", *refused, "--restart")
    assert list(Results(command.folder, "cartpole", SETTINGS["sb3"]).runs()) == [0]


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("stable_baselines3", SHORT),
        ("minatar.gym", ["minatar", "--timesteps", "20"]),
        ("minatar.gym", ["minatar@MinAtar/Seaquest-v1", "--timesteps", "20"]),
        ("matplotlib", ["cartpole@CartPole-v1", "--timesteps", "20"]),
    ],
)
def test_what_is_not_installed_is_told_before_anything_is_trained(
    module, arguments, command, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "learning_report", raising=False)
    monkeypatch.delitem(sys.modules, "learning_plots", raising=False)
    monkeypatch.setattr("gymnasium.registry", {"CartPole-v1": gymnasium.spec("CartPole-v1")})
    with pytest.raises(SystemExit, match=rf"{module}.*pip install -e '\.\[bench"):
        command(*arguments, "--seeds", "0")
    assert capsys.readouterr().out == ""
    command("cartpole", "--only", "sbdqn", "--timesteps", "20", "--seeds", "0")  # needs none


def test_other_results_are_reported_beside_their_rows(command, monkeypatch, capsys):
    def report():
        folder = str(command.folder)
        monkeypatch.setattr(sys, "argv", ["learning.py", "report", "--results", folder])
        learning.main()

    with pytest.raises(SystemExit, match="has no rows of a group that `list` prints"):
        report()
    command(*SHORT, "--seeds", "0")
    command("acrobot", "--only", "sb3", "--timesteps", "20", "--seeds", "0")
    command("forgetting", "--only", "base", "1_step", "--timesteps", "20", "--seeds", "0")
    capsys.readouterr()
    report()
    pages = {name: command.folder / name / "report.md" for name in ("cartpole", "acrobot")}
    pages["forgetting"] = command.folder / "forgetting" / "report.md"
    assert capsys.readouterr().out.splitlines() == list(map(str, pages.values()))
    assert pages["cartpole"].read_text().startswith("# CartPole-v1\n\nThe threshold is 475. ")
    assert "points more than `base`" in pages["forgetting"].read_text()


@pytest.mark.parametrize("spelling", ["results/learning", "./results/../results/learning", "link"])
def test_the_shipped_rows_are_known_by_any_name(spelling, monkeypatch, tmp_path, capsys):
    shipped = tmp_path / "results" / "learning"
    shipped.mkdir(parents=True)
    (tmp_path / "link").symlink_to(shipped)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(learning, "ONE_THREAD", {})
    monkeypatch.setattr(learning_results, "FOLDER", shipped)
    monkeypatch.setattr(learning_runs, "finished", lambda *_: pytest.fail("it was about to run"))
    for arguments in (["cartpole", "--timesteps", "20"], ["cartpole@CartPole-v1"]):
        monkeypatch.setattr(sys, "argv", ["learning.py", "run", *arguments, "--results", spelling])
        with pytest.raises(SystemExit):
            learning.main()
        assert "give it a --results of its own" in capsys.readouterr().err
    reported = []
    monkeypatch.setattr("learning_report.report", lambda: reported.append("the documentation"))
    monkeypatch.setattr(sys, "argv", ["learning.py", "report", "--results", spelling])
    learning.main()
    assert reported == ["the documentation"]


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
        (["cartpole", "--timesteps", "50001", "--results", "elsewhere"], "trains for 50,000"),
        (["cartpole", "--results", __file__], "--results: [Errno 20] Not a directory"),
        (["cartpole", "sb3"], "unknown: sb3; `list` prints"),
        (["cartpole", "--only", "sb4"], "unknown: sb4; did you mean sb3?"),
        (["cart@CartPole-v1", "--results", "elsewhere"], "no recipe has this name"),
        (["cartpole@CartPol-v1", "--results", "elsewhere"], "`CartPol` doesn't exist"),
        (["cartpole", "--timesteps", "10"], "give it a --results of its own"),
        (["cartpole@CartPole-v1"], "give it a --results of its own"),
        (["cartpole", "--timesteps", "0"], "'0' is not a whole number above 0"),
        (["cartpole", "--workers", "two"], "'two' is not a whole number above 0"),
        (["cartpole", "--seeds", "5-3"], "5-3 names no seed"),
        (["cartpole", "--seeds", "1-"], "'1-' is neither a seed, as 7, nor a range, as 0-9"),
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
