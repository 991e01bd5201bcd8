"""Whatever describes an environment becomes a vector environment that trains."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import TransformReward

from sbdqn import DQN, MlpPolicy
from sbdqn.envs import make_vector_env, reward_threshold
from sbdqn.envs.in_process import InProcessVectorEnv
from sbdqn.errors import ConfigurationError, SpaceError
from tests.environments import ChainEnv, CountingEnv
from tests.warnings_of_workers import FORK

pytestmark = FORK


class CountingVectorEnv(VectorEnv[Any, Any, Any]):
    """A vectorised implementation that says nothing about how it resets itself."""

    def __init__(self, num_envs: int = 1, **kwargs: Any) -> None:
        self.num_envs, self.kwargs = num_envs, kwargs
        self.single_observation_space = CountingEnv().observation_space
        self.single_action_space = CountingEnv().action_space


class KnownVectorEnv(CountingVectorEnv):
    """The same, but it says how."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012, so in gymnasium


IDS = {
    "sbdqn-tests/Counting-v0": {"entry_point": CountingEnv},
    "sbdqn-tests/Solvable-v0": {"entry_point": CountingEnv, "reward_threshold": 12.5},
    "sbdqn-tests/Native-v0": {
        "entry_point": CountingEnv,
        "vector_entry_point": KnownVectorEnv,
    },
    "sbdqn-tests/Silent-v0": {
        "entry_point": CountingEnv,
        "vector_entry_point": CountingVectorEnv,
    },
    "sbdqn-tests/Wrapped-v0": {
        "entry_point": CountingEnv,
        "vector_entry_point": KnownVectorEnv,
        "additional_wrappers": (TransformReward.wrapper_spec(func=lambda reward: reward / 2),),
    },
}


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    for env_id, arguments in IDS.items():
        gym.register(env_id, **arguments)  # type: ignore[arg-type]
    yield
    for env_id in IDS:
        del gym.registry[env_id]


def made(*args: Any, **kwargs: Any) -> Iterator[VectorEnv[Any, Any, Any]]:
    env = make_vector_env(*args, **kwargs)
    yield env
    env.close()


def small(env: Any, **parameters: Any) -> DQN:
    settings: dict[str, Any] = {
        "buffer_size": 300,
        "learning_starts": 10,
        "batch_size": 8,
        "n_steps": 3,
        "train_freq": 1,
        "gradient_steps": 1,
        "target_update_interval": 5,
        "seed": 0,
    }
    policy = MlpPolicy(net_arch=(8,), layer_norm=False)
    return DQN(policy, env, **{**settings, **parameters})


def counting(indices: int, **kwargs: Any) -> list[Any]:
    return [lambda index=index: CountingEnv(index, **kwargs) for index in range(indices)]


# vectorization ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env_id", "n_envs", "vectorization", "kind"),
    [
        ("CartPole-v1", 1, "auto", InProcessVectorEnv),
        ("CartPole-v1", 2, "auto", CartPoleVectorEnv),
        ("CartPole-v1", 1, "vector_entry_point", CartPoleVectorEnv),
        ("CartPole-v1", 2, "sync", InProcessVectorEnv),
        ("CartPole-v1", 2, "async", AsyncVectorEnv),
        ("CartPole-v1", 1, "async", AsyncVectorEnv),
        ("Acrobot-v1", 2, "auto", InProcessVectorEnv),
        ("sbdqn-tests/Native-v0", 3, "auto", KnownVectorEnv),
        # Its own implementation would not have the wrapper.
        ("sbdqn-tests/Wrapped-v0", 2, "auto", InProcessVectorEnv),
    ],
)
def test_vectorization_chooses_the_implementation(
    env_id: str, n_envs: int, vectorization: Any, kind: type[Any]
) -> None:
    for env in made(env_id, n_envs, vectorization):
        assert type(env.unwrapped) is kind
        assert env.num_envs == n_envs
        assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP


