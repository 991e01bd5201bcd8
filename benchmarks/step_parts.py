"""Where the time of a training step goes, part by part, beside the least that a part can take.

Both are measured inside the training loop, where Python, torch and the arithmetic displace each
other from the caches and everything takes two to three times as long as in a loop of its own.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from works import WORKS, model_of

import sbdqn.learner
from sbdqn.callbacks import BaseCallback
from sbdqn.session import LearnSession

WARM_UP = 5_120
HOOKS = ("on_rollout_start", "on_step", "shares", "on_update", "on_rollout_end")
Work = Callable[[], Any]


class Stopwatch:
    """Times calls, less the timed calls inside of them."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._inside = [0.0]

    def watch(self, part: str, owner: Any, method: str) -> None:
        """From now on the calls of a method are a part."""
        setattr(owner, method, self.timed(part, getattr(owner, method)))

    def timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """A function whose calls are a part."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inside.append(0.0)
            started = time.perf_counter()
            result = call(*args, **kwargs)
            taken = time.perf_counter() - started
            self.seconds[part].append(taken - self._inside.pop())
            self._inside[-1] += taken
            return result

        return timed


class FloorsInTheLoop(BaseCallback):
    """Does the least work of each part once in a step, and times it."""

    def __init__(self, floors: dict[str, Work]) -> None:
        super().__init__()
        self._floors = floors
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def _on_step(self) -> bool:
        for part, work in self._floors.items():
            started = time.perf_counter()
            work()
            self.seconds[part].append(time.perf_counter() - started)
        return True


def watched(model: Any) -> Stopwatch:
    """A stopwatch on each part of a model that has learned; they are never taken off again."""
    stopwatch, trainer = Stopwatch(), model.trainer
    learner, stepper = trainer.learner, model.ready_collector().stepper
    stopwatch.watch("the loop itself", trainer, "run")
    stopwatch.watch("choose actions", trainer, "_choose")
    stopwatch.watch("environment", stepper.env, "step")
    stopwatch.watch("rest of the stepper", stepper, "receive")
    stopwatch.watch("store", trainer, "store")
    for hook in HOOKS:
        stopwatch.watch(f"hook {hook}", LearnSession, hook)
    stopwatch.watch("what is due", trainer, "_make")
    for draw in ("sample", "sample_several"):
        stopwatch.watch("sample", trainer.replay, draw)
    stopwatch.watch("priorities", trainer.replay, "feedback")
    stopwatch.watch("rest of the update", learner, "update_several")
    if model.compile:
        graphs = learner._compiled._runs
        graphs.update({of: stopwatch.timed("compiled graph", run) for of, run in graphs.items()})
    else:
        stopwatch.watch("target", sbdqn.learner, "target_of")
        stopwatch.watch("forward", learner.online, "record")
        stopwatch.watch("loss", type(learner.head), "loss_and_gradient")
        stopwatch.watch("gradients", learner.online, "differentiate")
        stopwatch.watch("clip", learner.flat, "clip_gradient")
        stopwatch.watch("optimiser", learner, "_step")
    return stopwatch


def floors_of(model: Any) -> dict[str, Work]:
    """The least work of each part, with the shapes of this model."""
    layers = [layer for layer in model.q_net.modules() if isinstance(layer, nn.Linear)]
    parameters = [parameter.detach() for layer in layers for parameter in layer.parameters()]
    n_parameters = sum(parameter.numel() for parameter in parameters)
    return {
        "choose actions": numpy_network(layers, model.n_envs),
        "environment": bare_environment(model.n_envs),
        "sample": one_take(model),
        **bare_products([layer.weight.detach() for layer in layers], model.batch_size),
        **on_one_tensor(n_parameters),
    }


def numpy_network(layers: list[nn.Linear], rows: int) -> Work:
    """The network's arithmetic in NumPy, on the same weights."""
    arrays = [(layer.weight.detach().numpy().T, layer.bias.detach().numpy()) for layer in layers]
    obs = np.zeros((rows, layers[0].in_features), np.float32)

    def work() -> None:
        values = obs
        for weight, bias in arrays[:-1]:
            values = np.maximum(values @ weight + bias, 0.0)
        weight, bias = arrays[-1]
        (values @ weight + bias).argmax(1)

    return work


