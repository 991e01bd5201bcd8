"""The logger: what is recorded arrives in every output, and nothing is lost."""

from __future__ import annotations

import csv
import io
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from sbdqn.errors import ConfigurationError, MissingDependencyError, NotReadyError, SbdqnError
from sbdqn.logger import (
    CSVOutputFormat,
    Figure,
    FormatUnsupportedError,
    HParam,
    HumanOutputFormat,
    Image,
    KVWriter,
    Logger,
    TensorBoardOutputFormat,
    Video,
    configure,
    next_run_folder,
)

MEDIA = {
    "Figure": Figure(None, close=True),
    "Image": Image(torch.zeros(2, 2), "HW"),
    "Video": Video(torch.zeros(1, 1, 3, 2, 2), fps=4),
    "HParam": HParam({"gamma": 0.9}, {"eval/mean_reward": 0.0}),
}


class Memory(KVWriter):
    """An output that keeps what it gets, as a user would write it: without `close`."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.rows: list[tuple[dict[str, Any], dict[str, tuple[str, ...]], int]] = []

    def write(
        self,
        key_values: Mapping[str, Any],
        key_excluded: Mapping[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        """Keep the values."""
        self.rows.append((dict(key_values), dict(key_excluded), step))


class Closing(Memory):
    """An output that counts how often it is closed."""

    closed = 0

    def close(self) -> None:
        """Count."""
        self.closed += 1


class Guarded(torch.Tensor):
    """A tensor on a device that must not be waited for, until `released`."""

    released = False

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Refuse what would wait."""
        waits = {"item", "tolist", "cpu", "numpy", "__float__", "__bool__", "__int__", "__array__"}
        assert cls.released or func.__name__ not in waits, f"{func.__name__} waits for the device"
        result = super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        return result


@pytest.fixture(autouse=True)
def _guard_again() -> Iterator[None]:
    yield
    Guarded.released = False


