"""Archives that earlier versions wrote are read for ever; `tests.formats` makes new ones."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sbdqn import DQN
from sbdqn.errors import CheckpointError
from sbdqn.persistence import FORMAT_VERSION
from tests.damage import archive_of, members_of
from tests.formats import (
    DATA,
    callbacks,
    decoded,
    described_callbacks,
    described_replay,
    described_run,
    digest_of,
    made,
)

FOLDERS = sorted(DATA.glob("format_*"))
CONTENTS = {folder: json.loads((folder / "contents.json").read_text()) for folder in FOLDERS}
MODELS = [(folder, name) for folder in FOLDERS for name in CONTENTS[folder]["models"]]
REPLAYS = [(folder, name) for folder in FOLDERS for name in CONTENTS[folder]["replays"]]
CHECKPOINTS = [(folder, name) for folder in FOLDERS for name in CONTENTS[folder]["checkpoints"]]
WITH_ENVIRONMENTS = [each for each in CHECKPOINTS if each[1] != "own_loop"]


def test_there_are_archives_of_every_version() -> None:
    versions = {int(folder.name.removeprefix("format_")) for folder in FOLDERS}
    assert versions == set(range(1, FORMAT_VERSION + 1))
    for folder in FOLDERS:
        for path in folder.glob("*.zip"):
            metadata = json.loads(members_of(path.read_bytes())["metadata.json"])
            assert f"format_{metadata['format_version']}" == folder.name
        assert sum(path.stat().st_size for path in folder.iterdir()) < 300_000


@pytest.mark.parametrize(("folder", "name"), MODELS)
def test_a_model_of_an_earlier_version_is_the_same(folder: Path, name: str) -> None:
    model = DQN.load(folder / f"{name}.zip", device="cpu")
    require_same_model(model, CONTENTS[folder]["models"][name])


def require_same_model(model: DQN, expected: Mapping[str, Any]) -> None:
    assert digest_of(model.get_parameters()["policy"]) == expected["weights"]
    assert model.num_timesteps == expected["num_timesteps"]
    assert model.exploration_rate == expected["exploration_rate"]
    obs = decoded(expected["observation"], model.observation_space)
    # Another processor adds up in another order.
    np.testing.assert_allclose(model.q_values(obs), expected["q_values"], rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def models() -> dict[str, DQN]:
    return made()


@pytest.mark.parametrize(("folder", "name"), REPLAYS)
def test_a_replay_of_an_earlier_version_is_the_same(
    folder: Path, name: str, models: dict[str, DQN]
) -> None:
    model = models[name]
    model.load_replay_buffer(folder / f"{name}_replay.zip")
    assert described_replay(model.replay_buffer) == CONTENTS[folder]["replays"][name]
    model.train(2)


def resumed(folder: Path, name: str, trusted: bool = False) -> DQN:
    return DQN.resume(folder / f"{name}_checkpoint.zip", device="cpu", trusted=trusted)


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize(("folder", "name"), CHECKPOINTS)
def test_a_run_of_an_earlier_version_goes_on(
    folder: Path, name: str, trusted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    expected = CONTENTS[folder]["checkpoints"][name]
    model = resumed(folder, name, trusted)
    assert ("begin new episodes" in caplog.text) == (name != "own_loop" and not trusted)
    require_same_model(model, expected)
    told = described_run(model)
    for part in expected.keys() - {"observation", "q_values", "next_obs", "callbacks"}:
        assert told[part] == expected[part], part
    assert told["next_obs"] == (expected["next_obs"] if trusted else None)
    model.learn(50)
    assert model.num_timesteps >= expected["num_timesteps"] + 50
    model.train(2)
    assert model._n_updates > expected["n_updates"]


@pytest.mark.parametrize(("folder", "name"), WITH_ENVIRONMENTS)
def test_environments_of_an_earlier_version_are_in_the_middle_of_their_episodes(
    folder: Path, name: str
) -> None:
    position, speed = np.array(CONTENTS[folder]["checkpoints"][name]["next_obs"]).T[:2]
    seen: list[Any] = []
    resumed(folder, name, trusted=True).learn(
        1, callback=lambda now, _: seen.append(now["new_obs"][:, 0])
    )
    # Whatever the action is: the cart's acceleration changes the speed alone at first.
    np.testing.assert_allclose(seen[0], position + 0.02 * speed, rtol=1e-5)


@pytest.mark.parametrize(("folder", "name"), WITH_ENVIRONMENTS)
def test_callbacks_of_an_earlier_version_go_on(
    folder: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = CONTENTS[folder]["checkpoints"][name]
    model, called = resumed(folder, name, trusted=True), callbacks()
    model.learn(callback=called)
    assert 0 <= model.num_timesteps - expected["total_timesteps"] < model.n_envs
    for told, before in zip(described_callbacks(called), expected["callbacks"], strict=True):
        assert told.keys() == before.keys()
        assert told["n_calls"] > before["n_calls"]
        assert told.get("n_episodes", 0) >= before.get("n_episodes", 0)
        for key in ("evaluations_timesteps", "evaluations_length", "returns"):
            assert told.get(key, [])[: len(before.get(key, []))] == before.get(key, [])
    assert "begins anew" not in caplog.text


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 1000])
def test_a_newer_version_is_refused_with_both_versions_whatever_it_holds(version: int) -> None:
    members = members_of((FOLDERS[-1] / "plain.zip").read_bytes())
    metadata: dict[str, Any] = {**json.loads(members["metadata.json"]), "format_version": version}
    changes: list[dict[str, bytes]] = [
        {},
        {"a member of the future": b""},
        {"state.json": b"in a language of the future"},
    ]
    for change in changes:
        newer = {**members, **change, "metadata.json": json.dumps(metadata).encode()}
        with pytest.raises(CheckpointError) as caught:
            DQN.load(io.BytesIO(archive_of(list(newer.items()))))
        assert str(caught.value) == (
            f"the file cannot be loaded: it has format version {version}, and this version of "
            f"sbdqn reads versions up to {FORMAT_VERSION}; install a newer one"
        )
