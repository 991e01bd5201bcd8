"""The update as one function of tensors, for `torch.compile`.

It computes what `Learner` computes step by step: the same targets and losses, and in
the same graph gradients, clipping, the optimiser's step and the blend of the target
network.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn, optim

from sbdqn.errors import ConfigurationError
from sbdqn.networks import FlatParameters, FunctionalStep, QNetwork
from sbdqn.types import Batch, Loss, Prediction, Purpose, Tensors
from sbdqn.update import Predict, Rules, UpdateRecord, compare, share_in_mean

_NO_STATE: dict[str, Any] = {}  # of an optimiser that steps outside of the graph
_LEAST_NORM = 1e-7  # as torch's renorm has it


class _State(NamedTuple):
    """All that updates change.

    Attributes:
        values: (P,) the online network's parameters.
        gradient: (P,) theirs.
        frozen: the online network's parameters that are not trained.
        buffers: the online network's, but for noise.
        target_values: (P,) the target network's parameters; (0,) if there is none.
        target_others: its parameters that are not trained, and its buffers.
        optimizer: its tensors by name.
    """

    values: Tensor
    gradient: Tensor
    frozen: list[Tensor]
    buffers: list[Tensor]
    target_values: Tensor
    target_others: list[Tensor]
    optimizer: dict[str, Any]


class CompiledUpdates:
    """Makes updates in one call of a compiled graph.

    A graph belongs to a number of updates and to shapes of batches; each is compiled
    when it is first needed. What changes from update to update, like the learning
    rate, is in tensors, so that nothing is compiled again for it.

    Args:
        online: the network that learns, with its parameters.
        target: the network that targets come from, with its own; None for none.
    """

    def __init__(
        self,
        online: tuple[QNetwork, FlatParameters],
        target: tuple[QNetwork, FlatParameters] | None,
    ) -> None:
        self._flat = online[1]
        self._target_flat = None if target is None else target[1]
        self._rate = torch.zeros((), device=self._flat.values.device)
        self._rate_is: float | None = None
        self._kept: _State | None = None
        self._replays_graphs = self._flat.values.device.type == "cuda"
        self._graph = _graph_of(
            _Predicting(*online), None if target is None else _Predicting(*target)
        )
        networks = [online[0]] if target is None else [online[0], target[0]]
        self._are_plain = all(network.is_plain for network in networks)
        self._runs: dict[tuple[int, bool], Callable[..., Any]] = {}

    def __call__(
        self,
        rules: Rules,
        optimizer: optim.Optimizer,
        step: FunctionalStep | None,
        batches: Sequence[Batch],
        shares: Sequence[float],
    ) -> list[UpdateRecord]:
        """Make an update with each of the batches.

        Args:
            rules: of the update.
            optimizer: of `flat`'s parameters.
            step: takes its steps; None to leave that to it, after a single update.
            batches: of one shape.
            shares: of the online network that the target network takes on after each;
                empty for none.

        Raises:
            CannotCompileError: if this machine cannot compile, or would have to do so
                again and again; nothing has changed then.
            ConfigurationError: if the networks, head or backup cannot be one graph.
        """
        settings = optimizer.param_groups[0]
        if self._rate_is != settings["lr"]:
            self._rate_is = settings["lr"]
            self._rate.fill_(self._rate_is)
        state = self._state(optimizer, step is not None)
        blends = None
        if shares:
            blends = torch.tensor(shares).to(self._rate.device, non_blocking=True)
        try:
            with torch.no_grad():
                outcomes = self._run_of(len(batches), blends is not None)(
                    state, self._rate, list(batches), blends, rules, settings, step
                )
        except Exception as error:
            explained = _explained(error)
            if explained is None:
                raise
            raise explained from error
        records = [
            UpdateRecord(q, loss, batch.weight, norm)
            for batch, (q, loss, norm) in zip(batches, outcomes, strict=True)
        ]
        return list(map(_copied, records)) if self._replays_graphs else records

    def _run_of(self, count: int, blends: bool) -> Callable[..., Any]:
        """What makes so many updates; each has a compiler's limit of graphs of its own."""
        run = self._runs.get((count, blends))
        if run is None:
            run = _compiled(self._graph, self._flat.values.device, self._are_plain)
            self._runs[count, blends] = run
        return run

    def _state(self, optimizer: optim.Optimizer, steps: bool) -> _State:
        kept = optimizer.state[optimizer.param_groups[0]["params"][0]] if steps else _NO_STATE
        if self._kept is None or self._kept.optimizer is not kept:
            flat, target = self._flat, self._target_flat
            self._kept = _State(
                flat.values.detach(),
                flat.gradient,
                flat.frozen,
                flat.buffers,
                self._rate.new_empty(0) if target is None else target.values.detach(),
                [] if target is None else target.others,
                kept,
            )
            if self._replays_graphs:
                _let_stay(self._kept)
        return self._kept


def _let_stay(state: _State) -> None:
    """Promise that these tensors keep their place: a CUDA graph may change no others."""
    lists = (state.frozen, state.buffers, state.target_others, state.optimizer.values())
    single = (state.values, state.gradient, state.target_values)
    for tensor in (*single, *(each for part in lists for each in part)):
        if isinstance(tensor, Tensor):  # SGD keeps None where it has no momentum
            torch._dynamo.mark_static_address(tensor)


def _copied(record: UpdateRecord) -> UpdateRecord:
    """A record that the next replay of a CUDA graph does not overwrite."""
    q, loss, weight, norm = record
    return UpdateRecord(q.clone(), Loss(*(part.clone() for part in loss)), weight, norm.clone())


