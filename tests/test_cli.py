"""The command line: what it does, prints, leaves behind, and refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import VectorEnv

from sbdqn import DQN, MlpPolicy, __version__, cli, evaluate_policy, heads, recipes
from sbdqn.checkpoint import checkpoints_in
from sbdqn.cli import main
from tests.environments import ChainEnv
from tests.exported import outputs_of

SMALL = ["--set", "policy__net_arch=[8]", "learning_starts=50", "train_freq=1"]


class NaNEnv(ChainEnv):
    """Its reward becomes NaN after a while."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, *rest = super().step(action)
        return obs, reward if self.t < 20 else float("nan"), *rest


class InterruptingEnv(ChainEnv):
    """Ctrl-C strikes in step number `at` of all of its kind."""

    steps = at = 0

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        InterruptingEnv.steps += 1
        if InterruptingEnv.steps == self.at:
            signal.raise_signal(signal.SIGINT)
        return super().step(action)


class UnwillingEnv(ChainEnv):
    """Cannot be made."""

    def __init__(self) -> None:
        raise ValueError("no license\nfound\n  in this folder")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def ids() -> Iterator[None]:
    entries = {
        "Chain": ChainEnv,
        "NaN": NaNEnv,
        "Interrupting": InterruptingEnv,
        "Unwilling": UnwillingEnv,
    }
    for name, entry in entries.items():
        gym.register(f"tests/{name}-v0", entry, disable_env_checker=True)
    yield
    for name in entries:
        del gym.registry[f"tests/{name}-v0"]


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that bad input gets."""
    capsys.readouterr()
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("sbdqn: error: ")
    assert err.count("\n") == 1
    return err.removeprefix("sbdqn: error: ").strip()


def test_train_saves_evaluates_and_prints_a_summary_that_fits_a_screen(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "CartPole-v1", "--timesteps", "300", "--seed", "3", "--n-envs", "2"]
    assert main([*arguments, "--recipe", "none", *SMALL]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    rows = {line[:11].strip(): line[11:].strip() for line in lines}
    assert rows["environment"] == "CartPole-v1"
    assert rows["timesteps"] == "300"
    assert rows["updates"] == "250"
    assert "steps/s" in rows["time"]
    assert " +- " in rows["return"]
    assert "over 100 greedy episodes, from " in rows["return"]
    assert rows["saved to"] == "cartpole-v1.zip"
    assert rows["recipe"] == "none"
    changed = [line.strip() for line in lines[lines.index(f"{'parameters':<13}n_envs=2") + 1 :]]
    assert changed == [
        "policy_kwargs={'net_arch': [8]}",
        "learning_starts=50",
        "train_freq=1",
        "seed=3",
    ]
    assert [path.name for path in folder.iterdir()] == ["cartpole-v1.zip"]
    model = DQN.load("cartpole-v1.zip")
    assert (model.num_timesteps, model.seed) == (300, 3)


def test_values_are_python_literals_or_bare_words_and_names_may_be_nested() -> None:
    settings = [
        *("tau=0.5", "backup=greedy", "max_grad_norm=None", "train_freq=(4, 'step')"),
        *("policy__net_arch=[8]", "policy__activation_fn=Tanh", "head__error=mse"),
    ]
    arguments = ["train", "tests/Chain-v0", "--timesteps", "10", "--output", "model"]
    assert main([*arguments, "--set", *settings, "--set", "gamma=0.9"]) == 0
    parameters = DQN.load("model.zip").get_params()
    assert (parameters["tau"], parameters["backup"], parameters["gamma"]) == (0.5, "greedy", 0.9)
    assert parameters["max_grad_norm"] is None
    assert parameters["train_freq"] == (4, "step")
    assert parameters["policy_kwargs"] == {"net_arch": [8], "activation_fn": "Tanh"}
    assert parameters["head__error"] == "mse"


def test_a_recipe_sets_its_parameters_and_set_overrides_and_adds_to_them() -> None:
    arguments = ["train", "tests/Chain-v0", "--timesteps", "10", "--output", "model"]
    settings = ["policy__noisy_sigma=0.2", "head=scalar", "batch_size=8"]
    assert main([*arguments, "--recipe", "rainbow_classic", "--set", *settings]) == 0
    parameters = DQN.load("model.zip").get_params()
    recipe = recipes.rainbow_classic
    assert parameters["replay"] == recipe["replay"]
    assert parameters["exploration"] == "greedy"
    assert parameters["policy_kwargs"] == {**recipe["policy_kwargs"], "noisy_sigma": 0.2}
    assert (parameters["head"], parameters["batch_size"]) == ("scalar", 8)
    assert recipe["head"] == heads.Categorical(101, -100.0, 100.0)  # which nobody has changed


def test_the_recipe_that_was_tuned_for_an_environment_is_taken(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "CartPole-v1", "--timesteps", "10", "--set", "gamma=0.9"]) == 0
    out = capsys.readouterr().out
    assert "\nrecipe       cartpole, chosen for CartPole-v1 (--recipe none: the defaults)\n" in out
    assert out.endswith("\nparameters   gamma=0.9\n")
    model = DQN.load("cartpole-v1.zip")
    expected = {**recipes.cartpole, "gamma": 0.9}
    assert {name: model.get_params()[name] for name in expected} == expected
    assert main(["train", "CartPole-v1", "--timesteps", "10", "--recipe", "none"]) == 0
    assert "\nrecipe       none\nparameters   no others\n" in capsys.readouterr().out
    assert DQN.load("cartpole-v1.zip").get_params() == DQN("MlpPolicy", "CartPole-v1").get_params()


def test_a_tuned_recipe_says_how_long_it_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    brief = recipes.Recipe("brief", {"learning_starts": 5}, envs=["tests/Chain-*"], timesteps=23)
    monkeypatch.setattr(recipes, "brief", brief, raising=False)
    assert main(["train", "tests/Chain-v0", "--output", "model"]) == 0
    assert DQN.load("model").num_timesteps == 23
    monkeypatch.setattr(cli, "TIMESTEPS", 17)
    assert main(["train", "tests/Chain-v0", "--output", "model", "--recipe", "none"]) == 0
    assert DQN.load("model").num_timesteps == 17


def test_a_training_without_updates_says_what_comes_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["train", "CartPole-v1", "--timesteps", "50", "--output", "model"]) == 0
    out = capsys.readouterr().out
    assert "0: learning_starts=100 transitions come first" in out
    assert "no time limit" not in out


def test_an_environment_without_a_time_limit_is_announced_before_it_is_played(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["train", "tests/Chain-v0", "--timesteps", "10", "--output", "model"]
    assert main(arguments) == 0
    assert (
        "tests/Chain-v0 has no time limit, so an episode may never end" in capsys.readouterr().out
    )
    limited = ["--set", "env_kwargs={'max_episode_steps':20}"]
    assert main([*arguments, *limited]) == 0
    assert "no time limit" not in capsys.readouterr().out


def test_an_id_whose_module_registers_it_is_trained_and_played(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "chains.py").write_text(
        "import gymnasium\nfrom tests.environments import ChainEnv\n"
        "gymnasium.register('Late-v0', ChainEnv, max_episode_steps=20)\n"
    )
    monkeypatch.syspath_prepend(folder)
    try:
        assert main(["train", "chains:Late-v0", "--timesteps", "10", "--output", "model"]) == 0
    finally:
        gym.registry.pop("Late-v0", None)
    out = capsys.readouterr().out
    assert "over 100 greedy episodes" in out
    assert "no time limit" not in out


def test_atari_is_trained_as_env_kwargs_say_and_played_in_full_games(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ale_py", reason="sbdqn[atari] is not installed")
    played: list[Any] = []

    def watched(model: Any, env: Any, *others: Any, **named: Any) -> Any:
        played.append(env)
        return evaluate_policy(model, env, *others, **named)

    monkeypatch.setattr(cli, "EPISODES", 2)
    monkeypatch.setattr(cli, "evaluate_policy", watched)
    monkeypatch.setattr(VectorEnv, "metadata", {})
    kwargs = {
        "terminal_on_life_loss": True,
        "clip_reward": True,
        "img_height": 36,
        "img_width": 36,
        "max_num_frames_per_episode": 80,
    }
    settings = ["policy=MlpPolicy", "policy__net_arch=[8]", f"env_kwargs={kwargs}"]
    train = ["train", "ALE/Breakout-v5", "--timesteps", "20", "--output", "model"]
    assert main([*train, "--set", *settings]) == 0
    assert main(["evaluate", "model.zip", "--episodes", "2"]) == 0
    assert "no time limit" not in capsys.readouterr().out
    assert DQN.load("model.zip").env_kwargs == kwargs
    for env in played:
        assert (env.num_envs, env.spec.max_episode_steps) == (2, 20)
        assert not env.terminal_on_life_loss
        assert not env.clip_reward


def test_recipes_are_listed_with_where_they_come_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-3]] == list(recipes.by_name())
    assert lines[-2].startswith("Those of the papers are for Atari and millions of transitions.")
    assert f"{'rainbow':<26}{recipes.rainbow.summary}" in lines


def test_one_recipe_is_shown_with_what_it_sets(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "munchausen_dqn_classic"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Munchausen DQN on small tasks",
        "backup  backups.Munchausen()",
    ]


@pytest.mark.parametrize("command", [["recipes"], ["train", "tests/Chain-v0", "--recipe"]])
def test_an_unknown_recipe_is_refused_with_the_nearest_one(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    message = refusal([*command, "rainbow_clasic"], capsys)
    assert message == (
        "there is no recipe 'rainbow_clasic'; did you mean rainbow_classic? `sbdqn recipes` "
        "lists them"
    )
    assert "did you mean" not in refusal([*command, "x"], capsys)


def test_the_default_output_is_the_id_without_what_a_file_name_cannot_hold(folder: Path) -> None:
    assert main(["train", "tests/Chain-v0", "--timesteps", "1e1"]) == 0
    assert [path.name for path in folder.iterdir()] == ["tests-chain-v0.zip"]


def test_tensorboard_gets_a_run_folder(folder: Path) -> None:
    arguments = ["train", "tests/Chain-v0", "--timesteps", "100", "--tensorboard", "logs"]
    assert main([*arguments, *SMALL]) == 0
    names = {path.name.partition(".")[0] for path in (folder / "logs" / "DQN_1").iterdir()}
    assert names == {"progress", "events"}


def test_a_run_that_was_killed_is_finished_as_if_it_had_not_been(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin = ["train", "CartPole-v1", "--seed", "1", "--timesteps", "250", *SMALL]
    assert main([*begin, "--checkpoint-every", "60", "--output", "whole.zip"]) == 0
    checkpoints = sorted(Path("whole_checkpoints").iterdir())
    assert [path.name.split("_")[2] for path in checkpoints] == ["180", "240"]
    checkpoints[1].unlink()
    said = capsys.readouterr().out
    told = "go on from them with: sbdqn train --resume whole_checkpoints --trusted "
    assert told + "--checkpoint-every 60\n" in said
    resume = ["train", "--resume", "whole_checkpoints", "--trusted", "--output", "again.zip"]
    assert main([*resume, "--checkpoint-every", "60"]) == 0
    assert "Training for 70 timesteps" in capsys.readouterr().out
    whole, again = DQN.load("whole.zip"), DQN.load("again.zip")
    for mine, theirs in zip(whole.q_net.parameters(), again.q_net.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert [path.name.split("_")[2] for path in checkpoints_in("whole_checkpoints")] == [
        "180",
        "240",
    ]
    more = ["train", "--resume", str(checkpoints[0]), "--timesteps", "30", "--output", "more.zip"]
    assert main(more) == 0
    assert "No more checkpoints are written" in capsys.readouterr().out
    assert DQN.load("more.zip").num_timesteps == 210


def test_a_run_is_resumed_with_its_checkpoints_where_no_progress_is_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begin = ["train", "CartPole-v1", "--timesteps", "100", *SMALL]
    assert main([*begin, "--checkpoint-every", "60", "--output", "whole.zip"]) == 0
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    resume = ["train", "--resume", "whole_checkpoints", "--trusted", "--checkpoint-every", "20"]
    assert main(resume) == 0
    assert "begins anew" not in caplog.text
    assert DQN.load("whole.zip").num_timesteps == 100


def test_a_run_that_was_complete_needs_a_number_of_timesteps(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    DQN("MlpPolicy", "CartPole-v1").learn(100).save_checkpoint(folder)
    assert "was complete at 100 timesteps" in refusal(["train", "--resume", "."], capsys)
    DQN("MlpPolicy", ChainEnv).learn(100).save_checkpoint(folder)
    assert "has no id" in refusal(["train", "--resume", "."], capsys)


def test_evaluate_plays_the_saved_model_the_same_way_for_the_same_seed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["train", "CartPole-v1", "--timesteps", "60", "--output", "model.zip", *SMALL])
    outputs = []
    for seed in ("1", "1", "2"):
        capsys.readouterr()
        assert main(["evaluate", "model.zip", "--episodes", "7", "--seed", seed]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != outputs[2]
    assert "over 7 greedy episodes" in outputs[0]
    assert "60 timesteps" in outputs[0]


def test_evaluate_takes_another_environment(capsys: pytest.CaptureFixture[str]) -> None:
    DQN("MlpPolicy", gym.make("CartPole-v1")).save("model.zip")
    assert "pass --env" in refusal(["evaluate", "model.zip"], capsys)
    assert main(["evaluate", "model.zip", "--env", "CartPole-v1", "--episodes", "1"]) == 0
    assert "space must be" in refusal(["evaluate", "model.zip", "--env", "Acrobot-v1"], capsys)


@pytest.mark.parametrize("name", ["policy.pt2", "policy.onnx"])
def test_export_writes_what_acts_as_the_saved_model_does(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if name.endswith("onnx"):
        pytest.importorskip("onnxruntime", reason="sbdqn[onnx] is not installed")
    model = DQN("MlpPolicy", "CartPole-v1", seed=0, policy_kwargs={"net_arch": [8]})
    model.save("model.zip")
    assert main(["export", "model", name]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert last.split() == ["saved", "to", name]
    assert sorted(path.name for path in folder.iterdir()) == ["model.zip", name]
    obs = np.array([[0.0, 0.1, 0.0, -0.1], [1.0, 0.0, 2.0, 0.0]], np.float32)
    action, q = outputs_of(folder / name, obs)
    np.testing.assert_allclose(q, model.q_values(obs), rtol=1e-5)
    np.testing.assert_array_equal(action, model.predict(obs)[0])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["train"], "ENV"),
        (["train", "Cartpol-v1"], "Cartpol"),
        (["train", "Pendulum-v1"], "DiscretizeAction"),
        (["train", "tests/Unwilling-v0"], "no license found in this folder"),
        (["train", "CartPole-v1", "--timesteps", "0"], "above 0, not '0'"),
        (["train", "CartPole-v1", "--timesteps", "many"], "above 0, not 'many'"),
        (["train", "CartPole-v1", "--seed", "-1"], "at least 0"),
        (["train", "CartPole-v1", "--n-envs", "0"], "above 0, not '0'"),
        (["train", "CartPole-v1", "--bogus"], "--bogus"),
        (["train", "CartPole-v1", "--set", "gama=0.9"], "gama"),
        (["train", "CartPole-v1", "--set", "gamma=1.5"], "gamma must be"),
        (["train", "CartPole-v1", "--set", "gamma=1/3"], "gamma must be"),
        (["train", "CartPole-v1", "--set", "policy__net_arch=[8"], "net_arch must be"),
        (["train", "CartPole-v1", "--set", "policy__depth=2"], "depth"),
        (["train", "CartPole-v1", "--set", "env_kwargs={'mass': 1}"], "mass"),
        (["train", "CartPole-v1", "--set", "tensorboard_log=3"], "tensorboard_log must be"),
        (["train", "CartPole-v1", "--set", "buffer_size=10000000000000"], "buffer_size"),
        (["train", "CartPole-v1", "--set", "gamma", "0.9"], "name=value, not 'gamma'"),
        (["train", "--set", "gamma=0.9", "CartPole-v1"], "ENV"),
        (["train", "CartPole-v1", "--seed", "1", "--set", "seed=2"], "seed is given twice"),
        (["train", "CartPole-v1", "--set", "env=Acrobot-v1"], "env is given twice"),
        (["train", "CartPole-v1", "--output", "."], "--output"),
        (["train", "CartPole-v1", "--output", "x" * 300], "too long"),
        (["train", "CartPole-v1", "--output", "file/model.zip"], "file: Not a directory"),
        (["train", "CartPole-v1", "--tensorboard", "file"], "file: Not a directory"),
        (["train"], "name the ENV to train in"),
        (["train", "CartPole-v1", "--trusted"], "--trusted is for --resume"),
        (["train", "CartPole-v1", "--checkpoint-every", "0"], "above 0, not '0'"),
        (["train", "--resume", "."], "no checkpoint in"),
        (["train", "--resume", "nothing.zip"], "no folder and no file 'nothing.zip'"),
        (["train", "--resume", "good.zip"], "holds a 'model', not a 'checkpoint'"),
        (["train", "CartPole-v1", "--resume", ".", "--seed", "1"], "leave out CartPole-v1, seed"),
        (["evaluate", "nothing.zip"], "no file nothing.zip"),
        (["evaluate", "file"], "no readable zip"),
        (["evaluate", "foreign.zip"], "metadata.json"),
        (["evaluate", "cut.zip"], "no readable zip"),
        (["evaluate", "good.zip", "--episodes", "1.5"], "not '1.5'"),
        (["export", "good.zip"], "the following arguments are required: OUT"),
        (["export", "good.zip", "good.zip"], "must end in .onnx or .pt2, not 'good.zip'"),
        (["export", "nothing.zip", "policy.pt2"], "no file nothing.zip"),
        (["export", "good.zip", "file/policy.pt2"], "file/policy.pt2 cannot be written"),
    ],
)
def test_bad_input_gets_one_line_and_status_2(
    arguments: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    DQN("MlpPolicy", "CartPole-v1").save("good.zip")
    (folder / "cut.zip").write_bytes((folder / "good.zip").read_bytes()[:-100])
    with zipfile.ZipFile("foreign.zip", "w") as archive:
        archive.writestr("readme", "hello")
    (folder / "file").write_text("old")
    before = sorted(folder.iterdir())
    assert said in refusal(arguments, capsys)
    assert sorted(folder.iterdir()) == before


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is read-only for root"
)
def test_a_read_only_folder_is_noticed_before_training(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "closed").mkdir(mode=0o500)
    arguments = ["train", "CartPole-v1", "--output", "closed/new/model.zip"]
    assert "closed: Permission denied" in refusal(arguments, capsys)


def test_a_failed_run_leaves_no_file_and_an_old_one_as_it_was(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "old.zip").write_text("old")
    for output in ("old.zip", "new/model.zip"):
        assert main(["train", "tests/NaN-v0", "--output", output]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("sbdqn: error: the reward is not finite")
    assert [path.name for path in folder.iterdir()] == ["old.zip"]
    assert (folder / "old.zip").read_text() == "old"


def test_an_old_file_is_replaced_by_the_new_one(folder: Path) -> None:
    (folder / "model.zip").write_text("old")
    arguments = ["train", "tests/Chain-v0", "--timesteps", "10", "--output", "model.zip"]
    assert main(arguments) == 0
    assert DQN.load("model.zip").num_timesteps == 10


def test_a_file_with_python_objects_is_used_by_who_trusts_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rate = DQN("MlpPolicy", "tests/Chain-v0", learning_rate=lambda remaining: 1e-3 * remaining)
    rate.save("rate.zip")
    evaluate = ["evaluate", "rate.zip", "--episodes", "1"]
    assert "if you trust the file, --trusted" in refusal(evaluate, capsys)
    assert main([*evaluate, "--trusted"]) == 0

    class Mine(MlpPolicy):
        """Somebody's policy, which only Python can describe."""

    DQN(Mine(net_arch=(8,)), "tests/Chain-v0").save("mine.zip")
    export = ["export", "mine.zip", "mine.pt2"]
    assert "if you trust the file, --trusted" in refusal(export, capsys)
    assert main([*export, "--trusted"]) == 0


