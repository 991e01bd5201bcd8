"""Imports run one way, as the design says; the source itself is the proof."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

import sbdqn

ROOT = Path(sbdqn.__file__).parent

# Every module or package stands on one level, and imports from lower levels only.
LEVELS: tuple[tuple[str, ...], ...] = (
    ("errors", "interrupts", "replacement", "representation", "seeds"),  # nothing of ours below
    ("types", "logger", "strict_json", "stored_zip", "checkpoint", "inert_pickle"),
    ("observations", "memory", "nonfinite", "tensor_member", "torch_file"),
    ("protocols",),
    ("schedules", "exploration", "backups", "heads", "networks", "replay", "envs"),
    ("update",),
    ("compiled",),
    ("learner", "collector", "encoding", "sb3_settings"),
    ("training", "policy", "checking", "evaluation", "persistence", "threads"),
    ("callbacks", "export", "specs"),
    ("session", "assembly", "parameters", "recipes"),
    ("deployment", "own_loop", "reconfiguration", "from_sb3"),
    ("dqn",),
    ("__init__",),  # the public names
    ("testing", "cli"),  # users of the public names
    ("__main__",),
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}

# The order that the design promises for the core and what stands on it.
PROMISED = (
    ("types",),
    ("observations", "memory", "nonfinite"),
    ("protocols",),
    ("heads", "backups", "networks", "replay", "exploration", "schedules"),
    ("update",),
    ("compiled",),
    ("learner", "collector"),
    ("training",),
    ("callbacks",),
    ("dqn",),
    ("cli",),
)
CORE = {name for names in PROMISED[:8] for name in names}
NEVER_IN_THE_CORE = {
    *("tensorboard", "cloudpickle", "ray", "tqdm", "rich", "matplotlib"),
    *("onnx", "onnxruntime", "onnxscript"),
}


class Import(NamedTuple):
    """One import in one file; `target` is a unit of ours or a foreign package."""

    path: str
    line: int
    unit: str
    target: str
    ours: bool
    at_once: bool  # when the module is imported, not when a function is called

    def __str__(self) -> str:
        return f"sbdqn/{self.path}:{self.line}: {self.unit} imports {self.target}"


def unit_of(path: Path) -> str:
    """The module, or the package directly below sbdqn, that a file belongs to."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def executed(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports below a node, but those for type checkers alone."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        yield node
    guarded = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
    children = node.orelse if guarded else ast.iter_child_nodes(node)  # type: ignore[attr-defined]
    for child in children:
        yield from executed(child)


def targets(statement: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, bool]]:
    """What a statement imports: (unit, True) for ours, (package, False) for others."""
    if isinstance(statement, ast.Import):
        names = [alias.name for alias in statement.names]
    else:
        assert statement.level == 0, f"line {statement.lineno}: a relative import"
        names = [f"{statement.module}.{alias.name}" for alias in statement.names]
    yield from dict.fromkeys(target_of(name.split(".")) for name in names)


def target_of(parts: list[str]) -> tuple[str, bool]:
    if parts[0] == "sbdqn":
        return (parts[1] if len(parts) > 1 and is_unit(parts[1]) else "__init__"), True
    heavy = NEVER_IN_THE_CORE.intersection(parts)  # torch.utils.tensorboard is tensorboard
    return (heavy.pop() if heavy else parts[0]), False


def is_unit(name: str) -> bool:
    return (ROOT / f"{name}.py").exists() or (ROOT / name / "__init__.py").exists()


def every_import() -> list[Import]:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        name, tree = path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        later = {each for function in functions for each in executed(function)}
        for statement in executed(tree):
            at_once = statement not in later
            for target, ours in targets(statement):
                found.append(Import(name, statement.lineno, unit_of(path), target, ours, at_once))
    return found


IMPORTS = every_import()


def test_every_module_has_its_place() -> None:
    units = {unit_of(path) for path in ROOT.rglob("*.py")}
    assert sorted(units - LEVEL.keys()) == [], "give it a level in LEVELS"


def test_the_levels_keep_the_order_that_the_design_promises() -> None:
    for lower, upper in pairwise(PROMISED):
        assert max(LEVEL[name] for name in lower) < min(LEVEL[name] for name in upper)
    for names in PROMISED[3:5]:
        assert len({LEVEL[name] for name in names}) == 1


def test_imports_run_from_higher_to_lower_levels_alone() -> None:
    wrong = [
        str(each)
        for each in IMPORTS
        if each.ours and each.unit != each.target and LEVEL[each.unit] <= LEVEL[each.target]
    ]
    assert wrong == []


def test_the_core_stands_on_the_core_and_the_errors_alone() -> None:
    wrong = [
        str(each)
        for each in IMPORTS
        if each.unit in CORE and each.ours and each.target not in CORE | {"errors"}
    ]
    assert wrong == []


