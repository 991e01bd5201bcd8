"""Named values and where they are written: stdout, CSV, TensorBoard; names as in SB3."""

from __future__ import annotations

import csv
import sys
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
import torch

from sbdqn.errors import ConfigurationError, MissingDependencyError, NotReadyError, SbdqnError

Values = Mapping[str, Any]
Excluded = Mapping[str, tuple[str, ...]]
Exclude = str | tuple[str, ...] | None


class FormatUnsupportedError(SbdqnError, NotImplementedError):
    """A value that an output cannot show, as a video on stdout."""


class Figure(NamedTuple):
    """A `matplotlib.figure.Figure`, and whether to close it once written."""

    figure: Any
    close: bool


class Image(NamedTuple):
    """An image, and the meaning of its axes, as `"HWC"` or `"CHW"`."""

    image: torch.Tensor | np.ndarray[Any, Any] | str
    dataformats: str


class Video(NamedTuple):
    """Frames of shape (B, T, C, H, W) at `fps` per second; TensorBoard needs moviepy for it."""

    frames: torch.Tensor
    fps: float


@dataclass(frozen=True)
class HParam:
    """Hyperparameters, and the recorded keys by which TensorBoard compares runs."""

    hparam_dict: Mapping[str, bool | str | float | None]
    metric_dict: Mapping[str, float]

    def __post_init__(self) -> None:
        if not self.metric_dict:
            raise ConfigurationError("metric_dict is empty: TensorBoard would show nothing")


class KVWriter(ABC):
    """An output; each dump gives it the values, arrays of one element as Python numbers."""

    @abstractmethod
    def write(self, key_values: Values, key_excluded: Excluded, step: int = 0) -> None:
        """Write what `key_excluded` does not keep from this format, as of timestep `step`."""

    def close(self) -> None:  # noqa: B027, an output that holds nothing need not say so
        """Release what the output holds; by default nothing."""


class HumanOutputFormat(KVWriter):
    """A table on stdout or in an open text file, its rows grouped by the prefix of their keys.

    `sys.stdout` stands for what it is at each write; values are cut to `max_length` characters.
    """

    def __init__(self, file: TextIO, max_length: int = 36) -> None:
        self.max_length = max_length
        self._file = None if file is sys.stdout else file

    def write(self, key_values: Values, key_excluded: Excluded, step: int = 0) -> None:
        """Write the values as a table."""
        rows = [*self._rows(_meant_for(key_values, key_excluded, "stdout", "log"))]
        if not rows:
            return
        key_width, value_width = (max(map(len, column)) for column in zip(*rows, strict=True))
        rule = "-" * (key_width + value_width + 7)
        lines = [f"| {key:<{key_width}} | {value:<{value_width}} |" for key, value in rows]
        self.write_sequence(["\n".join([rule, *lines, rule])])

    def write_sequence(self, sequence: Sequence[str]) -> None:
        """Write a line of text, its parts separated by spaces."""
        file = sys.stdout if self._file is None else self._file
        beside_bars = self._file is None and "tqdm" in sys.modules  # whose bars stay in one piece
        write = sys.modules["tqdm"].tqdm.write if beside_bars else print
        write(" ".join(sequence), file=file)
        file.flush()

    def _rows(self, values: Values) -> Iterator[tuple[str, str]]:
        heads = {key[: key.index("/") + 1]: "" for key in values if "/" in key}
        for key, value in sorted({**heads, **values}.items()):  # a head sorts before its group
            name = key if key in heads or "/" not in key else f"   {key.partition('/')[2]}"
            text = f"{value:<8.3g}" if isinstance(value, float) else " ".join(str(value).split())
            yield name, f"{text[: self.max_length - 3]}..." if len(text) > self.max_length else text


