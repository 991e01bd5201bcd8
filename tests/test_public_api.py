"""What is public: its names, its docstrings, and what the core may know of it."""

from __future__ import annotations

import importlib
import inspect
import io
import pkgutil
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import sbdqn
from sbdqn import backups, exploration, heads, networks, replay

ROOT = Path(sbdqn.__file__).parent
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(sbdqn.__path__, "sbdqn.")
    if not module.name.endswith("__main__")
)

# A name appears here, in `__all__` and in the documentation, or it is not public.
PUBLIC = {
    "DQN",
    "Memory",
    "CnnPolicy",
    "MlpPolicy",
    "MultiInputPolicy",
    "__version__",
    "backups",
    "callbacks",
    "check_env",
    "envs",
    "errors",
    "evaluate_policy",
    "evaluation",
    "exploration",
    "heads",
    "load_policy",
    "logger",
    "memory",
    "networks",
    "recipes",
    "replay",
    "schedules",
}


def test_all_is_exactly_the_public_names() -> None:
    assert set(sbdqn.__all__) == PUBLIC
    assert len(sbdqn.__all__) == len(PUBLIC)


def test_every_public_name_can_be_resolved() -> None:
    for name in sbdqn.__all__:
        assert getattr(sbdqn, name) is not None
    namespace: dict[str, Any] = {}
    exec("from sbdqn import *", namespace)
    assert namespace.keys() >= PUBLIC


def test_names_are_found_before_they_are_used_and_others_are_not() -> None:
    code = "import sbdqn; print(*dir(sbdqn)); assert 'sbdqn.dqn' not in __import__('sys').modules"
    listed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert set(listed.stdout.split()) >= PUBLIC
    with pytest.raises(AttributeError, match="module 'sbdqn' has no attribute 'PPO'"):
        sbdqn.PPO  # noqa: B018


def test_everything_else_in_the_package_is_a_module_of_it() -> None:
    for name, value in vars(sbdqn).items():
        if not name.startswith("_") and name not in PUBLIC:
            assert isinstance(value, ModuleType), f"{name} is public but not in __all__"
            assert value.__name__ == f"sbdqn.{name}"


@pytest.mark.parametrize("name", MODULES)
def test_a_modules_own_all_names_what_it_has(name: str) -> None:
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])
    assert len(exported) == len(set(exported))
    for each in exported:
        assert hasattr(module, each), each


def test_the_version_is_a_version() -> None:
    numbers = sbdqn.__version__.split(".")
    assert len(numbers) == 3
    assert all(number.isdigit() for number in numbers)


def defined_in(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The public classes and functions of a module, and the methods of its classes."""
    for name, value in vars(module).items():
        own = getattr(value, "__module__", None) == module.__name__
        if name.startswith("_") or not own:
            continue
        if inspect.isfunction(value):
            yield name, value
        if inspect.isclass(value):
            yield name, value
            for attribute, member in vars(value).items():
                function = getattr(member, "__func__", getattr(member, "fget", member))
                is_own = getattr(function, "__module__", None) == module.__name__
                if not attribute.startswith("_") and inspect.isfunction(function) and is_own:
                    yield f"{name}.{attribute}", function


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_says_what_it_is(name: str) -> None:
    module = importlib.import_module(name)
    for described, value in [("the module", module), *defined_in(module)]:
        documentation = value.__doc__
        assert documentation, f"{name}: {described} has no docstring"
        # What dataclasses and named tuples make up themselves does not count.
        assert not documentation.startswith(f"{described}("), f"{name}: {described}"


def values_of_the_axes() -> set[str]:
    """Every class of the five axes: what the update and the loop must not know."""
    packages = (heads, backups, networks, replay, exploration)
    found = set()
    for package in packages:
        for name, value in vars(package).items():
            if inspect.isclass(value) and value.__module__.startswith(package.__name__):
                found.add(name)
    return found


SHARED = {"QNetwork", "FlatParameters"}  # what every network is, whatever it is made of


@pytest.mark.parametrize("module", ["learner", "collector", "training"])
def test_the_update_and_the_loop_know_no_value_of_any_axis(module: str) -> None:
    names = values_of_the_axes()
    assert names >= {"Scalar", "Double", "MlpPolicy", "Uniform", "EpsilonGreedy"} | SHARED
    used = names_in(ROOT / f"{module}.py")
    assert sorted(used & names - SHARED) == []
    assert "isinstance" not in used
    assert "hasattr" not in used


def names_in(path: Path) -> set[str]:
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
    return {token.string for token in tokens if token.type == tokenize.NAME}


@pytest.mark.parametrize("name", heads.__all__)
def test_a_head_is_named_in_its_file_its_package_and_the_recipes_alone(name: str) -> None:
    files = {path.relative_to(ROOT).as_posix(): path for path in ROOT.rglob("*.py")}
    naming = {where for where, path in files.items() if name in names_in(path)}
    own = f"heads/{Path(inspect.getfile(getattr(heads, name))).name}"
    # The checks of other parts need some head, and take the simplest.
    simplest = {where for where in files if name == "Scalar" and where.startswith("testing/")}
    assert (
        {own, "heads/__init__.py"} <= naming <= {own, "heads/__init__.py", "recipes.py"} | simplest
    )


@pytest.mark.parametrize("module", ["learner", "collector", "training"])
@pytest.mark.parametrize(
    "text", ["scalar", "huber", "epsilon", "uniform", "prioritized", "greedy", "double"]
)
def test_nor_does_any_string_in_them_name_one(module: str, text: str) -> None:
    source = (ROOT / f"{module}.py").read_text(encoding="utf-8")
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    for token in tokens:
        if token.type == tokenize.STRING and not token.string.startswith('"""'):
            assert text not in token.string.lower()
