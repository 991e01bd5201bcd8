"""The figures of a run: their names, their values, their moments, their folders."""

from __future__ import annotations

import csv
import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from sbdqn import logger
from sbdqn.callbacks import BaseCallback, LogMetrics
from sbdqn.errors import ConfigurationError, NonFiniteError
from sbdqn.schedules import Linear
from tests.callbacks.models import small, watched
from tests.environments import ChainEnv, CountingEnv

ENDLESS = {"env_kwargs": {"lengths": (1000,)}}
FIVES = {"env_kwargs": {"lengths": (5,)}}

KEYS = {
    "rollout/ep_rew_mean",
    "rollout/ep_len_mean",
    "rollout/exploration_rate",
    "rollout/success_rate",
    "time/fps",
    "time/episodes",
    "time/time_elapsed",
    "time/total_timesteps",
    "train/loss",
    "train/learning_rate",
    "train/n_updates",
    "train/q_mean",
    "train/q_max",
    "train/td_error",
    "train/grad_norm",
    "train/replay_ratio",
    "replay/size",
}


def read_events(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return events


def read_csv(folder: Path) -> list[dict[str, str]]:
    with (folder / "progress.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def folders(parent: Path) -> list[str]:
    return sorted(path.name for path in parent.iterdir())


# What is logged ---------------------------------------------------------------------------


def test_the_keys_are_exactly_the_documented_ones() -> None:
    model, memory = watched()
    model.learn(40)
    ((step, values),) = memory.dumps
    assert step == 40
    assert set(values) == KEYS


def test_what_is_not_known_yet_is_not_logged() -> None:
    model, memory = watched(learning_starts=30, **ENDLESS)
    model.learn(40, log_interval=(20, "step"))
    assert set(memory.dumps[0][1]) == {
        "rollout/exploration_rate",
        "time/fps",
        "time/episodes",
        "time/time_elapsed",
        "time/total_timesteps",
        "replay/size",
    }
    assert "train/loss" in memory.dumps[1][1]


def test_an_environment_that_tells_no_success_has_no_success_rate() -> None:
    model, memory = watched(ChainEnv)
    model.learn(100)
    assert set(memory.dumps[-1][1]) == KEYS - {"rollout/success_rate"}


def test_episode_statistics_are_means_over_the_window() -> None:
    model, memory = watched(stats_window_size=4)
    model.learn(60)
    values = memory.dumps[-1][1]
    env = CountingEnv()
    ended = model.trainer.episodes
    assert ended > 8
    last = range(ended - 4, ended)
    totals = [sum(env.reward(0, each, t) for t in range(env.length(each))) for each in last]
    assert values["rollout/ep_rew_mean"] == pytest.approx(np.mean(totals))
    assert values["rollout/ep_len_mean"] == np.mean([env.length(each) for each in last])
    assert values["rollout/success_rate"] == np.mean([env.kind(each) == "T" for each in last])
    assert values["time/episodes"] == ended


def test_clocks_and_sizes_are_the_models() -> None:
    model, memory = watched(
        n_envs=2,
        learning_rate=Linear(1.0, 0.0, 80),
        exploration_fraction=1.0,
        exploration_initial_eps=0.75,
        exploration_final_eps=0.25,
        buffer_size=30,
        **ENDLESS,
    )
    model.learn(40)
    values = memory.dumps[-1][1]
    assert values["time/total_timesteps"] == 40
    assert values["rollout/exploration_rate"] == 0.25
    assert values["replay/size"] == 30
    assert values["train/n_updates"] == model._n_updates == 30
    assert values["train/learning_rate"] == 0.5


def test_learning_figures_are_those_of_the_last_update() -> None:
    model, memory = watched(loss="mse")
    model.learn(40)
    values, last = memory.dumps[-1][1], model.learner.last
    assert last is not None
    error = last.loss.surprise.numpy()
    assert values["train/loss"] == pytest.approx((error**2).mean(), rel=1e-5)
    assert values["train/td_error"] == pytest.approx(error.mean(), rel=1e-5)
    assert values["train/q_mean"] == pytest.approx(last.q.numpy().mean(), rel=1e-5)
    assert values["train/q_max"] == last.q.numpy().max()
    assert values["train/grad_norm"] == float(last.gradient_norm) > 0
    assert all(type(value) in (int, float) for value in values.values())


def test_the_gradient_norm_is_that_before_clipping() -> None:
    model, memory = watched(max_grad_norm=1e-4)
    model.learn(40)
    assert memory.dumps[-1][1]["train/grad_norm"] > 1e-3


@pytest.mark.parametrize(
    ("cadence", "ratio"),
    [({}, 1.0), ({"train_freq": 4}, 0.25), ({"train_freq": 4, "gradient_steps": 2}, 0.5)],
)
@pytest.mark.parametrize("n_envs", [1, 4])
def test_the_replay_ratio_is_updates_per_timestep(
    n_envs: int, cadence: dict[str, int], ratio: float
) -> None:
    model, memory = watched(n_envs=n_envs, learning_starts=0, **cadence, **ENDLESS)
    model.learn(40).learn(40)
    assert [value for _, value in memory.values("train/replay_ratio")] == [ratio, ratio]


def test_the_speed_is_that_of_this_learn() -> None:
    model, memory = watched(**ENDLESS)
    model.learn(40).learn(40)
    for _, values in memory.dumps:
        elapsed = values["time/time_elapsed"]
        assert 0 < elapsed < 60
        assert values["time/fps"] == pytest.approx(40 / elapsed, rel=0.2)


# When ---------------------------------------------------------------------------------------


def test_by_default_every_thousand_timesteps_and_at_the_end() -> None:
    model, memory = watched(learning_starts=10**6, n_envs=4, **ENDLESS)
    model.learn(2_500)
    assert [step for step, _ in memory.dumps] == [1_000, 2_000, 2_500]


def test_an_end_that_is_logged_already_is_not_logged_again() -> None:
    model, memory = watched(**ENDLESS)
    model.learn(40, log_interval=(20, "step"))
    assert [step for step, _ in memory.dumps] == [20, 40]


@pytest.mark.parametrize(
    ("interval", "moments"),
    [
        ((15, "step"), [15, 30, 42]),
        ((100, "step"), [42]),
        (2, [10, 20, 30, 40, 42]),
        ((3, "episode"), [15, 30, 42]),
        (np.int64(4), [20, 40, 42]),
        ([15, "step"], [15, 30, 42]),
    ],
)
def test_an_interval_counts_steps_or_episodes(interval: Any, moments: list[int]) -> None:
    model, memory = watched(**FIVES)
    model.learn(42, log_interval=interval)
    assert [step for step, _ in memory.dumps] == moments


def test_episodes_of_all_environments_count() -> None:
    model, memory = watched(n_envs=3, **FIVES)
    model.learn(60, log_interval=6)
    assert [values["time/episodes"] for _, values in memory.dumps] == [6, 12]


@pytest.mark.parametrize(
    "interval",
    [
        *(0, -1, True, "step", 1.5, {}),
        *((0, "step"), (1.5, "step"), (1, "epoch"), ("step", 1), (1,), (1, "step", 2)),
    ],
)
def test_another_interval_is_refused_before_anything_happens(interval: Any) -> None:
    model = small()
    with pytest.raises(ConfigurationError, match=r"log_interval must be an integer of at least 1"):
        model.learn(10, log_interval=interval)
    assert model.num_timesteps == 0
    with pytest.raises(ConfigurationError):
        LogMetrics(interval)


def test_a_run_that_is_stopped_is_logged_at_its_end() -> None:
    model, memory = watched(**ENDLESS)

    def stop(locals_: Any, globals_: Any) -> bool:
        return model.num_timesteps < 17

    model.learn(100, callback=stop)
    assert [step for step, _ in memory.dumps] == [17]


def test_callbacks_may_log_too() -> None:
    class Random(BaseCallback):
        def _on_step(self) -> bool:
            self.logger.record("mine/value", self.num_timesteps)
            self.logger.record_mean("mine/mean", self.num_timesteps)
            return True

    model, memory = watched(**ENDLESS)
    model.learn(20, callback=Random(), log_interval=(10, "step"))
    assert memory.values("mine/value") == [(10, 10), (20, 20)]
    assert memory.values("mine/mean") == [(10, 5.5), (20, 15.5)]


# What is not finite -------------------------------------------------------------------------


class Exploding(CountingEnv):
    """Finite rewards whose square is not, from a certain step on."""

    def __init__(self, after: int) -> None:
        super().__init__(lengths=(10**6,))
        self.after = after

    def step(self, action: Any) -> Any:
        obs, reward, *rest = super().step(action)
        return obs, 1e30 if len(self.actions) > self.after else reward, *rest


def test_a_loss_that_is_not_finite_ends_training_at_the_next_log() -> None:
    model, memory = watched(functools.partial(Exploding, after=25), loss="mse", learning_starts=0)
    with pytest.raises(NonFiniteError) as caught:
        model.learn(500, log_interval=(20, "step"))
    assert model.num_timesteps in (40, 60)
    message = str(caught.value)
    assert message.startswith(f"not finite in update {model._n_updates}: the loss is ")
    assert "learning rate" in message
    # What was wrong is in the log, as the last entry.
    step, values = memory.dumps[-1]
    assert step == model.num_timesteps
    assert not math.isfinite(values["train/loss"])


def test_a_loss_that_is_not_finite_is_reported_at_the_end_at_the_latest() -> None:
    model, _ = watched(functools.partial(Exploding, after=5), loss="mse", learning_starts=0)
    with pytest.raises(NonFiniteError, match="weights are not to be trusted"):
        model.learn(150)
    assert model.num_timesteps == 150


def test_the_updates_after_the_last_log_are_looked_at_too() -> None:
    exploding = functools.partial(Exploding, after=0)
    model, memory = watched(exploding, loss="mse", learning_starts=39)
    with pytest.raises(NonFiniteError, match="not finite in update 1"):
        model.learn(40, log_interval=(40, "step"))
    assert [step for step, _ in memory.dumps] == [40]


# Run folders --------------------------------------------------------------------------------


def test_each_model_has_a_folder_of_its_own(tmp_path: Path) -> None:
    for _ in range(3):
        small(tensorboard_log=tmp_path).learn(12).close()
    assert folders(tmp_path) == ["DQN_1", "DQN_2", "DQN_3"]


def test_two_runs_that_claim_a_folder_at_once_get_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = tmp_path / "DQN_1"
    taken.mkdir()  # by the other run, after this one has looked
    answers = iter([taken, tmp_path / "DQN_2"])
    monkeypatch.setattr(logger, "next_run_folder", lambda parent, name: next(answers))
    small(tensorboard_log=tmp_path).learn(12).close()
    assert folders(tmp_path) == ["DQN_1", "DQN_2"]
    assert list(taken.iterdir()) == []


def test_a_second_learn_continues_in_the_same_folder(tmp_path: Path) -> None:
    model = small(tensorboard_log=str(tmp_path / "logs"), **ENDLESS)
    model.learn(20).learn(30)
    model.close()
    assert folders(tmp_path / "logs") == ["DQN_1"]
    run = tmp_path / "logs" / "DQN_1"
    assert [row["time/total_timesteps"] for row in read_csv(run)] == ["20", "50"]
    events = read_events(run)
    assert [event.step for event in events.Scalars("train/n_updates")] == [20, 50]
    assert [event.value for event in events.Scalars("train/n_updates")] == [10, 40]


def test_resetting_the_clock_begins_another_folder(tmp_path: Path) -> None:
    model = small(tensorboard_log=tmp_path, **ENDLESS)
    model.learn(20).learn(30, reset_num_timesteps=True)
    model.close()
    assert folders(tmp_path) == ["DQN_1", "DQN_2"]
    for name, steps in (("DQN_1", 20), ("DQN_2", 30)):
        events = read_events(tmp_path / name)
        assert [event.step for event in events.Scalars("time/fps")] == [steps]


def test_another_name_begins_another_folder(tmp_path: Path) -> None:
    model = small(tensorboard_log=tmp_path, **ENDLESS)
    model.learn(15, tb_log_name="first").learn(15, tb_log_name="second").learn(15, tb_log_name="x")
    model.close()
    assert folders(tmp_path) == ["first_1", "second_1", "x_1"]


def test_tensorboard_and_csv_hold_all_keys(tmp_path: Path) -> None:
    small(tensorboard_log=tmp_path).learn(40).close()
    (row,) = read_csv(tmp_path / "DQN_1")
    assert set(row) == KEYS
    assert set(read_events(tmp_path / "DQN_1").Tags()["scalars"]) == KEYS


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    small().learn(20).close()
    assert folders(tmp_path) == []


def test_verbosity_shows_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    small(verbose=1).learn(40)
    printed = capsys.readouterr().out
    for key in KEYS:
        assert f"|    {key.partition('/')[2]}" in printed
    small(verbose=0).learn(40)
    assert capsys.readouterr().out == ""


def test_a_logger_of_ones_own_gets_everything_and_no_folder_is_made(tmp_path: Path) -> None:
    model, memory = watched(tensorboard_log=tmp_path, verbose=1)
    model.learn(20).learn(20)
    assert [step for step, _ in memory.dumps] == [20, 40]
    assert folders(tmp_path) == []
