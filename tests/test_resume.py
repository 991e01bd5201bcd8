"""A run that was stopped and resumed is the run that was never stopped."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from operator import attrgetter
from pathlib import Path
from threading import Lock
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils import EzPickle
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import FrameStackObservation, RecordEpisodeStatistics

from sbdqn import DQN, MlpPolicy, recipes
from sbdqn.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    ScheduleCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
    StopTrainingWhenSolved,
)
from sbdqn.checkpoint import checkpoints_in
from sbdqn.envs.copying import unpickled_environments
from sbdqn.errors import (
    CheckpointError,
    ConfigurationError,
    FileAccessError,
    MismatchError,
    MissingFileError,
    NotReadyError,
)
from sbdqn.exploration import Boltzmann, EpsilonGreedy
from sbdqn.logger import Logger
from sbdqn.memory import Memory
from sbdqn.persistence import Archive, read_archive, write_archive
from sbdqn.schedules import Linear
from tests.callbacks.models import Memory as Output, small
from tests.environments import CountingEnv, DictCountingEnv, PictureEnv
from tests.test_recipes import on_cartpole
from tests.warnings_of_workers import FORK

TOTAL, SAVED_AT = 160, 120
FEW = {"buffer_size": 100, "learning_starts": 60, "seed": 0, "device": "cpu"}  # the ring is full
ON_CARTPOLE = {
    name: {key: value for key, value in on_cartpole(name).items() if key != "n_envs"}
    for name in recipes.by_name()
}

RESUME_ALL = """
import sys
from pathlib import Path
import torch
from sbdqn import DQN
torch.set_num_threads(1)
torch.rand(7)
for folder in sorted(Path(sys.argv[1]).iterdir()):
    model = DQN.resume(folder, trusted=True, device="cpu").learn()
    torch.save(model.policy.state_dict(), folder / "weights.pt")