def test_ctrl_c_ends_training_and_the_model_is_saved_and_evaluated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(InterruptingEnv, "steps", 0)
    monkeypatch.setattr(InterruptingEnv, "at", 70)
    assert main(["train", "tests/Interrupting-v0", *SMALL]) == 0
    out = capsys.readouterr().out
    assert ", interrupted" in out
    assert "over 100 greedy episodes" in out
    assert 60 < DQN.load("tests-interrupting-v0.zip").num_timesteps <= 70


def test_ctrl_c_loses_no_step_of_a_run_with_checkpoints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begin = ["train", "tests/Interrupting-v0", "--seed", "1", "--timesteps", "100", *SMALL]
    for output, at in (("whole.zip", 0), ("runs/cut.zip", 70)):
        monkeypatch.setattr(InterruptingEnv, "steps", 0)
        monkeypatch.setattr(InterruptingEnv, "at", at)
        assert main([*begin, "--checkpoint-every", "60", "--output", output]) == 0
    left = 100 - DQN.load("runs/cut.zip").num_timesteps
    assert left < 40
    assert main(["train", "--resume", "runs/cut_checkpoints", "--trusted"]) == 0
    assert f"Training for {left} timesteps" in capsys.readouterr().out
    whole, again = DQN.load("whole.zip"), DQN.load("runs/cut.zip")
    for mine, theirs in zip(whole.q_net.parameters(), again.q_net.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_ctrl_c_during_the_evaluation_keeps_the_saved_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(InterruptingEnv, "steps", 0)
    monkeypatch.setattr(InterruptingEnv, "at", 70)
    assert main(["train", "tests/Interrupting-v0", "--timesteps", "40"]) == 130
    assert capsys.readouterr().err.endswith("sbdqn: interrupted\n")
    assert DQN.load("tests-interrupting-v0.zip").num_timesteps == 40


def test_without_tqdm_training_runs_and_says_how_to_get_a_progress_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    assert main(["train", "tests/Chain-v0", "--timesteps", "10"]) == 0
    assert "pip install 'sbdqn[progress]'" in capsys.readouterr().out


def test_python_m_sbdqn_says_its_version_and_reports_mistakes() -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sbdqn", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    version = run("--version")
    assert (version.returncode, version.stdout) == (0, f"sbdqn {__version__}\n")
    mistake = run("train", "Nowhere-v0")
    assert (mistake.returncode, mistake.stdout) == (2, "")
    assert mistake.stderr.startswith("sbdqn: error: env 'Nowhere-v0' cannot be made: ")
    assert mistake.stderr.count("\n") == 1
