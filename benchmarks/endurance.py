"""Whether a run of twice the length costs twice the time, and memory stays as it is.

Each run is a process of its own on one thread: N transitions, 2 N, and N again, so that a machine
that becomes slower or faster on the way does not count as ours. Times are CPU time.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from works import COMPILED, EAGER, WORKS, model_of

BUFFER = 10_000
CHECKPOINTS = 10
WARM_UP = 1_000
LARGEST_RATIO = 2.05


def resident() -> float:
    """Resident memory of this process, in MB."""
    import psutil

    return float(psutil.Process().memory_info().rss / 1e6)


def run(steps: int, compile: bool) -> list[tuple[int, float, float]]:
    """Transitions, CPU seconds and MB at each checkpoint of one run in this process."""
    import torch

    from sbdqn.callbacks import BaseCallback

    class Checkpoints(BaseCallback):
        """Looks at the clock and at the memory."""

        def _on_step(self) -> bool:
            made = self.num_timesteps - WARM_UP
            if made * CHECKPOINTS >= steps * (len(passed) + 1):
                passed.append((made, time.process_time() - started, resident()))
            return True

    torch.set_num_threads(1)
    passed: list[tuple[int, float, float]] = []
    agent = COMPILED if compile else EAGER
    model = model_of(agent, WORKS["defaults"], buffer_size=BUFFER)
    model.learn(WARM_UP)
    started = time.process_time()
    model.learn(steps, Checkpoints())
    return passed


def report(steps: int, compile: bool, output_of: Any) -> None:
    """Run, and print."""
    lengths = (steps, 2 * steps, steps)
    command = [sys.executable, __file__, str(int(compile))]
    once, twice, again = (json.loads(output_of([*command, str(length)])) for length in lengths)
    times = [run[-1][1] for run in (once, twice, again)]
    ratio = times[1] / (times[0] + times[2]) * 2
    print(f"| transitions, a buffer of {BUFFER} | CPU s | MB |\n|---|---|---|")
    for transitions, seconds, megabytes in twice:
        print(f"| {transitions} | {seconds:.1f} | {megabytes:.1f} |")
    print(f"\n{steps} transitions: {times[0]:.1f} s before and {times[2]:.1f} s after")
    print(f"twice as many: {ratio:.3f} times as long, at most {LARGEST_RATIO} is right")
    full = [megabytes for transitions, _, megabytes in twice if transitions > BUFFER]
    print(f"memory since the buffer is full: {full[-1] - full[0]:+.1f} MB")


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[2]), bool(int(sys.argv[1])))))