def bare_environment(n_envs: int) -> Work:
    """gymnasium's own step: of one environment without wrappers, or of its own vector of them."""
    if n_envs > 1:
        vector = gym.make_vec("CartPole-v1", n_envs, vectorization_mode="vector_entry_point")
        vector.reset(seed=0)
        action = np.zeros(n_envs, np.int64)
        return lambda: vector.step(action)
    env = gym.make("CartPole-v1").unwrapped
    env.reset(seed=0)
    action_of_one = np.int64(0)

    def work() -> None:
        if env.step(action_of_one)[2]:
            env.reset()

    return work


def one_take(model: Any) -> Work:
    """As many rows from one array that has all fields of a transition side by side."""
    width = 2 * int(np.prod(model.observation_space.shape)) + 3  # action, reward, discount
    packed = np.zeros((model.buffer_size, width), np.float32)
    rng = np.random.default_rng(0)
    drawn = itertools.cycle(rng.integers(0, model.buffer_size, (1_000, model.batch_size)))
    return lambda: packed.take(next(drawn), axis=0)


def bare_products(weights: list[Tensor], batch: int) -> dict[str, Work]:
    """The products of matrices in an update, into memory that is there."""
    inputs = [torch.randn(batch, weight.shape[1]) for weight in weights]
    outputs = [torch.randn(batch, weight.shape[0]) for weight in weights]
    by_weight = [torch.empty_like(weight) for weight in weights]
    by_input = [torch.empty_like(each) for each in inputs]

    def forward() -> None:
        for weight, given, out in zip(weights, inputs, outputs, strict=True):
            torch.mm(given, weight.t(), out=out)

    def gradients() -> None:
        for given, gradient, out in zip(inputs, outputs, by_weight, strict=True):
            torch.mm(gradient.t(), given, out=out)
        for weight, gradient, out in zip(weights[1:], outputs[1:], by_input[1:], strict=True):
            torch.mm(gradient, weight, out=out)

    return {"target": forward, "forward": forward, "gradients": gradients}


def on_one_tensor(n_parameters: int) -> dict[str, Work]:
    """The norm and Adam's step, each one operation on all parameters."""
    values, gradient, mean = (torch.randn(n_parameters) for _ in range(3))
    square, step = torch.rand(n_parameters), torch.zeros(())

    def optimiser() -> None:
        step.add_(1)
        torch._fused_adam_(
            [values],
            [gradient],
            [mean],
            [square],
            [],
            [step],
            lr=1e-4,
            beta1=0.9,
            beta2=0.999,
            weight_decay=0.0,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )

    return {"clip": lambda: torch.linalg.vector_norm(gradient), "optimiser": optimiser}


def seconds_of(model: Any, steps: int, callback: BaseCallback | None = None) -> float:
    """How long learning takes."""
    started = time.perf_counter()
    model.learn(steps, callback)
    return time.perf_counter() - started


def report(name: str, steps: int, compile: bool) -> None:
    """Print the parts of one kind of work by our own agent."""
    torch.set_num_threads(1)
    model = model_of(WORKS[name].agents[-1]._replace(compile=compile), WORKS[name])
    model.learn(WARM_UP)
    plain = seconds_of(model, steps)
    floors = FloorsInTheLoop(floors_of(model))
    seconds_of(model, steps, floors)
    stopwatch = watched(model)
    timed = seconds_of(model, steps)
    print(
        f"{WORKS[name].title}{', compiled' * compile}: {1e6 * plain / steps:.1f} us a step, "
        f"{1e6 * timed / steps:.1f} with stopwatches; medians of {steps} steps; a part without "
        f"the parts in it\n"
    )
    print("| part | calls a step | us a call | floor | us a step |")
    print("|---|---|---|---|---|")
    total = 0.0
    for part, seconds in stopwatch.seconds.items():
        # The loop is one call; what is left of it is of all steps.
        call = 1e6 * statistics.median(seconds)
        calls = len(seconds) / steps
        floor = floors.seconds.get(part)
        least = f"{1e6 * statistics.median(floor):.1f}" if floor else ""
        of_each = f"{call:.1f}" if len(seconds) > 1 else ""
        print(f"| {part} | {calls:.2f} | {of_each} | {least} | {call * calls:.1f} |")
        total += call * calls
    print(f"| all | | | | {total:.1f} |")