def test_the_core_never_imports_what_is_heavy_or_optional() -> None:
    wrong = [
        str(each)
        for each in IMPORTS
        if each.unit in CORE and not each.ours and each.target in NEVER_IN_THE_CORE
    ]
    assert wrong == []


def test_what_is_heavy_or_optional_is_imported_where_it_is_used() -> None:
    used = [each for each in IMPORTS if not each.ours and each.target in NEVER_IN_THE_CORE]
    assert {each.target for each in used} >= {"cloudpickle", "tensorboard", "tqdm"}
    assert [str(each) for each in used if each.at_once] == []


def test_the_core_needs_gymnasium_numpy_and_torch_and_nothing_else() -> None:
    foreign = {each.target for each in IMPORTS if each.unit in CORE and not each.ours}
    assert foreign - sys.stdlib_module_names == {"gymnasium", "numpy", "torch"}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import torch.nn", [("torch", False)]),
        ("from torch import nn, optim", [("torch", False)]),
        ("from torch.utils.tensorboard import SummaryWriter", [("tensorboard", False)]),
        ("from torch.utils import tensorboard", [("tensorboard", False)]),
        ("from sbdqn import heads, DQN", [("heads", True), ("__init__", True)]),
        ("from sbdqn.envs.making import x", [("envs", True)]),
        ("import sbdqn.dqn", [("dqn", True)]),
        ("import sbdqn", [("__init__", True)]),
        ("def f():\n    from sbdqn.learner import Learner", [("learner", True)]),
        ("if TYPE_CHECKING:\n    import ray\nelse:\n    import rich", [("rich", False)]),
        ("if typing.TYPE_CHECKING:\n    from sbdqn.dqn import DQN", []),
        (
            "try:\n    import tqdm\nexcept ImportError:\n    import rich",
            [("tqdm", False), ("rich", False)],
        ),
    ],
)
def test_this_test_sees_an_import_wherever_it_is(
    source: str, expected: list[tuple[str, bool]]
) -> None:
    found = [each for statement in executed(ast.parse(source)) for each in targets(statement)]
    assert found == expected


LISTING = """
import sys, json
import gymnasium, numpy, safetensors.torch, torch
import gymnasium.vector
before = set(sys.modules)
import sbdqn
from sbdqn import *  # all that is public, each of which is imported when it is used
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


def test_importing_the_package_brings_no_logger_bar_plot_or_pickler_with_it() -> None:
    # torch brings tqdm where there is one, so what it and gymnasium bring does not count.
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", LISTING], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    brought = set(json.loads(run.stdout))
    assert "sbdqn" in brought
    assert brought - sys.stdlib_module_names - {"sbdqn"} == set()


HEAVY = (
    *("ale_py", "cloudpickle", "cv2", "matplotlib", "multiprocessing.managers", "pandas", "pygame"),
    *("onnx", "onnxruntime"),
    *("rich", "scipy", "sympy", "tensorboard", "torch._dynamo", "torch._inductor"),
    *("torch.utils.tensorboard", "tqdm"),
)
BROUGHT = """
import sys
import gymnasium, torch
{theirs}
before = set(sys.modules)
import sbdqn
from sbdqn import *
{ours}
print("\\n".join(set(sys.modules) - before))
"""
THEIR_PARTS = """
gymnasium.make("CartPole-v1").reset()
torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # brings torch's compiler
"""
TRAINING = """
model = sbdqn.DQN("MlpPolicy", "CartPole-v1", learning_starts=8, batch_size=4, n_steps=1)
model.learn(20)
assert model._n_updates == 3
model.predict(model.observation_space.sample())
"""


@pytest.mark.parametrize(
    ("theirs", "ours"), [("", ""), (THEIR_PARTS, TRAINING)], ids=["import", "train"]
)
def test_nothing_heavy_is_imported_before_it_is_used(theirs: str, ours: str) -> None:
    code = BROUGHT.format(theirs=theirs, ours=ours)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    brought = run.stdout.split()
    assert "sbdqn.dqn" in brought
    assert [name for name in brought if f"{name}.".startswith(tuple(f"{h}." for h in HEAVY))] == []


def test_the_core_can_be_imported_without_the_package_around_it() -> None:
    # A core module that needed something around the core would fail here.
    blocked = [name for names in LEVELS for name in names if name not in CORE | {"errors"}]
    code = f"""
import sys, types
package = types.ModuleType("sbdqn")
package.__path__ = [{str(ROOT)!r}]
sys.modules["sbdqn"] = package
for name in {blocked!r}:
    sys.modules["sbdqn." + name] = None
for name in {sorted(NEVER_IN_THE_CORE - {"tqdm", "cloudpickle"})!r}:
    sys.modules[name] = None
import sbdqn.training, sbdqn.heads, sbdqn.backups, sbdqn.networks, sbdqn.replay
import sbdqn.schedules, sbdqn.exploration
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