def read_csv(folder: Path) -> list[dict[str, str]]:
    with (folder / "progress.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_events(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    with np.errstate(all="ignore"):  # it compresses histograms that may hold infinities
        events.Reload()
    return events


def scalars(folder: Path, key: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read_events(folder).Scalars(key)]


def text(folder: Path, key: str) -> str:
    (event,) = read_events(folder).Tensors(f"{key}/text_summary")
    return str(event.tensor_proto.string_val[0].decode())


def test_dump_writes_what_is_recorded_and_forgets_it() -> None:
    memory = Memory()
    logger = Logger(None, [memory])
    logger.record("train/loss", 1.0)
    logger.record("train/loss", 2.0, exclude="csv")
    logger.record("time/fps", 60, exclude=("stdout", "csv"))
    assert logger.name_to_value == {"train/loss": 2.0, "time/fps": 60}
    logger.dump(step=100)
    logger.dump(step=200)
    assert memory.rows == [
        (
            {"train/loss": 2.0, "time/fps": 60},
            {"train/loss": ("csv",), "time/fps": ("stdout", "csv")},
            100,
        ),
        ({}, {}, 200),
    ]


def test_looking_at_an_absent_key_gives_zero_and_records_nothing() -> None:
    memory = Memory()
    logger = Logger(None, [memory])
    assert logger.name_to_value["rollout/ep_rew_mean"] == 0.0
    logger.dump()
    assert memory.rows == [({}, {}, 0)]


def test_a_mean_weighs_every_value_alike() -> None:
    logger = Logger(None, [])
    for value in (1, None, 2.0, np.float32(6.0)):
        logger.record_mean("train/loss", value)
    assert logger.name_to_value["train/loss"] == 3.0


def test_a_mean_begins_anew_after_a_dump_and_after_a_record() -> None:
    memory = Memory()
    logger = Logger(None, [memory])
    logger.record_mean("loss", 10.0)
    logger.dump()
    logger.record_mean("loss", 1.0)
    logger.record("loss", math.nan)
    logger.record_mean("loss", 4.0, exclude="csv")
    logger.dump()
    assert [row[0] for row in memory.rows] == [{"loss": 10.0}, {"loss": 4.0}]
    assert memory.rows[1][1] == {"loss": ("csv",)}


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_a_mean_with_an_infinity_is_infinite(value: float) -> None:
    logger = Logger(None, [])
    for summand in (1.0, value, 2.0):
        logger.record_mean("loss", summand)
    assert logger.name_to_value["loss"] == value


def test_only_a_dump_waits_for_the_device() -> None:
    memory = Memory()
    logger = Logger(None, [memory])
    logger.record("train/q_mean", torch.tensor(3.0).as_subclass(Guarded))
    for value in (torch.tensor(1.0), torch.tensor(2.0)):
        logger.record_mean("train/loss", value.as_subclass(Guarded))
    logger.record_mean("train/loss", 6.0)
    Guarded.released = True
    logger.dump()
    assert memory.rows[0][0] == {"train/q_mean": 3.0, "train/loss": 3.0}
    assert type(memory.rows[0][0]["train/loss"]) is float


def test_the_guarded_tensor_of_these_tests_notices_a_wait() -> None:
    with pytest.raises(AssertionError, match="item waits"):
        torch.tensor(1.0).as_subclass(Guarded).item()


def test_a_dump_without_outputs_does_not_wait_for_the_device() -> None:
    logger = Logger(None, [])
    logger.record("train/q_mean", torch.tensor(3.0).as_subclass(Guarded))
    logger.dump()
    assert logger.name_to_value == {}


def test_recorded_tensors_hold_no_graph_and_do_not_change_with_their_source() -> None:
    memory = Memory()
    logger = Logger(None, [memory])
    loss, weights, counts = torch.ones((), requires_grad=True) * 2, torch.ones(3), np.ones(3)
    logger.record("loss", loss)
    logger.record_mean("mean", loss)
    logger.record_mean("mean", loss)
    logger.record("weights", weights)
    logger.record("counts", counts)
    assert not logger.name_to_value["loss"].requires_grad
    assert not logger.name_to_value["mean"].requires_grad
    with torch.no_grad():
        for source in (loss, weights):
            source.zero_()
    counts[:] = 0
    logger.dump()
    values = memory.rows[0][0]
    assert (values["loss"], values["mean"]) == (2.0, 2.0)
    assert values["weights"].tolist() == values["counts"].tolist() == [1.0, 1.0, 1.0]


def test_a_long_mean_of_bfloat16_keeps_moving() -> None:
    logger = Logger(None, [])
    for value in range(2_000):
        logger.record_mean("loss", torch.tensor(float(value % 2), dtype=torch.bfloat16))
    assert logger.name_to_value["loss"].item() == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (torch.tensor(2), 2),
        (torch.tensor([[0.5]]), 0.5),
        (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.array(1.5), 1.5),
        (np.array([3]), 3),
    ],
)
def test_one_element_becomes_a_python_number(value: object, number: object) -> None:
    memory = Memory()
    logger = Logger(None, [memory])
    logger.record("key", value)
    logger.dump()
    written = memory.rows[0][0]["key"]
    assert written == number
    assert type(written) is type(number)


def test_after_a_failed_write_the_values_do_not_come_again(tmp_path: Path) -> None:
    logger = configure(str(tmp_path), ["csv"])
    logger.record("image", MEDIA["Image"])
    with pytest.raises(FormatUnsupportedError):
        logger.dump()
    logger.record("loss", 1)
    logger.dump()
    assert read_csv(tmp_path) == [{"loss": "1"}]


def test_closing_twice_closes_the_outputs_once() -> None:
    closing = Closing()
    logger = Logger(None, [closing, Memory()])
    logger.close()
    logger.close()
    assert closing.closed == 1


def test_a_dump_after_close_says_so() -> None:
    logger = Logger(None, [])
    logger.close()
    logger.record("loss", 1.0)
    with pytest.raises(NotReadyError, match="closed"):
        logger.dump()


