"""Targets and losses are those of RLax, which was written independently.

It is in the extra `reference`, apart from the other tests' needs because it brings JAX along.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sbdqn.backups import Double, Greedy
from sbdqn.heads import Categorical, ImplicitQuantile, Quantile, Scalar
from sbdqn.protocols import Backup, Head
from sbdqn.types import Batch, Prediction

pytestmark = pytest.mark.skipif(find_spec("rlax") is None, reason="needs rlax")

B, A, N, M = 300, 4, 11, 7
SUPPORT = Categorical(atoms=N, low=-3.0, high=5.0)
KAPPAS = [0.0, 0.3, 1.0, 2.5]
BACKUPS = {"greedy": Greedy(), "double": Double()}

Arrays = dict[str, Any]


def answer_of_rlax(asked: str, answered: str) -> None:
    """Run alone in a process of its own: where JAX has run, it warns of every later fork."""
    from functools import partial

    import jax
    import jax.numpy as jnp
    import numpy as np
    import rlax

    def last(actions):  # from (B, A, N) to (B, N, A), as RLax has quantiles, and back
        return actions.swapaxes(1, 2)

    def loss_and_gradient(loss, in_axes=0):
        return jax.vmap(jax.value_and_grad(loss), in_axes)

    @jax.jit
    def answer(given):
        transition = given["action"], given["reward"], given["discount"]
        present, following = given["present"], given["next"]  # logits, or quantiles
        believed = {"greedy": following, "double": given["online"]}
        atoms, midpoints = given["atoms"], given["midpoints"]

        q = given["present_q"], *transition, given["next_q"]
        result = {
            "greedy_error": jax.vmap(rlax.q_learning)(*q),
            "double_error": jax.vmap(rlax.double_q_learning)(*q, given["online_q"]),
        }
        for name in believed:
            result[f"{name}_huber"] = rlax.huber_loss(result[f"{name}_error"])
            result[f"{name}_square"] = 2.0 * rlax.l2_loss(result[f"{name}_error"])

        def categorical_target(reward, discount, logits, q):
            probabilities = jax.nn.softmax(logits[jnp.argmax(q)])
            return rlax.categorical_l2_project(reward + discount * atoms, probabilities, atoms)

        q = {name: jax.nn.softmax(logits, axis=2) @ atoms for name, logits in believed.items()}
        for name in believed:
            result[f"{name}_categorical_target"] = jax.vmap(categorical_target)(
                *transition[1:], following, q[name]
            )
        result["greedy_categorical"] = loss_and_gradient(
            lambda x, a, r, d, y: rlax.categorical_q_learning(atoms, x, a, r, d, atoms, y)
        )(present, *transition, following)
        result["double_categorical"] = loss_and_gradient(
            lambda x, a, r, d, y, q: rlax.categorical_double_q_learning(
                atoms, x, a, r, d, atoms, y, q
            )
        )(present, *transition, following, q["double"])

        for kappa in kappas:
            quantile = partial(rlax.quantile_q_learning, huber_param=kappa)
            for name, selector in believed.items():
                value, gradient = loss_and_gradient(quantile, (0, None, 0, 0, 0, 0, 0))(
                    last(present), midpoints, *transition, last(selector), last(following)
                )
                result[f"{name}_quantile_{kappa:.1f}"] = value, last(gradient)
            result[f"regression_{kappa:.1f}"] = loss_and_gradient(
                partial(rlax.quantile_regression_loss, huber_param=kappa)
            )(given["predicted"], given["fractions"], given["aimed"])
        return result

    given = dict(np.load(asked))
    kappas = given.pop("kappas").tolist()
    result = answer(given)
    pairs = {name: both for name, both in result.items() if isinstance(both, tuple)}
    for name, (value, gradient) in pairs.items():
        result |= {name: value, f"{name}_gradient": gradient}
    np.savez(answered, **result)


def random_inputs() -> Arrays:
    """Returns of 1 to 5 steps, a quarter of them terminal; some rewards far beyond the support."""
    rng = np.random.default_rng(0)
    draw = {name: 2 * rng.standard_normal((B, A, N)) for name in ("present", "next", "online")}
    scalars = {f"{name}_q": 2 * rng.standard_normal((B, A)) for name in draw}
    reward = rng.choice([0.5, 2.0, 20.0], B) * rng.standard_normal(B)
    reward[:50] = rng.integers(-3, 6, 50)  # exactly on the support's ends, and on atoms
    discount = 0.97 ** rng.integers(1, 6, B) * (rng.random(B) > 0.25)
    floats = draw | scalars | {"reward": reward, "discount": discount}
    floats |= {
        "predicted": 2 * rng.standard_normal((B, N)),
        "fractions": rng.random((B, N)),
        "aimed": 2 * rng.standard_normal((B, M)),
        "midpoints": (np.arange(N) + 0.5) / N,
        "atoms": np.linspace(SUPPORT.low, SUPPORT.high, N),
        "kappas": np.array(KAPPAS),
    }
    inputs = {name: array.astype(np.float32) for name, array in floats.items()}
    return inputs | {"action": rng.integers(0, A, B).astype(np.int32)}


@pytest.fixture(scope="module")
def inputs() -> Arrays:
    return random_inputs()


@pytest.fixture(scope="module")
def rlax(inputs: Arrays, tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    folder: Path = tmp_path_factory.mktemp("rlax")
    asked, answered = folder / "asked.npz", folder / "answered.npz"
    np.savez(asked, **inputs)
    program = (
        f"{inspect.getsource(answer_of_rlax)}\nanswer_of_rlax({str(asked)!r}, {str(answered)!r})"
    )
    quick = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | quick)
    with np.load(answered) as answer:
        return dict(answer)


def chain(
    head: Head, backup: Backup, inputs: Arrays, suffix: str = ""
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a learner makes of the inputs: target, loss, surprise and gradient."""
    present, following, online = (
        torch.from_numpy(inputs[f"{name}{suffix}"]).view(B, A, head.width)
        for name in ("present", "next", "online")
    )
    present = present.clone().requires_grad_()
    batch = Batch(
        obs=torch.zeros(B),
        action=torch.from_numpy(inputs["action"]).long(),
        reward=torch.from_numpy(inputs["reward"]),
        next_obs=torch.ones(B),
        discount=torch.from_numpy(inputs["discount"]),
        weight=torch.ones(B),
        index=torch.arange(B),
    )
    after = Prediction(following)
    bootstrap = backup(
        batch, head.q(after), lambda obs: head.q(Prediction(online)), lambda obs: head.q(after)
    )
    target = head.target(batch, bootstrap, after)
    loss = head.loss(Prediction(present), batch.action, target)
    loss.value.sum().backward()
    assert present.grad is not None
    return target, loss.value.detach(), loss.surprise, present.grad


