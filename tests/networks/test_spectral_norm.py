"""Spectral norm: what it divides, when its estimate moves, and who gets a copy."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sbdqn.backups import Double
from sbdqn.heads import Scalar
from sbdqn.learner import Learner
from sbdqn.networks import FlatParameters, Impala, MlpPolicy, QNetwork
from sbdqn.types import Batch, Purpose

SPACE = spaces.Box(0, 255, (8, 8, 2), np.uint8)
NORMED = partial(Impala, spectral_norm=True)
POLICY = MlpPolicy(net_arch=(), features_extractor=NORMED)


def images(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 8, 8, 2), dtype=torch.uint8, generator=generator)


def network(seed: int = 0) -> QNetwork:
    torch.manual_seed(seed)
    return POLICY.build(SPACE, 3, Scalar())


def estimates(module: nn.Module) -> Tensor:
    """The vectors u and v of all layers, in one."""
    found = [each for name, each in module.named_buffers() if name.endswith(("._u", "._v"))]
    assert len(found) == 2 * 12
    return torch.cat([each.clone() for each in found])


def residual_convolutions(body: nn.Module) -> list[Any]:
    return [each for each in body.modules() if parametrize.is_parametrized(each)]


def largest_singular_value(weight: Tensor) -> float:
    return float(torch.linalg.matrix_norm(weight.detach().flatten(1), 2))


def batch(seed: int = 0) -> Batch:
    return Batch(
        obs=images(4, seed),
        action=torch.tensor([0, 1, 2, 0]),
        reward=torch.tensor([1.0, -1.0, 0.5, 2.0]),
        next_obs=images(4, seed + 100),
        discount=torch.full((4,), 0.9),
        weight=torch.ones(4),
        index=torch.arange(4),
    )


def learner(compile: bool = False) -> Learner:
    made = Learner(network(0), network(1), Scalar(), Double(), compile=compile)
    made.set_optimizer(POLICY.build_optimizer(made.flat, 1e-3))
    return made


def test_the_twelve_residual_convolutions_are_divided_by_their_largest_singular_value() -> None:
    torch.manual_seed(0)
    body = NORMED(SPACE)
    assert [type(body[at]) for at in (1, 5, 9)] == [nn.Conv2d] * 3  # those of the sections are not
    layers = residual_convolutions(body)
    assert len(layers) == 12
    with torch.no_grad():
        for layer in layers:
            layer.parametrizations.weight.original.mul_(7.0)
        for _ in range(200):
            body(images(1))
    body.eval()
    for layer in layers:
        original = layer.parametrizations.weight.original
        norm = largest_singular_value(original)
        assert norm > 2.0
        torch.testing.assert_close(layer.weight, original / norm, rtol=1e-3, atol=1e-5)
        assert largest_singular_value(layer.weight) == pytest.approx(1.0, abs=1e-3)


def test_without_it_nothing_is_divided() -> None:
    assert residual_convolutions(Impala(SPACE)) == []


def test_it_adds_nothing_to_learn() -> None:
    counts = [sum(p.numel() for p in body(SPACE).parameters()) for body in (Impala, NORMED)]
    assert counts[0] == counts[1]


def test_the_estimate_moves_when_learning_and_at_no_other_time() -> None:
    net = network()
    for purpose in Purpose:
        with torch.no_grad():  # so that the estimate is not yet exact
            for layer in residual_convolutions(net):
                original = layer.parametrizations.weight.original
                original.copy_(torch.randn_like(original))
        before = estimates(net)
        net.predict(images(2), purpose)
        assert torch.equal(estimates(net), before) is (purpose is not Purpose.LEARN), purpose


@pytest.mark.parametrize("purpose", [Purpose.EVALUATE, Purpose.ACT, Purpose.TARGET])
def test_predictions_that_are_not_learned_from_are_equal_to_the_bit(purpose: Purpose) -> None:
    net = network()
    net.predict(images(2), Purpose.LEARN)
    values = [net.q(images(3), purpose) for _ in range(2)]
    assert torch.equal(*values)


def test_the_target_network_gets_the_estimate_at_a_sync_whole_even_where_weights_are_blended() -> (
    None
):
    made = learner()
    for tau in (1.0, 0.25):
        made.update(batch())
        online, target = estimates(made.online), estimates(made.target)
        assert not torch.equal(online, target)
        made.sync(tau)
        assert torch.equal(estimates(made.online), online)
        assert torch.equal(estimates(made.target), online)


def test_an_update_moves_the_estimate_of_the_online_network_alone() -> None:
    made = learner()
    online, target = estimates(made.online), estimates(made.target)
    made.update(batch())
    assert not torch.equal(estimates(made.online), online)
    assert torch.equal(estimates(made.target), target)


def test_after_a_sync_the_target_network_says_what_the_online_network_says() -> None:
    made = learner()
    for step in range(3):
        made.update(batch(step))
    made.sync(1.0)
    obs = images(5, seed=9)
    assert torch.equal(made.target(obs), made.online(obs))


def test_the_estimate_is_not_optimised() -> None:
    flat = FlatParameters(network())
    assert len(flat.others) == 2 * 12
    assert all(not each.requires_grad for each in flat.others)


def test_the_weights_before_division_are_views_of_the_flat_tensor() -> None:
    net = network()
    flat = FlatParameters(net)
    (layer, *_) = residual_convolutions(net)
    with torch.no_grad():
        flat.values.fill_(0.5)
    assert (layer.parametrizations.weight.original == 0.5).all()


def test_all_that_is_random_is_drawn_when_the_network_is_made() -> None:
    assert torch.equal(estimates(network(3)), estimates(network(3)))
    assert not torch.equal(estimates(network(3)), estimates(network(4)))
    made = learner()
    state = torch.get_rng_state()
    made.update(batch())
    made.online(images(1))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_users_generator_does_not_change_an_update() -> None:
    values = []
    for noise in (1, 2):
        made = learner()
        torch.manual_seed(noise)
        made.update(batch())
        values.append(made.flat.values.detach().clone())
    assert torch.equal(*values)


def test_a_copy_and_a_loaded_state_go_on_alike() -> None:
    net = network()
    net.predict(images(2), Purpose.LEARN)
    copied, loaded = copy.deepcopy(net), network(5)
    loaded.load_state_dict(copy.deepcopy(net.state_dict()))
    for other in (copied, loaded):
        assert torch.equal(other(images(2)), net(images(2)))
    after = [each.q(images(2), Purpose.LEARN) for each in (net, copied, loaded)]
    assert torch.equal(after[0], after[1])
    assert torch.equal(after[0], after[2])
    assert torch.equal(estimates(net), estimates(copied))
    assert torch.equal(estimates(net), estimates(loaded))


def test_a_copy_shares_nothing() -> None:
    net = network()
    copied, before = copy.deepcopy(net), estimates(net)
    copied.predict(images(2), Purpose.LEARN)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert torch.equal(estimates(net), before)
    assert net(images(2)).abs().sum() > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0:RuntimeWarning")
def test_a_compiled_update_is_one_graph_with_the_same_outcome(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compile_ = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda f, **_: compile_(f, backend="eager", fullgraph=True)
    )
    plain, compiled = learner(), learner(compile=True)
    for step in range(3):
        for each in (plain, compiled):
            each.update(batch(step))
    torch.testing.assert_close(compiled.flat.values, plain.flat.values, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(estimates(compiled.online), estimates(plain.online))
    assert torch.equal(estimates(compiled.target), estimates(plain.target))