def test_every_output_closes(tmp_path: Path) -> None:
    logger = configure(str(tmp_path), ["csv", "tensorboard"])
    logger.record("loss", 1.0)
    logger.dump(step=3)
    logger.close()
    logger.close()
    assert scalars(tmp_path, "loss") == [(3, 1.0)]


def test_the_table_groups_keys_by_prefix(capsys: pytest.CaptureFixture[str]) -> None:
    logger = Logger(None, [HumanOutputFormat(sys.stdout)])
    logger.record("time/fps", 1234)
    logger.record("rollout/ep_rew_mean", 123.456)
    logger.record("rollout/ep_len_mean", torch.tensor(20.0))
    logger.record("alone", None)
    logger.dump()
    assert capsys.readouterr().out.splitlines() == [
        "-----------------------------",
        "| alone          | None     |",
        "| rollout/       |          |",
        "|    ep_len_mean | 20       |",
        "|    ep_rew_mean | 123      |",
        "| time/          |          |",
        "|    fps         | 1234     |",
        "-----------------------------",
    ]


def test_the_table_cuts_long_values_and_keeps_each_on_its_line() -> None:
    file = io.StringIO()
    logger = Logger(None, [HumanOutputFormat(file, max_length=10)])
    logger.record("text", "one\ntwo three four")
    logger.record("weights", np.arange(100))
    logger.dump()
    assert file.getvalue().splitlines()[1:-1] == [
        "| text    | one two... |",
        "| weights | [ 0 1 2... |",
    ]


def test_long_keys_that_begin_alike_are_told_apart() -> None:
    file = io.StringIO()
    logger = Logger(None, [HumanOutputFormat(file)])
    logger.record("a" * 50 + "1", 1)
    logger.record("a" * 50 + "2", 2)
    logger.dump()
    assert len(file.getvalue().splitlines()) == 4


@pytest.mark.parametrize("exclude", ["stdout", "log", ("stdout", "tensorboard")])
def test_a_table_of_nothing_is_not_written(exclude: Any) -> None:
    file = io.StringIO()
    logger = Logger(None, [HumanOutputFormat(file)])
    logger.record("video", MEDIA["Video"], exclude=exclude)
    logger.dump()
    logger.dump()
    assert file.getvalue() == ""


def test_log_writes_a_line_to_stdout_outputs_only(capsys: pytest.CaptureFixture[str]) -> None:
    memory = Memory()
    logger = Logger(None, [memory, HumanOutputFormat(sys.stdout)])
    logger.log("seed", 3)
    assert capsys.readouterr().out == "seed 3\n"
    assert memory.rows == []


def test_stdout_is_what_it_is_at_the_time_of_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    output = HumanOutputFormat(sys.stdout)
    replaced = io.StringIO()
    monkeypatch.setattr(sys, "stdout", replaced)
    output.write_sequence(["later"])
    assert replaced.getvalue() == "later\n"


def test_stdout_is_written_beside_a_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []

    def write(line: str, file: object) -> None:
        assert file is sys.stdout
        lines.append(line)

    monkeypatch.setitem(sys.modules, "tqdm", SimpleNamespace(tqdm=SimpleNamespace(write=write)))
    HumanOutputFormat(sys.stdout).write_sequence(["beside"])
    assert lines == ["beside"]


def test_stdout_needs_no_tqdm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "tqdm", raising=False)
    HumanOutputFormat(sys.stdout).write_sequence(["a", "b"])
    assert capsys.readouterr().out == "a b\n"


def test_csv_gains_a_column_without_losing_rows(tmp_path: Path) -> None:
    logger = configure(str(tmp_path), ["csv"])
    logger.record("b", 1)
    logger.dump()
    logger.record("b", 2)
    logger.record("a", 0.5)
    logger.dump()
    logger.record("c", None)
    logger.dump()
    assert (tmp_path / "progress.csv").read_text() == "b,a,c\n1,,\n2,0.5,\n,,\n"
    assert [path.name for path in tmp_path.iterdir()] == ["progress.csv"]


