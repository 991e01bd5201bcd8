"""Rows of runs are kept whole, and never mixed."""

from __future__ import annotations

import dataclasses
import json

import pytest
from learning_results import COLUMNS, ChangedSettingError, Results
from learning_settings import Setting, Task, text_of


def setting(**parameters: object) -> Setting:
    return Setting("sb3", "sb3", Task("CartPole-v1", 475.0), 100, parameters)


def rows(seed: int) -> list[dict[str, object]]:
    blank = dict.fromkeys(COLUMNS, "")
    del blank["fingerprint"]
    kinds = ("evaluation", "final")
    return [{**blank, "seed": seed, "kind": kind, "mean": 9.25} for kind in kinds]


def test_runs_come_back_in_the_order_of_their_seeds(tmp_path):
    results = Results(tmp_path, "group", setting())
    assert results.runs() == {}
    for seed in (10, 2):
        results.append(rows(seed))
    again = Results(tmp_path, "group", setting())
    assert list(again.runs()) == [2, 10]
    assert [row["kind"] for row in again.runs()[10]] == ["evaluation", "final"]
    assert {row["mean"] for row in again.rows()} == {"9.25"}
    assert results.file.read_text().count("fingerprint") == 1
    assert results.file == tmp_path / "group" / "sb3.csv"


def test_changed_parameters_are_refused_by_name(tmp_path):
    Results(tmp_path, "group", setting(gamma=0.99)).append(rows(0))
    changed = Results(tmp_path, "group", setting(gamma=0.9))
    with pytest.raises(ChangedSettingError, match=r"gamma: 0\.99, now 0\.9\n"):
        changed.fingerprint()
    with pytest.raises(ChangedSettingError):
        changed.append(rows(1))
    shorter = dataclasses.replace(setting(gamma=0.99), timesteps=50)
    assert Results(tmp_path, "group", shorter).changes() == ["timesteps: 100, now 50"]
    more = Results(tmp_path, "group", setting(gamma=0.99, tau=0.5))
    assert more.changes() == ["tau: None, now 0.5"]
    assert len(changed.runs()) == 1
    changed.remove()
    changed.append(rows(1))
    assert list(changed.runs()) == [1]


def test_parameters_may_change_until_the_first_run_has_ended(tmp_path):
    before = Results(tmp_path, "group", setting(gamma=0.99)).fingerprint()
    results = Results(tmp_path, "group", setting(gamma=0.9))
    assert results.fingerprint() != before
    results.append(rows(0))
    assert results.changes() == []


def test_what_is_recorded_is_the_same_in_every_process():
    assert text_of(Setting) == "learning_settings.Setting"
    assert text_of(rows) == f"{__name__}.rows"
    assert text_of((64, "a")) == "(64, 'a')"
    with pytest.raises(ValueError, match="without its address"):
        text_of(object())


def test_defaults_of_ours_are_recorded_too(tmp_path):
    ours = Setting("ours", "sbdqn", Task("CartPole-v1"), 100, {"gamma": 0.9})
    record = ours.record()
    assert (record["gamma"], record["n_steps"]) == ("0.9", "8")
    assert record["policy.net_arch"] == "(64, 64)"
    results = Results(tmp_path, "group", ours)
    results.append(rows(0))
    file = results.file.with_suffix(".json")
    old = json.loads(file.read_text())
    file.write_text(json.dumps({**old, "n_steps": "3"}))
    assert results.changes() == ["n_steps: 3, now 8"]


def test_a_parameter_that_is_newer_than_the_rows_must_not_be_set(tmp_path):
    wide = {"policy_kwargs": {"net_arch": (9,)}}
    for name, parameters, changes in (
        ("tau", {}, []),
        ("tau", {"tau": 0.5}, ["tau: None, now 0.5"]),
        ("policy.net_arch", wide, ["policy.net_arch: None, now (9,)"]),
    ):
        ours = Setting("ours", "sbdqn", Task("CartPole-v1"), 100, parameters)
        results = Results(tmp_path, str(list(parameters)), ours)
        results.append(rows(0))
        file = results.file.with_suffix(".json")
        old = json.loads(file.read_text())
        del old[name]
        file.write_text(json.dumps(old))
        assert results.changes() == changes


def test_rows_of_another_fingerprint_are_refused(tmp_path):
    results = Results(tmp_path, "group", setting())
    results.append(rows(0))
    results.file.write_text(results.file.read_text().replace(results.fingerprint(), "other"))
    with pytest.raises(ChangedSettingError, match="is not that of"):
        results.fingerprint()


def test_rows_without_the_record_of_their_setting_are_refused(tmp_path):
    results = Results(tmp_path, "group", setting())
    results.append(rows(0))
    results.file.with_suffix(".json").unlink()
    for read in (results.fingerprint, results.changes):
        with pytest.raises(ChangedSettingError, match=r"has lost sb3\.json"):
            read()


@pytest.mark.parametrize("kinds", [["evaluation"], ["final", "final"], ["final", "evaluation"]])
def test_half_a_run_and_two_of_one_seed_are_refused(tmp_path, kinds):
    results = Results(tmp_path, "group", setting())
    results.append([{**rows(3)[0], "kind": kind} for kind in kinds])
    with pytest.raises(ValueError, match="one whole run of seed 3"):
        results.runs()
