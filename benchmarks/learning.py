"""Does it learn, how soon, and does it stay learned? Ours beside Stable-Baselines3.

`run` trains the settings of a group on many seeds, each in a process of its own with one torch
thread, evaluates the greedy policy on the way (20 episodes) and at the end (100), and appends
the rows to CSV files. Run again after an interruption, it goes on with what is missing.
`report` makes the tables and figures of the documentation from these files, or of a folder of
your own a page for each group beside them.

    pip install -e ".[bench,box2d,minatar,plot]"
    python benchmarks/learning.py list
    python benchmarks/learning.py run cartpole --seeds 0-2 --results FOLDER
    python benchmarks/learning.py report --results FOLDER

Any recipe in any environment is measured as `RECIPE@ENV`. Those with the same environment are
compared: `run` ends with `report.md` on the recipes of this call, and a figure, in a folder of
the environment's name.

    python benchmarks/learning.py run c51_classic@CartPole-v1 qr_dqn_classic@CartPole-v1 \\
        --timesteps 50000 --seeds 0-4 --results FOLDER

Seeds from 0 on are reported. Tune on others, elsewhere: `--seeds 1000-1004 --results FOLDER`.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from learning_results import Results
    from learning_runs import Run
    from learning_settings import Group, Setting

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def seeds_of(text: str) -> list[int]:
    """The seeds that `0-9,20` names, each once."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        try:
            named = range(int(first), int(last if dash else first) + 1)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{part} is not such as 7 or 0-9") from None
        if not named:
            raise argparse.ArgumentTypeError(f"{part} names no seed")
        seeds.extend(named)
    return list(dict.fromkeys(seeds))


def count(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number above 0")
    return int(text)


def run(options: argparse.Namespace) -> None:
    """Make the runs that are missing; exit 1 if one failed."""
    from learning_groups import GROUPS
    from learning_runs import finished

    groups = groups_of(options)
    try:
        options.results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"--results: {options.results} cannot be a folder: {error.strerror}")
    compared = {name: group for name, group in groups.items() if name not in GROUPS}
    wanted = [each for name, group in groups.items() for each in runs_of(name, group, options)]
    runs = {run: results for run, results in wanted if run.seed not in results.runs()}
    if runs:
        plan = f"{len(runs)} runs, {options.workers} at a time; {len(wanted) - len(runs)} others"
        print(f"{plan} are in {options.results}", flush=True)
    else:
        print(f"all {len(wanted)} runs are in {options.results}; another --results makes them anew")
    in_order = sorted(runs, key=lambda run: run.seed)  # a part of all is a part of each setting
    failed = []
    for place, (run, rows) in enumerate(finished(in_order, options.workers), start=1):
        file = runs[run].file
        name = f"{file.parent.name}/{file.stem} seed {run.seed}"
        if rows is None:
            outcome = "failed"
            failed.append(name)
        elif run.seed in runs[run].runs():
            outcome = "there already, from another process"
        else:
            runs[run].append(rows)
            outcome = f"{rows[-1]['mean']} in {rows[-1]['seconds']} s"
        print(f"{place} of {len(runs)}: {name}: {outcome}", flush=True)
    if compared:
        from learning_report import report_of

        for name, group in compared.items():
            report_of(options.results, name, group)
    if failed:
        sys.exit(f"{len(failed)} failed: {', '.join(failed)}")


