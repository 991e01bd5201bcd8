"""What all tests share."""

from __future__ import annotations

import torch

# Workers of pytest-xdist share the cores; small networks are fastest on one thread anyway.
torch.set_num_threads(1)
