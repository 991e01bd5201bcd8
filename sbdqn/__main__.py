"""`python -m sbdqn`: the command line."""

import sys

from sbdqn.cli import main

sys.exit(main())
