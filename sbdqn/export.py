"""Exported policies: files that run where this library is not installed."""

from __future__ import annotations

import copy
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sbdqn.errors import (
    ConfigurationError,
    ExportError,
    MissingDependencyError,
    SbdqnError,
    inaccessible,
)
from sbdqn.networks import QNetwork
from sbdqn.observations import apply
from sbdqn.policy import Policy
from sbdqn.types import Arrays, FloatArray, IntArray, Tensors

TOLERANCE = 1e-5
"""Largest difference of Q-values that an export may show, as a share of their size."""

_ROWS_CHECKED = (1, 2, 7)
_LARGEST_SAMPLE = 1e3
_OUTPUTS = ["action", "q_values"]
_OPSET = 17  # of ONNX: what torch 2.5 writes by itself, and newer versions still do

Exported: TypeAlias = Callable[[Arrays], tuple[IntArray, FloatArray]]
"""From observations (B, ...) as they are stored to actions (B,) and Q-values (B, A)."""


class _Format(NamedTuple):
    """A kind of file.

    Attributes:
        require: refuses, where what is needed for it is not installed.
        write: a network for observations like these to a file.
        read: makes the file act.
    """

    require: Callable[[], None]
    write: Callable[[_Greedy, Tensors, Path], None]
    read: Callable[[Path], Exported]


@runtime_checkable
class _Bounded(Protocol):
    """A head whose expected returns are means of returns from `low` to `high`."""

    low: float
    high: float


def export_policy(policy: Policy, path: str | os.PathLike[str]) -> None:
    """Write what acts greedily, for a program without this library.

    The file is read again before it appears under its name: for batches of 1, 2
    and 7 random observations its Q-values must differ from the policy's by at
    most `TOLERANCE` of their size, which is the largest of them in those batches,
    or the largest return that a categorical head knows if that is more. Where the
    best two differ by more, the actions must be the same.

    Args:
        policy: the networks, with their spaces.
        path: ends in `.onnx` or `.pt2`.

    Raises:
        ConfigurationError: if the ending is another, or torch cannot export the
            network.
        ExportError: if the file says something else than the policy.
        FileAccessError: if it cannot be written.
        MissingDependencyError: if `sbdqn[onnx]` is needed and not installed.
    """
    final = Path(path)
    if final.suffix not in _FORMATS:
        raise ConfigurationError(
            f"the exported file must end in {' or '.join(_FORMATS)}, not {os.fspath(path)!r}"
        )
    kind = _FORMATS[final.suffix]
    kind.require()
    with _torchs_reasons():
        own, exported = (copy.deepcopy(policy.q_net).cpu() for _ in range(2))
        exported = _simplified(exported.eval().requires_grad_(False))
    cpu = torch.device("cpu")
    reference = Policy(policy.observation_space, policy.action_space, own, own, cpu)
    batches = [_observations(reference, rows) for rows in _ROWS_CHECKED]
    expected = [reference.q_of(batch) for batch in batches]
    greedy = _Greedy(exported, int(policy.action_space.start))
    with _appearing_at(final) as file:
        with _torchs_reasons():
            kind.write(greedy, apply(torch.from_numpy, batches[-1]), file)
            act = kind.read(file)
            given = [act(batch) for batch in batches]
        _require_same(given, expected, reference, final)


class _Greedy(nn.Module):
    """The best action, and the values that it is the best by.

    Args:
        network: in evaluation.
        start: of the action space.
    """

    def __init__(self, network: QNetwork, start: int) -> None:
        super().__init__()
        self.network = network
        self.start = start
        self.eval()

    def forward(self, observation: Tensors) -> dict[str, Tensor]:
        """Actions (B,) and Q-values (B, A) of observations (B, ...)."""
        q = self.network(observation).float()
        return dict(zip(_OUTPUTS, (q.argmax(dim=1) + self.start, q), strict=True))


class _Positional(nn.Module):
    """The same with an argument for each part of an observation, and no dicts."""

    def __init__(self, greedy: _Greedy, names: list[str] | None) -> None:
        super().__init__()
        self.greedy = greedy
        self.names = names
        self.eval()

    def forward(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """See `_Greedy.forward`."""
        named = parts[0] if self.names is None else dict(zip(self.names, parts, strict=True))
        return tuple(self.greedy(named).values())


class _Constant(nn.Module):
    """Takes the place of what calculates a layer's weight.

    Args:
        value: what it is in evaluation.
    """

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value)

    def forward(self) -> Tensor:
        """The weight."""
        return self.value


class _MaxPool(nn.Module):
    """`nn.AdaptiveMaxPool2d` in operations that ONNX has for every size of image.

    Args:
        side: of the square that comes out.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, C, side, side) of maps (B, C, H, W)."""
        for dim in (2, 3):
            length = int(maps.shape[dim])
            windows = [
                maps.narrow(dim, first, last - first).amax(dim)
                for first, last in _windows(length, self.side)
            ]
            maps = torch.stack(windows, dim)
        return maps


