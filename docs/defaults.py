"""The defaults beside Stable-Baselines3's, as Markdown tables.

    python docs/defaults.py

writes them into `migration.md`, between their markers.
"""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sbdqn import DQN, MlpPolicy

PAGE = Path(__file__).with_name("migration.md")
SB3_VERSION = "2.9.2"

# Of `DQN.__init__` and `DQNPolicy.__init__` there.
SB3_DEFAULTS: dict[str, object] = {
    "learning_rate": 1e-4,
    "buffer_size": 1_000_000,
    "learning_starts": 100,
    "batch_size": 32,
    "tau": 1.0,
    "gamma": 0.99,
    "train_freq": 4,
    "gradient_steps": 1,
    "n_steps": 1,
    "target_update_interval": 10_000,
    "exploration_fraction": 0.1,
    "exploration_initial_eps": 1.0,
    "exploration_final_eps": 0.05,
    "max_grad_norm": 10,
    "stats_window_size": 100,
    "tensorboard_log": None,
    "policy_kwargs": None,
    "verbose": 0,
    "seed": None,
    "device": "auto",
}
SB3_POLICY_DEFAULTS: dict[str, object] = {"normalize_images": True}

# What cannot be chosen there, or is written in another way.
SB3_ALWAYS: dict[str, object] = {
    "head": "scalar",
    "backup": "greedy",
    "replay": "uniform",
    "exploration": "epsilon_greedy",
    "loss": "huber",
}
SB3_POLICY_ALWAYS: dict[str, object] = {
    "net_arch": (64, 64),
    "activation_fn": "ReLU",
    "layer_norm": False,
    "features_extractor": None,
    "features_extractor_kwargs": {},
    "optimizer_class": "Adam",
    "optimizer_kwargs": {},
}
REQUIRED = ("policy", "env")


def of_model() -> str:
    """One row for each parameter of `DQN`, in the order of the signature."""
    return _table(DQN, SB3_DEFAULTS, SB3_ALWAYS)


def of_policy() -> str:
    """One row for each field of `MlpPolicy`."""
    return _table(MlpPolicy, SB3_POLICY_DEFAULTS, SB3_POLICY_ALWAYS)


def _table(made: Callable[..., Any], defaults: dict[str, object], always: dict[str, object]) -> str:
    rows = ["| parameter | sbdqn | SB3 | |", "|---|---|---|---|"]
    known = {**always, **defaults}
    for name in inspect.signature(made).parameters:
        if name in REQUIRED:
            continue
        ours = _default_of(made, name)
        theirs = f"`{_shown(known[name])}`" if name in known else ""
        remark = "new" if name not in known else "" if ours == known[name] else "**differs**"
        rows.append(f"| `{name}` | `{_shown(ours)}` | {theirs} | {remark} |")
    return "\n".join(rows)


def _default_of(made: Callable[..., Any], name: str) -> object:
    is_spec = made is MlpPolicy
    default = getattr(made(), name) if is_spec else inspect.signature(made).parameters[name].default
    return default.__name__ if isinstance(default, type) else default


def _shown(value: object) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:_}"
    return str(value)


def with_tables(page: str) -> str:
    """The page with the tables as they are now."""
    for name, table in (("defaults", of_model()), ("policy-defaults", of_policy())):
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        page = re.sub(f"{begin}.*?{end}", f"{begin}\n\n{table}\n\n{end}", page, flags=re.DOTALL)
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
