"""A compiled update changes what an update changes, in one graph that is made once."""

from __future__ import annotations

import logging
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from sbdqn import DQN
from sbdqn.backups import Double, Greedy, Munchausen
from sbdqn.compiled import _compiled, _let_stay, _State
from sbdqn.errors import ConfigurationError
from sbdqn.exploration import EpsilonGreedy
from sbdqn.heads import Categorical, ImplicitQuantile, Quantile, Scalar
from sbdqn.learner import Learner
from sbdqn.networks import MlpPolicy
from sbdqn.protocols import Backup, Head
from sbdqn.replay import Prioritized
from sbdqn.schedules import Linear
from sbdqn.types import Batch, Loss, Prediction
from tests.test_learner import random_batch

SPACE = spaces.Box(-1, 1, (3,), np.float32)
ACTIONS = 2

pytestmark = [
    pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),  # torch's own, on import
]


class Graphs:
    """Stands in for a compiler: traces what it is given, counts, and runs it as it is."""

    def __init__(self) -> None:
        self.made = 0
        self._compile = torch.compile

    def compile(self, function: Any, *, options: dict[str, Any], fullgraph: bool) -> Any:
        kept = {name: options[name] for name in ("guard_filter_fn",) if name in options}
        return self._compile(
            function, backend=self._keep, fullgraph=fullgraph, options=kept or None
        )

    def _keep(self, graph: torch.fx.GraphModule, inputs: Sequence[Tensor]) -> Any:
        self.made += 1
        return graph.forward


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Graphs]:
    made = Graphs()
    monkeypatch.setattr(torch, "compile", made.compile)
    yield made
    torch._dynamo.reset()


def make_learner(
    policy: MlpPolicy,
    head: Head | None = None,
    backup: Backup | None = None,
    max_gradient_norm: float | None = 1.0,
    compile: bool = False,
    has_target: bool = True,
) -> Learner:
    torch.manual_seed(0)
    head = head or Scalar()
    online = policy.build(SPACE, ACTIONS, head)
    target = policy.build(SPACE, ACTIONS, head) if has_target else online
    learner = Learner(online, target, head, backup or Double(), max_gradient_norm, compile, seed=3)
    learner.set_optimizer(policy.build_optimizer(learner.flat, 0.01))
    return learner


def batch_of(step: int, size: int = 16) -> Batch:
    return random_batch(step, size)


def both(policy: MlpPolicy, **options: Any) -> tuple[Learner, Learner]:
    """The same learner, eager and compiled."""
    eager, compiled = (make_learner(policy, compile=flag, **options) for flag in (False, True))
    return eager, compiled


def state_of(learner: Learner) -> dict[str, Any]:
    values = learner.optimizer.state[learner.flat.values]
    last = learner.last
    assert last is not None
    return {
        "online": dict(learner.online.state_dict()),
        "target": dict(learner.target.state_dict()),
        "optimizer": {name: value for name, value in values.items() if value is not None},
        "gradient": learner.flat.gradient,
        "last": {"q": last.q, "norm": last.gradient_norm, "weight": last.weight},
        "loss": list(last.loss),
    }


def assert_same(eager: Learner, compiled: Learner, tolerance: float = 1e-5) -> None:
    assert eager.n_updates == compiled.n_updates
    torch.testing.assert_close(state_of(compiled), state_of(eager), rtol=tolerance, atol=tolerance)


SHARES = [0.0, 0.0, 0.0, 1.0, 0.0, 0.25, 0.5, 0.0, 1.0, 0.125, 0.25, 0.5, 0.0, 0.0]


@pytest.mark.slow
def test_updates_in_one_call_are_those_of_many_calls(graphs: Graphs) -> None:
    eager, compiled = both(MlpPolicy(net_arch=(8,), layer_norm=True))
    batches = [batch_of(step) for step in range(len(SHARES))]
    for batch, share in zip(batches, SHARES, strict=True):
        eager.update(batch)
        if share:
            eager.sync(share)
    losses = compiled.update_several(batches, SHARES)
    assert len(losses) == len(SHARES)
    assert_same(eager, compiled)
    # After the first: [., ., copy], [.], two blends, [., copy], three blends, [., .].
    assert graphs.made == 5  # of 3, 1 and 2 updates, of 2 and 3 with blends