def test_csv_is_whole_if_gaining_a_column_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = configure(str(tmp_path), ["csv"])
    logger.record("a", 1)
    logger.dump()
    logger.record("b", 2)

    def fail(*_: object) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="killed"):
            logger.dump()
    assert read_csv(tmp_path) == [{"a": "1"}]
    logger.record("b", 3)
    logger.dump()
    assert read_csv(tmp_path) == [{"a": "1", "b": ""}, {"a": "", "b": "3"}]


def test_csv_keeps_commas_quotes_line_breaks_and_long_texts(tmp_path: Path) -> None:
    texts = ["a,b", 'say "hi"', "two\nlines\r\n", "ü", "", "x" * 200_000]
    limit = csv.field_size_limit()
    logger = configure(str(tmp_path), ["csv"])
    for index, value in enumerate(texts):
        logger.record("text,or so", value)
        logger.record(f"new {index}", index)  # every row makes the file anew
        logger.dump()
    assert csv.field_size_limit() == limit
    csv.field_size_limit(300_000)
    try:
        assert [row["text,or so"] for row in read_csv(tmp_path)] == texts
    finally:
        csv.field_size_limit(limit)


def test_csv_lines_are_on_disk_after_each_dump(tmp_path: Path) -> None:
    logger = configure(str(tmp_path), ["csv"])
    for step in range(3):
        logger.record("step", step)
        logger.dump()
        assert read_csv(tmp_path)[-1] == {"step": str(step)}


def test_csv_writes_no_row_for_nothing(tmp_path: Path) -> None:
    logger = configure(str(tmp_path), ["csv"])
    logger.record("a", 1)
    logger.dump()
    logger.record("a", 1, exclude="csv")
    logger.dump()
    logger.dump()
    assert len(read_csv(tmp_path)) == 1


def test_csv_begins_anew_in_a_used_folder(tmp_path: Path) -> None:
    (tmp_path / "progress.csv").write_text("old\n1\n")
    CSVOutputFormat(tmp_path / "progress.csv").write({"new": 2}, {})
    assert read_csv(tmp_path) == [{"new": "2"}]


def test_tensorboard_gets_scalars_texts_and_histograms(tmp_path: Path) -> None:
    logger = configure(str(tmp_path), ["tensorboard"])
    logger.record("scalar", torch.tensor(0.5))
    logger.record("flag", True)
    logger.record("text", "hello")
    logger.record("tensor", torch.tensor([1.0, 2.0, 3.0]))
    logger.record("array", np.array([4, 5]))
    logger.record("half", torch.ones(2, dtype=torch.bfloat16))
    logger.record("nothing", None)
    logger.record("hidden", 1.0, exclude="tensorboard")
    logger.dump(step=7)  # not closed: what is dumped is on disk
    events = read_events(tmp_path)
    assert set(events.Tags()["scalars"]) == {"scalar", "flag"}
    assert set(events.Tags()["histograms"]) == {"tensor", "array", "half"}
    assert scalars(tmp_path, "scalar") == [(7, 0.5)]
    assert scalars(tmp_path, "flag") == [(7, 1.0)]
    assert text(tmp_path, "text") == "hello"
    (event,) = events.Histograms("tensor")
    value = event.histogram_value
    assert (event.step, value.min, value.max, value.num, value.sum) == (7, 1.0, 3.0, 3, 6.0)
    logger.close()


