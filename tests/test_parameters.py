"""Parameters: their ranges, their contradictions, and what changing them does."""

from __future__ import annotations

import inspect
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from sklearn.base import clone
from torch import nn, optim

import sbdqn
from sbdqn import DQN, Memory, MlpPolicy, backups, exploration, heads, replay, schedules
from sbdqn.errors import ConfigurationError, NotReadyError, SpaceError
from sbdqn.parameters import Parameter
from tests.environments import ChainEnv, CountingEnv

PARAMETERS = list(inspect.signature(DQN).parameters)
ATTRIBUTES_OF_THEIR_OWN = ("policy", "env", "n_envs", "device")


class Range(NamedTuple):
    """Values on both sides of a parameter's border."""

    accepted: str
    good: list[Any]
    bad: list[Any]


def halving(remaining: float) -> float:
    return 1e-3 * remaining


PROBABILITY = Range("a number from 0 to 1", [0, 1, 0.5, 0.0, 1.0], [-0.1, 1.1, "0.5", None, True])
COUNT = Range("an integer of at least 1", [1, 10**6, np.int64(3)], [0, -5, 1.0, "1", None, True])
DICT = Range("a dict of keyword arguments, or None", [None, {}], ["x", 3, [("a", 1)], {1: 2}])
RANGES: dict[str, Range] = {
    "policy": Range(
        "'MlpPolicy', 'CnnPolicy', 'MultiInputPolicy', or an object",
        ["MlpPolicy", MlpPolicy(), "CnnPolicy", "MultiInputPolicy"],
        ["Mlp", None, 3, MlpPolicy],
    ),
    "n_envs": COUNT,
    "vectorization": Range(
        "one of 'auto', 'sync', 'async', 'vector_entry_point'",
        ["auto", "sync", "async", "vector_entry_point"],
        ["Sync", None, True],
    ),
    "env_kwargs": DICT,
    "policy_kwargs": DICT,
    "head": Range(
        "'scalar', or an object", ["scalar", heads.Scalar()], ["c51", None, heads.Scalar]
    ),
    "backup": Range(
        "'double', 'greedy', 'munchausen', or an object",
        ["greedy", "double", backups.Double()],
        ["max", None, backups.Double],
    ),
    "replay": Range(
        "'uniform', or an object", ["uniform", replay.Uniform()], ["prioritised", 5, replay.Uniform]
    ),
    "replay_memory": Range(
        "a sbdqn.memory.Memory",
        [Memory(device="cpu"), Memory(frame_stack=4)],
        ["cpu", None, Memory],
    ),
    "exploration": Range(
        "'epsilon_greedy', 'greedy', or an object",
        ["epsilon_greedy", "greedy", exploration.Boltzmann(1.0)],
        ["boltzmann", 0.1, exploration.Greedy],
    ),
    "learning_rate": Range(
        "a number above 0, a schedule, or a function of the progress remaining",
        [1e-3, 1, Fraction(1, 8), schedules.Linear(1e-3, 0.0, 10), halving],
        [0, -1e-3, float("nan"), float("inf"), "1e-3", None, True, schedules.Linear],
    ),
    "buffer_size": COUNT,
    "learning_starts": Range(
        "an integer of at least 0", [0, 1, 10**6], [-1, 0.5, "1", None, False]
    ),
    "batch_size": COUNT,
    "gamma": PROBABILITY,
    "n_steps": COUNT,
    "max_grad_norm": Range(
        "a number above 0, or None", [0.5, 10, None], [0, -1.0, float("nan"), float("inf"), "10"]
    ),
    "loss": Range("one of 'huber', 'mse'", ["huber", "mse"], ["l1", None, nn.MSELoss]),
    "train_freq": Range(
        "an integer of at least 1, (n, 'step') or (n, 'episode')",
        [1, 4, (2, "step"), (1, "episode"), [3, "step"]],
        [0, -1, 1.5, (0, "step"), (1, "epoch"), (1,), "step", None, True],
    ),
    "gradient_steps": Range(
        "an integer of at least 1, or -1", [1, 8, -1], [0, -2, 1.0, "1", None, True]
    ),
    "target_update_interval": Range(
        "an integer of at least 1, or None", [1, 10_000, None], [0, -1, 1.5, "1", True]
    ),
    "tau": Range("a number above 0 and at most 1", [1, 1.0, 1e-6], [0, -0.1, 5, "1", None, True]),
    "exploration_fraction": PROBABILITY,
    "exploration_initial_eps": PROBABILITY,
    "exploration_final_eps": PROBABILITY,
    "stats_window_size": COUNT,
    "tensorboard_log": Range("a path, or None", [None, "logs", Path("logs")], [True, 3, b"logs"]),
    "verbose": Range("one of 0, 1, 2", [0, 1, 2], [3, -1, None, "1"]),
    "seed": Range("an integer of at least 0, or None", [0, 2**40, None], [-1, 1.0, "1", True]),
    "device": Range(
        "'auto' or a torch device",
        ["auto", "cpu", "cuda:1", torch.device("cpu")],
        ["gpu", "cuda:x", None, 1.5],
    ),
    "compile": Range("True or False", [True, False], [1, 0, "yes", None]),
    "overlap": Range("True or False", [True, False], [1, 0, "yes", None]),
    "threads": Range(
        "an integer of at least 1, 'auto' or None",
        ["auto", None, 1, np.int64(4)],
        [0, -1, 1.0, True, "all"],
    ),
    "on_nonfinite": Range(
        "one of 'raise', 'warn', 'ignore'", ["raise", "warn", "ignore"], ["error", None, True]
    ),
}
GOOD = [(name, value) for name, each in RANGES.items() for value in each.good]
BAD = [(name, value) for name, each in RANGES.items() for value in each.bad]