"""


class SaveAt(BaseCallback):
    """Writes one checkpoint, in the hook of this event."""

    def __init__(self, folder: Path, at: int, event: str = "step") -> None:
        super().__init__()
        self.folder, self.at, self.event = folder, at, event

    def _save(self, event: str) -> None:
        if event == self.event and self.model.num_timesteps >= self.at:
            self.model.save_checkpoint(self.folder)
            self.event = "never"

    def _on_step(self) -> bool:
        self._save("step")
        return True

    def _on_update(self) -> None:
        self._save("update")

    def _on_rollout_start(self) -> None:
        self._save("rollout_start")

    def _on_rollout_end(self) -> None:
        self._save("rollout_end")

    def _on_training_end(self) -> None:
        self._save("training_end")


def weights_of(model: DQN) -> dict[str, torch.Tensor]:
    return dict(model.policy.state_dict())


def assert_same(given: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert given.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(given[name], value, rtol=0, atol=0, equal_nan=True, msg=name)


def assert_same_run(given: DQN, wanted: DQN) -> None:
    assert_same(weights_of(given), weights_of(wanted))
    assert given.num_timesteps == wanted.num_timesteps
    assert given._n_updates == wanted._n_updates
    assert given.ep_info_buffer == wanted.ep_info_buffer
    assert given.ep_success_buffer == wanted.ep_success_buffer
    for model in (given, wanted):
        assert model._n_updates > 0


def stopped(folder: Path, at: int = 60, total: int = 100, **parameters: Any) -> DQN:
    """A run that left a checkpoint behind and went on."""
    model = small(**parameters)
    return model.learn(total, callback=SaveAt(folder, at))


@pytest.mark.parametrize("n_envs", [1, 4])
def test_every_recipe_resumes_in_another_process_bit_for_bit(n_envs: int, tmp_path: Path) -> None:
    wanted = {}
    for name, parameters in ON_CARTPOLE.items():
        model = DQN("MlpPolicy", "CartPole-v1", n_envs=n_envs, **{**parameters, **FEW})
        updates: list[int] = []
        model.learn(
            TOTAL,
            callback=[
                lambda now, _, updates=updates: updates.append(now["self"]._n_updates),
                SaveAt(tmp_path / name, SAVED_AT),
            ],
        )
        wanted[name] = weights_of(model)
        assert 0 < updates[SAVED_AT // n_envs] < updates[-1], name
    command = [sys.executable, "-c", RESUME_ALL, str(tmp_path)]
    subprocess.run(command, check=True, timeout=250, stderr=subprocess.DEVNULL)
    for name, weights in wanted.items():
        assert_same(torch.load(tmp_path / name / "weights.pt"), weights)


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize(
    ("env", "policy", "parameters"),
    [
        (DictCountingEnv, "MultiInputPolicy", {"policy_kwargs": {"features_extractor": None}}),
        (
            lambda: FrameStackObservation(PictureEnv(), 3),
            "MlpPolicy",
            {"replay_memory": Memory(frame_stack=3)},
        ),
        (lambda: RecordEpisodeStatistics(CountingEnv()), "MlpPolicy", {"n_steps": 3}),
        (lambda: CountingEnv(lengths=(1,)), "MlpPolicy", {"n_steps": 3}),
        (CountingEnv, "MlpPolicy", {"train_freq": (2, "episode"), "gradient_steps": -1}),
        (CountingEnv, "MlpPolicy", {"train_freq": 7, "gradient_steps": 3}),
        (CountingEnv, "MlpPolicy", {"learning_rate": lambda left: 1e-3 * left}),
        (CountingEnv, "MlpPolicy", {"exploration": Boltzmann(Linear(2.0, 0.1, 200))}),
        (CountingEnv, "MlpPolicy", {"seed": None}),
        (CountingEnv, "MlpPolicy", {"seed": np.int64(7)}),
    ],
    ids=[
        "dict",
        "frames",
        "statistics",
        "short",
        "episodes",
        "rounds",
        "rate",
        "soft",
        "seedless",
        "seed",
    ],
)
def test_everything_that_moves_goes_on(
    env: Any, policy: str, parameters: dict[str, Any], n_envs: int, tmp_path: Path
) -> None:
    settings = {"buffer_size": 40, "learning_starts": 20, "batch_size": 8, "seed": 1, "n_steps": 1}
    settings |= {"train_freq": 2, "target_update_interval": 5, "n_envs": n_envs, **parameters}
    settings["policy_kwargs"] = {"net_arch": (8,), **parameters.get("policy_kwargs", {})}
    model = DQN(policy, env, **settings)
    model.learn(100, callback=SaveAt(tmp_path, 60))
    again = DQN.resume(tmp_path, trusted=True)
    assert 60 <= again.num_timesteps < 60 + n_envs
    again.learn()
    assert_same_run(again, model)
    for each in (again, model):  # and so it goes on
        each.learn(30)
    assert_same_run(again, model)


@pytest.mark.parametrize("event", ["step", "update", "rollout_start", "rollout_end"])
def test_a_checkpoint_is_written_between_steps_whoever_asks_for_it(
    event: str, tmp_path: Path
) -> None:
    seen: list[bool] = []
    folder = tmp_path / "there"
    model = small()
    model.learn(
        100,
        callback=[
            SaveAt(folder, 60, event),
            ScheduleCallback("tau", Linear(1.0, 0.1, 100)),
            lambda *_: seen.append(folder.exists()),
        ],
    )
    assert not seen[59]
    assert seen[-1]
    again = DQN.resume(folder, trusted=True)
    again.learn(callback=[SaveAt(folder, 1000), ScheduleCallback("tau", Linear(1.0, 0.1, 100))])
    assert_same_run(again, model)


def test_a_checkpoint_at_the_end_of_training_is_the_model_at_rest(tmp_path: Path) -> None:
    model = small().learn(60, callback=SaveAt(tmp_path / "end", 60, "training_end"))
    model.save_checkpoint(tmp_path / "after")
    model.learn(40)
    for folder in ("end", "after"):
        again = DQN.resume(tmp_path / folder, trusted=True)
        with pytest.raises(NotReadyError, match="total_timesteps must say"):
            again.learn()
        assert_same_run(again.learn(40), model)


def test_several_checkpoints_may_be_wanted_of_a_step(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "other")]
    small().learn(60, callback=[SaveAt(folder, 50) for folder in folders])
    assert [DQN.resume(folder).num_timesteps for folder in folders] == [50, 50]


@pytest.mark.parametrize("name", ["load", "resume", "from_sb3"])
def test_what_makes_another_model_is_refused_on_a_model(name: str, tmp_path: Path) -> None:
    with pytest.raises(NotReadyError, match=rf"model = DQN.{name}\("):
        getattr(small(), name)(tmp_path)


def test_environments_that_were_left_do_not_begin_with_the_first_episodes(tmp_path: Path) -> None:
    first: list[Any] = []
    model = small(env="CartPole-v1", n_envs=2)
    model.learn(20, callback=lambda local, _: first.append(local["obs"].tolist()))
    model.abandon_episodes()
    model.save_checkpoint(tmp_path)
    later: list[Any] = []
    DQN.resume(tmp_path).learn(20, callback=lambda local, _: later.append(local["obs"].tolist()))
    assert first[0] != later[0]


def test_a_model_that_never_learned_can_be_resumed(tmp_path: Path) -> None:
    small().save_checkpoint(tmp_path)
    again = DQN.resume(tmp_path, CountingEnv).learn(60)
    assert_same_run(again, small().learn(60))


def test_what_ctrl_c_ended_is_finished_by_the_next_learn() -> None:
    whole = small().learn(100)
    model = small()

    def interrupt(local: Any, _: Any) -> None:
        if local["self"].num_timesteps == 70:
            os.kill(os.getpid(), signal.SIGINT)

    model.learn(100, callback=interrupt)
    assert model.num_timesteps == 70
    assert_same_run(model.learn(), whole)


def test_the_loop_of_a_program_goes_on(tmp_path: Path) -> None:
    def play(model: DQN, steps: int, env: CountingEnv, obs: Any) -> Any:
        for _ in range(steps):
            action = model.act(obs)
            after, reward, terminated, truncated, _ = env.step(action)
            model.observe(obs, action, reward, after, terminated, truncated)
            obs = env.reset()[0] if terminated or truncated else after
            if model.replay_buffer.stored > 20:
                model.train()
        return obs

    env = CountingEnv()
    model = small(exploration=EpsilonGreedy(0.3), n_steps=3, env=env)
    obs = play(model, 50, env, env.reset()[0])
    model.save_checkpoint(tmp_path)
    state = (env.episode, env.t)
    play(model, 40, env, obs)
    env.episode, env.t = state
    again = DQN.resume(tmp_path, env)
    play(again, 40, env, obs)
    assert_same_run(again, model)


def test_without_trust_the_environments_begin_anew_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = stopped(tmp_path, env="CartPole-v1")
    again = DQN.resume(tmp_path)
    assert "begin new episodes: restoring theirs unpickles it, which needs trusted" in caplog.text
    assert again.replay_buffer.stored == 60
    assert again._n_updates == 50
    again.learn(callback=SaveAt(tmp_path, 1000))
    assert again.num_timesteps == 100
    assert again._n_updates == model._n_updates
    twice = DQN.resume(tmp_path).learn(callback=SaveAt(tmp_path, 1000))
    assert_same_run(twice, again)


def test_exploring_predictions_go_on(tmp_path: Path) -> None:
    def explored(model: DQN, count: int) -> list[int]:
        obs = np.zeros(3, np.float32)
        return [int(model.predict(obs, deterministic=False)[0]) for _ in range(count)]

    model = small(exploration=EpsilonGreedy(1.0)).learn(20)
    begun = explored(model, 7)
    model.save_checkpoint(tmp_path)
    going_on = explored(model, 30)
    assert explored(DQN.resume(tmp_path, trusted=True), 30) == going_on
    assert going_on[:7] != begun


def test_resumed_environments_of_a_run_without_a_seed_begin_the_same_way(tmp_path: Path) -> None:
    small(env="CartPole-v1", seed=None).learn(60).save_checkpoint(tmp_path)
    one, other = (DQN.resume(tmp_path).learn(60) for _ in range(2))
    assert_same_run(one, other)


def test_resumed_environments_do_not_repeat_the_first_episodes(tmp_path: Path) -> None:
    first: list[Any] = []
    model = small(env="CartPole-v1")
    model.learn(60, callback=lambda local, _: first.append(local["obs"][0].tolist()))
    model.save_checkpoint(tmp_path)
    later: list[Any] = []
    again = DQN.resume(tmp_path)
    again.learn(20, callback=lambda local, _: later.append(local["obs"][0].tolist()))
    assert first[0] not in later
    assert later[0] not in first


@pytest.mark.parametrize("trusted", [True, False])
def test_what_is_saved_before_the_environments_began_anew_begins_so_too(
    trusted: bool, tmp_path: Path
) -> None:
    model = small(env="CartPole-v1").learn(60)
    model.save_checkpoint(tmp_path)
    again = DQN.resume(tmp_path)
    again.save_checkpoint(tmp_path)  # with no environments to copy
    twice = DQN.resume(tmp_path, trusted=trusted)
    assert_same_run(twice.learn(60), again.learn(60))


@pytest.mark.parametrize("trusted", [True, False])
def test_another_seed_takes_the_place_of_every_generator(trusted: bool, tmp_path: Path) -> None:
    small(env="CartPole-v1").learn(60).save_checkpoint(tmp_path)
    begun = []
    for seed in (5, 6):
        again = DQN.resume(tmp_path, trusted=trusted, seed=seed)
        wanted = small(env="CartPole-v1", seed=seed)
        assert again.learner.seed == wanted.learner.seed
        for name in ("trainer.rng", "replay_buffer._rng", "_prediction_rng"):
            states = [attrgetter(name)(each).bit_generator.state for each in (again, wanted)]
            assert states[0] == states[1], name
        again.learn(1, callback=lambda local, _: begun.append(local["obs"].tolist()))
        wanted.learn(1, callback=lambda local, _: begun.append(local["obs"].tolist()))
    assert begun[0] == begun[1] != begun[2] == begun[3]


class Trap(CountingEnv):
    """Unpickling it leaves a file behind."""

    where = ""

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.where),)


def test_nothing_is_unpickled_without_trust(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trap = Trap()
    trap.where = str(tmp_path / "executed")
    folder = tmp_path / "checkpoints"
    stopped(folder, env=trap)
    again = DQN.resume(folder, CountingEnv)
    again.learn()
    DQN.resume(folder, CountingEnv, trusted=True)
    assert "begin new episodes: others were asked for" in caplog.text
    with pytest.raises(NotReadyError, match=r"pass env to DQN\.load or DQN\.resume, or call"):
        DQN.resume(folder).learn()
    assert not Path(trap.where).exists()
    with pytest.raises(CheckpointError):
        DQN.resume(folder, trusted=True)
    assert Path(trap.where).exists()


def test_environments_of_a_module_that_is_gone_are_missed_with_the_ways_out() -> None:
    with pytest.raises(CheckpointError, match=r"'gone'.*; make importable .*, or pass env"):
        unpickled_environments(b"cgone\nEnv\n.")


class Changed(CountingEnv):
    """Reads no pickle of its earlier versions."""

    def __setstate__(self, state: Any) -> None:
        raise AttributeError("no such part")


def test_environments_of_another_version_may_begin_anew(tmp_path: Path) -> None:
    stopped(tmp_path, env=Changed)
    with pytest.raises(CheckpointError, match=r"no such part.*, or pass env, which begins new"):
        DQN.resume(tmp_path, trusted=True)
    assert DQN.resume(tmp_path, CountingEnv, trusted=True).learn().num_timesteps == 100


class MadeAgain(CountingEnv, EzPickle):
    """Pickles how it was made alone, as many of gymnasium's environments."""

    def __init__(self) -> None:
        CountingEnv.__init__(self)
        EzPickle.__init__(self)