def groups_of(options: argparse.Namespace) -> dict[str, Group]:
    """The groups that are named, and those of `RECIPE@ENV`.

    Exits if one is unknown, or if what it needs is not installed.
    """
    from gymnasium.error import Error as GymnasiumError
    from learning_groups import GROUPS
    from learning_recipes import of_recipes
    from learning_settings import require_installed

    pairs = [name for name in options.groups if "@" in name]
    groups = {name: GROUPS[name] for name in options.groups if name in GROUPS}
    try:
        groups |= of_recipes(pairs, options.timesteps)
    except (ImportError, ValueError, GymnasiumError) as error:
        sys.exit(str(error))
    settings = [setting for group in groups.values() for setting in group.settings]
    names = {setting.name for setting in settings}
    only = {*(options.only or names)}
    unknown = {*options.groups} - {*GROUPS, *pairs} | only - names
    if unknown:
        close = difflib.get_close_matches(min(unknown), [*GROUPS, *names], n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; {hint}`list` prints what there is")
    try:
        require_installed(setting for setting in settings if setting.name in only)
    except (ImportError, GymnasiumError) as error:
        sys.exit(f"{error}; pip install -e '.[bench,box2d,minatar,plot]' brings all that is needed")
    return groups


def runs_of(name: str, group: Group, options: argparse.Namespace) -> Iterator[tuple[Run, Results]]:
    """All that is asked for, and where its rows go.

    Exits if a setting is not what it was, or is to have more than its budget.
    """
    from learning_results import ChangedSettingError, Results
    from learning_runs import Run

    most = max(setting.timesteps for setting in group.settings)
    if (options.timesteps or 0) > most:
        sys.exit(f"{name} trains for {most:,} timesteps at most; --timesteps makes that less")
    for setting in group.settings:
        if options.only and setting.name not in options.only:
            continue
        if options.timesteps:
            setting = shortened(setting, options.timesteps)
        results = Results(options.results, name, setting)
        if options.restart:
            results.remove()
        try:
            results.fingerprint()
        except ChangedSettingError as error:
            sys.exit(str(error))
        for seed in options.seeds or group.seeds:
            yield Run(setting, seed), results


def shortened(setting: Setting, timesteps: int) -> Setting:
    """The setting with a smaller budget, and as many evaluations."""
    timesteps = min(timesteps, setting.timesteps)
    every = max(1, setting.eval_every * timesteps // max(setting.timesteps, 1))
    return dataclasses.replace(setting, timesteps=timesteps, eval_every=every)


def list_groups() -> None:
    """Print all settings."""
    from learning_groups import GROUPS

    for name, group in GROUPS.items():
        print(f"{name}: {group.title}, {len(group.seeds)} seeds")
        for setting in group.settings:
            print(f"  {setting.name}: {setting.task.env_id}, {setting.timesteps:,} timesteps")


def main() -> None:
    """Run, or report."""
    os.environ.update(ONE_THREAD)  # before anything is imported that counts threads
    from learning_results import FOLDER

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the groups and their settings")
    runner = commands.add_parser("run", help="make the missing runs of groups")
    runner.add_argument("groups", nargs="+", metavar="GROUP|RECIPE@ENV")
    runner.add_argument("--only", nargs="+", metavar="SETTING", help="these settings alone")
    runner.add_argument("--seeds", type=seeds_of, help="such as 0-9 or 3,5 (the group's)")
    runner.add_argument("--workers", type=count, default=2, help="processes (2)")
    runner.add_argument(
        "--timesteps",
        type=count,
        help="a smaller budget (of RECIPE@ENV any), with a --results of its own",
    )
    runner.add_argument(
        "--restart",
        action="store_true",
        help="first remove all that was measured of these settings, on all seeds",
    )
    reporter = commands.add_parser("report", help="write tables and figures")
    for each in (runner, reporter):
        each.add_argument("--results", type=Path, default=FOLDER, help="folder of the CSV files")
    options = parser.parse_args()
    if options.command == "list":
        list_groups()
    elif options.command == "report":
        from learning_report import report, report_beside

        if options.results == FOLDER:
            report()
        else:
            report_beside(options.results)
    else:
        if options.timesteps and options.results == FOLDER:
            parser.error("--timesteps changes the measurement: give it a --results of its own")
        if options.results == FOLDER and any("@" in name for name in options.groups):
            parser.error("RECIPE@ENV is not in the documentation: give it a --results of its own")
        try:
            run(options)
        except KeyboardInterrupt:
            sys.exit("interrupted; the same command goes on with the runs that had not ended")


if __name__ == "__main__":
    main()