OTHERS: dict[str, list[Any]] = {
    "policy": [
        MlpPolicy(),
        MlpPolicy(
            net_arch=(8, 4),
            activation_fn=nn.Tanh,
            layer_norm=True,
            optimizer_class=optim.AdamW,
            optimizer_kwargs={"eps": 1e-5, "betas": (0.8, 0.99)},
        ),
    ],
    "env": ["Acrobot-v1", None],
    "n_envs": [3, np.int64(2)],
    "vectorization": ["sync"],
    "env_kwargs": [{"sutton_barto_reward": True}],
    "policy_kwargs": [{"net_arch": [8], "activation_fn": nn.ELU, "optimizer_class": optim.SGD}],
    "head": [heads.Scalar(), heads.Scalar("mse")],
    "backup": ["greedy", backups.Greedy()],
    "replay": [replay.Uniform()],
    "replay_memory": [Memory("cpu", folder="there", frame_stack=4)],
    "exploration": [
        "greedy",
        exploration.EpsilonGreedy(schedules.Linear(1.0, 0.1, 100, per="episode")),
        exploration.Boltzmann(0.5),
    ],
    "learning_rate": [
        1e-4,
        np.float32(0.25),
        schedules.Constant(1e-4),
        schedules.Exponential(1e-3, 1e-5, rate=0.1),
        schedules.Multiplicative(1e-3, 1e-5, 0.5),
    ],
    "buffer_size": [500],
    "learning_starts": [37],
    "batch_size": [7],
    "gamma": [0.5, 1],
    "n_steps": [17],
    "max_grad_norm": [None, 0.5],
    "loss": ["mse"],
    "train_freq": [37, (2, "episode"), [8, "step"]],
    "gradient_steps": [-1],
    "target_update_interval": [None, 37],
    "tau": [0.375],
    "exploration_fraction": [0.375],
    "exploration_initial_eps": [0.7],
    "exploration_final_eps": [0.375],
    "stats_window_size": [10],
    "tensorboard_log": ["logs"],
    "verbose": [1],
    "seed": [0],
    "device": ["cpu", torch.device("cpu")],
    "compile": [True],
    "overlap": [False],
    "threads": [1, None],
    "on_nonfinite": ["warn"],
}
CHOICES = [(name, value) for name, values in OTHERS.items() for value in values]