class Inside(CountingEnv):
    """Plays in another environment, which is no wrapper's."""

    def __init__(self) -> None:
        super().__init__()
        self.world = [MadeAgain()]


class Holding(CountingEnv):
    """Holds what cannot be pickled."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = Lock()


@FORK
@pytest.mark.parametrize(
    ("env", "parameters", "reason"),
    [
        (MadeAgain, {}, "MadeAgain cannot be copied with its state"),
        (lambda: RecordEpisodeStatistics(MadeAgain()), {}, "MadeAgain cannot be copied"),
        (Inside, {}, "MadeAgain cannot be copied with its state"),
        (Holding, {}, "they cannot be pickled: cannot pickle"),
        (CountingEnv, {"vectorization": "async"}, "they run in processes of their own"),
    ],
)
def test_environments_that_cannot_be_copied_begin_anew(
    env: Any,
    parameters: dict[str, Any],
    reason: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = stopped(tmp_path, env=env, **parameters)
    again = DQN.resume(tmp_path, trusted=True)
    again.set_env(CountingEnv)
    again.learn()
    assert f"the environments begin new episodes: {reason}" in caplog.text
    # The updates that the last step made due are made, though environments step meanwhile.
    assert again._n_updates == model._n_updates
    for each in (model, again):
        each.close()


def test_environments_given_as_objects_are_restored(tmp_path: Path) -> None:
    for index, env in enumerate(
        (
            CountingEnv(),
            gym.make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point"),
            gym.vector.SyncVectorEnv([CountingEnv, CountingEnv]),
        )
    ):
        model = stopped(tmp_path / str(index), env=env)
        again = DQN.resume(tmp_path / str(index), trusted=True)
        assert type(again.get_params()["env"]) is type(env)
        assert again.get_params()["env"] is not env
        assert_same_run(again.learn(callback=SaveAt(tmp_path, 1000)), model)
        again.close()
        assert not again.get_params()["env"].unwrapped.__dict__.get("closed", False)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_episodes_that_end_in_other_modes_go_on(mode: AutoresetMode, tmp_path: Path) -> None:
    env = gym.vector.SyncVectorEnv([CountingEnv] * 3, autoreset_mode=mode)
    model = stopped(tmp_path, env=env, n_steps=3, replay="prioritized")
    assert_same_run(DQN.resume(tmp_path, trusted=True).learn(callback=SaveAt(tmp_path, 999)), model)


def test_a_callable_makes_further_environments_of_a_resumed_model(tmp_path: Path) -> None:
    stopped(tmp_path, env=lambda: CountingEnv(lengths=(3,)))
    again = DQN.resume(tmp_path, trusted=True)
    assert again.make_eval_env(2).num_envs == 2
    again.close()
    assert again.learn(20).num_timesteps == 80


def test_parameters_may_change(tmp_path: Path) -> None:
    stopped(tmp_path)
    again = DQN.resume(tmp_path, trusted=True, batch_size=16, learning_rate=0.5)
    again.learn()
    assert (again.batch_size, again.learner.learning_rate) == (16, 0.5)
    with pytest.raises(ConfigurationError, match="401"):
        DQN.resume(tmp_path, trusted=True, buffer_size=300)
    with pytest.raises(ConfigurationError, match="unknown keyword arguments speed"):
        DQN.resume(tmp_path, speed=1)


@pytest.mark.parametrize("trusted", [False, True])
def test_a_seed_given_to_resume_is_that_of_all_that_draws(trusted: bool, tmp_path: Path) -> None:
    small(env="CartPole-v1").learn(60).save_checkpoint(tmp_path)
    wanted = DQN.resume(tmp_path, trusted=trusted)
    wanted.set_random_seed(5)
    given = DQN.resume(tmp_path, trusted=trusted, seed=5)
    assert given.get_params()["seed"] == 5
    assert_same_run(given.learn(60), wanted.learn(60))


@pytest.mark.parametrize("train_freq", [4, (1, "episode")])
def test_a_shorter_period_given_to_resume_does_not_make_up_for_a_longer_one(
    train_freq: Any, tmp_path: Path
) -> None:
    small(train_freq=1000, gradient_steps=-1).learn(90).save_checkpoint(tmp_path)
    changed = DQN.resume(tmp_path, trusted=True).set_params(train_freq=train_freq).learn(30)
    assert 0 < changed._n_updates < 40
    assert_same_run(DQN.resume(tmp_path, trusted=True, train_freq=train_freq).learn(30), changed)


@pytest.mark.parametrize("trusted", [False, True])
def test_environments_are_made_as_resume_says(tmp_path: Path, trusted: bool) -> None:
    stopped(tmp_path, env="CartPole-v1")
    kwargs = {"max_episode_steps": 3}
    again = DQN.resume(tmp_path, trusted=trusted, env_kwargs=kwargs).learn(20)
    assert again.env.unwrapped.envs[0].spec.max_episode_steps == 3
    with pytest.raises(MismatchError, match=r"n_envs=4 does not fit the replay .*of 1; to go on"):
        DQN.resume(tmp_path, trusted=trusted, n_envs=4)
    again.save(tmp_path / "model.zip")
    assert DQN.load(tmp_path / "model.zip", n_envs=4).learn(8).num_timesteps == 88


def test_only_what_pickles_need_trust(tmp_path: Path) -> None:
    class Mine(MlpPolicy):
        """Somebody's policy, which only Python can describe."""

    model = DQN(Mine(net_arch=(8,)), CountingEnv, learning_starts=10, buffer_size=100, seed=0)
    model.learn(40, callback=SaveAt(tmp_path, 20))
    with pytest.raises(CheckpointError, match="policy were saved as Python objects"):
        DQN.resume(tmp_path, CountingEnv)
    assert DQN.resume(tmp_path, CountingEnv, policy=MlpPolicy(net_arch=(8,))).num_timesteps == 20
    assert_same_run(DQN.resume(tmp_path, trusted=True).learn(), model)


