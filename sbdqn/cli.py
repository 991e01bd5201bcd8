"""The command line: `sbdqn train`, `sbdqn evaluate`, `sbdqn export` and `sbdqn recipes`."""

from __future__ import annotations

import argparse
import ast
import difflib
import inspect
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from sbdqn import __version__, recipes
from sbdqn.callbacks import CheckpointCallback, ProgressBarCallback
from sbdqn.deployment import load_policy
from sbdqn.dqn import DQN
from sbdqn.envs import has_time_limit
from sbdqn.errors import ConfigurationError, MissingDependencyError, SbdqnError
from sbdqn.evaluation import evaluate_policy
from sbdqn.persistence import with_suffix
from sbdqn.reconfiguration import NEEDS_NEW_ENV
from sbdqn.representation import represent
from sbdqn.specs import policy_for

POLICY = "MlpPolicy"
TIMESTEPS = 50_000
NO_RECIPE = "none"
EPISODES = 100
EVALUATION_ENVS = 10
CHECKPOINTS = 2
_CHECKPOINTS_OF = "_checkpoints"  # the folder of a run, after the name of its output
BAD_INPUT, INTERRUPTED = 2, 130  # exit statuses


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments; by default those of the process.

    Returns:
        The exit status: 0; 2 for bad input; 130 for a Ctrl-C that is not the one
        that ends training.
    """
    try:
        arguments = _parser().parse_args(argv)
        arguments.run(arguments)
    except (SbdqnError, OSError) as error:
        print(f"sbdqn: error: {_in_one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("sbdqn: interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


class _Parser(argparse.ArgumentParser):
    """Leaves it to `main` to report a mistake, as it reports all others."""

    def error(self, message: str) -> NoReturn:
        raise ConfigurationError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="sbdqn", description="Deep Q-networks on gymnasium environments.")
    parser.add_argument("--version", action="version", version=f"sbdqn {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    summary = "train a model, save it and evaluate it"
    train = commands.add_parser(
        "train",
        help=summary,
        description=f"T{summary[1:]} over {EPISODES} greedy episodes. Ctrl-C ends the training "
        "early; the model is saved and evaluated all the same.",
    )
    _add_train_arguments(train)
    summary = "play greedy episodes with a saved model"
    evaluate = commands.add_parser(
        "evaluate",
        help=summary,
        description=f"P{summary[1:]}. Nothing in the file is executed without --trusted.",
    )
    _add_evaluate_arguments(evaluate)
    summary = "write the policy of a saved model to a file that acts without sbdqn"
    export = commands.add_parser(
        "export",
        help=summary,
        description=f"W{summary[1:]}: for ONNX or torch.export. What it says is compared with the "
        "model first. Nothing in the model's file is executed without --trusted.",
    )
    _add_export_arguments(export)
    summary = "list the named settings of `sbdqn train --recipe`"
    listing = commands.add_parser(
        "recipes", help=summary, description=f"L{summary[1:]}, or show what one of them sets."
    )
    listing.set_defaults(run=_show_recipes)
    listing.add_argument("recipe", nargs="?", metavar="NAME", help="the one to show")
    return parser


def _add_train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_train)
    parser.add_argument(
        "env", nargs="?", metavar="ENV", help="a registered gymnasium id, as CartPole-v1"
    )
    parser.add_argument(
        "--timesteps",
        type=_count,
        metavar="N",
        help=f"transitions to collect, summed over environments (those of the recipe, or "
        f"{TIMESTEPS}; with --resume what was left)",
    )
    parser.add_argument("--seed", type=_seed, metavar="S", help="makes the run repeatable")
    parser.add_argument(
        "--n-envs", type=_count, metavar="N", help="environments to train in (the recipe's, or 1)"
    )
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help="named settings, which `sbdqn recipes` lists, or none for the defaults (the one "
        "that was tuned for ENV, if there is one)",
    )
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="name=value",
        help="a parameter of DQN, or a field of one, and a Python literal or a bare word: "
        "--set tau=0.05 backup=greedy policy__net_arch=[256,256]; overrides the recipe",
    )
    parser.add_argument("--tensorboard", metavar="DIR", help="log to TensorBoard and CSV there")
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="where the model goes (the id in lower case: cartpole-v1.zip; with --resume "
        "beside the folder, without _checkpoints)",
    )
    parser.add_argument(
        "--checkpoint-every",
        type=_count,
        metavar="N",
        help=f"write all that --resume needs every N timesteps and on Ctrl-C, and keep the last "
        f"{CHECKPOINTS} (in a folder beside the output: cartpole-v1_checkpoints)",
    )
    parser.add_argument(
        "--resume",
        metavar="DIR",
        help="go on where the newest checkpoint in DIR, or that file, was written; what else "
        "there is to set comes from there",
    )
    parser.add_argument(
        "--trusted",
        action="store_true",
        help="with --resume: go on in the middle of episodes too, which executes what the file "
        "says; only for files of your own",
    )


def _add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_evaluate)
    parser.add_argument("file", metavar="FILE", help="what `sbdqn train` or DQN.save wrote")
    parser.add_argument(
        "--episodes", type=_count, default=EPISODES, metavar="N", help="to play (%(default)s)"
    )
    parser.add_argument("--seed", type=_seed, metavar="S", help="makes the episodes repeatable")
    parser.add_argument(
        "--env", metavar="ENV", help="a registered id (the one that the model was trained in)"
    )
    _add_trusted(parser)


def _add_export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_export)
    parser.add_argument("model", metavar="MODEL", help="what `sbdqn train` or DQN.save wrote")
    parser.add_argument(
        "output", metavar="OUT", help="ends in .onnx, which needs sbdqn[onnx], or in .pt2"
    )
    _add_trusted(parser)


def _add_trusted(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trusted",
        action="store_true",
        help="read parameters that were saved as Python objects, such as a lambda, which executes "
        "what the file says; only for files of your own",
    )


def _count(text: str) -> int:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not number.is_integer() or number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, not {text!r}")
    return int(number)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0, not {text!r}")
    return int(text)


def _train(arguments: argparse.Namespace) -> None:
    if arguments.resume is None and arguments.env is None:
        raise ConfigurationError("name the ENV to train in, before --set, or a folder to --resume")
    parameters = _parameters(arguments)
    model = _new(arguments) if arguments.resume is None else _resumed(arguments, parameters)
    env_id = model.get_params()["env"]
    output = _output(arguments, env_id)
    if not output.is_dir():  # which is refused as it is
        output = with_suffix(output)
    _require_writable("--output", output)
    if "tensorboard_log" in parameters:
        _require_writable("--tensorboard", Path(str(parameters["tensorboard_log"])) / "DQN_1")
    before = model.num_timesteps
    timesteps = _timesteps(arguments, model)
    checkpoints = _checkpoints(arguments, output)
    progress_bar = _has_progress_bar()
    try:
        if arguments.resume is None:
            _build(model, parameters)
        print(f"Training for {timesteps:,} timesteps; Ctrl-C ends it early")
        started = time.perf_counter()
        model.learn(timesteps, checkpoints, progress_bar=progress_bar)
        seconds = time.perf_counter() - started
        model.save(output)
        if model.num_timesteps - before < timesteps:  # the last one may be a long time ago
            for callback in checkpoints:
                model.save_checkpoint(callback.save_path, CHECKPOINTS)
    finally:
        model.close()
    print(f"Saved {output}; playing {EPISODES} greedy episodes")
    returns = _play(model, EPISODES, arguments.seed)
    made = model.num_timesteps - before
    updates = f"{model._n_updates:,}"
    if not model._n_updates:
        updates += f": learning_starts={model.learning_starts:,} transitions come first"
    _report(
        {
            "environment": env_id,
            "timesteps": f"{model.num_timesteps:,}" + (", interrupted" if made < timesteps else ""),
            "updates": updates,
            "time": f"{seconds:.1f} s, {made / seconds:,.0f} steps/s",
            "return": _described(returns),
            "saved to": str(output),
            "recipe": _described_recipe(arguments),
            "parameters": "\n".join(_changed(model, _recipe_of(arguments))) or "no others",
        }
    )


def _new(arguments: argparse.Namespace) -> DQN:
    if arguments.trusted:
        raise ConfigurationError("--trusted is for --resume, and nothing is resumed")
    return DQN(POLICY, arguments.env)


def _resumed(arguments: argparse.Namespace, parameters: Mapping[str, Any]) -> DQN:
    if arguments.env is not None or parameters:
        given = [] if arguments.env is None else [arguments.env]
        raise ConfigurationError(
            f"--resume takes environment and parameters from the checkpoint; leave out "
            f"{', '.join([*given, *parameters])}, or change it from Python, as "
            f"DQN.resume(path, env, **parameters)"
        )
    model = DQN.resume(arguments.resume, trusted=arguments.trusted)
    if not isinstance(model.get_params()["env"], str):
        raise ConfigurationError(
            f"the environment of {arguments.resume} has no id; resume it from Python, with "
            f"DQN.resume(path, env)"
        )
    return model


def _timesteps(arguments: argparse.Namespace, model: DQN) -> int:
    """What is to be made: what was asked for, or what a resumed run has left."""
    if arguments.timesteps is not None:
        return int(arguments.timesteps)
    if arguments.resume is None:
        return _recipe_of(arguments).timesteps or TIMESTEPS
    left = model.trainer.total_timesteps - model.num_timesteps
    if left < 1:
        raise ConfigurationError(
            f"the run in {arguments.resume} was complete at {model.num_timesteps:,} timesteps; say "
            f"with --timesteps how long it goes on"
        )
    return left


def _output(arguments: argparse.Namespace, env_id: str) -> Path:
    """Where the model goes: a resumed one to where the run began to write it."""
    if arguments.output:
        return Path(arguments.output)
    if arguments.resume is not None:
        folder = _resumed_folder(arguments)
        if folder.name.endswith(_CHECKPOINTS_OF):
            return folder.with_name(folder.name.removesuffix(_CHECKPOINTS_OF) + ".zip")
    return Path(_file_name(env_id))


def _resumed_folder(arguments: argparse.Namespace) -> Path:
    given = Path(arguments.resume)
    return given if given.is_dir() else given.parent


def _checkpoints(arguments: argparse.Namespace, output: Path) -> list[CheckpointCallback]:
    """Into the folder that is resumed, or one that is named like the output."""
    every = arguments.checkpoint_every
    if every is None:
        if arguments.resume is not None:
            print("No more checkpoints are written; --checkpoint-every N writes them")
        return []
    folder = output.with_name(f"{output.stem}{_CHECKPOINTS_OF}")
    if arguments.resume is not None:
        folder = _resumed_folder(arguments)
    again = ["sbdqn", "train", "--resume", str(folder), "--trusted", "--checkpoint-every", every]
    print(f"Checkpoints go to {folder}; go on from them with: {shlex.join(map(str, again))}")
    return [
        CheckpointCallback(every, folder, resumable=True, keep_last=CHECKPOINTS),
    ]


def _evaluate(arguments: argparse.Namespace) -> None:
    changes: dict[str, Any] = {"n_envs": 1}
    if arguments.env is not None:
        changes["env_kwargs"] = None  # the saved ones are of the saved environment
    model = DQN.load(arguments.file, env=arguments.env, trusted=arguments.trusted, **changes)
    model.close()
    env = model.get_params()["env"]
    if env is None:
        raise ConfigurationError(f"{arguments.file} names no environment; pass --env")
    returns = _play(model, arguments.episodes, arguments.seed)
    _report(
        {
            "environment": env,
            "trained for": f"{model.num_timesteps:,} timesteps",
            "return": _described(returns),
        }
    )


def _export(arguments: argparse.Namespace) -> None:
    policy = load_policy(arguments.model, device="cpu", trusted=arguments.trusted)
    policy.export(arguments.output)
    _report(
        {
            "observations": str(policy.observation_space),
            "actions": str(policy.action_space),
            "saved to": arguments.output,
        }
    )


def _parameters(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the options set.

    Raises:
        ConfigurationError: if something is no `name=value`, or is given twice.
    """
    given = {
        "seed": arguments.seed,
        "n_envs": arguments.n_envs,
        "tensorboard_log": arguments.tensorboard,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    for setting in arguments.set:
        name, separator, text = setting.partition("=")
        if not separator:
            raise ConfigurationError(f"--set takes name=value, not {setting!r}")
        if name in chosen or name == "env":
            raise ConfigurationError(f"{name} is given twice; leave out --set {setting}")
        chosen[name] = _value(text)
    return {**_recipe_of(arguments), **chosen}


def _recipe_name(arguments: argparse.Namespace) -> str:
    """The recipe that is asked for, or else the one that was tuned for the environment."""
    if arguments.recipe is not None:
        return str(arguments.recipe)
    is_new = arguments.env is not None and arguments.resume is None
    return (recipes.tuned_for(arguments.env) if is_new else None) or NO_RECIPE


def _described_recipe(arguments: argparse.Namespace) -> str:
    name = _recipe_name(arguments)
    if arguments.recipe is not None or name == NO_RECIPE:
        return name
    return f"{name}, chosen for {arguments.env} (--recipe {NO_RECIPE}: the defaults)"


def _recipe_of(arguments: argparse.Namespace) -> recipes.Recipe:
    name = _recipe_name(arguments)
    return recipes.Recipe("the defaults") if name == NO_RECIPE else _recipe(name)


def _recipe(name: str) -> recipes.Recipe:
    known = recipes.by_name()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ConfigurationError(f"there is no recipe {name!r}; {hint}`sbdqn recipes` lists them")
    return known[name]


def _show_recipes(arguments: argparse.Namespace) -> None:
    if arguments.recipe is None:
        _report({name: recipe.summary for name, recipe in recipes.by_name().items()})
        print(
            "\nThose of the papers are for Atari and millions of transitions. `sbdqn train ENV`\n"
            "takes the one that was tuned for ENV, if there is one."
        )
    else:
        recipe = _recipe(arguments.recipe)
        print(recipe.summary)
        if recipe.envs:
            print(f"Taken for {', '.join(recipe.envs)}, for {recipe.timesteps:,} timesteps")
        _report({name: represent(value) for name, value in recipe.items()})


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


def _file_name(env_id: str) -> str:
    return re.sub(r"[^\w.-]+", "-", env_id.lower()) + ".zip"


def _require_writable(option: str, file: Path) -> None:
    """Find out, before anything long begins, whether a file could be written.

    Raises:
        ConfigurationError: if it could not.
    """
    if file.exists() and not file.is_file():
        raise ConfigurationError(f"{option}: {file} is not a file; name one in a folder")
    folder = next(parent for parent in file.absolute().parents if parent.exists())
    try:
        tempfile.NamedTemporaryFile(dir=folder, prefix=f".{file.name}.").close()
    except OSError as error:
        raise ConfigurationError(
            f"{option}: {file} cannot be written, because of {folder}: {error.strerror}"
        ) from error


def _build(model: DQN, parameters: Mapping[str, Any]) -> None:
    """Set the parameters, and make environments, networks and replay of them.

    Raises:
        ConfigurationError: if that fails in somebody else's code.
    """
    try:
        model.set_params(**{name: parameters[name] for name in NEEDS_NEW_ENV if name in parameters})
        policy = {} if "policy" in parameters else {"policy": policy_for(model.observation_space)}
        model.set_params(**policy, **parameters)
        assert model.replay_buffer is not None
    except (SbdqnError, OSError):
        raise
    except Exception as error:
        raise ConfigurationError(
            f"the model cannot be made: {type(error).__name__}: {error}"
        ) from error


def _has_progress_bar() -> bool:
    try:
        ProgressBarCallback()
    except MissingDependencyError as error:
        print(f"No progress is shown: {error}")
        return False
    return True


def _play(model: DQN, episodes: int, seed: int | None) -> list[float]:
    """The returns of greedy episodes, in environments of their own."""
    env = model.make_eval_env(min(EVALUATION_ENVS, episodes))
    if not has_time_limit(env):
        env_id = model.get_params()["env"]
        print(
            f"{env_id} has no time limit, so an episode may never end (Ctrl-C ends this); "
            f"--set env_kwargs=\"{{'max_episode_steps':500}}\" when training sets one"
        )
    try:
        returns, _ = evaluate_policy(model, env, episodes, return_episode_rewards=True, seed=seed)
    finally:
        env.close()
    return returns


def _described(returns: list[float]) -> str:
    return (
        f"{np.mean(returns):.1f} +- {np.std(returns):.1f} over {len(returns)} greedy episodes, "
        f"from {min(returns):.1f} to {max(returns):.1f}"
    )


def _changed(model: DQN, recipe: Mapping[str, Any]) -> list[str]:
    """The parameters that are neither the recipe's nor the defaults, as `name=value`."""
    defaults = {name: each.default for name, each in inspect.signature(DQN).parameters.items()}
    expected = {**defaults, "policy": POLICY, **recipe}
    return [
        f"{name}={represent(value)}"
        for name, value in model.get_params(deep=False).items()
        if name != "env" and value != expected[name]
    ]


def _report(rows: Mapping[str, str]) -> None:
    indent = max(map(len, rows)) + 2
    for name, value in rows.items():
        print(f"{name:<{indent}}" + value.replace("\n", "\n" + " " * indent))


def _in_one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    told = str(error).replace("trusted=True", "--trusted")
    return " ".join(told.split()) or type(error).__name__
