"""Archives that earlier versions wrote are read for ever; `tests.formats` makes new ones."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sbdqn import DQN
from sbdqn.errors import CheckpointError
from sbdqn.persistence import FORMAT_VERSION
from tests.damage import archive_of, members_of
from tests.formats import DATA, decoded, described_replay, digest_of, made

FOLDERS = sorted(DATA.glob("format_*"))
CONTENTS = {folder: json.loads((folder / "contents.json").read_text()) for folder in FOLDERS}
MODELS = [(folder, name) for folder in FOLDERS for name in CONTENTS[folder]["models"]]
REPLAYS = [(folder, name) for folder in FOLDERS for name in CONTENTS[folder]["replays"]]


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
    expected = CONTENTS[folder]["models"][name]
    model = DQN.load(folder / f"{name}.zip", device="cpu")
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