def test_a_model_is_no_checkpoint_and_a_checkpoint_no_model(tmp_path: Path) -> None:
    model = small()
    model.save(tmp_path / "model.zip")
    with pytest.raises(CheckpointError, match=r"a 'model', not a 'checkpoint'; DQN\.load or"):
        DQN.resume(tmp_path / "model.zip")
    model.save_checkpoint(tmp_path)
    (path,) = checkpoints_in(tmp_path)
    with pytest.raises(CheckpointError, match=r"a 'checkpoint', not a 'model'; DQN\.resume reads"):
        DQN.load(path)


def test_a_place_where_nothing_is_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"no folder and no file '.*nowhere'"):
        DQN.resume(tmp_path / "nowhere")
    small().save_checkpoint(tmp_path)
    (path,) = checkpoints_in(tmp_path)
    assert DQN.resume(path.with_suffix("")).num_timesteps == 0


# -- the folder --------------------------------------------------------------------


def test_the_newest_is_resumed_even_if_the_clock_began_anew(tmp_path: Path) -> None:
    model = small().learn(30)
    with pytest.raises(MissingFileError, match="no checkpoint in"):
        DQN.resume(tmp_path)
    model.save_checkpoint(tmp_path)
    model.learn(20, reset_num_timesteps=True).save_checkpoint(tmp_path)
    names = [path.name for path in checkpoints_in(tmp_path)]
    assert names == ["checkpoint_000001_30_steps.zip", "checkpoint_000002_20_steps.zip"]
    assert DQN.resume(tmp_path).num_timesteps == 20
    assert DQN.resume(tmp_path / names[0]).num_timesteps == 30


