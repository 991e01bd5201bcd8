"""Exported policies: what they say, and that they never say anything else."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from sbdqn import DQN, CnnPolicy, MlpPolicy, MultiInputPolicy, export
from sbdqn.errors import (
    ConfigurationError,
    ExportError,
    FileAccessError,
    MissingDependencyError,
)
from sbdqn.heads import Categorical, ImplicitQuantile, Quantile, Scalar
from sbdqn.observations import apply
from sbdqn.protocols import Head, PolicySpec
from sbdqn.types import Purpose
from tests.exported import (
    BITS,
    CATEGORIES,
    CATEGORY,
    PARTS,
    PICTURE,
    STACK,
    START,
    TUPLE,
    VECTOR,
    Body,
    Resting,
    outputs_of,
)

onnxruntime = pytest.importorskip("onnxruntime", reason="sbdqn[onnx] is not installed")

FORMATS = (".pt2", ".onnx")
LARGE = spaces.Box(-np.finfo(np.float32).max, np.finfo(np.float32).max, (3,))
HEADS: dict[str, Head] = {
    "scalar": Scalar(),
    "categorical": Categorical(atoms=11),
    "quantile": Quantile(quantiles=9),
    "implicit_quantile": ImplicitQuantile(acting_samples=5, cosines=7),
}
IMPALA = {"layer_norm": True, "spectral_norm": True, "pool": 2}
RICH = {"dueling": True, "noisy": True}
NETWORKS: dict[str, tuple[PolicySpec, Space[Any]]] = {
    "vector": (MlpPolicy((8, 8)), VECTOR),
    "bare": (MlpPolicy(()), VECTOR),
    "category": (MlpPolicy((8, 8), layer_norm=False, **RICH), CATEGORY),
    "categories": (MlpPolicy((8,), activation_fn="GELU"), CATEGORIES),
    "bits": (MlpPolicy((8,), dueling=True), BITS),
    "flat picture": (MlpPolicy((8,)), PICTURE),
    "large": (MlpPolicy((8,)), LARGE),
    "picture": (CnnPolicy((8,)), PICTURE),
    "stack": (CnnPolicy((8,), normalize_images=False, **RICH), STACK),
    "impala": (
        CnnPolicy((8,), features_extractor="impala", features_extractor_kwargs=IMPALA),
        PICTURE,
    ),
    "minatar": (
        CnnPolicy(
            (8,), features_extractor="minatar", features_extractor_kwargs={"channels_last": True}
        ),
        spaces.Box(0, 1, (10, 10, 10), bool),
    ),
    "parts": (MultiInputPolicy((8,), **RICH), PARTS),
    "tuple": (MultiInputPolicy((8,)), TUPLE),
}
COVERING = [
    *itertools.product(["vector"], HEADS),
    *itertools.product(["parts"], ["scalar", "implicit_quantile"]),
    ("bare", "implicit_quantile"),
    ("category", "categorical"),
    ("categories", "quantile"),
    ("bits", "quantile"),
    ("flat picture", "scalar"),
    ("large", "scalar"),
    ("picture", "categorical"),
    ("stack", "quantile"),
    ("impala", "scalar"),
    ("minatar", "quantile"),
    ("tuple", "categorical"),
]
REST = [pair for pair in itertools.product(NETWORKS, HEADS) if pair not in COVERING]


def model_of(policy: PolicySpec, space: Space[Any] = VECTOR, head: Head = HEADS["scalar"]) -> DQN:
    return DQN(policy, Resting(space), head=head, seed=0, device="cpu", buffer_size=10)


def observations(model: DQN, rows: int) -> Any:
    """Some that no export was checked by, as they are stored."""
    space = model.observation_space
    space.seed(1_000 + rows)
    drawn = [model.policy.adapter.batch(space.sample())[0] for _ in range(rows)]
    return apply(lambda *parts: limited(np.concatenate(parts)), *drawn)


def limited(part: Any) -> Any:
    return part.clip(-50, 50) if part.dtype.kind == "f" else part


def require_same(model: DQN, file: Path) -> None:
    head = model.policy.q_net.head
    for rows in (1, 2, 5, 33):
        obs = observations(model, rows)
        action, q = outputs_of(file, obs)
        expected = model.q_values(obs)
        size = head.high if isinstance(head, Categorical) else np.abs(expected).max()
        np.testing.assert_allclose(q, expected, rtol=0, atol=2e-5 * size)
        assert (q.dtype, q.shape) == (np.float32, (rows, 3))
        np.testing.assert_array_equal(action, q.argmax(axis=1) + START)
        assert (action.dtype, action.shape) == (np.int64, (rows,))


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(("network", "head"), COVERING)
def test_a_file_says_what_the_model_says(
    network: str, head: str, ending: str, tmp_path: Path
) -> None:
    model = model_of(*NETWORKS[network], HEADS[head])
    file = tmp_path / f"new/policy{ending}"
    model.export(file)
    require_same(model, file)
    assert [each.name for each in file.parent.iterdir()] == [file.name]


@pytest.mark.slow
@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(("network", "head"), REST)
def test_every_other_file_says_so_too(network: str, head: str, ending: str, tmp_path: Path) -> None:
    model = model_of(*NETWORKS[network], HEADS[head])
    model.export(tmp_path / f"policy{ending}")
    require_same(model, tmp_path / f"policy{ending}")


@pytest.mark.slow
@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    "fields",
    [
        dict(zip(("dueling", "noisy", "layer_norm"), chosen, strict=True))
        for chosen in itertools.product([False, True], repeat=3)
    ],
    ids=str,
)
def test_files_of_every_kind_of_output_say_so_too(
    fields: dict[str, bool], head: str, ending: str, tmp_path: Path
) -> None:
    model = model_of(MlpPolicy((8, 8), **fields), VECTOR, HEADS[head])
    model.export(tmp_path / f"policy{ending}")
    require_same(model, tmp_path / f"policy{ending}")


@pytest.mark.parametrize("ending", FORMATS)
def test_a_model_that_has_learned_is_exported_as_it_is_then(ending: str, tmp_path: Path) -> None:
    model = DQN(MlpPolicy((8,)), "CartPole-v1", seed=0, learning_starts=20, device="cpu")
    model.export(tmp_path / f"before{ending}")
    model.learn(100)
    model.export(tmp_path / f"after{ending}")
    obs = np.full((4, 4), 0.1, np.float32)
    before, after = (
        outputs_of(tmp_path / f"{name}{ending}", obs)[1] for name in ("before", "after")
    )
    np.testing.assert_allclose(after, model.q_values(obs), rtol=1e-5)
    assert np.abs(after - before).min() > 1e-3


def test_the_inputs_of_onnx_have_the_names_shapes_and_types_of_the_observations(
    tmp_path: Path,
) -> None:
    def described(policy: PolicySpec, space: Space[Any]) -> dict[str, tuple[Any, str]]:
        model_of(policy, space).export(tmp_path / "policy.onnx")
        session = onnxruntime.InferenceSession(tmp_path / "policy.onnx")
        assert [each.name for each in session.get_outputs()] == ["action", "q_values"]
        return {each.name: (each.shape, each.type) for each in session.get_inputs()}

    assert described(*NETWORKS["picture"]) == {
        "observation": (["batch", 36, 36, 3], "tensor(uint8)")
    }
    assert described(*NETWORKS["parts"]) == {
        "observation/action": (["batch"], "tensor(int64)"),  # "action" is what comes out
        "camera/left": (["batch", 36, 36, 3], "tensor(uint8)"),
        "speed": (["batch", 4], "tensor(float)"),
    }


@pytest.mark.parametrize("ending", FORMATS)
def test_an_export_leaves_the_model_and_the_programs_generators_alone(
    ending: str, tmp_path: Path
) -> None:
    policy = CnnPolicy(
        (8,),
        noisy=True,
        features_extractor="impala",
        features_extractor_kwargs={"spectral_norm": True},
    )
    model = model_of(policy, PICTURE)
    obs = torch.as_tensor(observations(model, 2))
    noisy = model.q_net.predict(obs, Purpose.ACT).values
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    state, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    model.export(tmp_path / f"policy{ending}")
    after = model.policy.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    again = model.q_net.predict(obs, Purpose.ACT).values
    assert torch.equal(noisy, again)
    assert torch.equal(state, torch.get_rng_state())
    np.testing.assert_array_equal(numbers, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("ending", FORMATS)
def test_a_model_in_the_middle_of_learning_is_exported_as_it_acts(
    ending: str, tmp_path: Path
) -> None:
    model = model_of(*NETWORKS["impala"])
    obs = torch.as_tensor(observations(model, 2))
    for _ in range(3):  # each improves the estimate of spectral norm, from which weights follow
        model.q_net.predict(obs, Purpose.LEARN)
    assert model.q_net.training
    model.export(tmp_path / f"policy{ending}")
    assert model.q_net.training
    require_same(model, tmp_path / f"policy{ending}")


# Bodies of your own -----------------------------------------------------------------------


class BodyWithModes(Body):
    """Has layers that behave otherwise in training."""

    def __init__(self, space: Space[Any]) -> None:
        super().__init__(space)
        self.norm = nn.BatchNorm1d(4)
        self.dropout = nn.Dropout(0.5)

    def forward(self, obs: Tensor) -> Tensor:
        assert obs.shape[1] == 4  # a question that does not depend on the batch
        return self.dropout(self.norm(obs))


class DecidingBody(Body):
    """Looks at values to decide."""

    def forward(self, obs: Tensor) -> Tensor:
        return obs if obs.sum() > 0 else -obs


class CountingBody(Body):
    """Looks at the number of rows to decide."""

    def forward(self, obs: Tensor) -> Tensor:
        return obs if len(obs) > 1 else -obs


class DriftingBody(Body):
    """Never does the same twice."""

    calls = 0

    def forward(self, obs: Tensor) -> Tensor:
        DriftingBody.calls += 1
        return obs + DriftingBody.calls


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("body", [Body, BodyWithModes])
def test_a_body_of_your_own_is_exported(body: type[nn.Module], ending: str, tmp_path: Path) -> None:
    model = model_of(MlpPolicy((8,), features_extractor=body))
    model.export(tmp_path / f"policy{ending}")
    require_same(model, tmp_path / f"policy{ending}")


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(
    ("body", "reason"), [(DecidingBody, "data-dependent"), (CountingBody, "batch")]
)
def test_a_body_that_is_no_graph_is_refused_with_torchs_reason(
    body: type[nn.Module], reason: str, ending: str, tmp_path: Path
) -> None:
    model = model_of(MlpPolicy((8,), features_extractor=body))
    with pytest.raises(ConfigurationError, match=f"torch cannot export this .*(?s:.*){reason}"):
        model.export(tmp_path / f"policy{ending}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", FORMATS)
def test_a_file_that_says_something_else_does_not_appear(ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"policy{ending}"
    model_of(MlpPolicy((8,))).export(file)
    before = file.read_bytes()
    model = model_of(MlpPolicy((8,), features_extractor=DriftingBody))
    with pytest.raises(ExportError, match=r"policy\.\w+ was not written: for 1 random .* allowed"):
        model.export(file)
    assert [each.name for each in tmp_path.iterdir()] == [file.name]
    assert file.read_bytes() == before


# The measure ------------------------------------------------------------------------------


def judge(given: list[list[float]], ours: list[list[float]], head: Head = HEADS["scalar"]) -> None:
    """Compare values of one batch, with the actions that follow from what is given."""
    reference = model_of(MlpPolicy(()), head=head).policy
    q = np.array(given, np.float32)
    outputs = [(q.argmax(axis=1) + START, q)]
    export._require_same(outputs, [np.array(ours, np.float32)], reference, Path("policy.pt2"))


def test_values_may_differ_by_a_hundred_thousandth_of_the_largest() -> None:
    judge([[0.0, 100.0009, 1.0]], [[0.0, 100.0, 1.0]])
    judge([[0.0, 100.0, 1.0009]], [[0.0, 100.0, 1.0]])
    with pytest.raises(ExportError, match=r"are 0\.0011 away from .* and 0\.001 is allowed"):
        judge([[0.0, 100.0011, 1.0]], [[0.0, 100.0, 1.0]])
    with pytest.raises(ExportError, match="away"):
        judge([[0.0, 1.0, 1.0009]], [[0.0, 1.0, 1.0]])
    judge([[0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]])


def test_means_over_large_returns_may_differ_by_as_much_as_those_are_rounded() -> None:
    judge([[0.0, 1.0, 1.0009]], [[0.0, 1.0, 1.0]], Categorical(low=-1.0, high=100.0))
    with pytest.raises(ExportError, match="away"):
        judge([[0.0, 1.0, 1.0011]], [[0.0, 1.0, 1.0]], Categorical(low=-1.0, high=100.0))


@pytest.mark.parametrize("wrong", [[[np.nan, 1.0, 2.0]], [[0.0, 1.0]], [[0.0, 1.0, np.inf]]])
def test_what_is_no_number_or_none_too_few_differs(wrong: list[list[float]]) -> None:
    with pytest.raises(ExportError, match="away"):
        judge(wrong, [[0.0, 1.0, 2.0]])


def test_actions_may_differ_only_where_the_best_values_do_not() -> None:
    reference = model_of(MlpPolicy(())).policy

    def judge_action(action: int, ours: list[float]) -> None:
        q = np.array([ours], np.float32)
        export._require_same([(np.array([action]), q)], [q], reference, Path("policy.pt2"))

    judge_action(START + 1, [0.0, 100.0, 99.9995])
    judge_action(START + 2, [0.0, 100.0, 99.9995])
    judge_action(START + 1, [0.0, 100.0, 99.9985])
    with pytest.raises(ExportError, match=r"its actions are \[5\], and the model's are \[4\]"):
        judge_action(START + 2, [0.0, 100.0, 99.9985])


def test_a_policy_with_one_action_has_nothing_to_confuse(tmp_path: Path) -> None:
    env = Resting(VECTOR)
    env.action_space = spaces.Discrete(1, start=START)
    model = DQN(MlpPolicy((8,)), env, device="cpu")
    model.export(tmp_path / "policy.pt2")
    action, _ = outputs_of(tmp_path / "policy.pt2", np.zeros((2, 4), np.float32))
    assert action.tolist() == [START, START]


# What is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["policy", "policy.pb", "policy.zip", ".onnx", "policy.ONNX"])
def test_another_ending_is_refused(name: str, tmp_path: Path) -> None:
    model = model_of(MlpPolicy((8,)))
    with pytest.raises(ConfigurationError, match=rf"must end in \.onnx or \.pt2, not '.*{name}'"):
        model.export(str(tmp_path / name))


@pytest.fixture(params=["onnx", "onnxruntime"])
def without(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setitem(sys.modules, request.param, None)
    return request.param


def test_without_the_extra_the_error_says_what_to_install(without: str, tmp_path: Path) -> None:
    model = model_of(MlpPolicy((8,)))
    with pytest.raises(MissingDependencyError, match=r"pip install 'sbdqn\[onnx\]'"):
        model.export(tmp_path / "policy.onnx")
    assert list(tmp_path.iterdir()) == []
    model.export(tmp_path / "policy.pt2")


@pytest.mark.parametrize("ending", FORMATS)
def test_a_place_that_cannot_be_written_to_is_named(ending: str, tmp_path: Path) -> None:
    model = model_of(MlpPolicy((8,)))
    folder = tmp_path / f"folder{ending}"
    folder.mkdir()
    with pytest.raises(
        FileAccessError, match=rf"folder\{ending} cannot be written: it is a folder"
    ):
        model.export(folder)
    (tmp_path / "file").touch()
    with pytest.raises(FileAccessError, match=r"cannot be written: (Not a directory|File exists)"):
        model.export(tmp_path / f"file/policy{ending}")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("ending", FORMATS)
def test_a_full_disk_leaves_the_older_file(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    file = tmp_path / f"policy{ending}"
    file.write_text("older")
    monkeypatch.setattr("sbdqn.export.os.replace", fail)
    with pytest.raises(FileAccessError, match="No space left on device; make room") as refused:
        model_of(MlpPolicy((8,))).export(file)
    assert refused.value.errno == 28
    assert [each.read_text() for each in tmp_path.iterdir()] == ["older"]
