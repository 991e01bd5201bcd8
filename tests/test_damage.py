"""Thousands of damaged archives: a `CheckpointError` each, or a model that works."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from sbdqn import DQN
from sbdqn.errors import CheckpointError, MismatchError
from tests.damage import (
    KINDS,
    MUTATIONS,
    Canary,
    archive_of,
    members_of,
    plain,
    write_archives,
)

ROOT = Path(__file__).parents[1]
MOST_BYTES = 500e6  # of memory: the largest claims are of thousands of times as much

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="memory is limited and measured otherwise"
)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archives")
    write_archives(folder)
    return folder


def read_damaged(archives: Path, seed: int, count: int) -> dict[str, Any]:
    """What came of so many mutations of each archive."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.damage", str(archives), str(seed), str(count)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def require_harmless(report: dict[str, Any], count: int) -> None:
    assert report["failures"] == []
    assert sum(report["outcomes"].values()) == len(KINDS) * count
    assert report["grown_by"] < MOST_BYTES
    assert not report["executed"]


def test_whatever_is_damaged_is_refused_or_works(archives: Path) -> None:
    report = read_damaged(archives, seed=0, count=60)
    require_harmless(report, 60)
    for label in MUTATIONS:
        assert any(outcome.startswith(f"{label}: ") for outcome in report["outcomes"]), label


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_thousands_are_refused_or_work(archives: Path) -> None:
    require_harmless(read_damaged(archives, seed=1, count=2500), 2500)


def test_a_pickle_is_never_read_without_trust(archives: Path, tmp_path: Path) -> None:
    """Wherever it is, and however it is loaded."""
    canary = tmp_path / "executed"
    pickled = cloudpickle.dumps({"learning_rate": Canary(canary)})
    readers = (DQN.load, plain().set_parameters, plain().load_replay_buffer)
    for kind in KINDS:
        members = members_of((archives / f"{kind}.zip").read_bytes())
        for name in (*members, "objects.pkl", "data.pkl", "model/data.pkl", "tensors.pt"):
            archive = archive_of(list({**members, name: pickled}.items()))
            (tmp_path / "model.zip").write_bytes(archive)
            for read in readers:
                for source in (tmp_path / "model.zip", io.BytesIO(archive)):
                    with suppress(CheckpointError):
                        read(source)
    for read in readers:
        (tmp_path / "model.zip").write_bytes(pickled)
        with pytest.raises(CheckpointError, match="no readable zip"):
            read(tmp_path / "model.zip")
    assert not canary.exists()
    with pytest.raises(CheckpointError):
        DQN.load(_with_canary(archives, pickled), trusted=True)
    assert canary.exists()  # which shows that the canary sings


def _with_canary(archives: Path, pickled: bytes) -> io.BytesIO:
    members = members_of((archives / "pickled.zip").read_bytes())
    return io.BytesIO(archive_of(list({**members, "objects.pkl": pickled}.items())))


def test_a_bomb_is_refused_before_it_is_decompressed(archives: Path, tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    members = members_of((archives / "model.zip").read_bytes())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            with file.open(name, "w") as member:
                member.write(content)
                if name == "state.json":
                    for _ in range(300):
                        member.write(b" " * (1 << 20))
    assert path.stat().st_size < 1 << 20
    report = subprocess.run(
        [sys.executable, "-c", READ_AND_MEASURE, str(path)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    complaint, grown_by = report.splitlines()
    assert "it is compressed" in complaint
    assert int(grown_by) < 20e6


READ_AND_MEASURE = """
import resource, sys
from sbdqn import DQN
from sbdqn.errors import CheckpointError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    DQN.load(sys.argv[1])
except CheckpointError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_a_file_of_another_model_is_a_mismatch_and_changes_nothing(archives: Path) -> None:
    model = plain(policy="MlpPolicy").learn(20)
    before = model.q_values([[0.0] * 4]).tolist()
    with pytest.raises(MismatchError, match="do not fit"):
        model.set_parameters(archives / "model.zip")
    assert model.q_values([[0.0] * 4]).tolist() == before
    with pytest.raises(MismatchError, match="make the model with n_envs=2"):
        model.load_replay_buffer(archives / "replay.zip")
    assert model.replay_buffer.stored == 20