def test_what_a_killed_writer_left_is_removed_at_whatever_timesteps_it_was(tmp_path: Path) -> None:
    model = small().learn(20)
    left = tmp_path / ".checkpoint_000001_19_steps.zip.sbdqn-abcd1234"
    others = [tmp_path / f".{name}.sbdqn-abcd1234" for name in ("model.zip", "checkpoint.zip")]
    for path in (left, *others):
        path.touch()
    model.save_checkpoint(tmp_path)
    assert not left.exists()
    assert all(path.exists() for path in others)
    assert [path.name for path in checkpoints_in(tmp_path)] == ["checkpoint_000001_20_steps.zip"]


def test_numbers_are_not_compared_as_text(tmp_path: Path) -> None:
    small().learn(20).save_checkpoint(tmp_path)
    (only,) = checkpoints_in(tmp_path)
    for name in ("checkpoint_1000000_5_steps.zip", "checkpoint_999999_7_steps.zip"):
        (tmp_path / name).write_bytes(only.read_bytes())
    (tmp_path / "checkpoint_9999999_5_steps.zip.part").touch()
    assert [path.name.split("_")[1] for path in checkpoints_in(tmp_path)] == [
        "000001",
        "999999",
        "1000000",
    ]


def test_the_last_ones_are_kept_and_all_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.zip").touch()
    model = small().learn(30)
    for _ in range(4):
        model.save_checkpoint(tmp_path, keep_last=2)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["checkpoint_000003_30_steps.zip", "checkpoint_000004_30_steps.zip", "mine.zip"]
    for count in (0, -1, 1.5, "2"):
        with pytest.raises(ConfigurationError, match="keep_last must be an integer of at least 1"):
            model.save_checkpoint(tmp_path, keep_last=count)  # type: ignore[arg-type]