def assert_equal(ours: Tensor, theirs: Any) -> None:
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=1e-5, atol=1e-5)


def test_the_inputs_hold_what_is_easily_gotten_wrong(inputs: Arrays) -> None:
    reward, discount = inputs["reward"], inputs["discount"]
    assert 50 < (discount == 0).sum() < 100
    assert len(np.unique(discount)) == 6
    assert ((reward < SUPPORT.low) & (discount == 0)).sum() > 3
    assert ((reward > SUPPORT.high) & (discount == 0)).sum() > 3
    chosen, by_online = (inputs[f"{name}_q"].argmax(axis=1) for name in ("next", "online"))
    assert (chosen != by_online).sum() > B // 2


@pytest.mark.parametrize("name", BACKUPS)
def test_dqn(name: str, inputs: Arrays, rlax: Arrays) -> None:
    target, value, surprise, _ = chain(Scalar("huber"), BACKUPS[name], inputs, "_q")
    _, square, _, _ = chain(Scalar("mse"), BACKUPS[name], inputs, "_q")

    taken = torch.from_numpy(inputs["present_q"])[range(B), inputs["action"]]
    assert_equal(target - taken, rlax[f"{name}_error"])
    assert_equal(surprise, abs(rlax[f"{name}_error"]))
    assert_equal(value, rlax[f"{name}_huber"])
    assert_equal(square, rlax[f"{name}_square"])


@pytest.mark.parametrize("name", BACKUPS)
def test_c51(name: str, inputs: Arrays, rlax: Arrays) -> None:
    target, value, _, gradient = chain(SUPPORT, BACKUPS[name], inputs)

    assert_equal(target, rlax[f"{name}_categorical_target"])
    assert_equal(value, rlax[f"{name}_categorical"])
    assert_equal(gradient, rlax[f"{name}_categorical_gradient"])


@pytest.mark.parametrize("kappa", KAPPAS)
@pytest.mark.parametrize("name", BACKUPS)
def test_qr_dqn(name: str, kappa: float, inputs: Arrays, rlax: Arrays) -> None:
    _, value, _, gradient = chain(Quantile(N, kappa), BACKUPS[name], inputs)

    scale = kappa or 1.0  # RLax leaves out the division by kappa
    assert_equal(scale * value, rlax[f"{name}_quantile_{kappa}"])
    assert_equal(scale * gradient, rlax[f"{name}_quantile_{kappa}_gradient"])


@pytest.mark.parametrize("kappa", KAPPAS)
def test_quantile_regression_at_random_fractions(
    kappa: float, inputs: Arrays, rlax: Arrays
) -> None:
    values = torch.from_numpy(inputs["predicted"]).unsqueeze(1).requires_grad_()
    prediction = Prediction(values, torch.from_numpy(inputs["fractions"]))
    nothing, target = torch.zeros(B, dtype=torch.int64), torch.from_numpy(inputs["aimed"])

    loss = ImplicitQuantile(kappa=kappa).loss(prediction, nothing, target)
    loss.value.sum().backward()

    scale = kappa or 1.0  # RLax leaves out the division by kappa
    assert values.grad is not None
    assert_equal(scale * loss.value.detach(), rlax[f"regression_{kappa}"])
    assert_equal(scale * values.grad.squeeze(1), rlax[f"regression_{kappa}_gradient"])