def make(**parameters: Any) -> DQN:
    parameters = {"policy": "MlpPolicy", "env": "CartPole-v1", **parameters}
    return DQN(**parameters)


def built(**parameters: Any) -> DQN:
    """A small model that has trained for 40 steps of the counting environment."""
    small: dict[str, Any] = {
        "env": CountingEnv,
        "policy_kwargs": {"net_arch": [8]},
        "buffer_size": 200,
        "learning_starts": 10,
        "batch_size": 8,
        "n_steps": 3,
        "train_freq": 1,
        "gradient_steps": 1,
        "target_update_interval": 1,
        "exploration_final_eps": 0.125,
        "seed": 0,
    }
    return make(**{**small, **parameters}).learn(40)


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in network.parameters()]).clone()


# Ranges ---------------------------------------------------------------------------


def test_the_tables_of_this_file_name_every_parameter() -> None:
    # Whether `env` makes an environment is only known when it is made.
    assert [*RANGES] == [name for name in PARAMETERS if name != "env"]
    assert [*OTHERS] == PARAMETERS
    defaults = {name: p.default for name, p in inspect.signature(DQN).parameters.items()}
    assert not [(name, value) for name, value in CHOICES if value == defaults[name]]


@pytest.mark.parametrize(("name", "value"), GOOD)
def test_a_value_in_range_is_kept_as_it_is(name: str, value: Any) -> None:
    assert make(**{name: value}).get_params()[name] is value


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_value_out_of_range_is_refused_with_what_is_accepted(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make(**{name: value})

    message = str(caught.value)
    assert message.startswith(f"{name} must be ")
    assert RANGES[name].accepted in message
    assert f"not {value!r}" in message


def test_an_unknown_parameter_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="gama"):
        make(gama=0.9)


def test_everything_after_env_is_keyword_only() -> None:
    with pytest.raises(TypeError, match="positional"):
        DQN("MlpPolicy", "CartPole-v1", 4)  # type: ignore[misc]


@pytest.mark.parametrize("env", [5, None, ["CartPole-v1"], CountingEnv().observation_space])
def test_what_makes_no_environment_is_refused_when_one_is_needed(env: Any) -> None:
    model = make(env=env)
    wanted = NotReadyError if env is None else ConfigurationError
    with pytest.raises(wanted, match="env"):
        model.learn(1)


@pytest.mark.parametrize("name", ["exploration_fraction", "exploration_initial_eps"])
def test_parameters_of_the_default_exploration_contradict_another_one(name: str) -> None:
    for other in ("greedy", exploration.EpsilonGreedy(0.1)):
        with pytest.raises(ConfigurationError, match=rf"{name}=0\.25 .* exploration="):
            make(exploration=other, **{name: 0.25})


def test_the_final_epsilon_contradicts_another_exploration() -> None:
    with pytest.raises(ConfigurationError, match=r"exploration_final_eps=0\.2 would have no eff"):
        make(exploration=exploration.Boltzmann(1.0), exploration_final_eps=0.2)


def test_a_loss_contradicts_a_head() -> None:
    with pytest.raises(ConfigurationError, match=r"loss='mse' would have no effect with head="):
        make(head=heads.Scalar(), loss="mse")
    assert make(head="scalar", loss="mse").loss == "mse"


def test_tau_contradicts_having_no_target_network() -> None:
    with pytest.raises(ConfigurationError, match=r"tau=0\.5 .* target_update_interval=None"):
        make(target_update_interval=None, tau=0.5)


