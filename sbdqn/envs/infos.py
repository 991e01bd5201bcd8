"""The infos of a vector environment, one dict for each environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def split_infos(infos: Mapping[str, Any], n_envs: int) -> list[dict[str, Any]]:
    """From gymnasium's dict of arrays to one dict for each environment."""
    split: list[dict[str, Any]] = [{} for _ in range(n_envs)]
    for key, values in infos.items():
        if key.startswith("_") and key[1:] in infos:
            continue
        present = infos.get(f"_{key}", np.ones(n_envs, dtype=np.bool_))
        if isinstance(values, Mapping):
            each: Any = split_infos(values, n_envs)
        elif isinstance(values, (list, tuple, np.ndarray)) and len(values) == n_envs:
            each = values
        else:  # said of all environments at once
            each = [values] * n_envs
        for env in np.flatnonzero(present):
            split[env][key] = each[env]
    return split
