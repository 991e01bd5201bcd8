"""Seeded blocks: what is drawn in them, and what they leave behind."""

from __future__ import annotations

import pytest
import torch

from sbdqn import DQN, recipes
from sbdqn.networks import seeded

CPU = torch.device("cpu")


def test_the_seed_says_what_is_drawn_and_the_users_generator_goes_on() -> None:
    torch.manual_seed(0)
    undisturbed = torch.rand(4)
    torch.manual_seed(0)
    first = torch.rand(2)
    with seeded(5, CPU):
        inside = torch.rand(3)
    with pytest.raises(ZeroDivisionError), seeded(5, CPU):
        torch.rand(1 // 0)
    assert torch.cat([first, torch.rand(2)]).tolist() == undisturbed.tolist()
    assert inside.tolist() == torch.rand(3, generator=torch.Generator().manual_seed(5)).tolist()


@pytest.mark.parametrize("name", ["cuda:1", "cuda"])
def test_on_a_gpu_its_own_generator_is_seeded_too_and_restored(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = (torch.Generator().manual_seed(1), torch.Generator().manual_seed(2))
    monkeypatch.setattr(torch.cuda, "default_generators", gpus)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    with seeded(5, torch.device(name)):
        assert [gpu.initial_seed() for gpu in gpus] == [1, 5]
        torch.rand(3, generator=gpus[1])
    expected = torch.rand(3, generator=torch.Generator().manual_seed(2))
    assert torch.rand(3, generator=gpus[1]).tolist() == expected.tolist()


def test_a_model_on_the_cpu_leaves_the_generators_of_gpus_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(seed: int) -> None:
        raise AssertionError("somebody seeded all devices")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    small = {**recipes.rainbow_classic, "learning_starts": 20}
    DQN("MlpPolicy", "CartPole-v1", **small, seed=0, device="cpu").learn(60)
