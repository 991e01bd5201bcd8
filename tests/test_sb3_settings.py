"""What SB3's JSON says, here written by hand; `test_from_sb3.py` has SB3 write it."""

from __future__ import annotations

import base64
import pickle
from typing import Any

import pytest
from gymnasium import spaces

from sbdqn.errors import CheckpointError
from sbdqn.sb3_settings import SB3Settings, read_json
from sbdqn.schedules import Linear

POLICY = {"__module__": "stable_baselines3.dqn.policies"}
UTILS = "stable_baselines3.common.utils"
LINEAR = f"<class '{UTILS}.LinearSchedule'>"


def settings(**data: Any) -> SB3Settings:
    return SB3Settings({"policy_class": POLICY, "policy_kwargs": {}, "_total_timesteps": 0, **data})


def scalar(name: str, **data: Any) -> Any:
    """One of the parameters, with all others left out."""
    others = {
        *("buffer_size", "learning_starts", "batch_size", "gamma", "tau", "gradient_steps"),
        *("target_update_interval", "exploration_fraction", "exploration_initial_eps"),
        *("exploration_final_eps", "verbose", "seed", "n_steps", "stats_window_size"),
        *("max_grad_norm", "learning_rate", "train_freq"),
    } - {name}
    return settings(**data).scalars(dict.fromkeys(others))[name]


def test_numbers_are_read_as_they_are() -> None:
    assert scalar("gamma", gamma=0.5) == 0.5
    assert scalar("seed", seed=None) is None
    assert scalar("stats_window_size", _stats_window_size=3) == 3
    assert scalar("max_grad_norm", max_grad_norm=10) == 10
    assert scalar("max_grad_norm", max_grad_norm=float("inf")) is None


def test_sb3_before_2_7_had_returns_of_one_step() -> None:
    assert scalar("n_steps") == 1
    assert scalar("n_steps", n_steps=3) == 3


@pytest.mark.parametrize("name", ["gamma", "seed"])
def test_what_only_a_pickle_holds_is_asked_for(name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"from_sb3\(path, env, {name}=\.\.\.\)"):
        scalar(name, **{name: {":type:": "<class 'numpy.float32'>", ":serialized:": "gASVAA=="}})


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (0.5, 0.5),
        ({":type:": f"<class '{UTILS}.ConstantSchedule'>", "val": 0.1}, 0.1),
        (
            {":type:": LINEAR, "start": 1, "end": 0, "end_fraction": 0.3},
            Linear(1, 0, 60),
        ),
    ],
)  # fmt: skip
def test_learning_rates_are_numbers_or_schedules_in_absolute_steps(
    rate: Any, expected: Any
) -> None:
    assert scalar("learning_rate", learning_rate=rate, _total_timesteps=200) == expected


@pytest.mark.parametrize(
    "rate",
    [
        {":type:": "<class 'function'>"},
        {":type:": f"<class '{UTILS}.ConstantSchedule'>", "val": "x"},
        {":type:": f"<class '{UTILS}.LinearSchedule'>", "start": 1, "end": 0},
    ],
)
def test_other_learning_rates_are_asked_for(rate: Any) -> None:
    with pytest.raises(CheckpointError, match=r"learning_rate=\.\.\."):
        scalar("learning_rate", learning_rate=rate, _total_timesteps=200)


def test_the_algorithm_is_told_by_its_policy() -> None:
    for data, algorithm in (
        ({"__module__": "stable_baselines3.common.policies"}, "A2C"),
        ({"__module__": "stable_baselines3.td3.policies"}, "TD3"),
        ({"__module__": "sb3_contrib.tqc.policies"}, "TQC"),
    ):
        with pytest.raises(CheckpointError, match=f"holds a {algorithm} model"):
            settings(policy_class=data)
    with pytest.raises(CheckpointError, match="holds a PPO model"):
        settings(policy_class={"__module__": "stable_baselines3.common.policies"}, clip_range={})
    with pytest.raises(CheckpointError, match="a class of the module mine"):
        settings(policy_class={"__module__": "mine"})


def test_the_policy_is_read_from_its_text() -> None:
    given = {
        "net_arch": [3],
        "features_extractor_kwargs": "object",
        "normalize_images": False,
        "activation_fn": "<class 'torch.nn.modules.activation.ELU'>",
        "optimizer_class": "<class 'torch.optim.sgd.SGD'>",
        "optimizer_kwargs": {"momentum": 0.5},
    }
    found = settings(policy_kwargs=given)
    expected = {
        "normalize_images": False,
        "activation_fn": "ELU",
        "optimizer_class": "SGD",
        "optimizer_kwargs": {"momentum": 0.5},
    }
    assert found.policy_kwargs({}) == expected
    assert found.policy_kwargs({"activation_fn": "Tanh"}) == {**expected, "activation_fn": "Tanh"}
    assert found.optimizer_class == "SGD"
    assert settings().optimizer_class == "Adam"
    assert settings(policy_kwargs={"optimizer_class": "object"}).optimizer_class == ""


def test_the_parts_of_a_dict_are_read_in_their_order() -> None:
    known = spaces.Dict([("z", spaces.Discrete(2)), ("a", spaces.Discrete(3))])
    pickled = base64.b64encode(pickle.dumps(known)).decode()
    space = {":type:": "<class 'gymnasium.spaces.dict.Dict'>", ":serialized:": pickled}
    assert settings(observation_space=space).parts() == ["z", "a"]
    assert settings(observation_space={":type:": "<class 'x.Box'>"}).parts() == [""]


@pytest.mark.parametrize("text", [b"3", b"{", b"\xff", b"[" * 10**6])
def test_what_is_no_json_object_is_refused(text: bytes) -> None:
    with pytest.raises(CheckpointError, match="its data are"):
        read_json(text)
