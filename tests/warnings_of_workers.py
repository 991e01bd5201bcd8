"""Marks for tests that start environments in processes of their own."""

from __future__ import annotations

import pytest

FORK = pytest.mark.filterwarnings(
    r"ignore:This process .* is multi-threaded, use of fork\(\):DeprecationWarning"
)
# gymnasium writes the worker's traceback as a warning before it raises.
FAULT = pytest.mark.filterwarnings(
    r"ignore:.*(Received the following error from Worker|Raising the last exception|Traceback)"
    r":UserWarning"
)