class CSVOutputFormat(KVWriter):
    """A new CSV file with a row for each dump and a column for each key ever recorded."""

    def __init__(self, filename: str | Path) -> None:
        self.keys: list[str] = []
        self._path = Path(filename)
        self._path.write_text("")

    def write(self, key_values: Values, key_excluded: Excluded, step: int = 0) -> None:
        """Write the values as a row."""
        values = _meant_for(key_values, key_excluded, "csv")
        if not values:
            return
        new_keys = [key for key in values if key not in self.keys]
        if new_keys:
            self._add_columns(new_keys)
        with self._path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow([values.get(key) for key in self.keys])

    def _add_columns(self, new_keys: list[str]) -> None:
        limit = csv.field_size_limit(2**31 - 1)  # what could be written can be read
        with self._path.open(encoding="utf-8", newline="") as file:
            rows = [row + [""] * len(new_keys) for row in csv.reader(file)]
        csv.field_size_limit(limit)
        wider = self._path.with_name(f"{self._path.name}.tmp")
        with wider.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([self.keys + new_keys, *rows[1:]])
        wider.replace(self._path)  # whoever reads meets the old file or the new one
        self.keys += new_keys


class TensorBoardOutputFormat(KVWriter):
    """A new TensorBoard event file in a folder; `writer` is its `SummaryWriter`."""

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingDependencyError("for TensorBoard logs: pip install tensorboard") from error
        self.writer: Any = SummaryWriter(str(folder))
        weakref.finalize(self, self.writer.close)  # whose thread would wait for ever

    def write(self, key_values: Values, key_excluded: Excluded, step: int = 0) -> None:
        """Write the values as events; what TensorBoard has no form for, as None, is left out."""
        for key, value in _meant_for(key_values, key_excluded, "tensorboard").items():
            self._add(key, value, step)
        self.writer.flush()

    def close(self) -> None:
        """Flush and close the event file."""
        self.writer.close()

    @np.errstate(all="ignore")  # a histogram sums up infinities
    def _add(self, key: str, value: Any, step: int) -> None:
        match value:
            case str():
                self.writer.add_text(key, value, step)
            case int() | float():
                self.writer.add_scalar(key, value, step)
            case torch.Tensor() | np.ndarray():
                try:
                    self.writer.add_histogram(key, value, step)
                except ValueError as error:  # nothing finite to count: say so, and train on
                    self.writer.add_text(key, f"{value}: {error}", step)
            case Figure(figure, close):
                self.writer.add_figure(key, figure, step, close)
            case Image(image, dataformats):
                self.writer.add_image(key, image, step, dataformats=dataformats)
            case Video(frames, fps):
                self.writer.add_video(key, frames, step, fps)
            case HParam(parameters, metrics):  # `add_hparams` would start another run
                from torch.utils.tensorboard.summary import hparams

                for summary in hparams(dict(parameters), dict(metrics)):  # type: ignore[no-untyped-call]
                    self.writer.file_writer.add_summary(summary)