@pytest.mark.parametrize(
    ("vectorization", "kind"),
    [("auto", InProcessVectorEnv), ("sync", InProcessVectorEnv), ("async", AsyncVectorEnv)],
)
def test_a_callable_is_called_for_each_environment(vectorization: Any, kind: type[Any]) -> None:
    for env in made(CountingEnv, 2, vectorization, {"lengths": (9,)}):
        assert type(env) is kind
        assert env.get_attr("lengths") == ((9,), (9,))  # type: ignore[attr-defined]


@pytest.mark.parametrize(("n_envs", "kind"), [(1, InProcessVectorEnv), (2, KnownVectorEnv)])
def test_an_id_may_name_the_module_that_registers_it(
    n_envs: int, kind: type[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"sbdqn_tests_registering_{n_envs}"
    (tmp_path / f"{module}.py").write_text(
        "import gymnasium\n"
        "from tests.envs.test_making import IDS\n"
        f"gymnasium.register('sbdqn-tests/Late{n_envs}-v0', **IDS['sbdqn-tests/Native-v0'])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for env in made(f"{module}:sbdqn-tests/Late{n_envs}-v0", n_envs):
        assert type(env.unwrapped).__name__ == kind.__name__
    del gym.registry[f"sbdqn-tests/Late{n_envs}-v0"]
    with pytest.raises(ConfigurationError, match=r"cannot be made: .*no_such_module"):
        make_vector_env("no_such_module:CartPole-v1")


def test_keyword_arguments_reach_the_environment() -> None:
    for env in made("sbdqn-tests/Counting-v0", 2, env_kwargs={"lengths": (3,), "index": 7}):
        obs, _ = env.reset()
        np.testing.assert_array_equal(obs, [[7, 0, 0], [7, 0, 0]])
    for env in made("sbdqn-tests/Native-v0", 2, env_kwargs={"lengths": (3,)}):
        assert env.kwargs["lengths"] == (3,)  # type: ignore[attr-defined]


def test_the_keyword_arguments_are_not_changed() -> None:
    kwargs = {"lengths": (3,)}
    for _ in made("sbdqn-tests/Counting-v0", 1, env_kwargs=kwargs):
        assert kwargs == {"lengths": (3,)}


def test_an_environment_is_used_itself() -> None:
    env = CountingEnv()
    vector_env = make_vector_env(env)
    assert isinstance(vector_env, SyncVectorEnv)
    assert vector_env.envs[0] is env


def test_a_vector_environment_is_used_itself() -> None:
    env = SyncVectorEnv(counting(3))
    assert make_vector_env(env) is env
    assert make_vector_env(env, 3) is env


# What does not go together ------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "arguments", "complaint"),
    [
        ("NoSuchEnv-v0", {}, "cannot be made: .*doesn't exist.* name .*'module:NoSuchEnv-v0'"),
        ("NoSuchModule:Env-v0", {}, "env 'NoSuchModule:Env-v0' cannot be made"),
        ("sbdqn-tests/Counting-v9", {}, "cannot be made"),
        (
            "Acrobot-v1",
            {"vectorization": "vector_entry_point"},
            "'Acrobot-v1' cannot be made: .*vector",
        ),
        (CountingEnv, {"vectorization": "vector_entry_point"}, "needs the id of an environment"),
        (5, {}, r"env must be a registered id, a gymnasium\.Env.* not 5"),
        (None, {}, "env must be a registered id"),
    ],
)
def test_what_cannot_be_made_is_refused(
    env: Any, arguments: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        make_vector_env(env, **arguments)


@pytest.mark.parametrize("env", [CountingEnv(), SyncVectorEnv([CountingEnv])])
def test_what_is_made_already_cannot_be_made_differently(env: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"env_kwargs=\{'index': 1\} cannot change"):
        make_vector_env(env, env_kwargs={"index": 1})
    for vectorization in ("sync", "async", "vector_entry_point"):
        with pytest.raises(ConfigurationError, match=f"vectorization='{vectorization}' cannot"):
            make_vector_env(env, vectorization=vectorization)  # type: ignore[arg-type]
    assert make_vector_env(env, env_kwargs={}) is not None


def test_several_of_a_single_environment_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="n_envs=2, but a single environment was passed"):
        make_vector_env(CountingEnv(), 2)


def test_another_number_than_the_vector_environment_has_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="n_envs=2, but the vector environment has 3"):
        make_vector_env(SyncVectorEnv(counting(3)), 2)


@pytest.mark.parametrize("said", [None, "NextStep", True])
def test_a_vector_environment_that_does_not_say_how_it_resets_is_refused(said: Any) -> None:
    env = SyncVectorEnv(counting(2))
    env.metadata = {} if said is None else {"autoreset_mode": said}
    with pytest.raises(
        ConfigurationError, match=rf"metadata\['autoreset_mode'\] is {said!r}; set it to a member"
    ):
        make_vector_env(env)


@pytest.mark.filterwarnings("ignore:.*is missing AutoresetMode metadata:UserWarning")
@pytest.mark.parametrize("vectorization", ["auto", "vector_entry_point"])
def test_a_registered_implementation_that_does_not_say_is_refused_too(vectorization: Any) -> None:
    with pytest.raises(ConfigurationError, match="does not say how it resets itself"):
        make_vector_env("sbdqn-tests/Silent-v0", 2, vectorization)


@pytest.mark.parametrize("wrong", [lambda: SyncVectorEnv([CountingEnv]), lambda: 5, dict])
def test_a_callable_that_makes_something_else_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"must return a gymnasium\.Env, not"):
        make_vector_env(wrong)