def test_tensorboard_gets_images_figures_and_videos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure(figsize=(1, 1), dpi=20)
    frames: list[int] = []

    def clip(images: list[np.ndarray[Any, Any]], fps: float) -> SimpleNamespace:
        frames.extend([len(images), int(fps)])
        return SimpleNamespace(write_gif=lambda filename, **_: Path(filename).write_bytes(b"gif"))

    moviepy = SimpleNamespace(editor=SimpleNamespace(ImageSequenceClip=clip))
    monkeypatch.setitem(sys.modules, "moviepy", moviepy)
    logger = configure(str(tmp_path), ["tensorboard"])
    logger.record("image", Image(torch.zeros(4, 6, 3), "HWC"))
    logger.record("figure", Figure(figure, close=True))
    logger.record("video", Video(torch.zeros(1, 5, 3, 8, 10, dtype=torch.uint8), fps=4))
    logger.dump(step=1)
    logger.close()
    events = read_events(tmp_path)
    images = {key: events.Images(key)[0] for key in ("image", "figure", "video")}
    sizes = {key: (image.width, image.height) for key, image in images.items()}
    assert sizes == {"image": (6, 4), "figure": (20, 20), "video": (10, 8)}
    assert images["video"].encoded_image_string == b"gif"
    assert frames == [5, 4]


def test_tensorboard_gets_hyperparameters_in_the_same_run(tmp_path: Path) -> None:
    logger = configure(str(tmp_path), ["tensorboard"])
    logger.record("hparams", HParam({"gamma": 0.9, "policy": "Mlp"}, {"eval/mean_reward": 0.0}))
    logger.dump()
    logger.close()
    assert len(list(tmp_path.rglob("*tfevents*"))) == 1
    plugins = read_events(tmp_path).summary_metadata
    content = plugins["_hparams_/session_start_info"].plugin_data.content
    assert b"gamma" in content
    assert b"Mlp" in content
    assert b"eval/mean_reward" in plugins["_hparams_/experiment"].plugin_data.content


def test_hyperparameters_need_a_metric() -> None:
    with pytest.raises(ConfigurationError, match="metric_dict is empty"):
        HParam({"gamma": 0.9}, {})


def test_the_summary_writer_is_there_for_more(tmp_path: Path) -> None:
    logger = configure(str(tmp_path), ["csv", "tensorboard"])
    (output,) = (o for o in logger.output_formats if isinstance(o, TensorBoardOutputFormat))
    output.writer.add_text("direct", "message", 1)
    logger.close()
    assert text(tmp_path, "direct") == "message"


def test_without_tensorboard_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingDependencyError, match="pip install tensorboard"):
        configure(str(tmp_path), ["tensorboard"])