class Logger:
    """Collects values by key and writes them to every output at each `dump`.

    Example:
        >>> logger = Logger(None, [HumanOutputFormat(sys.stdout)])
        >>> logger.record("loss", torch.tensor(0.5))
        >>> logger.dump(step=100)
        -------------------
        | loss | 0.5      |
        -------------------
    """

    def __init__(self, folder: str | None, output_formats: Sequence[KVWriter]) -> None:
        self.name_to_value: dict[str, Any] = defaultdict(float)  # so in SB3
        self.name_to_count: dict[str, int] = {}
        self.name_to_excluded: dict[str, tuple[str, ...]] = {}
        self.dir = folder
        self.output_formats = list(output_formats)
        self._closed = False

    def record(self, key: str, value: Any, exclude: Exclude = None) -> None:
        """Remember a value (a copy, if a tensor or array) for the next dump."""
        value = value.detach().clone() if isinstance(value, torch.Tensor) else value
        self.name_to_value[key] = value.copy() if isinstance(value, np.ndarray) else value
        self.name_to_excluded[key] = (exclude,) if isinstance(exclude, str) else exclude or ()
        self.name_to_count.pop(key, None)

    def record_mean(self, key: str, value: Any, exclude: Exclude = None) -> None:
        """Remember the mean of what was given since the last dump; None is ignored."""
        if value is None:
            return
        if isinstance(value, torch.Tensor):  # in bfloat16 a long mean would no longer move
            value = value.to(torch.promote_types(value.dtype, torch.float32))
        elif isinstance(value, np.generic):  # which could not be added to a tensor on a device
            value = value.item()
        count = self.name_to_count.get(key, 0)
        total = self.name_to_value[key] * count + value if count else value
        self.record(key, total / (count + 1), exclude)
        self.name_to_count[key] = count + 1

    def dump(self, step: int = 0) -> None:
        """Write what is recorded to every output and forget it; here a device is waited for.

        Raises:
            FormatUnsupportedError: an output cannot show a value that does not exclude it.
            NotReadyError: the logger is closed.
        """
        if self._closed:
            raise NotReadyError("this logger is closed: make a new one with `configure`")
        excluded = dict(self.name_to_excluded)  # names what was recorded, not merely looked at
        values = {key: self.name_to_value[key] for key in excluded}
        for recorded in (self.name_to_value, self.name_to_count, self.name_to_excluded):
            recorded.clear()
        for key, value in values.items() if self.output_formats else ():
            if isinstance(value, torch.Tensor | np.ndarray | np.generic) and set(value.shape) <= {
                1
            }:
                values[key] = value.item()
        for output in self.output_formats:
            output.write(values, excluded, step)

    def log(self, *args: object) -> None:
        """Write a line of text to the outputs for humans."""
        for output in self.output_formats:
            if isinstance(output, HumanOutputFormat):
                output.write_sequence([str(arg) for arg in args])

    def get_dir(self) -> str | None:
        """The folder of the outputs' files."""
        return self.dir

    def close(self) -> None:
        """Close every output; a second time does nothing."""
        for output in [] if self._closed else self.output_formats:
            output.close()
        self._closed = True


def configure(folder: str | None = None, format_strings: Sequence[str] | None = None) -> Logger:
    """Make a logger; `folder` and `format_strings` default to a temporary one, stdout and CSV."""
    makers: dict[str, Callable[[Path], KVWriter]] = {
        "stdout": lambda _: HumanOutputFormat(sys.stdout),
        "csv": lambda path: CSVOutputFormat(path / "progress.csv"),
        "tensorboard": TensorBoardOutputFormat,
    }
    given = ("stdout", "csv") if format_strings is None else format_strings
    formats = [name for name in dict.fromkeys(given) if name]
    if not makers.keys() >= set(formats):
        raise ConfigurationError(f"format_strings must be some of {[*makers]}, not {given!r}")
    path = Path(folder or tempfile.mkdtemp(prefix="sbdqn-"))
    path.mkdir(parents=True, exist_ok=True)
    logger = Logger(str(path), [makers[name](path) for name in formats])
    if formats != ["stdout"]:
        logger.log(f"Logging to {path}")
    return logger


def next_run_folder(parent: str | Path, name: str) -> Path:
    """The folder `NAME_n` with n one more than the highest there is, or 1; it is not made."""
    first = Path(parent, f"{name}_1")  # a name may lead into a folder below
    stem = first.name.removesuffix("1")
    runs = [p.name.removeprefix(stem) for p in first.parent.glob("*") if p.name.startswith(stem)]
    numbers = [int(run) for run in runs if run.isascii() and run.isdigit()]
    return first.with_name(f"{stem}{max(numbers, default=0) + 1}")


def _meant_for(key_values: Values, key_excluded: Excluded, *formats: str) -> Values:
    values = {
        k: v for k, v in key_values.items() if not set(formats) & set(key_excluded.get(k, ()))
    }
    media = [k for k, v in values.items() if isinstance(v, Figure | Image | Video | HParam)]
    if media and "tensorboard" not in formats:
        raise FormatUnsupportedError(f"{formats} cannot show {media}: pass exclude={formats}")
    return values