def test_old_ones_are_deleted_when_the_new_one_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def watched(path: Path, missing_ok: bool = False) -> None:
        seen.append([DQN.resume(each).num_timesteps for each in checkpoints_in(tmp_path)])
        unlink(path, missing_ok)

    model = small()
    for _ in range(2):
        model.learn(20).save_checkpoint(tmp_path)
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", watched)
    model.learn(20).save_checkpoint(tmp_path, keep_last=1)
    assert seen == [[20, 40, 60], [40, 60]]


def test_one_that_cannot_be_deleted_is_reported_and_the_new_one_is_there(tmp_path: Path) -> None:
    (tmp_path / "checkpoint_000001_10_steps.zip").mkdir()
    model = small().learn(20)
    with pytest.raises(FileAccessError, match=r"000001_10_steps\.zip cannot be deleted: .+"):
        model.save_checkpoint(tmp_path, keep_last=1)
    assert DQN.resume(tmp_path).num_timesteps == 20


def test_a_folder_that_cannot_be_written_ends_training_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    model = small()
    with pytest.raises(FileAccessError, match="is a file, not a folder"):
        model.learn(100, callback=SaveAt(tmp_path / "file", 50))
    assert model.num_timesteps == 50
    model.save_checkpoint(tmp_path)
    assert model.learn(20).num_timesteps == 70


