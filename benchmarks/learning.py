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
the environment's name. An environment without a time limit gets one of 5,000 steps.

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
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from learning_results import Results
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
            raise argparse.ArgumentTypeError(
                f"{part!r} is neither a seed, as 7, nor a range, as 0-9"
            ) from None
        if not named:
            raise argparse.ArgumentTypeError(f"{part} names no seed")
        seeds.extend(named)
    return list(dict.fromkeys(seeds))


def count(text: str) -> int:
    """A whole number above 0."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return number


def folder(text: str) -> Path:
    """One place, however it is spelled."""
    return Path(text).resolve()


def run(options: argparse.Namespace) -> None:
    """Make the runs that are missing; exit 1 if one failed."""
    from learning_groups import GROUPS
    from learning_runs import Run, finished

    groups = groups_of(options)
    runs: dict[Run, Results] = {}
    n_wanted = 0
    for name, group in groups.items():
        seeds = options.seeds or group.seeds
        for results in results_of(name, group, options):
            done = results.runs()
            runs |= {Run(results.setting, seed): results for seed in seeds if seed not in done}
            n_wanted += len(seeds)
    if runs:
        plan = f"{len(runs)} of {n_wanted} runs are missing; {options.workers} are made at a time"
        print(f"{plan}, for {options.results}", flush=True)
    else:
        print(f"all {n_wanted} runs are in {options.results}; another --results makes them anew")
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
    for name, group in groups.items():
        if name not in GROUPS:
            from learning_report import report_of

            report_of(options.results, name, group)
    if failed:
        sys.exit(f"{len(failed)} failed: {', '.join(failed)}")


def groups_of(options: argparse.Namespace) -> dict[str, Group]:
    """The groups that are named, and those of `RECIPE@ENV`, with the settings that are chosen.

    Exits if one is unknown, if what it needs is not installed, or if it is to have more than its
    budget.
    """
    from gymnasium.error import DependencyNotInstalled, Error as GymnasiumError
    from learning_groups import GROUPS
    from learning_recipes import of_recipes
    from learning_settings import require_installed

    pairs = [name for name in options.groups if "@" in name]
    require_known({*options.groups} - {*pairs}, GROUPS)
    groups = {name: GROUPS[name] for name in options.groups if name in GROUPS}
    try:
        groups |= of_recipes(pairs, options.timesteps)
        if pairs:
            import_module("learning_report")  # which the runs end with
        known = {setting.name for group in groups.values() for setting in group.settings}
        require_known({*(options.only or ())}, known)
        groups = {name: chosen(name, group, options) for name, group in groups.items()}
        require_installed(setting for group in groups.values() for setting in group.settings)
    except (ModuleNotFoundError, DependencyNotInstalled) as error:
        sys.exit(f"{error}; pip install -e '.[bench,box2d,minatar,plot]' brings all that is needed")
    except (ValueError, GymnasiumError) as error:
        sys.exit(str(error))
    return groups


def require_known(names: set[str], known: Iterable[str]) -> None:
    """Exit if a name is unknown."""
    unknown = sorted(names - {*known})
    if unknown:
        close = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        sys.exit(f"unknown: {', '.join(unknown)}; {hint}`list` prints the groups and settings")


def chosen(name: str, group: Group, options: argparse.Namespace) -> Group:
    """A group with the settings and the budget that are asked for; exits if that is too much."""
    settings = [each for each in group.settings if each.name in (options.only or (each.name,))]
    for each in settings:
        if 0 < each.timesteps < (options.timesteps or 0):
            sys.exit(
                f"{name}/{each.name} trains for {each.timesteps:,} timesteps, and --timesteps can "
                f"only shorten that"
            )
    if options.timesteps:
        settings = [shortened(each, options.timesteps) for each in settings]
    return dataclasses.replace(group, settings=tuple(settings))


def results_of(name: str, group: Group, options: argparse.Namespace) -> Iterator[Results]:
    """Where the rows of each setting go; exits if one is not what it was."""
    from learning_results import ChangedSettingError, Results

    for setting in group.settings:
        results = Results(options.results, name, setting)
        try:
            if options.restart:
                results.remove()
            results.fingerprint()
        except ChangedSettingError as error:
            sys.exit(str(error))
        except OSError as error:
            sys.exit(f"--results: {error}")
        yield results


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
        each.add_argument("--results", type=folder, default=FOLDER, help="folder of the CSV files")
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
            again = "without --restart, the command" if options.restart else "the same command"
            sys.exit(f"interrupted; {again} goes on with the runs that had not ended")


if __name__ == "__main__":
    main()
