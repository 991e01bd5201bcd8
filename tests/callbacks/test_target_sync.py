"""The target network follows the online network, and who else may move it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from sbdqn import DQN
from sbdqn.callbacks import BaseCallback, EveryNTimesteps, TargetSync, TargetUpdate
from sbdqn.errors import ConfigurationError
from sbdqn.types import Batch, Loss
from tests.callbacks.models import small

ENDLESS = {"env_kwargs": {"lengths": (1000,)}}


def flat(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in network.parameters()]).clone()


def history(model: DQN, steps: int, callback: Any = None) -> list[str | float]:
    """Updates ("u") and syncs (their tau) in the order in which they happened."""
    events: list[str | float] = []
    update, sync = model.learner.update_several, model.learner.sync

    def noted_update(batches: Sequence[Batch], shares: Sequence[float]) -> list[Loss]:
        losses = []
        for batch, share in zip(batches, shares, strict=True):
            events.append("u")
            losses += update([batch], [share])
        return losses

    def noted_sync(tau: float) -> None:
        events.append(round(tau, 9))
        sync(tau)

    model.learner.update_several = noted_update  # type: ignore[method-assign]
    model.learner.sync = noted_sync  # type: ignore[method-assign]
    model.learn(steps, callback=callback)
    return events


def test_the_target_is_a_copy_at_every_interval_and_stands_still_between() -> None:
    equal, moved = [], []
    before = None

    class Look(BaseCallback):
        def _on_step(self) -> bool:
            nonlocal before
            # The updates of this step are still to come.
            target = flat(self.model.q_net_target)
            equal.append(torch.equal(target, flat(self.model.q_net)))
            moved.append(before is not None and not torch.equal(target, before))
            before = target
            return True

    model = small(learning_starts=0, target_update_interval=5, tau=1.0, **ENDLESS)
    model.learn(16, callback=Look())
    # Steps count from 1; the sync of step 5 is seen at step 6.
    assert [step for step, same in enumerate(equal, 1) if same] == [1, 6, 11, 16]
    assert [step for step, changed in enumerate(moved, 1) if changed] == [6, 11, 16]


def test_a_soft_update_blends_by_tau() -> None:
    model = small(learning_starts=0, target_update_interval=1, tau=0.25, **ENDLESS)
    expected = flat(model.q_net_target)

    class Follow(BaseCallback):
        def _on_update(self) -> None:
            nonlocal expected
            expected = 0.75 * expected + 0.25 * flat(self.model.q_net)

    model.learn(12, callback=Follow())
    torch.testing.assert_close(flat(model.q_net_target), expected)


def test_syncs_come_after_the_updates_of_their_transition() -> None:
    model = small(learning_starts=0, target_update_interval=3, tau=1.0, **ENDLESS)
    assert history(model, 7) == ["u", "u", "u", 1.0, "u", "u", "u", 1.0, "u"]


def test_syncs_between_two_updates_are_one_of_the_same_effect() -> None:
    model = small(learning_starts=0, train_freq=4, target_update_interval=1, tau=0.5, **ENDLESS)
    # Transitions 1 to 3, the update of transition 4, then 4 to 7.
    assert history(model, 8) == [0.5, 0.5, 0.5, "u", 0.5, 0.5, 0.5, 0.5, "u", 0.5]


@pytest.mark.parametrize(
    ("train_freq", "interval"), [(1, 1), (1, 3), (1, 7), (3, 1), (4, 6), (2, 3), (8, 3)]
)
def test_one_and_many_environments_make_the_same_updates_and_blends(
    train_freq: int, interval: int
) -> None:
    blends = []
    for n_envs in (1, 4):
        model = small(
            n_envs=n_envs,
            train_freq=train_freq,
            target_update_interval=interval,
            tau=0.5,
            learning_starts=8,
            **ENDLESS,
        )
        # What matters is the share that is left of the old target between two updates.
        shares: list[float] = [1.0]
        for event in history(model, 48):
            if event == "u":
                shares.append(1.0)
            else:
                shares[-1] *= 1.0 - float(event)
        blends.append(shares)
    np.testing.assert_allclose(blends[0], blends[1])
    assert len(blends[0]) == 40 // train_freq + 1


def test_the_interval_goes_on_over_two_learns() -> None:
    model = small(learning_starts=0, target_update_interval=10, tau=1.0, **ENDLESS)
    events = history(model, 7)
    assert 1.0 not in events
    model.learn(3)
    assert torch.equal(flat(model.q_net_target), flat(model.q_net))


def test_one_passed_to_learn_replaces_the_default() -> None:
    model = small(learning_starts=0, target_update_interval=1, tau=0.01, **ENDLESS)
    events = history(model, 9, [BaseCallback(), TargetSync(interval=4, tau=0.5)])
    assert [event for event in events if event != "u"] == [0.5, 0.5]


def test_one_within_nested_lists_replaces_it_too() -> None:
    model = small(learning_starts=0, target_update_interval=1, tau=0.01, **ENDLESS)
    events = history(model, 9, [BaseCallback(), [BaseCallback(), TargetSync(4, 0.5)]])
    assert [event for event in events if event != "u"] == [0.5, 0.5]


def test_one_within_an_event_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"its own clock.*not inside EveryNTimesteps"):
        small().learn(9, callback=EveryNTimesteps(5, TargetSync()))


def test_what_it_is_not_told_is_the_models() -> None:
    model = small(learning_starts=0, target_update_interval=3, tau=0.5, **ENDLESS)
    events = history(model, 9, TargetSync(tau=0.25))
    assert [event for event in events if event != "u"] == [0.25] * 3
    model = small(learning_starts=0, target_update_interval=3, tau=0.5, **ENDLESS)
    events = history(model, 9, TargetSync(interval=9))
    assert [event for event in events if event != "u"] == [0.5]


def test_ones_own_target_update_takes_its_place() -> None:
    class WhenTold(TargetUpdate):
        def _on_step(self) -> bool:
            if self.num_timesteps == 6:
                self.model.learner.sync(0.5)
            return True

    model = small(learning_starts=0, target_update_interval=1, tau=0.01, **ENDLESS)
    events = history(model, 20, WhenTold())
    assert [event for event in events if event != "u"] == [0.5]


def test_without_a_target_network_there_is_nothing_to_sync() -> None:
    model = small(learning_starts=0, target_update_interval=None, **ENDLESS)
    assert model.q_net_target is model.q_net
    assert history(model, 5) == ["u"] * 5
    with pytest.raises(ConfigurationError, match="TargetSync needs a target network"):
        model.learn(5, callback=TargetSync())


@pytest.mark.parametrize("interval", [0, -1])
def test_an_interval_is_at_least_one(interval: int) -> None:
    assert TargetSync(interval=1, tau=1).interval == 1
    with pytest.raises(ConfigurationError, match=f"interval must be at least 1, not {interval}"):
        TargetSync(interval=interval)


@pytest.mark.parametrize("tau", [0, -0.5, 1.5])
def test_tau_is_a_share(tau: float) -> None:
    with pytest.raises(ConfigurationError, match=f"tau must be above 0 and at most 1, not {tau}"):
        TargetSync(tau=tau)