def test_several_updates_are_the_same_without_compiling() -> None:
    one_by_one, together = (make_learner(MlpPolicy(net_arch=(8,))) for _ in range(2))
    batches = [batch_of(step) for step in range(len(SHARES))]
    for batch, share in zip(batches, SHARES, strict=True):
        one_by_one.update(batch)
        if share:
            one_by_one.sync(share)
    losses = together.update_several(batches, SHARES)
    assert len(losses) == len(SHARES)
    assert torch.equal(together.flat.values, one_by_one.flat.values)
    for mine, theirs in zip(
        together.target.parameters(), one_by_one.target.parameters(), strict=True
    ):
        assert torch.equal(mine, theirs)


OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("Adam", {}),
    ("Adam", {"amsgrad": True, "eps": 1e-3, "betas": (0.8, 0.9)}),
    ("Adam", {"weight_decay": 0.1, "maximize": True}),
    ("AdamW", {"weight_decay": 0.1}),
    ("RMSprop", {"alpha": 0.9}),
    ("RMSprop", {"centered": True, "momentum": 0.5, "eps": 1e-2}),
    ("CenteredRMSprop", {}),
    ("SGD", {}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("RAdam", {}),  # which steps outside the graph
]


@pytest.mark.parametrize(
    ("name", "settings"),
    [OPTIMIZERS[0], *(pytest.param(*each, marks=pytest.mark.slow) for each in OPTIMIZERS[1:])],
    ids=str,
)
def test_every_optimiser_steps_as_it_does_alone(
    name: str, settings: dict[str, Any], graphs: Graphs
) -> None:
    policy = MlpPolicy(net_arch=(8,), optimizer_class=name, optimizer_kwargs=settings)
    eager, compiled = both(policy)
    for step in range(6):
        for learner in (eager, compiled):
            learner.learning_rate = 0.01 / (1 + step)
            learner.update(batch_of(step))
    assert_same(eager, compiled, tolerance=1e-4)
    assert graphs.made == 1


def not_compiled(function: Any, **_: Any) -> Any:
    """Stands in for a compiler that has nothing to do."""
    return function


