"""The progress bar."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import tqdm.auto

from sbdqn.callbacks import ProgressBarCallback
from sbdqn.errors import MissingDependencyError
from tests.callbacks.models import Recorder, small

ENDLESS = {"env_kwargs": {"lengths": (1000,)}}


class Bar:
    """Stands for tqdm."""

    made: list[Bar] = []  # noqa: RUF012, reset by a fixture

    def __init__(self, total: int, **kwargs: Any) -> None:
        self.total, self.updates, self.closed = total, [], False  # type: ignore[var-annotated]
        self.made.append(self)

    def update(self, n: int) -> None:
        self.updates.append(n)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    monkeypatch.setattr(Bar, "made", [])
    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    return Bar.made


@pytest.mark.parametrize(("n_envs", "updates"), [(1, [1] * 20), (4, [4] * 5)])
def test_it_goes_from_nothing_to_all_in_timesteps(
    bars: list[Bar], n_envs: int, updates: list[int]
) -> None:
    small(n_envs=n_envs, **ENDLESS).learn(20, progress_bar=True)
    (bar,) = bars
    assert (bar.total, bar.updates, bar.closed) == (20, updates, True)


def test_a_second_learn_has_a_bar_of_its_own(bars: list[Bar]) -> None:
    small(**ENDLESS).learn(20, progress_bar=True).learn(30, progress_bar=True)
    assert [(bar.total, sum(bar.updates)) for bar in bars] == [(20, 20), (30, 30)]


def test_it_is_a_callback_like_any_other(bars: list[Bar]) -> None:
    small(**ENDLESS).learn(10, callback=[ProgressBarCallback(), Recorder(stop_at=4)])
    assert [(bar.total, sum(bar.updates), bar.closed) for bar in bars] == [(10, 4, True)]


def test_it_is_closed_when_training_fails(bars: list[Bar]) -> None:
    def fail(locals_: Any, globals_: Any) -> None:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        small().learn(10, callback=fail, progress_bar=True)
    assert bars[0].closed


def test_without_asking_there_is_none(bars: list[Bar]) -> None:
    small().learn(10)
    assert bars == []


def test_it_is_tqdms_own(capsys: pytest.CaptureFixture[str]) -> None:
    small(**ENDLESS).learn(20, progress_bar=True)
    assert "20/20" in capsys.readouterr().err


def test_without_tqdm_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'sbdqn\[progress\]'"):
        small().learn(10, progress_bar=True)