def _windows(length: int, count: int) -> list[tuple[int, int]]:
    return [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def _simplified(network: QNetwork) -> QNetwork:
    """The network with what is constant in evaluation calculated, and every layer in ONNX."""
    for module in list(network.modules()):
        if parametrize.is_parametrized(module):
            # torch's way to take them off changes the class, which the model's own layers share.
            lists: Any = module.parametrizations
            for name in list(lists):
                lists[name] = _Constant(lists[name]())
        for name, child in list(module.named_children()):
            if type(child) is nn.AdaptiveMaxPool2d and isinstance(child.output_size, int):
                setattr(module, name, _MaxPool(child.output_size))
    return network


def _observations(policy: Policy, rows: int) -> Arrays:
    """Random ones (rows, ...) as they are stored, always the same."""
    space = copy.deepcopy(policy.observation_space)
    space.seed(rows)
    drawn = [policy.adapter.batch(space.sample())[0] for _ in range(rows)]
    return apply(lambda *parts: _moderate(np.concatenate(parts)), *drawn)


def _moderate(part: Any) -> Any:
    """Without what overflows: bounds of a Box may stand at the end of float32's range."""
    is_float = part.dtype.kind == "f"
    return part.clip(-_LARGEST_SAMPLE, _LARGEST_SAMPLE) if is_float else part


@contextmanager
def _torchs_reasons() -> Iterator[None]:
    """Within the block, what torch cannot export is a `ConfigurationError`."""
    try:
        # Each version of torch warns of others of its own functions.
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    except (SbdqnError, OSError):
        raise
    except Exception as error:  # of many types, among them private ones
        reason = str(error).strip().partition("\n\n")[0]
        raise ConfigurationError(
            f"torch cannot export this network: {type(error).__name__}: {reason}"
        ) from error


@contextmanager
def _appearing_at(final: Path) -> Iterator[Path]:
    """A place for a file that takes its name at the end, if there was no error."""
    try:
        if final.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=final.parent, prefix=f".{final.name}.") as folder:
            yield Path(folder) / final.name
            os.replace(Path(folder) / final.name, final)
    except SbdqnError:
        raise
    except OSError as error:
        raise inaccessible(f"{final} cannot be written", error) from error


def _require_same(
    given: list[tuple[IntArray, FloatArray]],
    expected: list[FloatArray],
    reference: Policy,
    final: Path,
) -> None:
    size = max(float(np.abs(q).max()) for q in expected)
    head = reference.q_net.head
    if isinstance(head, _Bounded):
        size = max(size, abs(head.low), abs(head.high))
    allowed = TOLERANCE * size
    for (action, q), ours in zip(given, expected, strict=True):
        difference = float(np.abs(q - ours).max()) if q.shape == ours.shape else np.inf
        if not difference <= allowed:  # nor NaN
            raise ExportError(
                f"{final} was not written: for {len(ours)} random observations its Q-values "
                f"{_as_list(q)} are {difference:.3g} away from the model's {_as_list(ours)}, and "
                f"{allowed:.3g} is allowed; the network does not do the same for every batch, or "
                f"torch translates it wrongly"
            )
        ranked = np.sort(ours, axis=1)
        is_clear = ranked[:, -1] - ranked[:, :-1].max(axis=1, initial=-np.inf) > allowed
        best = ours.argmax(axis=1) + reference.action_space.start
        if not np.array_equal(action[is_clear], best[is_clear]):
            raise ExportError(
                f"{final} was not written: its actions are {action.tolist()}, and the model's are "
                f"{best.tolist()}"
            )


def _as_list(values: FloatArray) -> str:
    return np.array2string(values, precision=4, threshold=12, separator=", ").replace("\n", "")


def _captured(greedy: _Greedy, example: Tensors) -> torch.export.ExportedProgram:
    """The network as a graph for any number of rows; refuses what depends on values."""
    rows = {0: torch.export.Dim("batch", min=1)}
    shapes = {"observation": apply(lambda part: rows, example)}
    return torch.export.export(greedy, (example,), dynamic_shapes=shapes, strict=False)


def _write_program(greedy: _Greedy, example: Tensors, file: Path) -> None:
    torch.export.save(_captured(greedy, example), file)


def _read_program(file: Path) -> Exported:
    program = torch.export.load(file).module()

    def act(obs: Arrays) -> tuple[IntArray, FloatArray]:
        outputs = program(apply(torch.from_numpy, obs))
        action, q = (outputs[name].numpy() for name in _OUTPUTS)
        return action, q

    return act


def _write_onnx(greedy: _Greedy, example: Tensors, file: Path) -> None:
    # The exporter that works from torch 2.5 on traces: it takes what one pass does for all there
    # is. This refuses where that would be wrong.
    _captured(greedy, example)
    names = list(example) if isinstance(example, dict) else None
    inputs = _input_names(example)
    torch.onnx.export(
        _Positional(greedy, names),
        tuple(example.values()) if isinstance(example, dict) else (example,),
        os.fspath(file),
        input_names=inputs,
        output_names=_OUTPUTS,
        dynamic_axes={name: {0: "batch"} for name in [*inputs, *_OUTPUTS]},
        opset_version=_OPSET,
        dynamo=False,
    )


def _read_onnx(file: Path) -> Exported:
    import onnxruntime

    session = onnxruntime.InferenceSession(os.fspath(file), providers=["CPUExecutionProvider"])

    def act(obs: Arrays) -> tuple[IntArray, FloatArray]:
        parts = obs.values() if isinstance(obs, dict) else (obs,)
        action, q = session.run(_OUTPUTS, dict(zip(_input_names(obs), parts, strict=True)))
        return action, q

    return act


def _input_names(obs: Arrays | Tensors) -> list[str]:
    """Those of the parts, with a prefix where ONNX or an output needs the name itself."""
    if not isinstance(obs, dict):
        return ["observation"]
    taken = (name in _OUTPUTS or name.isdecimal() for name in obs)
    return [
        f"observation/{name}" if is_taken else name
        for name, is_taken in zip(obs, taken, strict=True)
    ]


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "export to ONNX needs onnx and onnxruntime; install them with: "
            "pip install 'sbdqn[onnx]'"
        ) from error


_FORMATS = {
    ".onnx": _Format(_require_onnx, _write_onnx, _read_onnx),
    ".pt2": _Format(lambda: None, _write_program, _read_program),
}