def test_tensorboard_is_imported_only_when_it_is_used() -> None:
    code = (
        "import sys, tempfile, sbdqn.logger as logger\n"
        "logger.configure(tempfile.mkdtemp(), ['csv']).dump()\n"
        "assert not [name for name in sys.modules if 'tensorboard' in name]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, torch.tensor(math.nan)])
def test_what_is_not_finite_is_written_as_it_is(
    value: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = configure(str(tmp_path), ["stdout", "csv", "tensorboard"])
    logger.record("key", value)
    logger.dump(step=2)
    logger.close()
    name = str(float(value))
    assert f"| key | {name:<8} |" in capsys.readouterr().out
    assert read_csv(tmp_path) == [{"key": name}]
    ((step, written),) = scalars(tmp_path, "key")
    assert step == 2
    assert str(written) == name


@pytest.mark.parametrize(
    "values",
    [
        np.array([math.nan, 1.0]),
        torch.tensor([math.inf, -math.inf, 1.0]),
        np.array([1e300, 1.0]),
    ],
)
def test_a_histogram_counts_what_is_finite(values: Any, tmp_path: Path) -> None:
    logger = configure(str(tmp_path), ["tensorboard"])
    logger.record("weights", values)
    logger.dump()
    logger.close()
    (event,) = read_events(tmp_path).Histograms("weights")
    assert sum(event.histogram_value.bucket) == 1


@pytest.mark.parametrize("values", [np.array([math.nan] * 2), torch.tensor([math.inf] * 2), []])
def test_a_histogram_of_nothing_finite_becomes_a_text(values: Any, tmp_path: Path) -> None:
    logger = configure(str(tmp_path), ["tensorboard"])
    logger.record("weights", torch.as_tensor(values))
    logger.dump()
    logger.close()
    assert text(tmp_path, "weights").startswith("tensor([")


@pytest.mark.parametrize("output_format", ["stdout", "csv"])
@pytest.mark.parametrize("kind", MEDIA)
def test_text_outputs_refuse_media_and_say_how_to_exclude_them(
    output_format: str, kind: str, tmp_path: Path
) -> None:
    logger = configure(str(tmp_path), [output_format])
    logger.record("the/key", MEDIA[kind])
    with pytest.raises(FormatUnsupportedError, match=f"the/key.*exclude=.*{output_format}") as info:
        logger.dump()
    assert isinstance(info.value, SbdqnError)
    assert isinstance(info.value, NotImplementedError)
    logger.record("the/key", MEDIA[kind], exclude=("stdout", "log", "json", "csv"))
    logger.dump()


def test_configure_logs_to_stdout_and_csv_by_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "run"
    logger = configure(str(folder))
    kinds = [type(output) for output in logger.output_formats]
    assert kinds == [HumanOutputFormat, CSVOutputFormat]
    assert logger.dir == logger.get_dir() == str(folder)
    assert capsys.readouterr().out == f"Logging to {folder}\n"


def test_configure_without_a_folder_makes_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    loggers = [configure(None, ["stdout"]) for _ in range(2)]
    folders = {logger.dir for logger in loggers}
    assert folders == {str(path) for path in tmp_path.iterdir()}
    assert len(folders) == 2
    assert capsys.readouterr().out == ""


def test_configure_takes_a_format_once_and_ignores_empty_ones(tmp_path: Path) -> None:
    assert configure(str(tmp_path), [""]).output_formats == []
    assert len(configure(str(tmp_path), ["csv", "", "csv"]).output_formats) == 1


@pytest.mark.parametrize("formats", [["csv", "parquet"], "csv"])
def test_an_unknown_format_is_refused_before_anything_is_made(formats: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as info:
        configure(str(tmp_path / "run"), formats)
    assert str(info.value) == (
        f"format_strings must be some of ['stdout', 'csv', 'tensorboard'], not {formats!r}"
    )
    assert not (tmp_path / "run").exists()


def test_the_first_run_has_number_one(tmp_path: Path) -> None:
    assert next_run_folder(tmp_path, "DQN") == tmp_path / "DQN_1"
    assert next_run_folder(str(tmp_path / "absent"), "DQN") == tmp_path / "absent" / "DQN_1"
    assert not (tmp_path / "absent").exists()


def test_the_next_run_follows_the_highest_number(tmp_path: Path) -> None:
    for number in (1, 2, 9, 10):
        (tmp_path / f"DQN_{number}").mkdir()
    assert next_run_folder(tmp_path, "DQN") == tmp_path / "DQN_11"


def test_other_names_are_not_runs_of_this_one(tmp_path: Path) -> None:
    for name in ("DQN", "DQN_", "DQN_x", "DQN_1_7", "DQN_²", "DQN_-3", "QRDQN_8", "DQNx_5", "6"):
        (tmp_path / name).mkdir()
    assert next_run_folder(tmp_path, "DQN").name == "DQN_1"
    assert next_run_folder(tmp_path, "DQN_1").name == "DQN_1_8"


@pytest.mark.parametrize("name", ["a[0-9]*", "a?b", "(a|b)+.", "a.b", "[!x]", ".hidden", "a_1"])
def test_a_name_with_special_characters_is_taken_as_it_is(name: str, tmp_path: Path) -> None:
    for _ in range(2):
        next_run_folder(tmp_path, name).mkdir()
    assert next_run_folder(tmp_path, name).name == f"{name}_3"


def test_a_name_may_lead_into_a_folder_below(tmp_path: Path) -> None:
    next_run_folder(tmp_path, "cartpole/DQN").mkdir(parents=True)
    assert next_run_folder(tmp_path, "cartpole/DQN") == tmp_path / "cartpole" / "DQN_2"
