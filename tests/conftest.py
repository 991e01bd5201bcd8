"""What all tests share."""

from __future__ import annotations

import signal

import torch

# Workers of pytest-xdist share the cores; small networks are fastest on one thread anyway.
torch.set_num_threads(1)

# A shell's background job ignores Ctrl-C, and all that it starts inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)
