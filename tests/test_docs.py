"""The examples in the documentation are true."""

import doctest
import importlib
import inspect
import pkgutil
import re
import sys
from pathlib import Path

import pytest

import sbdqn

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
IMPORT = re.compile(r"`(from (?:sbdqn|gymnasium)[\w.]* import [\w, ]+)`")
MODULES = [
    module.name
    for module in pkgutil.walk_packages(sbdqn.__path__, "sbdqn.")
    if not module.name.endswith("__main__")
]


def shortened(code: str) -> str:
    """The code with less to do: counts of a thousand or more, and episodes to evaluate."""
    code = re.sub(r"\b\d{1,3}(_\d{3})+\b", "400", code)
    return re.sub(r"\bn_eval_episodes=\d+", "n_eval_episodes=2", code)


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [p for p in PAGES if BLOCK.search(p.read_text())], ids=page_id)
def test_examples_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    text = page.read_text()
    for block in BLOCK.finditer(text):
        first_line = text.count("\n", 0, block.start(1))
        code = "\n" * first_line + shortened(block[1])
        exec(compile(code, str(page), "exec"), namespace)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_docstring_print_what_they_say(name):
    outcome = doctest.testmod(importlib.import_module(name))
    assert not outcome.failed


def test_imports_that_the_documentation_names_exist():
    statements = {s for page in PAGES for s in IMPORT.findall(page.read_text())}
    assert len(statements) > 10
    for statement in statements:
        exec(statement, {})


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page_id(page)} links to {target}"


@pytest.fixture
def defaults(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    yield importlib.import_module("defaults")
    sys.modules.pop("defaults", None)


def test_the_tables_of_defaults_have_every_parameter(defaults):
    for made, table in ((sbdqn.DQN, defaults.of_model()), (sbdqn.MlpPolicy, defaults.of_policy())):
        for name in set(inspect.signature(made).parameters) - {"policy", "env"}:
            assert f"\n| `{name}` | `" in table


def test_the_tables_of_defaults_are_up_to_date(defaults):
    page = defaults.PAGE.read_text()
    assert page == defaults.with_tables(page), "run python docs/defaults.py"
    assert page.count("| `gamma` |") == 1
    assert page.count("| `layer_norm` |") == 1
    assert f"Stable-Baselines3 {defaults.SB3_VERSION}." in page


def test_no_page_needs_a_build_to_be_read():
    for page in (ROOT / "docs").rglob("*.md"):
        assert "{{" not in page.read_text(), page


def test_the_agent_with_the_hyperparameters_of_sb3_has_them(defaults):
    page = (ROOT / "docs" / "migration.md").read_text()
    block = BLOCK.search(page, page.index("<!-- sb3-agent -->"))
    namespace = {}
    exec(block[1], namespace)
    chosen = namespace["model"].get_params(deep=False)
    theirs = {**defaults.SB3_DEFAULTS, **defaults.SB3_ALWAYS}
    assert {n: chosen[n] for n in theirs if n != "policy_kwargs"} == {
        n: theirs[n] for n in theirs if n != "policy_kwargs"
    }
    policy = sbdqn.MlpPolicy(**chosen["policy_kwargs"])
    assert policy.layer_norm == defaults.SB3_POLICY_ALWAYS["layer_norm"]
    assert policy.net_arch == defaults.SB3_POLICY_ALWAYS["net_arch"]
    assert policy.activation_fn.__name__ == defaults.SB3_POLICY_ALWAYS["activation_fn"]
    assert policy.optimizer_class == defaults.SB3_POLICY_ALWAYS["optimizer_class"]


def test_the_defaults_of_sb3_are_those_of_sb3(defaults):
    sb3 = pytest.importorskip("stable_baselines3")
    if sb3.__version__ != defaults.SB3_VERSION:
        pytest.skip(f"the tables are of SB3 {defaults.SB3_VERSION}, not {sb3.__version__}")
    for made, stated in (
        (sb3.DQN, defaults.SB3_DEFAULTS),
        (sb3.DQN.policy_aliases["MlpPolicy"], defaults.SB3_POLICY_DEFAULTS),
    ):
        signature = inspect.signature(made.__init__).parameters
        assert {name: signature[name].default for name in stated} == stated