def test_policy_kwargs_contradict_a_policy() -> None:
    with pytest.raises(ConfigurationError, match=r"policy_kwargs=.*put them into MlpPolicy"):
        make(policy=MlpPolicy(), policy_kwargs={"net_arch": [8]})
    assert make(policy=MlpPolicy(), policy_kwargs={}).get_params()["policy_kwargs"] == {}


def test_unknown_policy_kwargs_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"net_arch, activation_fn, .*not 'net_arc', 'n'"):
        make(policy_kwargs={"net_arc": [8], "n": 1})


@pytest.mark.parametrize(
    "policy_kwargs",
    [
        {"net_arch": [0]},
        {"net_arch": 64},
        {"activation_fn": "NoSuchActivation"},
        {"optimizer_class": "Adagrad"},
        {"optimizer_kwargs": {"lr": 0.1}},
        {"optimizer_kwargs": 3},
        {"features_extractor": "foo"},
        {"normalize_images": "x"},
        {"layer_norm": 3},
    ],
)
def test_values_in_policy_kwargs_are_checked_at_once(policy_kwargs: dict[str, Any]) -> None:
    (name,) = policy_kwargs
    with pytest.raises(ConfigurationError, match=name):
        make(policy_kwargs=policy_kwargs)


def test_a_device_that_the_machine_lacks_is_refused_when_it_is_needed() -> None:
    model = make(device="cuda:7")
    with pytest.raises(ConfigurationError, match=r"device='cuda:7' cannot be used here.*auto"):
        model.predict([0.0] * 4)


def test_optimizer_kwargs_that_the_optimizer_lacks_are_refused() -> None:
    model = make(policy_kwargs={"optimizer_kwargs": {"nestorov": True}})
    with pytest.raises(ConfigurationError, match=r"'nestorov': True.* Adam"):
        model.predict([0.0] * 4)


# Round trips ----------------------------------------------------------------------


@pytest.mark.parametrize(("name", "value"), CHOICES)
def test_a_model_made_of_its_parameters_has_the_same(name: str, value: Any) -> None:
    model = make(**{name: value})
    again = DQN(**model.get_params(deep=False))
    assert again.get_params() == model.get_params()
    assert again.get_params()[name] is value


@pytest.mark.parametrize(("name", "value"), CHOICES)
def test_sklearn_clones_every_parameter(name: str, value: Any) -> None:
    model = make(**{name: value})
    assert clone(model).get_params() == model.get_params()


@pytest.mark.parametrize(("name", "value"), CHOICES)
def test_set_params_sets_every_parameter_before_anything_is_built(name: str, value: Any) -> None:
    model = make()
    assert model.set_params(**{name: value}) is model
    assert model.get_params() == make(**{name: value}).get_params()
    assert model.get_params()[name] is value


@pytest.mark.parametrize(("name", "value"), CHOICES)
def test_the_repr_is_the_call_that_makes_an_equal_model(name: str, value: Any) -> None:
    namespace: dict[str, Any] = {}
    exec("import torch; from sbdqn import *", namespace)
    model = make(**{name: value})
    again = eval(repr(model), namespace)
    assert again.get_params() == model.get_params()
    assert type(again.get_params()[name]) in (type(value), int, float)


def test_the_repr_shows_only_what_differs_from_the_defaults() -> None:
    assert repr(make()) == "DQN('MlpPolicy', 'CartPole-v1')"
    model = make(policy=MlpPolicy(net_arch=(8,)), train_freq=(1, "episode"))
    assert repr(model) == (
        "DQN(networks.MlpPolicy(net_arch=(8,)), 'CartPole-v1', train_freq=(1, 'episode'))"
    )


def test_the_repr_of_a_path_is_its_string() -> None:
    assert "tensorboard_log='some/logs'" in repr(make(tensorboard_log=Path("some/logs")))


def test_the_repr_survives_what_has_no_expression() -> None:
    text = repr(make(learning_rate=halving, env=CountingEnv))
    assert "halving" in text
    assert "tests.environments.CountingEnv" in text


