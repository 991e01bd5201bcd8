"""Sphinx: how this documentation is built."""

import re
from typing import Any

import sbdqn
from sbdqn.parameters import Parameter

project = "sbdqn"
author = "The sbdqn developers"
copyright = "2026, The sbdqn developers"
version = release = sbdqn.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
html_theme = "furo"
html_title = f"sbdqn {release}"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

default_role = "literal"  # docstrings write `code` with single backticks
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
napoleon_custom_sections = [("Keys", "params_style")]
python_maximum_signature_line_length = 88
copybutton_exclude = ".linenos, .gp, .go"

# Docstrings' examples run in the namespace of their own module when the tests run them.
doctest_global_setup = """
import sys
import numpy as np
import torch
from gymnasium import spaces
from sbdqn import DQN, MlpPolicy, evaluate_policy
from sbdqn.backups import *
from sbdqn.callbacks import *
from sbdqn.exploration import *
from sbdqn.heads import *
from sbdqn.logger import *
from sbdqn.networks import *
from sbdqn.replay import *
from sbdqn.schedules import *
from sbdqn.types import *
"""


def skip_repetition(
    app: Any, kind: str, name: str, value: object, skip: bool, options: Any
) -> bool | None:
    """Leave out what the arguments and attributes of a class already describe."""
    is_field = (getattr(value, "__doc__", None) or "").startswith("Alias for field number")
    return True if is_field or isinstance(value, Parameter) else None


def shorten_signature(
    app: Any, kind: str, name: str, value: object, options: Any, signature: str | None, returns: Any
) -> tuple[str | None, Any] | None:
    """Write the signatures that dataclasses get as a person would."""
    if signature is None or "~" not in signature:
        return None
    short = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", signature)
    return re.sub(r"~(?:\w+\.)*", "", short).replace("<factory>", "..."), returns


def setup(app: Any) -> None:
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("autodoc-skip-member", skip_repetition)
