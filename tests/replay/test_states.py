"""A damaged state is refused before any of it is taken over, whatever is wrong with it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from sbdqn.errors import CheckpointError, ConfigurationError
from sbdqn.protocols import ReplaySpec
from sbdqn.replay import Prioritized, RingReplay, Uniform
from sbdqn.replay.states import require_integers, require_like
from tests.replay.test_parts import FORMS, NOW, Stacks, built, rows, same
from tests.replay.test_storage import LAYOUT, row_of

Path = tuple[Any, ...]


def of_stacks(spec: ReplaySpec, seed: int, steps: int) -> RingReplay:
    """A replay of stacks, some of which are kept whole."""
    replay = built(spec, FORMS["first"][1], 2, 3, 50)
    envs = [Stacks(seed + index, "own") for index in range(2)]
    for row in rows(envs, AutoresetMode.SAME_STEP, steps, same):
        replay.add(row)
    return replay


def of_numbers(spec: Any, seed: int, steps: int) -> RingReplay:
    """A replay of single numbers, of one environment."""
    replay: RingReplay = spec.build(LAYOUT)
    for t in range(steps):
        event = "terminate" if t % 5 == 4 else "go"
        replay.add(row_of([seed + t], [t / 7], [seed + t + 1], [t % 5 == 0], event))
    return replay


CASES: dict[str, tuple[Callable[[Any, int, int], RingReplay], Any]] = {
    "stacks, uniform": (of_stacks, Uniform()),
    "stacks, prioritized": (of_stacks, Prioritized()),
    "numbers, uniform": (of_numbers, Uniform()),
    "numbers, prioritized": (of_numbers, Prioritized()),
}
RUBBISH = [
    *(None, True, "x", [], {}, [1], {"a": 1}, -1, 3, 200, 0.5, float("nan"), float("inf")),
    *(10**12, 2**63, -(10**40), torch.zeros(0), torch.full((3,), torch.nan), torch.tensor(1)),
]


def paths(state: Any, path: Path = ()) -> Iterator[Path]:
    """Of every place in a nested state, the outermost first."""
    yield path
    if isinstance(state, dict):
        for key in state:
            yield from paths(state[key], (*path, key))
    elif isinstance(state, list):
        for index in range(len(state)):
            yield from paths(state[index], (*path, index))


def at(state: Any, path: Path) -> Any:
    for key in path:
        state = state[key]
    return state


def replaced(state: Any, path: Path, value: Any) -> Any:
    """The state with another value there; what is not on the way is shared."""
    if not path:
        return value
    result = copy.copy(state)
    result[path[0]] = replaced(state[path[0]], path[1:], value)
    return result


def without(state: Any, path: Path) -> Any:
    parent = copy.copy(at(state, path[:-1]))
    del parent[path[-1]]
    return replaced(state, path[:-1], parent)


def changed_tensors(tensor: Tensor) -> Iterator[Tensor]:
    """The same in other shapes, dtypes and numbers."""
    yield tensor[:-1]
    yield torch.cat([tensor, tensor])
    yield tensor[..., None]
    yield tensor.reshape(-1)[:7]
    yield tensor.to(torch.float16)
    yield tensor.to(torch.int64 if tensor.dtype != torch.int64 else torch.int32)
    for number in (0, 1, 2, 3, 100, 254, 255, -1, -2):
        yield torch.full_like(tensor, number % 256 if tensor.dtype == torch.uint8 else number)
        some = tensor.clone()
        some.reshape(-1)[len(some) // 2] = number % 256 if some.dtype == torch.uint8 else number
        yield some
    if tensor.is_floating_point():
        for number in (np.nan, np.inf, -np.inf):
            yield torch.full_like(tensor, number)
    elif tensor.dtype != torch.bool:
        yield torch.full_like(tensor, torch.iinfo(tensor.dtype).max)
        yield torch.full_like(tensor, torch.iinfo(tensor.dtype).min)


def mutations(state: dict[str, Any]) -> Iterator[Any]:
    for path in paths(state):
        here = at(state, path)
        for rubbish in RUBBISH:
            yield replaced(state, path, rubbish)
        if path:
            yield without(state, path)
        if isinstance(here, Tensor):
            for tensor in changed_tensors(here):
                yield replaced(state, path, tensor)
        if isinstance(here, dict):
            yield replaced(state, path, {**here, "more": 1})
        if isinstance(here, list):
            yield replaced(state, path, [*here, *here])
            yield replaced(state, path, here[:-1])


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


@np.errstate(all="ignore")  # rewards may be infinite
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("steps", [4, 90], ids=["begun", "wrapped"])
def test_whatever_is_damaged_nothing_changes_or_the_replay_works(case: str, steps: int) -> None:
    make, spec = CASES[case]
    state = copy.deepcopy(make(spec, 0, steps).state_dict())
    subject, other = make(spec, 7, 40), make(spec, 100, 12)
    before = copy.deepcopy(subject.state_dict())
    outcomes = {"refused": 0, "loaded": 0}
    for mutated in mutations(state):
        try:
            subject.load_state_dict(mutated)
        except Exception:
            outcomes["refused"] += 1
            assert_same(subject.state_dict(), before)
        else:
            outcomes["loaded"] += 1
            require_works(subject, other)
            subject = make(spec, 7, 40)
    assert outcomes["refused"] > 500
    assert outcomes["loaded"] > 20


def require_works(subject: RingReplay, other: RingReplay) -> None:
    """It can be drawn from and written to, as far as its numbers allow."""
    for _ in range(3):
        if subject.sampleable:
            batch = subject.sample(16, NOW)
            assert int(batch.index.max()) < subject.storage.size
            subject.feedback(batch.index, torch.ones(16))
    obs = other.sample(subject.storage.n_envs, NOW).obs.numpy()
    n_envs = len(obs)
    for t in range(60):
        row = row_of(
            range(n_envs), range(n_envs), range(n_envs), [t == 0] * n_envs, ["go"] * n_envs
        )
        subject.add(row._replace(obs=obs, next_obs=obs))
    subject.sample(16, NOW)


STATE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "too many places": (
        lambda state: state["storage"].update(action=torch.zeros(300, dtype=torch.int64)),
        "action: there cannot be 300 places in use of 68",
    ),
    "a share of a row": (
        lambda state: state["storage"].update(action=torch.zeros(9, dtype=torch.int64)),
        "action: there cannot be 9 places",
    ),
    "no tensor": (lambda state: state["storage"].update(reward=5), "reward: it is a int"),
    "another dtype": (
        lambda state: state["storage"].update(span=state["storage"]["span"].long()),
        r"span: torch.int64 of shape \(68,\) in place of torch.int32 of shape \(68,\)",
    ),
    "a span that is too long": (
        lambda state: state["storage"]["span"].fill_(4),
        "span: its numbers are not from -1 to 3",
    ),
    "a row that is not there": (
        lambda state: state["storage"].update(row=[60, 0]),
        "row: it must be a list of 2 integers from 0 to 33",
    ),
    "a part that is not there": (
        lambda state: state["storage"].update(obs={"a": {}}),
        r"obs: its parts are \['a'\], not \[''\]",
    ),
    "a size that is none": (
        lambda state: state["storage"]["holds"].update(rows=0),
        "rows: 0 is no number of them",
    ),
    "observations that are none": (
        lambda state: state["storage"]["holds"].update(observations=3),
        "observations: it is a int",
    ),
    "another table of contents": (
        lambda state: state["storage"]["holds"].pop("rows"),
        r"holds: it names \['environments', 'n_steps', 'observations'\], not",
    ),
    "a frame that is too far": (
        lambda state: state["storage"]["obs"][""]["last_history"].fill_(200),
        "last_history: frames are more than 8 rows away",
    ),
    "whole observations elsewhere": (
        lambda state: state["storage"]["obs"][""]["whole_place"].fill_(3),
        "whole_place: these observations are not kept whole",
    ),
    "a padding that is neither": (
        lambda state: state["storage"]["obs"][""].update(has_padding=2),
        "has_padding: 2 is no truth value",
    ),
    "a priority of nothing": (
        lambda state: state["rule"]["priority"].fill_(1.0),
        "priority: its numbers are not those of transitions",
    ),
    "an infinite priority": (
        lambda state: state["rule"].update(
            priority=torch.where(state["storage"]["span"] > 0, torch.inf, 0.0).double()
        ),
        "priority: its numbers are not those of transitions",
    ),
    "a highest priority of 0": (
        lambda state: state["rule"].update(highest=0.0),
        "highest: 0.0 is no priority",
    ),
}


@pytest.mark.parametrize("case", STATE)
def test_the_damage_is_named(case: str) -> None:
    change, complaint = STATE[case]
    state = copy.deepcopy(of_stacks(Prioritized(), 0, 90).state_dict())
    change(state)
    with pytest.raises(CheckpointError, match=f"the state of the replay is damaged: {complaint}"):
        of_stacks(Prioritized(), 1, 10).load_state_dict(state)


def test_priorities_that_were_made_otherwise_are_no_damage() -> None:
    state = of_numbers(Prioritized(alpha=0.5), 0, 10).state_dict()
    with pytest.raises(ConfigurationError, match="the stored one with"):
        of_numbers(Prioritized(), 0, 10).load_state_dict(state)


def test_a_tensor_is_like_an_array_of_its_shape_and_dtype() -> None:
    require_like({"a": torch.ones(2, 3)}, "a", np.zeros((2, 3), np.float32))
    require_like({"a": torch.ones(2, 3)}, "a", torch.zeros(2, 3))
    for other in (torch.ones(3, 2), torch.ones(2, 3).double(), np.ones((2, 3), np.float32)):
        with pytest.raises(CheckpointError, match="the state of the replay is damaged: a: "):
            require_like({"a": other}, "a", torch.zeros(2, 3))


@pytest.mark.parametrize(
    "given", [None, [1], [1, 2, 3], [1, -1], [1, 5], [1, 2.0], [1, True], (1, 2)]
)
def test_integers_are_counted_and_bounded(given: Any) -> None:
    require_integers({"a": [0, 4]}, "a", 2, 5)
    with pytest.raises(CheckpointError, match="a: it must be a list of 2 integers from 0 to 4"):
        require_integers({"a": given}, "a", 2, 5)