class TakesNothing(gym.Env[Any, Any]):
    """Has no constructor."""


class PassesOn(CountingEnv):
    """Passes all keyword arguments on to a class that does not take them all."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)


@pytest.mark.parametrize(
    ("env", "n_envs", "named"),
    [
        ("sbdqn-tests/Counting-v0", 1, "'sbdqn-tests/Counting-v0'"),
        ("CartPole-v1", 2, "'CartPole-v1'"),  # its own vectorised implementation
        (CountingEnv, 1, "CountingEnv"),
        (PassesOn, 1, "PassesOn"),
        (TakesNothing, 1, "TakesNothing"),
        (lambda: CountingEnv(3), 2, "lambda"),
    ],
)
def test_keyword_arguments_that_an_environment_does_not_take_are_named(
    env: Any, n_envs: int, named: str
) -> None:
    model = small(env, n_envs=n_envs, env_kwargs={"mass": 1})
    with pytest.raises(
        ConfigurationError, match=rf"env_kwargs={{'mass': 1}} do not fit .*{named}.*argument"
    ) as caught:
        model.learn(10)
    assert isinstance(caught.value.__cause__, TypeError)
    assert str(caught.value.__cause__) in str(caught.value)


def test_a_keyword_argument_that_is_the_id_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"env_kwargs=.*multiple values for argument 'id'"):
        make_vector_env("CartPole-v1", env_kwargs={"id": "Acrobot-v1"})


@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_another_exception_while_an_environment_is_made_is_the_users(
    n_envs: int, vectorization: Any
) -> None:
    def make(**kwargs: Any) -> Any:
        return len(5)  # type: ignore[arg-type]

    def make_another(**kwargs: Any) -> Any:
        return CountingEnv(pole=5)  # type: ignore[call-arg]

    for maker, complaint in ((make, "has no len"), (make_another, "argument 'pole'")):
        for kwargs in ({}, {"mass": 1}):
            with pytest.raises(TypeError, match=complaint) as caught:
                make_vector_env(maker, n_envs, vectorization, kwargs)
            assert caught.traceback[-1].name == maker.__name__


# reward_threshold -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "threshold"),
    [
        ("CartPole-v1", 475.0),
        ("sbdqn-tests/Solvable-v0", 12.5),
        ("sbdqn-tests/Counting-v0", None),
        (CountingEnv, None),
    ],
)
@pytest.mark.parametrize("n_envs", [1, 2])
def test_the_threshold_is_what_the_environment_registers(
    env: Any, threshold: float | None, n_envs: int
) -> None:
    for vector_env in made(env, n_envs):
        assert reward_threshold(vector_env) == threshold


def test_the_threshold_of_an_environment_object_is_found() -> None:
    assert reward_threshold(make_vector_env(gym.make("CartPole-v1"))) == 475.0
    assert DQN("MlpPolicy", gym.make("CartPole-v1")).reward_threshold == 475.0
    assert DQN("MlpPolicy", None).reward_threshold is None


def test_the_threshold_of_a_vector_environment_without_spec_is_unknown() -> None:
    assert reward_threshold(KnownVectorEnv(2)) is None


# Training, end to end -------------------------------------------------------------------


def transitions(model: DQN) -> set[tuple[float, ...]]:
    """All that the replay holds but the actions, which are random."""
    batch = model.replay_buffer.sample(6_000, model.trainer.clock)
    columns = [batch.obs, batch.reward[:, None], batch.next_obs, batch.discount[:, None]]
    rows = np.concatenate([np.asarray(column, np.float64) for column in columns], axis=1)
    return {tuple(row) for row in np.unique(rows, axis=0)}


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("n_envs", [1, 3])
def test_a_vector_environment_trains_in_every_mode(mode: AutoresetMode, n_envs: int) -> None:
    env = SyncVectorEnv(counting(n_envs), autoreset_mode=mode)
    model = small(env, n_steps=1).learn(90)
    assert model.env is env
    assert model.n_envs == n_envs
    # A step of several environments may overshoot.
    assert 90 <= model.num_timesteps < 90 + n_envs
    assert model.replay_buffer.stored == model.num_timesteps
    assert model._n_updates == model.num_timesteps - 10


@pytest.mark.parametrize("n_envs", [1, 3])
def test_the_mode_does_not_change_what_is_stored(n_envs: int) -> None:
    stored, counted = [], []
    for mode in AutoresetMode:
        # Episodes of one length end in all environments at once, so the rows agree.
        env = SyncVectorEnv(counting(n_envs, lengths=(5,)), autoreset_mode=mode)
        model = small(env, n_steps=1, learning_starts=10**6).learn(30 * n_envs)
        stored.append(transitions(model))
        counted.append((model.num_timesteps, model.trainer.episodes, list(model.ep_info_buffer)))
    assert counted[0] == counted[1] == counted[2]
    assert counted[0][:2] == (30 * n_envs, 6 * n_envs)
    assert stored[0] == stored[1] == stored[2]
    assert len(stored[0]) == 30 * n_envs


@pytest.mark.parametrize("vectorization", ["sync", "async", "vector_entry_point", "auto"])
def test_every_vectorization_trains_to_the_same_number_of_transitions(vectorization: Any) -> None:
    model = small("CartPole-v1", n_envs=2, vectorization=vectorization).learn(100)
    model.close()
    assert 100 <= model.num_timesteps <= 101
    assert model._n_updates == model.num_timesteps - 10
    assert model.replay_buffer.stored == model.num_timesteps


def test_worker_processes_change_nothing_in_what_is_learned() -> None:
    learned = []
    for vectorization in ("sync", "async"):
        model = small("CartPole-v1", n_envs=2, vectorization=vectorization).learn(100)
        learned.append(model.q_net.state_dict())
        model.close()
    assert list(learned[0]) == list(learned[1])
    for name in learned[0]:
        np.testing.assert_array_equal(learned[0][name], learned[1][name])


def test_an_environment_with_a_mode_of_its_own_is_stepped_without_its_reset_steps() -> None:
    model = small("CartPole-v1", n_envs=3).learn(200)
    lengths = [info["l"] for info in model.ep_info_buffer]
    assert len(lengths) > 3
    assert all(info["r"] == info["l"] for info in model.ep_info_buffer)
    model.close()


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "MountainCarContinuous-v0"])
def test_continuous_actions_are_refused_with_the_way_out(env_id: str) -> None:
    with pytest.raises(SpaceError, match=r"gymnasium\.wrappers\.DiscretizeAction"):
        small(env_id).learn(1)


def test_an_environment_of_states_and_one_of_numbers_train_alike() -> None:
    assert small(ChainEnv, n_envs=2).learn(60).num_timesteps >= 60