@pytest.mark.parametrize(("name", "settings"), OPTIMIZERS, ids=str)
def test_every_functional_step_is_the_optimisers(
    name: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", not_compiled)
    policy = MlpPolicy(net_arch=(8,), optimizer_class=name, optimizer_kwargs=settings)
    eager, compiled = both(policy)
    batches = [batch_of(step) for step in range(len(SHARES))]
    for learner in (eager, compiled):
        learner.update_several(batches, SHARES)
    assert_same(eager, compiled, tolerance=1e-4)


def test_records_outlive_the_memory_that_a_graph_replays_into(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory: list[Tensor] = []

    def replaying(function: Any, **_: Any) -> Any:
        def run(*arguments: Any) -> Any:
            for tensor in memory:
                tensor.fill_(float("nan"))  # as the next replay of a CUDA graph does
            outcomes = function(*arguments)
            memory[:] = [part for q, loss, norm in outcomes for part in (q, *loss, norm)]
            return outcomes

        return run

    monkeypatch.setattr(torch, "compile", replaying)
    eager, compiled = both(MlpPolicy(net_arch=(8,)))
    assert compiled._compiled is not None
    compiled._compiled._replays_graphs = True
    losses = []
    for step in range(4):
        for learner in (eager, compiled):
            losses.append(learner.update(batch_of(step)))
    torch.testing.assert_close(losses[1::2], losses[::2], rtol=1e-5, atol=1e-5)
    for tensor in memory:
        tensor.fill_(float("nan"))
    assert_same(eager, compiled)


def test_a_step_that_is_hooked_is_the_optimisers_own(graphs: Graphs) -> None:
    eager, compiled = both(MlpPolicy(net_arch=(8,)))
    steps = []
    for step in range(5):
        for learner in (eager, compiled):
            learner.update(batch_of(step))
        if step == 2:
            for learner in (eager, compiled):
                learner.optimizer.register_step_pre_hook(lambda *_: steps.append(1))
    assert len(steps) == 2 * 2
    assert_same(eager, compiled)


@pytest.mark.parametrize("max_gradient_norm", [None, 0.1, 1e9])
@pytest.mark.parametrize("has_target", [True, False])
def test_clipping_and_targets_are_those_of_the_update(
    max_gradient_norm: float | None, has_target: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", not_compiled)
    options = {"max_gradient_norm": max_gradient_norm, "has_target": has_target}
    eager, compiled = both(MlpPolicy(net_arch=(8,)), **options)
    for step in range(4):
        for learner in (eager, compiled):
            learner.update(batch_of(step))
            learner.sync(0.3)
    assert_same(eager, compiled)


class Normed(nn.Sequential):
    """A body with running means and dropout."""

    features = 6

    def __init__(self, space: Space[Any]) -> None:
        super().__init__(nn.Linear(3, 6, bias=False), nn.BatchNorm1d(6), nn.Dropout(0.2))


def test_buffers_and_dropout_are_those_of_the_update(graphs: Graphs) -> None:
    eager, compiled = both(MlpPolicy(net_arch=(8,), features_extractor=Normed))
    for step in range(5):
        for learner in (eager, compiled):
            learner.update(batch_of(step))
            learner.sync(0.5)
    assert_same(eager, compiled)
    mean = compiled.online.get_buffer("encoder.1.running_mean")
    assert mean.abs().max() > 0.01  # it moved


@pytest.mark.parametrize(
    "policy",
    [{}, pytest.param({"dueling": True, "noisy": True}, marks=pytest.mark.slow)],
    ids=["plain", "dueling and noisy"],
)
def test_nothing_is_traced_again_as_schedules_move(policy: dict[str, Any], graphs: Graphs) -> None:
    model = DQN(
        "MlpPolicy",
        "CartPole-v1",
        policy_kwargs={"net_arch": (8,), **policy},
        learning_rate=Linear(1e-2, 1e-4, 300),
        exploration=EpsilonGreedy(Linear(1.0, 0.1, 300)),
        replay=Prioritized(beta=Linear(0.4, 1.0, 300)),
        learning_starts=20,
        train_freq=1,
        target_update_interval=1,
        tau=0.01,
        batch_size=8,
        compile=True,
        seed=0,
    ).learn(300)
    assert model.learner.n_updates > 250
    assert model.learner.learning_rate < 1e-3
    # With noise each update draws its own, and the blend is outside.
    assert graphs.made == 1


def test_settings_that_change_are_heeded(graphs: Graphs) -> None:
    eager, compiled = both(MlpPolicy(net_arch=(8,), optimizer_class="SGD"))
    changes: list[Callable[[Learner], None]] = [
        lambda learner: setattr(learner, "max_gradient_norm", 0.01),
        lambda learner: setattr(learner, "backup", Munchausen(temperature=1.0)),
        lambda learner: setattr(learner, "backup", Munchausen(temperature=2.0)),
        lambda learner: setattr(learner, "head", Scalar("mse")),
        lambda learner: learner.optimizer.param_groups[0].update(weight_decay=0.5),
        lambda learner: setattr(learner, "learning_rate", 0.5),
        lambda learner: learner.online.output.linear.bias.requires_grad_(False),
        lambda learner: learner.online.trunk.register_forward_hook(lambda *_: torch.zeros(16, 8)),
    ]
    for step, change in enumerate(changes):
        before = compiled.flat.values.detach().clone()
        for learner in (eager, compiled):
            change(learner)
            learner.update(batch_of(step))
        assert_same(eager, compiled)
        assert not torch.equal(before, compiled.flat.values.detach()) or step > 6


def test_a_hook_that_comes_later_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counting(function: Any, **_: Any) -> Any:
        return lambda *arguments: [calls.append(1), function(*arguments)][1]

    monkeypatch.setattr(torch, "compile", counting)
    eager, compiled = both(MlpPolicy(net_arch=(8,)))
    for step in range(4):
        for learner in (eager, compiled):
            if step == 2:
                learner.online.trunk.register_forward_hook(lambda *_: torch.zeros(16, 8))
            learner.update(batch_of(step))
    assert len(calls) == 1  # a graph does not look for hooks, so it is not used
    assert_same(eager, compiled)


def test_an_error_of_the_head_itself_is_not_explained_away(graphs: Graphs) -> None:
    learner = make_learner(MlpPolicy(net_arch=()), compile=True)
    learner.update(batch_of(0))
    compiled: Any = learner._compiled

    def failing(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    compiled._runs[1, False] = failing
    with pytest.raises(RuntimeError, match="out of memory"):
        learner.update(batch_of(1))
    assert learner.n_updates == 1


class Scaled(Scalar):
    """A head of somebody's own, whose class says how much its loss counts."""

    factor = 1.0

    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> Loss:
        loss = super().loss(prediction, action, target)
        return Loss(self.factor * loss.value, loss.surprise)


def test_a_head_that_changes_is_heeded(graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    eager, compiled = both(MlpPolicy(net_arch=(8,), optimizer_class="SGD"), head=Scaled())
    for step, factor in enumerate((1.0, 1.0, 3.0, 0.0)):
        monkeypatch.setattr(Scaled, "factor", factor)
        for learner in (eager, compiled):
            learner.update(batch_of(step))
        assert_same(eager, compiled)
    assert not compiled.flat.gradient.any()


@pytest.mark.parametrize(
    "name", ["torchheads", pytest.param("sbdqn_heads", marks=pytest.mark.slow)]
)
def test_a_constant_of_a_users_module_is_heeded(
    name: str, graphs: Graphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    source = """
from sbdqn.heads import Scalar
from sbdqn.types import Loss
FACTOR = 1.0
class Scaled(Scalar):
    def loss(self, prediction, action, target):
        loss = super().loss(prediction, action, target)
        return Loss(FACTOR * loss.value, loss.surprise)
"""
    exec(source, module.__dict__)
    eager, compiled = both(MlpPolicy(net_arch=(), optimizer_class="SGD"), head=module.Scaled())
    for step, factor in enumerate((1.0, 1.0, 0.0)):
        module.FACTOR = factor
        for learner in (eager, compiled):
            learner.update(batch_of(step))
        assert_same(eager, compiled)
    assert not compiled.flat.gradient.any()


@pytest.mark.slow
def test_models_do_not_share_what_is_compiled(graphs: Graphs) -> None:
    # torch keeps at most eight graphs of one function.
    for number in range(10):
        policy = MlpPolicy(net_arch=(4 + number,), activation_fn=["ReLU", "Tanh"][number % 2])
        eager, compiled = both(policy)
        for step in range(2):
            for learner in (eager, compiled):
                learner.update(batch_of(step))
        assert_same(eager, compiled)
    assert graphs.made == 10


def test_batches_of_another_size_are_learned_from(graphs: Graphs) -> None:
    eager, compiled = both(MlpPolicy(net_arch=(8,)))
    for step, size in enumerate((16, 16, 5, 16, 9)):
        for learner in (eager, compiled):
            learner.update(batch_of(step, size))
    assert_same(eager, compiled)


def test_so_many_numbers_of_updates_have_a_graph_each(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[set[tuple[int, bool]]] = []

    def compile(function: Any, **_: Any) -> Any:
        made: set[tuple[int, bool]] = set()
        limits.append(made)

        def run(*arguments: Any) -> Any:
            made.add((len(arguments[2]), arguments[3] is not None))
            return function(*arguments)

        return run

    monkeypatch.setattr(torch, "compile", compile)
    eager, compiled = both(MlpPolicy(net_arch=(8,)))
    step = 1
    for learner in (eager, compiled):
        learner.update(batch_of(0))
    for count in range(1, 9):
        for share in (0.0, 0.25):
            batches = [batch_of(step + number) for number in range(count)]
            step += count
            for learner in (eager, compiled):
                learner.update_several(batches, [share] * count)
    assert_same(eager, compiled)
    # torch makes at most eight graphs of one function.
    assert len(limits) == 16
    assert all(len(made) == 1 for made in limits)


def test_a_backup_that_never_stays_the_same_is_not_compiled_without_end(
    graphs: Graphs, caplog: pytest.LogCaptureFixture
) -> None:
    eager, compiled = both(MlpPolicy(net_arch=()))
    with (
        caplog.at_level(logging.WARNING, "sbdqn"),
        torch._dynamo.config.patch(recompile_limit=2),
    ):
        for step in range(6):
            for learner in (eager, compiled):
                learner.backup = Munchausen(temperature=1.0 + step)
                learner.update(batch_of(step))
    said = [each.getMessage() for each in caplog.records if each.name == "sbdqn.learner"]
    assert len(said) == 1
    assert "changed so often" in said[0]
    assert graphs.made == 2
    assert_same(eager, compiled)


@pytest.mark.parametrize("body", [None, Normed])
@pytest.mark.parametrize("has_target", [True, False])
@pytest.mark.parametrize("max_gradient_norm", [None, 0.1])
@pytest.mark.parametrize(("name", "settings"), OPTIMIZERS, ids=str)
def test_the_function_itself_makes_updates(
    name: str,
    settings: dict[str, Any],
    max_gradient_norm: float | None,
    has_target: bool,
    body: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "compile", not_compiled)
    policy = MlpPolicy(
        net_arch=(8,),
        features_extractor=body,
        optimizer_class=name,
        optimizer_kwargs=settings,
    )
    options = {"max_gradient_norm": max_gradient_norm, "has_target": has_target}
    eager, compiled = both(policy, **options)
    batches = [batch_of(step) for step in range(len(SHARES))]
    for learner in (eager, compiled):
        learner.update_several(batches, SHARES)
    assert_same(eager, compiled, tolerance=1e-3)


@pytest.mark.parametrize(("device", "graphs_are"), [("cuda", True), ("xpu", False)])
def test_a_gpu_replays_graphs(
    device: str, graphs_are: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(torch, "compile", lambda function, options, **_: seen.update(options))
    _compiled(lambda: None, torch.device(device), False)
    assert seen == {"fallback_random": True, "triton.cudagraphs": graphs_are}


class Talkative(nn.Linear):
    """A body that torch cannot trace."""

    features = 4

    def __init__(self, space: Space[Any]) -> None:
        super().__init__(3, 4)

    def forward(self, obs: Tensor) -> Tensor:
        features: Tensor = super().forward(obs)
        return features if float(features.detach().sum()) > 0 else -features


def test_a_network_that_is_no_graph_is_refused_with_a_reason(graphs: Graphs) -> None:
    learner = make_learner(MlpPolicy(features_extractor=Talkative), compile=True)
    learner.update(batch_of(0))
    before = learner.flat.values.detach().clone()
    with pytest.raises(ConfigurationError, match="compile=True makes one graph of an update"):
        learner.update(batch_of(1))
    assert torch.equal(learner.flat.values.detach(), before)


@pytest.mark.filterwarnings("ignore:.*force disabled:UserWarning")
def test_without_a_compiler_the_log_says_so_and_updates_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    from torch._inductor import config

    eager, compiled = both(MlpPolicy(net_arch=(8,)))
    nothing = {"cpp.cxx": ("/nonexistent/c++",), "force_disable_caches": True}
    with caplog.at_level(logging.WARNING), config.patch(nothing):
        for step in range(4):
            for learner in (eager, compiled):
                learner.update(batch_of(step))
    said = [each.getMessage() for each in caplog.records if each.name == "sbdqn.learner"]
    assert len(said) == 1
    assert "compile=True needs a C++ compiler" in said[0]
    assert_same(eager, compiled)


HEADS = [
    Scalar(),
    Categorical(atoms=11, low=-5.0, high=5.0),
    Quantile(quantiles=5),
    ImplicitQuantile(samples=4, target_samples=3, acting_samples=5, cosines=8),
]


@pytest.mark.parametrize(
    "head", [HEADS[0], *(pytest.param(head, marks=pytest.mark.slow) for head in HEADS[1:])], ids=str
)
def test_the_compilers_own_code_gives_the_same_results(head: Head) -> None:
    eager, compiled = both(MlpPolicy(net_arch=(8, 8)), head=head, backup=Greedy())
    batches = [batch_of(step) for step in range(7)]
    for learner in (eager, compiled):
        learner.update(batches[0])
        learner.update_several(batches[1:4], [0.0, 0.0, 1.0])
        learner.learning_rate = 0.001
        learner.update_several(batches[4:], [0.0, 0.0, 1.0])
    assert_same(eager, compiled, tolerance=1e-4)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_a_device_is_asked_for(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(torch, "compile", lambda *_, options, **__: asked.append(options))
    _compiled(lambda: None, torch.device(device), are_plain=False)
    assert asked[0]["fallback_random"]
    assert asked[0].get("triton.cudagraphs", False) == (device == "cuda")
    assert "guard_filter_fn" not in asked[0]


def test_only_tensors_are_promised_to_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = make_learner(MlpPolicy(net_arch=(), optimizer_class="SGD"))
    marked: list[Tensor] = []
    monkeypatch.setattr(torch._dynamo, "mark_static_address", marked.append)
    one, two, three = torch.zeros(1), torch.zeros(1), torch.zeros(1)
    values = learner.flat.values
    _let_stay(_State(values, one, [two], [], three, [], {"momentum_buffer": None}))
    assert {id(each) for each in marked} == {id(each) for each in (values, one, two, three)}
