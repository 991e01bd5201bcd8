"""The examples run without a warning, print their returns, and stay short."""

from __future__ import annotations

import http.client
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest

from sbdqn import DQN

FOLDER = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if "__main__" in path.read_text())
SYSTEMS = ["basic_dqn", "classic_dqn", "double_dqn", "notebook_dqn", "simple_dqn"]
PARTS = ["custom_body", "custom_head", "custom_replay"]
GAMES = {  # the package that brings them, and the transitions of a short run
    "atari_pong": ("ale_py", 200),
    "minatar_breakout": ("minatar", 1_500),
    "minigrid_dict": ("minigrid", 2_500),
}
SERVERS = ["serve_http"]
MOST_LINES = {"dqn_in_one_file": 200, "serve_http": 99}
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
    assert {*SYSTEMS, *PARTS, *GAMES, *SERVERS} <= {script.stem for script in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_is_short(script: Path) -> None:
    assert len(script.read_text().splitlines()) <= MOST_LINES.get(script.stem, 59)


@pytest.mark.parametrize(
    "script",
    [each for each in SCRIPTS if each.stem not in [*GAMES, *SERVERS]],
    ids=lambda script: script.stem,
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_pong_has_a_setting_for_a_cpu(run: Run) -> None:
    pytest.importorskip("ale_py")
    assert "Mean of 4 games: -2" in run(FOLDER / "atari_pong.py", "--timesteps", "200", "--fast")


class Server(Protocol):
    """Asks a running server; gives the status and the answer."""

    def __call__(self, path: str, body: Any = None) -> tuple[int, Any]: ...


MODEL = DQN("MlpPolicy", "CartPole-v1", seed=0, policy_kwargs={"noisy": True})


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a server runs that is stopped at the end, by Ctrl-C."""
    folder = tmp_path_factory.mktemp("server")
    MODEL.save(folder / "model.zip")
    command = [sys.executable, str(FOLDER / "serve_http.py"), "model.zip", "--port", "0"]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        found = re.fullmatch(r"Serving model\.zip on http://(\S+)\n", server.stdout.readline())
        assert found
        yield found[1]
        server.send_signal(signal.SIGINT)
        out, err = server.communicate(timeout=20)
    assert (server.returncode, out) == (0, "Stopped\n")
    assert "Traceback" not in err


@pytest.fixture
def ask(address: str) -> Server:
    def ask_server(path: str, body: Any = None) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(f"http://{address}{path}", data, timeout=20) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    return ask_server


def test_a_server_predicts_as_its_model_does(ask: Server) -> None:
    obs = np.random.default_rng(0).normal(size=(5, 4))
    for given in (obs, obs[0]):
        status, answer = ask("/predict", {"observation": given.tolist()})
        assert status == 200
        assert answer["action"] == MODEL.predict(given)[0].tolist()
        np.testing.assert_allclose(answer["q_values"], MODEL.q_values(given), rtol=1e-5, atol=1e-6)
    status, answer = ask("/health")
    assert (status, answer["status"], answer["action"]) == (200, "ok", "Discrete(2)")


def test_a_server_of_no_model_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["serve_http.py", "nothing.zip"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(FOLDER / "serve_http.py"), run_name="__main__")
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("error: there is no file nothing.zip\n")


def test_a_server_answers_several_clients_at_once(ask: Server) -> None:
    obs = np.random.default_rng(1).normal(size=(60, 4))
    with ThreadPoolExecutor(8) as clients:
        answers = list(
            clients.map(ask, ["/predict"] * 60, [{"observation": o} for o in obs.tolist()])
        )
    assert [status for status, _ in answers] == [200] * 60
    said = [answer["q_values"] for _, answer in answers]
    np.testing.assert_allclose(said, MODEL.q_values(obs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/predict", {"observation": [0.0, 1.0]}, 400, "expected one observation of shape (4,)"),
        ("/predict", {"observation": "left"}, 400, "which cannot become float32"),
        ("/predict", {"observation": [[0.0], [0.0, 1.0]]}, 400, "no regular array"),
        ("/predict", {"observation": [0.0] * 4, "seed": 1}, 400, "the request must be"),
        ("/predict", [0.0] * 4, 400, "the request must be"),
        ("/predict", b"[0.0,", 400, "Expecting value"),
        ("/predict", b'{"observation": [NaN, 0, 0, 0]}', 400, "NaN is not JSON"),
        ("/predict", b'{"observation": [1e999, 0, 0, 0]}', 400, "not JSON compliant"),
        ("/predict", b'"\xff"', 400, "decode"),
        ("/predict", b"[" * 100_000, 400, "recursion"),
        ("/act", {"observation": [0.0] * 4}, 404, "POST /predict"),
        ("/", None, 404, "GET /health"),
        ("/predict", None, 404, "GET /health"),
    ],
)
def test_a_server_says_what_is_wrong_with_a_request(
    path: str, body: Any, status: int, said: str, ask: Server
) -> None:
    given, answer = ask(path, body)
    assert given == status
    assert said in answer["error"]


@pytest.mark.parametrize(
    ("length", "status"), [("1000001", 413), ("1" * 5000, 413), ("-1", 411), ("many", 411)]
)
def test_a_server_reads_no_more_than_it_should(length: str, status: int, address: str) -> None:
    client = http.client.HTTPConnection(address, timeout=20)
    client.putrequest("POST", "/predict")
    client.putheader("Content-Length", length)
    client.endheaders()
    answer = client.getresponse()
    assert answer.status == status
    assert "bytes" in json.load(answer)["error"] if status == 413 else True
    client.close()