# -- callbacks ---------------------------------------------------------------------


def test_the_checkpoint_callback_resumes_where_it_was(tmp_path: Path) -> None:
    def callback(folder: Path) -> CheckpointCallback:
        return CheckpointCallback(25, folder, resumable=True, keep_last=3)

    model = small().learn(110, callback=callback(tmp_path))
    again = DQN.resume(checkpoints_in(tmp_path)[0], trusted=True)
    assert again.num_timesteps == 50
    again.learn(callback=callback(tmp_path / "again"))
    assert_same_run(again, model)
    kept = [
        [path.name.split("_")[2] for path in checkpoints_in(folder)]
        for folder in (tmp_path, tmp_path / "again")
    ]
    assert kept == [["50", "75", "100"], ["75", "100"]]


class Counting(BaseCallback):
    """Keeps a count of its own."""

    count = 0

    def _on_step(self) -> bool:
        self.count += 1
        return True

    def _state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def _load_state_dict(self, state: Any) -> None:
        self.count = state["count"]


def test_what_a_callback_keeps_and_no_file_can_hold_is_named(tmp_path: Path) -> None:
    callback = Counting()
    callback.count = {1, 2}  # type: ignore[assignment]
    model = small()
    model.learn(1, callback=[lambda *_: True, EveryNTimesteps(1000, callback)])
    with pytest.raises(CheckpointError) as caught:
        model.save_checkpoint(tmp_path)
    assert str(caught.value) == (
        "the state cannot be saved: run.callbacks.callbacks.1.state.callback.state.count: set has "
        "no description in JSON; what _state_dict of a callback gives must be of lists, tuples, "
        "dicts, strings, numbers and tensors"
    )
    assert not list(tmp_path.iterdir())


RUBBISH: dict[str, Any] = {
    "callbacks": 5,
    "callbacks.callbacks": 5,
    "callbacks.log": [],
    "callbacks.log.state.last": "x",
    "callbacks.callbacks.0": 7,
    "callbacks.callbacks.0.state": {},
    "callbacks.callbacks.0.state.n_calls": "x",
    "callbacks.callbacks.0.state.n_episodes": "x",
    "callbacks.callbacks.1.state.returns": 7,
    "callbacks.callbacks.2.state.last": {},
    "callbacks.callbacks.2.state.written": [1],
    "callbacks.callbacks.3.state.best_mean_reward": "x",
    "callbacks.callbacks.3.state.evaluations_results": [1],
    "callbacks.callbacks.3.state.callback.state.no_improvement_evals": None,
    "episodes": [5],
    "episodes.0": {"r": "x", "l": 1},
    "successes": ["x"],
}


@pytest.fixture(scope="module")
def kept_by_callbacks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Archive, Any]:
    folder = tmp_path_factory.mktemp("kept")

    def given() -> list[BaseCallback]:
        return [
            StopTrainingOnMaxEpisodes(1000),
            StopTrainingWhenSolved(1e9),
            CheckpointCallback(1000, folder / "models"),
            EvalCallback(
                "CartPole-v1",
                callback_after_eval=StopTrainingOnNoModelImprovement(1000),
                n_eval_episodes=1,
                eval_freq=20,
                verbose=0,
            ),
        ]

    small(env="CartPole-v1").learn(60, callback=given()).save_checkpoint(folder)
    return read_archive(checkpoints_in(folder)[0], "checkpoint"), given


@pytest.mark.parametrize("place", [*RUBBISH, ""])
def test_rubbish_that_callbacks_or_logs_would_go_on_with_is_a_checkpoint_error(
    place: str, kept_by_callbacks: tuple[Archive, Any], tmp_path: Path
) -> None:
    archive, callbacks = kept_by_callbacks
    state: Any = copy.deepcopy(archive.state)
    *path, last = place.split(".")
    part = state["run"]
    for name in path:
        part = part[int(name) if isinstance(part, list) else name]
    if place:
        part[int(last) if isinstance(part, list) else last] = RUBBISH[place]
    write_archive(tmp_path / "rubbish.zip", "checkpoint", archive.parameters, state)
    with pytest.raises(CheckpointError) if place else nullcontext():
        DQN.resume(tmp_path / "rubbish.zip").learn(30, callback=callbacks())


class Repeating(CountingEnv):
    """Every episode is the first one."""

    def reset(self, **options: Any) -> Any:
        self.episode = -1
        return super().reset(**options)


