"""The examples run without a warning, print their returns, and stay short."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if "__main__" in path.read_text())
SYSTEMS = ["basic_dqn", "classic_dqn", "double_dqn", "notebook_dqn", "simple_dqn"]
PARTS = ["custom_body", "custom_head", "custom_replay"]
GAMES = {  # the package that brings them, and the transitions of a short run
    "atari_pong": ("ale_py", 200),
    "minatar_breakout": ("minatar", 1_500),
    "minigrid_dict": ("minigrid", 2_500),
}
MOST_LINES = {"dqn_in_one_file": 200}
TIMESTEPS = 300


class Run(Protocol):
    """What a script prints in a few steps."""

    def __call__(self, script: Path, *arguments: str) -> str: ...


@pytest.fixture
def run(pytestconfig: pytest.Config, tmp_path: Path) -> Run:
    asked_for = pytestconfig.getoption("pythonwarnings") or ["error"]
    warnings = [option for each in asked_for for option in ("-W", each)]

    def run_in_folder(script: Path, *arguments: str) -> str:
        ended = subprocess.run(
            [sys.executable, *warnings, str(script), "--timesteps", str(TIMESTEPS), *arguments],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    return run_in_folder


def test_every_system_every_part_of_your_own_and_every_game_has_its_script() -> None:
    assert {*SYSTEMS, *PARTS, *GAMES} <= {script.stem for script in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_is_short(script: Path) -> None:
    assert len(script.read_text().splitlines()) <= MOST_LINES.get(script.stem, 59)


@pytest.mark.parametrize(
    "script", [each for each in SCRIPTS if each.stem not in GAMES], ids=lambda script: script.stem
)
def test_a_script_runs_and_prints_and_plots_its_returns(
    script: Path, run: Run, tmp_path: Path
) -> None:
    out = run(script, "--plot", "returns.png")
    if script.stem in SYSTEMS + PARTS:
        lines = re.findall(
            r"^step +(\d+)  episode +(\d+)  returns((?: +\d+){1,10})$", out, re.MULTILINE
        )
        returns = [float(value) for *_, listed in lines for value in listed.split()]
        assert int(lines[-1][1]) == len(returns)
    else:
        returns = [float(value) for value in re.findall(r"return +(\d+\.\d)", out)]
    assert len(returns) >= 5
    assert 0 < sum(returns) <= TIMESTEPS  # CartPole rewards every step with 1
    assert (tmp_path / "returns.png").read_bytes().startswith(b"\x89PNG")


def test_a_system_ends_after_the_episodes_that_are_asked_for(run: Run) -> None:
    out = run(FOLDER / "classic_dqn.py", "--episodes", "3")
    assert re.fullmatch(r"step +\d+  episode +3  returns(?: +\d+){3}\n", out)


def test_the_double_system_logs_its_greatest_q_its_loss_and_its_weights(
    run: Run, tmp_path: Path
) -> None:
    run(FOLDER / "double_dqn.py", "--timesteps", "1000", "--tensorboard", "logs")
    header = (tmp_path / "logs" / "DQN_1" / "progress.csv").read_text().splitlines()[0]
    assert {"train/q_max", "train/loss"} <= {*header.split(",")}
    (events,) = (tmp_path / "logs" / "DQN_1").glob("events.*")
    assert b"weights/" in events.read_bytes()


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_your_own_is_checked_and_plays_greedily_afterwards(part: str, run: Run) -> None:
    script = FOLDER / f"{part}.py"
    assert f"check_{part.removeprefix('custom_')}(" in script.read_text()
    assert re.search(r"^Greedy mean of 10 episodes: \d+\.\d$", run(script), re.MULTILINE)


@pytest.mark.parametrize("game", GAMES)
def test_a_game_is_learned_from_and_played_afterwards(game: str, run: Run, tmp_path: Path) -> None:
    package, timesteps = GAMES[game]
    pytest.importorskip(package)
    out = run(FOLDER / f"{game}.py", "--timesteps", str(timesteps), "--plot", "returns.png")
    *listed, last = out.splitlines()
    assert re.fullmatch(r"(Greedy|Mean).*: .*\d.*", last)
    counts = [int(count) for line in listed for count in re.findall(r"episode +(\d+)", line)]
    ends = "".join(line.partition("returns")[2] for line in listed).split()
    assert len(ends) == (counts[-1] if counts else 0)
    assert (tmp_path / "returns.png").read_bytes().startswith(b"\x89PNG")


def test_pong_has_a_setting_for_a_cpu(run: Run) -> None:
    pytest.importorskip("ale_py")
    assert "Mean of 4 games: -2" in run(FOLDER / "atari_pong.py", "--timesteps", "200", "--fast")