class CannotCompileError(Exception):
    """There is nothing to compile with, or no end to compiling."""


def _explained(error: Exception) -> Exception | None:
    # Importing it at the top would take seconds.
    from torch._dynamo.exc import BackendCompilerFailed, TorchDynamoException

    if isinstance(error, BackendCompilerFailed):
        return CannotCompileError(
            f"{_first_line(error)}; compile=True needs a C++ compiler (a GPU, Triton)"
        )
    if type(error).__name__ == "FailOnRecompileLimitHit":  # torch 2.5 has none
        return CannotCompileError(
            "a head, a backup or a setting changed so often that torch would compile without "
            "end; a number that changes in every update belongs into a tensor"
        )
    if isinstance(error, TorchDynamoException):
        return ConfigurationError(
            f"compile=True makes one graph of an update, and torch cannot trace this one: "
            f"{_first_line(error)}; look for numbers taken out of tensors, prints and calls "
            f"of other libraries in a network, head or backup of your own, or leave compile out"
        )
    return None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]


class _Predicting(nn.Module):
    """A network as a module whose call is a prediction, so that weights can be passed in."""

    def __init__(self, network: QNetwork, flat: FlatParameters) -> None:
        super().__init__()
        self.network = network
        self._flat = flat

    def forward(self, obs: Tensors, purpose: Purpose) -> Prediction:
        """What the network says of observations (B, ...)."""
        return self.network.predict(obs, purpose)

    def of(self, values: Tensor, others: Sequence[Tensor]) -> Predict:
        """Predictions with these weights and buffers."""
        named = self._flat.named(values, others)
        parts = {f"network.{name}": tensor for name, tensor in named.items()}
        return lambda obs, purpose: torch.func.functional_call(self, parts, (obs, purpose))


def _graph_of(online: _Predicting, target: _Predicting | None) -> Callable[..., Any]:
    """The function that is compiled."""

    def update(
        state: _State,
        rate: Tensor,
        batch: Batch,
        rules: Rules,
        settings: dict[str, Any],
        step: FunctionalStep | None,
    ) -> tuple[Tensor, Loss, Tensor]:
        def objective(values: Tensor, buffers: list[Tensor]) -> tuple[Tensor, Any]:
            # A prediction that is learned from may change buffers, as batch norm does.
            buffers = [buffer.clone() for buffer in buffers]
            predict = online.of(values, [*state.frozen, *buffers])
            behind = predict
            if target is not None:
                behind = target.of(state.target_values, state.target_others)
            q, loss = compare(rules, batch, predict, behind)
            mean = (loss.value * share_in_mean(batch.weight)).sum()
            return mean, (q, loss, buffers)

        slope = torch.func.grad(objective, has_aux=True)
        gradient, (q, loss, buffers) = slope(state.values, state.buffers)
        norm: Tensor = torch.linalg.vector_norm(gradient)
        if rules.max_gradient_norm is not None:
            scale = rules.max_gradient_norm / (norm + _LEAST_NORM)
            gradient = gradient * scale.clamp(max=1.0)
        state.gradient.copy_(gradient)
        if step is not None:
            step(state.values, gradient, state.optimizer, settings, rate)
        for mine, changed in zip(state.buffers, buffers, strict=True):
            mine.copy_(changed)
        return q, loss, norm

    def run(
        state: _State,
        rate: Tensor,
        batches: list[Batch],
        blends: Tensor | None,
        rules: Rules,
        settings: dict[str, Any],
        step: FunctionalStep | None,
    ) -> list[tuple[Tensor, Loss, Tensor]]:
        outcomes = []
        for number, batch in enumerate(batches):
            outcomes.append(update(state, rate, batch, rules, settings, step))
            if blends is not None:
                state.target_values.lerp_(state.values, blends[number])
                for mine, theirs in zip(
                    state.target_others, [*state.frozen, *state.buffers], strict=True
                ):
                    mine.copy_(theirs)
        return outcomes

    return run


def _compiled(
    graph: Callable[..., Any], device: torch.device, are_plain: bool
) -> Callable[..., Any]:
    options: dict[str, Any] = {
        # Sampled fractions and dropout are to be those of the update that is not compiled.
        "fallback_random": True,
    }
    if device.type == "cpu":
        options["cpp_wrapper"] = True  # one call of Python's instead of one for each kernel
    else:
        options["triton.cudagraphs"] = device.type == "cuda"
    if are_plain and torch.torch_version.TorchVersion(torch.__version__) >= "2.8":
        options["guard_filter_fn"] = _guards_to_keep
    # Dynamo keeps what it compiles with the code, and no more than eight of them.
    code = graph.__code__.replace()
    own = types.FunctionType(code, graph.__globals__, closure=graph.__closure__)
    return torch.compile(own, options=options, fullgraph=True)


def _guards_to_keep(guards: Sequence[Any]) -> list[bool]:
    """Which guards to check at each call: all of them take as long as a small update.

    Left out are those of code that does not change, torch's and ours, and those of the
    networks: whether a plain one has changed, the learner checks itself.
    """
    return [_NEEDLESS.match(guard.name) is None for guard in guards]


_NEEDLESS = re.compile(
    r"""(dict\(|type\()*
        (update\b|step\b                         # in which the networks are, and ours
        |__import__\('torch'\)
        |G\['(?!_*import_(?!(torch|sbdqn)(_dot_|'))|___unnamed_scope))  # globals, but no others'
    """,
    re.VERBOSE,
)
