"""How many threads torch uses while a model learns, and that the program's number comes back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from sbdqn import DQN, CnnPolicy, heads
from sbdqn.backups import Double
from sbdqn.callbacks import BaseCallback
from sbdqn.learner import Learner
from sbdqn.threads import LARGEST_ON_ONE_THREAD, _blas, threads_to_learn_with, threads_within
from sbdqn.types import Batch, Loss

PROGRAMS = 3


@pytest.fixture(autouse=True)
def threads_of_the_program() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(PROGRAMS)
    yield
    torch.set_num_threads(before)


class Witness(BaseCallback):
    """Remembers the threads at each hook, and may do something at a step."""

    def __init__(self, at_step: Any = None) -> None:
        super().__init__()
        self.seen: set[int] = set()
        self._at_step = at_step

    def _look(self) -> None:
        self.seen.add(torch.get_num_threads())

    def _on_training_start(self) -> None:
        self._look()

    def _on_step(self) -> bool:
        self._look()
        if self._at_step is not None:
            self._at_step()
        return True

    def _on_update(self) -> None:
        self._look()

    def _on_training_end(self) -> None:
        self._look()


def small(**parameters: Any) -> DQN:
    settings = {"learning_starts": 8, "batch_size": 4, "n_steps": 1, **parameters}
    return DQN("MlpPolicy", "CartPole-v1", device="cpu", **settings)


def raising(error: BaseException) -> Any:
    def act() -> None:
        raise error

    return act


def test_a_small_network_learns_on_one_thread() -> None:
    witness = Witness()
    model = small().learn(20, witness)
    assert model._n_updates > 0
    assert witness.seen == {1}
    assert torch.get_num_threads() == PROGRAMS


def test_a_large_network_learns_on_as_many_threads_as_the_program_has() -> None:
    witness = Witness()
    small(policy_kwargs={"net_arch": (1200, 1200)}).learn(16, witness)
    assert witness.seen == {PROGRAMS}


@pytest.mark.parametrize(("chosen", "used"), [(None, PROGRAMS), (2, 2), (PROGRAMS, PROGRAMS)])
def test_the_number_can_be_chosen(chosen: int | None, used: int) -> None:
    witness = Witness()
    small(threads=chosen).learn(16, witness)
    assert witness.seen == {used}
    assert torch.get_num_threads() == PROGRAMS


def test_the_number_can_be_chosen_between_two_calls() -> None:
    model, witness = small(), Witness()
    model.learn(16)
    model.threads = 2
    model.learn(16, witness)
    assert witness.seen == {2}


def test_the_programs_number_comes_back_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError):
        small().learn(16, Witness(raising(ZeroDivisionError())))
    assert torch.get_num_threads() == PROGRAMS


def test_the_programs_number_comes_back_after_ctrl_c() -> None:
    model = small().learn(16, Witness(raising(KeyboardInterrupt())))
    assert model.num_timesteps == 1
    assert torch.get_num_threads() == PROGRAMS


def test_a_number_that_a_callback_chooses_stays() -> None:
    witness = Witness(lambda: torch.set_num_threads(2))
    small().learn(16, witness)
    assert witness.seen == {1, 2}
    assert torch.get_num_threads() == 2


def test_train_uses_one_thread_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small().learn(16)
    seen, update = [], model.learner.update_several

    def watched(batches: list[Batch], shares: list[float]) -> list[Loss]:
        seen.append(torch.get_num_threads())
        return update(batches, shares)

    monkeypatch.setattr(model.learner, "update_several", watched)
    model.train(2)
    assert seen == [1]
    assert torch.get_num_threads() == PROGRAMS


def test_the_border_is_parameters_times_rows() -> None:
    learner = small(policy_kwargs={"net_arch": (100,), "layer_norm": False}).learner
    parameters = 4 * 100 + 100 + 100 * 2 + 2
    largest = LARGEST_ON_ONE_THREAD // parameters
    assert threads_to_learn_with("auto", learner, largest) == 1
    assert threads_to_learn_with("auto", learner, largest + 1) is None


def test_weights_that_are_used_many_times_in_a_row_keep_the_programs_number() -> None:
    space, policy = spaces.Box(0, 255, (4, 36, 36), np.uint8), CnnPolicy((8,))
    online, target = (policy.build(space, 2, heads.Scalar()) for _ in range(2))
    images = Learner(online, target, heads.Scalar(), Double())
    fractions = small(head=heads.ImplicitQuantile()).learner
    quantiles = small(head=heads.Quantile()).learner
    answers = [threads_to_learn_with("auto", each, 1) for each in (images, fractions, quantiles)]
    assert answers == [None, None, 1]


def test_nothing_is_set_where_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda count: pytest.fail("it was set"))
    for count in (None, PROGRAMS):
        with threads_within(count):
            assert torch.get_num_threads() == PROGRAMS


@pytest.mark.parametrize("wanted", ["auto", 2])
def test_numpys_products_have_as_many_threads(wanted: Any) -> None:
    before = [get() for get, _ in _blas()]
    seen: list[int] = []
    try:
        for _, choose in _blas():
            choose(PROGRAMS)
        model = small(threads=wanted)
        model.learn(20, lambda *_: seen.extend(get() for get, _ in _blas()))
        assert set(seen) <= {1 if wanted == "auto" else wanted}
        assert bool(seen) == bool(_blas())
        assert all(get() == PROGRAMS for get, _ in _blas())
    finally:
        for count, (_, choose) in zip(before, _blas(), strict=True):
            choose(count)
