"""A chain of layers by hand says and learns what torch's modules and autograd do."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sbdqn.networks.layers import Chain, quietly

CHAINS: dict[str, Callable[[], list[nn.Module]]] = {
    "one linear": lambda: [nn.Linear(3, 2)],
    "relu": lambda: [nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)],
    "tanh": lambda: [nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)],
    "layer norm": lambda: [
        nn.Linear(3, 8),
        nn.LayerNorm(8),
        nn.ReLU(),
        nn.Linear(8, 5),
        nn.LayerNorm(5),
        nn.Tanh(),
        nn.Linear(5, 2),
    ],
    "layer norm first": lambda: [nn.LayerNorm(3, eps=0.5), nn.Linear(3, 2)],
    "no bias": lambda: [
        nn.Linear(3, 8, bias=False),
        nn.LayerNorm(8, bias=False),
        nn.ReLU(),
        nn.LayerNorm(8, elementwise_affine=False),
        nn.Linear(8, 2, bias=False),
    ],
}


@pytest.fixture(params=CHAINS, ids=lambda name: name.replace(" ", "_"))
def layers(request: pytest.FixtureRequest) -> list[nn.Module]:
    torch.manual_seed(0)
    layers = CHAINS[request.param]()
    for layer in layers:
        for weight in layer.parameters():
            nn.init.normal_(weight)
            weight.grad = torch.full_like(weight, 7.0)  # to be overwritten, not added to
    return layers


def on_array(chain: Chain, obs: Tensor) -> Any:
    assert chain.find_arrays()
    return quietly(chain.outputs_of_few, obs.numpy())


def inputs(n: int = 16) -> Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("n", [1, 16])
def test_gradients_equal_those_of_autograd(layers: list[nn.Module], n: int) -> None:
    obs, slope, share = inputs(n), torch.randn(n, 2), torch.rand(n) + 0.5
    plain = copy.deepcopy(nn.Sequential(*layers))
    plain.zero_grad()
    expected = plain(obs)
    expected.backward(slope)

    chain = Chain(layers)
    assert chain.find_arrays()
    outputs, kept = chain.run(obs.numpy())
    chain.differentiate(kept, (slope / share[:, None]).numpy(), share.numpy())

    torch.testing.assert_close(torch.from_numpy(outputs), expected, rtol=1e-5, atol=1e-6)
    for layer, theirs in zip(layers, plain, strict=True):
        for mine, other in zip(layer.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_arrays_give_what_tensors_do(layers: list[nn.Module], n: int) -> None:
    obs = inputs(n)
    outputs = on_array(Chain(layers), obs)
    assert outputs.dtype == np.float32
    expected = nn.Sequential(*layers)(obs).detach().numpy()
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [np.inf, np.nan, 1e38, 3e38])
def test_arrays_are_as_quiet_as_tensors_about_what_is_not_finite(
    layers: list[nn.Module], value: float
) -> None:
    obs = torch.full((1, 3), value)
    outputs = on_array(Chain(layers), obs)  # a warning would be an error
    expected = nn.Sequential(*layers)(obs).detach().numpy()
    if not any(isinstance(layer, nn.LayerNorm) for layer in layers):  # whose squares overflow
        np.testing.assert_array_equal(np.isfinite(outputs), np.isfinite(expected))  # type: ignore[arg-type]


class Doubling(nn.Linear):
    """Somebody's layer: not what its base class is."""

    def forward(self, inputs: Tensor) -> Tensor:
        return 2 * super().forward(inputs)


def test_only_layers_known_exactly_are_taken() -> None:
    assert Chain.knows([nn.Linear(3, 2), nn.ReLU(), nn.LayerNorm(2), nn.Tanh()])
    assert not Chain.knows([nn.Linear(3, 2), nn.GELU()])
    assert not Chain.knows([Doubling(3, 2)])
    assert not Chain.knows([nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2))])


def replace(layer: nn.Linear) -> None:
    layer.weight = nn.Parameter(torch.ones(2, 8))


def move(layer: nn.Linear) -> None:
    layer.weight.data = torch.ones(2, 8)


def change(layer: nn.Linear) -> None:
    nn.init.ones_(layer.weight)


@pytest.mark.parametrize("touch", [replace, move, change])
def test_arrays_follow_weights_whatever_becomes_of_them(touch: Callable[[nn.Linear], None]) -> None:
    torch.manual_seed(0)
    layers = CHAINS["relu"]()
    chain = Chain(layers)
    before = on_array(chain, inputs())
    assert isinstance(layers[2], nn.Linear)
    touch(layers[2])
    after = on_array(chain, inputs())
    expected = nn.Sequential(*layers)(inputs()).detach().numpy()
    assert not np.allclose(before, expected)  # type: ignore[arg-type]
    np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda chain: pickle.loads(pickle.dumps(chain))]
)
def test_a_copy_has_weights_of_its_own(duplicate: Callable[[Chain], Chain]) -> None:
    torch.manual_seed(0)
    layers = CHAINS["tanh"]()
    chain = Chain(layers)
    before = on_array(chain, inputs())
    other = duplicate(chain)
    for layer in layers:
        for weight in layer.parameters():
            nn.init.zeros_(weight)
    np.testing.assert_array_equal(on_array(other, inputs()), before)  # type: ignore[arg-type]
    assert not on_array(chain, inputs()).any()  # type: ignore[union-attr]


@pytest.mark.parametrize("which", [0, 1])
def test_gradients_go_where_they_are_now(which: int) -> None:
    layers = CHAINS["relu"]()
    chain = Chain(layers)
    weight = (layers[0].weight, layers[2].bias)[which]
    assert isinstance(weight, Tensor)
    for each in nn.Sequential(*layers).parameters():
        each.grad = torch.zeros_like(each)
    mine, weight.grad = weight.grad, torch.zeros_like(weight)  # as `backward` may do
    assert chain.find_arrays()
    elsewhere, weight.grad = weight.grad, mine
    assert chain.find_arrays()
    kept = chain.run(inputs().numpy())[1]
    chain.differentiate(kept, np.ones((16, 2), np.float32), np.ones(16, np.float32))
    assert mine is not None
    assert mine.any()
    assert not elsewhere.any()


def test_weights_elsewhere_are_left_to_torch() -> None:
    assert not Chain([nn.Linear(3, 2, device="meta")]).find_arrays()