def test_a_subclass_is_its_own_kind_of_estimator() -> None:
    class Mine(DQN):
        pass

    model = Mine("MlpPolicy", "CartPole-v1", gamma=0.5)
    assert repr(model) == "Mine('MlpPolicy', 'CartPole-v1', gamma=0.5)"
    assert type(clone(model)) is Mine


def test_all_names_that_a_repr_can_use_are_public() -> None:
    for name in ("backups", "exploration", "heads", "networks", "replay", "schedules"):
        assert name in sbdqn.__all__


# Nested names ---------------------------------------------------------------------


def test_deep_parameters_name_the_fields_of_specs() -> None:
    model = make(head=heads.Scalar("mse"), exploration=exploration.EpsilonGreedy(0.1))
    deep, flat = model.get_params(), model.get_params(deep=False)
    assert deep["head__error"] == "mse"
    assert deep["exploration__epsilon"] == 0.1
    assert set(flat) == set(PARAMETERS)
    assert {name: deep[name] for name in flat} == flat


def test_deep_parameters_can_be_set_back() -> None:
    model = make(policy=MlpPolicy(net_arch=(8,)), head=heads.Scalar("mse"))
    before = model.get_params()
    assert model.set_params(**before).get_params() == before


def test_a_field_of_a_named_head_makes_it_an_object() -> None:
    model = make().set_params(head__error="mse")
    assert model.head == heads.Scalar("mse")


def test_a_field_of_a_head_replaces_it_and_leaves_the_old_one() -> None:
    old = heads.Scalar("mse")
    model = make(head=old).set_params(head__error="huber")
    assert (model.head, old) == (heads.Scalar("huber"), heads.Scalar("mse"))


def test_a_field_of_a_named_policy_goes_into_policy_kwargs() -> None:
    model = make(policy_kwargs={"layer_norm": True}).set_params(policy__net_arch=[8])
    assert model.get_params()["policy"] == "MlpPolicy"
    assert model.get_params()["policy_kwargs"] == {"layer_norm": True, "net_arch": [8]}
    assert model.q_net.trunk[0].out_features == 8


def test_a_field_of_a_policy_object_replaces_it() -> None:
    model = make(policy=MlpPolicy(layer_norm=True)).set_params(policy__net_arch=(8,))
    assert model.get_params()["policy"] == MlpPolicy(net_arch=(8,), layer_norm=True)


def test_a_field_and_its_spec_can_be_set_together() -> None:
    model = make().set_params(head__error="mse", head=heads.Scalar())
    assert model.head == heads.Scalar("mse")


@pytest.mark.parametrize(
    "fields",
    [
        {"replay_memory__folder": "there", "replay_memory__device": "cpu"},
        {"head__low": 20.0, "head__high": 30.0},
        {"policy__noisy_sigma": 0.1, "policy__noisy": True},
    ],
    ids=str,
)
def test_fields_that_are_in_range_together_may_come_in_any_order(fields: dict[str, Any]) -> None:
    turned = dict(reversed(fields.items()))
    one, other = (
        make(policy=MlpPolicy(), head="categorical").set_params(**each) for each in (fields, turned)
    )
    assert one.get_params() == other.get_params()
    assert fields.items() <= one.get_params().items()


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("gama", r"unknown parameter 'gama'; accepted are policy, env"),
        ("gama__x", "unknown parameter 'gama__x'"),
        ("head__eror", "head='scalar' has no field 'eror'; its fields are error"),
        ("tau__x", r"tau=\S+ has no field 'x'"),
        ("exploration__epsilon", "'epsilon_greedy' has no field 'epsilon'; pass exploration as an"),
        ("policy__bogus", "policy_kwargs of MlpPolicy must be among .*'bogus'"),
    ],
)
def test_unknown_names_are_refused(name: str, complaint: str) -> None:
    model = make()
    before = model.get_params()
    with pytest.raises(ConfigurationError, match=complaint):
        model.set_params(**{name: 1})
    assert model.get_params() == before


