"""Saving while training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sbdqn import DQN
from sbdqn.callbacks import CheckpointCallback, EvalCallback, EveryNTimesteps
from sbdqn.errors import ConfigurationError, FileAccessError
from tests.callbacks.models import small
from tests.environments import CountingEnv

ENDLESS = {"env_kwargs": {"lengths": (1000,)}}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["file", "file/in/it"])
def test_a_file_is_no_folder_whoever_writes(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("old")
    folder = tmp_path / name
    for callback in (
        CheckpointCallback(10, folder),
        EvalCallback(CountingEnv, log_path=folder),
        EvalCallback(CountingEnv, best_model_save_path=folder),
    ):
        with pytest.raises(
            FileAccessError, match=r"the folder .* cannot be made: .*file is a file"
        ):
            small().learn(1, callback=callback)
    with pytest.raises(FileAccessError, match=r"the folder .* cannot be made: .*file is a file"):
        small(tensorboard_log=str(folder)).learn(1)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileAccessError, match=r"folder .*xx cannot be made: File name too long"):
        small().learn(1, callback=CheckpointCallback(10, tmp_path / ("x" * 300)))


@pytest.mark.parametrize(("n_envs", "moments"), [(1, [10, 20, 30]), (4, [12, 20, 32])])
def test_files_are_named_after_the_timesteps(
    tmp_path: Path, n_envs: int, moments: list[int]
) -> None:
    folder = tmp_path / "some" / "folder"
    small(n_envs=n_envs, **ENDLESS).learn(35, callback=CheckpointCallback(10, folder))
    assert names(folder) == [f"rl_model_{moment}_steps.zip" for moment in moments]
    for moment in moments:
        assert DQN.load(folder / f"rl_model_{moment}_steps.zip").num_timesteps == moment


def test_a_file_holds_the_model_of_its_moment(tmp_path: Path) -> None:
    values = []

    class Checked(CheckpointCallback):
        def _on_step(self) -> bool:
            goes_on = super()._on_step()
            if self.num_timesteps == 20:
                values.append(self.model.q_values([0, 0, 0]))
            return goes_on

    model = small().learn(60, callback=Checked(20, str(tmp_path), name_prefix="x"))
    kept = DQN.load(tmp_path / "x_20_steps").q_values([0, 0, 0])
    np.testing.assert_array_equal(kept, values[0])
    assert not np.array_equal(kept, model.q_values([0, 0, 0]))


def test_the_replay_is_saved_too_if_asked_for(tmp_path: Path) -> None:
    callback = CheckpointCallback(20, tmp_path, name_prefix="dqn", save_replay_buffer=True)
    small(**ENDLESS).learn(20, callback=callback)
    assert names(tmp_path) == ["dqn_20_steps.zip", "dqn_replay_buffer_20_steps.zip"]
    model = small()
    model.load_replay_buffer(tmp_path / "dqn_replay_buffer_20_steps.zip")
    assert model.replay_buffer.stored == 20


def test_only_the_highest_verbosity_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for verbose in (0, 1, 2):
        callback = CheckpointCallback(20, tmp_path, save_replay_buffer=True, verbose=verbose)
        small(**ENDLESS).learn(20, callback=callback)
        printed = capsys.readouterr().out
        assert printed.count("Saved ") == (2 if verbose == 2 else 0)
    assert str(tmp_path / "rl_model_20_steps.zip") in printed


def test_the_last_ones_of_each_kind_are_kept(tmp_path: Path) -> None:
    (tmp_path / "rl_model_5_steps.zip").touch()  # somebody else's
    callback = CheckpointCallback(10, tmp_path, save_replay_buffer=True, keep_last=2)
    small(**ENDLESS).learn(45, callback=callback)
    assert names(tmp_path) == [
        "rl_model_30_steps.zip",
        "rl_model_40_steps.zip",
        "rl_model_5_steps.zip",
        "rl_model_replay_buffer_30_steps.zip",
        "rl_model_replay_buffer_40_steps.zip",
    ]
    for count in (0, -1, 1.5):
        with pytest.raises(ConfigurationError, match="keep_last must be an integer of at least 1"):
            CheckpointCallback(10, tmp_path, keep_last=count)  # type: ignore[arg-type]


def test_a_second_learn_goes_on_saving(tmp_path: Path) -> None:
    callback = CheckpointCallback(10, tmp_path)
    small(**ENDLESS).learn(15, callback=callback).learn(7, callback=callback)
    assert names(tmp_path) == ["rl_model_10_steps.zip", "rl_model_20_steps.zip"]


def test_it_can_be_the_child_of_an_event(tmp_path: Path) -> None:
    callback = EveryNTimesteps(20, CheckpointCallback(1, tmp_path))
    small(**ENDLESS).learn(45, callback=callback)
    assert names(tmp_path) == ["rl_model_20_steps.zip", "rl_model_40_steps.zip"]


@pytest.mark.parametrize("save_freq", [0, -10])
def test_the_interval_is_at_least_one(save_freq: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="at least 1"):
        CheckpointCallback(save_freq, tmp_path)


def test_whoever_wrote_a_checkpoint_cannot_have_other_files_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    precious = [tmp_path / "rl_model_1_steps.zip", folder / "best_model.zip"]
    ours = folder / "rl_model_5_steps.zip"
    for file in (*precious, ours):
        file.touch()
    callback = CheckpointCallback(10, folder, keep_last=1)
    names = [str(precious[0]), f"../{precious[0].name}", "best_model.zip", ours.name]
    callback.load_state_dict({"n_calls": 0, "last": 0, "written": {"": names}})
    small(**ENDLESS).learn(20, callback=callback)
    assert all(file.exists() for file in precious)
    assert not ours.exists()