def callbacks(folder: Path) -> list[BaseCallback]:
    return [
        SaveAt(folder, 61),
        CallbackList([Counting(), EveryNTimesteps(7, Counting())]),
        EvalCallback(
            Repeating,
            callback_on_new_best=StopTrainingOnRewardThreshold(1e9),
            callback_after_eval=StopTrainingOnNoModelImprovement(1000),
            n_eval_episodes=2,
            eval_freq=20,
            verbose=0,
        ),
        StopTrainingOnMaxEpisodes(1000),
        StopTrainingWhenSolved(1e9, window=3),
        CheckpointCallback(17, folder / "models", keep_last=2),
    ]


def states(each: list[BaseCallback]) -> list[Any]:
    return [callback.state_dict() for callback in each[1:]]


def test_callbacks_go_on_where_they_were(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = callbacks(tmp_path), callbacks(tmp_path / "again")
    small().learn(100, callback=first)
    again = DQN.resume(tmp_path, trusted=True)
    again.learn(callback=second)
    assert states(second) == states(first)
    evaluation = second[2]
    assert isinstance(evaluation, EvalCallback)
    assert evaluation.evaluations_timesteps == [20, 40, 60, 80, 100]
    nested = second[1]
    assert isinstance(nested, CallbackList)
    assert isinstance(nested.callbacks[0], Counting)
    assert nested.callbacks[0].count == first[0].n_calls
    assert "begins anew" not in caplog.text
    # The next call is another run, and its callbacks are others.
    third = Counting()
    again.learn(10, callback=third)
    assert third.count < 20


def test_evaluations_with_a_seed_go_on_with_the_same_results(tmp_path: Path) -> None:
    def evaluation() -> EvalCallback:
        return EvalCallback("CartPole-v1", eval_freq=20, n_eval_episodes=2, seed=3, verbose=0)

    whole, rest = evaluation(), evaluation()
    small(env="CartPole-v1").learn(80, callback=[SaveAt(tmp_path, 50), whole])
    again = DQN.resume(tmp_path, trusted=True)
    again.learn(callback=[SaveAt(tmp_path, 1000), rest])
    assert rest.evaluations_results == whole.evaluations_results
    assert rest.evaluations_timesteps == [20, 40, 60, 80]


def test_what_a_model_keeps_of_callbacks_does_not_change_with_them(tmp_path: Path) -> None:
    evaluation = EvalCallback(CountingEnv, eval_freq=20, verbose=0)
    model = small().learn(40, callback=evaluation)
    small().learn(40, callback=evaluation)
    assert len(evaluation.evaluations_timesteps) > 2
    model.save_checkpoint(tmp_path)
    fresh = EvalCallback(CountingEnv, eval_freq=20, verbose=0)
    DQN.resume(tmp_path, trusted=True).learn(1, callback=fresh)
    assert fresh.evaluations_timesteps == [20, 40]


def test_a_callback_that_is_not_the_one_that_was_there_begins_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small().learn(50, callback=[SaveAt(tmp_path, 30), Counting()])
    other, fresh = StopTrainingOnMaxEpisodes(1000), Counting()
    DQN.resume(tmp_path, trusted=True).learn(callback=[other, fresh])
    assert fresh.count > 30
    assert "written with SaveAt where there is StopTrainingOnMaxEpisodes now" in caplog.text
    caplog.clear()
    DQN.resume(tmp_path, trusted=True).learn()
    assert "written with Counting where there is none now" in caplog.text
    caplog.clear()
    DQN.resume(tmp_path, trusted=True).learn(callback=[SaveAt(tmp_path, 99), fresh, Counting()])
    assert "written with no callback where there is Counting now" in caplog.text


def test_the_log_goes_on_at_the_same_moments(tmp_path: Path) -> None:
    outputs = []
    model = small()
    for each in (model, None):
        each = each or DQN.resume(tmp_path, trusted=True)
        outputs.append(Output())
        each.set_logger(Logger(None, [outputs[-1]]))
        callback = SaveAt(tmp_path, 55 if each is model else 1000)
        each.learn(100 if each is model else None, callback=callback, log_interval=(20, "step"))
    moments = [[step for step, _ in output.dumps] for output in outputs]
    assert moments == [[20, 40, 60, 80, 100], [60, 80, 100]]
    for key in ("rollout/ep_rew_mean", "train/loss", "train/n_updates", "time/episodes"):
        assert outputs[1].values(key) == outputs[0].values(key)[2:], key