# Changing a model that is built -----------------------------------------------------


def test_gamma_reaches_the_replay() -> None:
    model = built(gamma=0.9).set_params(gamma=0.5)
    batch = model.replay_buffer.sample(64, model.trainer.clock)
    found = {round(discount, 6) for discount in batch.discount.tolist()}
    assert found == {0.0, 0.5, 0.25, 0.125}


def test_gamma_reaches_a_replay_that_is_not_made_yet() -> None:
    model = make(gamma=0.9)
    assert model.q_net is not None
    assert model.set_params(gamma=0.5).replay_buffer.gamma == 0.5


def test_a_learning_rate_is_that_of_the_next_update() -> None:
    model = built(learning_rate=1e-3)
    model.set_params(learning_rate=0.25).train(1)
    assert [group["lr"] for group in model.learner.optimizer.param_groups] == [0.25]
    model.set_params(learning_rate=schedules.Linear(1.0, 0.0, 80)).train(1)
    assert model.learner.learning_rate == 0.5


def test_a_batch_size_is_that_of_the_next_update() -> None:
    model = built(batch_size=8)
    model.set_params(batch_size=5).train(1)
    assert model.learner.last is not None
    assert len(model.learner.last.q) == 5


def test_max_grad_norm_bounds_the_next_update() -> None:
    model = built(policy_kwargs={"optimizer_class": "SGD"}, learning_rate=1e-3)
    model.set_params(learning_rate=1.0, max_grad_norm=1e-3)
    before = weights(model.q_net)
    model.train(1)
    assert torch.linalg.vector_norm(weights(model.q_net) - before) == pytest.approx(1e-3, rel=0.01)
    assert model.set_params(max_grad_norm=None).learner.max_gradient_norm is None


def test_a_backup_is_that_of_the_next_update() -> None:
    assert built(backup="double").set_params(backup="greedy").learner.backup == backups.Greedy()


def test_a_loss_is_that_of_the_next_update() -> None:
    model = built(loss="huber").set_params(loss="mse")
    model.train(1)
    last = model.learner.last
    assert last is not None
    torch.testing.assert_close(last.loss.value, last.loss.surprise**2)
    assert model.q_net.head == heads.Scalar("mse")


def test_a_head_of_the_same_width_is_that_of_the_next_update() -> None:
    assert built().set_params(head__error="mse").learner.head == heads.Scalar("mse")


def test_an_exploration_is_that_of_the_next_step() -> None:
    model = built()
    assert model.exploration_rate == 0.125
    model.set_params(exploration="greedy", exploration_final_eps=make().exploration_final_eps)
    assert model.exploration_rate == 0.0
    chosen = {int(model.predict([0, 0, 0], deterministic=False)[0]) for _ in range(20)}
    assert chosen == {int(model.predict([0, 0, 0])[0])}


def test_epsilon_parameters_move_the_slope_of_the_first_learn() -> None:
    model = built()
    model.set_params(
        exploration_fraction=1.0, exploration_initial_eps=0.8, exploration_final_eps=0.2
    )
    assert model.trainer.exploration == exploration.EpsilonGreedy(schedules.Linear(0.8, 0.2, 40))


@pytest.mark.parametrize(
    ("change", "updates"),
    [
        ({"train_freq": 4}, 10),
        ({"train_freq": (10, "step")}, 4),
        ({"gradient_steps": 3}, 120),
        ({"train_freq": 4, "gradient_steps": -1}, 40),
        ({"learning_starts": 60}, 20),
    ],
)
def test_the_cadence_is_that_of_the_next_step(change: dict[str, Any], updates: int) -> None:
    model = built()
    before = model._n_updates
    model.set_params(**change).learn(40)
    assert model._n_updates - before == updates


def test_tau_and_the_interval_are_those_of_the_next_sync() -> None:
    model = built(tau=0.01)
    assert not torch.equal(weights(model.q_net), weights(model.q_net_target))
    model.set_params(tau=1.0, target_update_interval=5).learn(10)
    assert torch.equal(weights(model.q_net), weights(model.q_net_target))


def test_a_smaller_statistics_window_keeps_the_newest_episodes() -> None:
    model = built(stats_window_size=100)
    episodes, successes = list(model.ep_info_buffer), list(model.ep_success_buffer)
    assert len(episodes) > 3
    model.set_params(stats_window_size=3)
    assert list(model.ep_info_buffer) == episodes[-3:]
    assert list(model.ep_success_buffer) == successes[-3:]
    model.learn(40)
    assert len(model.ep_info_buffer) == 3


def test_a_seed_restarts_every_generator() -> None:
    def draws(model: DQN) -> list[int]:
        model.set_params(exploration_initial_eps=1.0, exploration_final_eps=1.0)
        return [int(model.predict([0, 0, 0], deterministic=False)[0]) for _ in range(30)]

    used = built(seed=0)
    draws(used)
    assert draws(used.set_params(seed=5)) == draws(built(seed=5))
    assert draws(built(seed=5)) != draws(built(seed=6))


def test_an_environment_is_that_of_the_next_step() -> None:
    first, second = CountingEnv(), CountingEnv()
    model = built(env=first)
    played = len(first.actions)
    model.set_params(env=second).learn(10)
    assert (len(first.actions), model.get_params()["env"]) == (played, second)
    assert len(second.actions) == 10


def test_a_folder_for_logs_is_that_of_the_next_learn(tmp_path: Path) -> None:
    model = built(tensorboard_log=tmp_path / "old")
    model.set_params(tensorboard_log=tmp_path / "new").learn(10)
    model.learn(10).close()
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["DQN_1"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["DQN_1"]


def test_verbosity_is_that_of_the_next_learn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = built(tensorboard_log=tmp_path)
    assert capsys.readouterr().out == ""
    model.set_params(verbose=1).learn(10)
    assert "| time/" in capsys.readouterr().out
    model.set_params(verbose=0).learn(10)
    assert capsys.readouterr().out == ""
    model.close()
    assert [path.name for path in tmp_path.iterdir()] == ["DQN_1"]


IMPOSSIBLE = [
    ("buffer_size", 300),
    ("n_steps", 1),
    ("replay", replay.Uniform()),
    ("replay_memory", Memory(frame_stack=1)),
    ("n_envs", 2),
    ("overlap", False),
    ("vectorization", "async"),
    ("env_kwargs", {"index": 1}),
    ("policy_kwargs", {"net_arch": [16]}),
    ("policy__layer_norm", True),
    ("device", "cpu"),
    ("compile", True),
    ("target_update_interval", None),
]


@pytest.mark.parametrize(("name", "value"), IMPOSSIBLE)
def test_what_a_built_model_cannot_take_is_refused(name: str, value: Any) -> None:
    model = built()
    before, gamma = model.get_params(), model.replay_buffer.gamma
    changed = "policy_kwargs" if name.startswith("policy_") else name

    with pytest.raises(ConfigurationError, match=rf"^{changed} cannot change from .*make a new on"):
        model.set_params(gamma=0.123, **{name: value})

    assert model.get_params() == before
    assert model.replay_buffer.gamma == gamma


def test_a_built_network_cannot_take_another_policy() -> None:
    with pytest.raises(ConfigurationError, match="policy cannot change from 'MlpPolicy' to MlpP"):
        built().set_params(policy=MlpPolicy(), policy_kwargs=None)


def test_a_target_network_cannot_appear() -> None:
    model = built(target_update_interval=None)
    assert model.q_net_target is model.q_net
    with pytest.raises(ConfigurationError, match="target_update_interval cannot change from None"):
        model.set_params(target_update_interval=10)


def test_a_head_of_another_width_or_kind_is_refused() -> None:
    class Wide(heads.Scalar):
        @property
        def width(self) -> int:
            return 2

    with pytest.raises(ConfigurationError, match="head cannot change from 'scalar'"):
        built().set_params(head=Wide())


def test_what_is_equal_is_no_change() -> None:
    model = built()
    model.set_params(policy_kwargs={"net_arch": [8]}, buffer_size=200, head="scalar")
    model.set_params(**model.get_params())
    assert model.num_timesteps == 40


@pytest.mark.parametrize(
    "impossible",
    [
        {"batch_size": 0},
        {"loss": "l1"},
        {"env": ChainEnv},
        {"env": "NoSuchEnv-v0"},
        {"bogus": 1},
        {"head__error": "l1"},
    ],
)
def test_set_params_changes_all_or_nothing(impossible: dict[str, Any]) -> None:
    model = built()
    before, env = model.get_params(), model.env
    with pytest.raises((ConfigurationError, SpaceError)):
        model.set_params(gamma=0.5, stats_window_size=7, seed=9, **impossible)
    assert model.get_params() == before
    assert model.replay_buffer.gamma == before["gamma"]
    assert model.ep_info_buffer.maxlen == 100
    assert model.env is env


def test_an_environment_that_cannot_be_made_changes_nothing() -> None:
    def fail() -> CountingEnv:
        raise ArithmeticError("not made")

    model = built(env_kwargs={"index": 3})
    before, env = model.get_params(), model.env
    for change in (model.set_env, lambda given: model.set_params(env=given, gamma=0.5)):
        with pytest.raises(ArithmeticError, match="not made"):
            change(lambda **kwargs: fail())
        with pytest.raises(SpaceError):
            change(lambda **kwargs: ChainEnv())
    with pytest.raises(SpaceError):
        model.set_env(ChainEnv())
    assert model.get_params() == before
    assert model.env is env
    assert model.replay_buffer.gamma == before["gamma"]


def test_a_refused_environment_is_closed_if_the_model_made_it() -> None:
    class Closing(ChainEnv):
        closed = 0

        def close(self) -> None:
            type(self).closed += 1

    model = built()
    with pytest.raises(SpaceError):
        model.set_params(env=Closing)
    assert Closing.closed == 1
    theirs = SyncVectorEnv([Closing])
    with pytest.raises(SpaceError):
        model.set_params(env=theirs)
    assert not theirs.closed


@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n, v in CHOICES if n not in ATTRIBUTES_OF_THEIR_OWN]
)
def test_assigning_an_attribute_is_set_params(name: str, value: Any) -> None:
    model = make()
    setattr(model, name, value)
    assert getattr(model, name) is value
    assert model.get_params() == make(**{name: value}).get_params()


def test_assigning_an_attribute_checks_its_range() -> None:
    model = make()
    with pytest.raises(ConfigurationError, match=r"gamma must be a number from 0 to 1, not 1\.5"):
        model.gamma = 1.5
    assert model.gamma == make().gamma


def test_assigning_an_attribute_takes_effect_in_a_built_model() -> None:
    model = built()
    model.gamma = 0.5
    assert model.replay_buffer.gamma == 0.5
    with pytest.raises(ConfigurationError, match="buffer_size cannot change"):
        model.buffer_size = 300


def test_on_the_class_a_parameter_is_itself() -> None:
    assert isinstance(DQN.gamma, Parameter)


@pytest.mark.parametrize("name", ATTRIBUTES_OF_THEIR_OWN)
def test_attributes_that_are_the_built_thing_cannot_be_assigned(name: str) -> None:
    model = make()
    with pytest.raises(AttributeError, match=name):
        setattr(model, name, model.get_params()[name])


def test_set_random_seed_is_checked_like_the_parameter() -> None:
    model = make(seed=3)
    with pytest.raises(ConfigurationError, match="seed must be an integer of at least 0, or None"):
        model.set_random_seed(-1)
    assert model.seed == 3
    model.set_random_seed(4)
    assert model.seed == 4
