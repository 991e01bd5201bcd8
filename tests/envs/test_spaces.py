"""Observations and actions as users give them, and as they are stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from sbdqn.envs import ObservationAdapter, actions_in, discrete_actions
from sbdqn.errors import SpaceError
from sbdqn.protocols import ObservationPart

BOX = spaces.Box(-10, 10, (3,), np.float32)
IMAGE = spaces.Box(0, 255, (2, 4, 5), np.uint8)
STACK = spaces.Box(0, 255, (2, 6, 6), np.uint8)
STATES = spaces.Discrete(5, start=2)
MULTI = spaces.MultiDiscrete([2, 3], start=[1, -1])
BINARY = spaces.MultiBinary(3)


def batch(space: spaces.Space[Any], observation: Any) -> tuple[Any, bool]:
    return ObservationAdapter(space).batch(observation)


# How observations are stored ------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "shape", "dtype"),
    [
        (BOX, (3,), np.float32),
        (spaces.Box(-1, 1, (3,), np.float64), (3,), np.float32),
        (spaces.Box(-1, 1, (3,), np.float16), (3,), np.float16),
        (spaces.Box(-1, 1, (), np.float32), (), np.float32),
        (IMAGE, (2, 4, 5), np.uint8),
        (spaces.Box(0, 9, (2,), np.uint16), (2,), np.int32),
        (spaces.Box(0, 9, (2,), np.uint32), (2,), np.int64),
        (spaces.Box(0, 9, (2,), np.uint64), (2,), np.int64),
        (spaces.Box(-9, 9, (2,), np.int32), (2,), np.int32),
        (STATES, (), np.int64),
        (MULTI, (2,), np.int64),
        (spaces.MultiDiscrete([[2, 3], [4, 5]]), (2, 2), np.int64),
        (BINARY, (3,), np.int8),
        (spaces.MultiBinary([2, 2]), (2, 2), np.int8),
    ],
    ids=str,
)
def test_what_torch_has_no_dtype_for_is_stored_as_one_it_has(
    space: spaces.Space[Any], shape: tuple[int, ...], dtype: Any
) -> None:
    adapter = ObservationAdapter(space)
    assert adapter.layout == ObservationPart(shape, np.dtype(dtype))
    stored = adapter.stored(np.stack([space.sample(), space.sample()]))
    assert (stored.shape, stored.dtype) == ((2, *shape), np.dtype(dtype))
    assert torch.from_numpy(stored).shape == (2, *shape)


def test_what_is_stored_is_a_copy() -> None:
    given = np.zeros((2, 3), np.float32)
    stored = ObservationAdapter(BOX).stored(given)
    given += 1
    assert stored.sum() == 0


@pytest.mark.parametrize(
    "space",
    [
        spaces.Text(5),
        spaces.Sequence(BOX),
    ],
    ids=str,
)
def test_spaces_that_cannot_be_stored_are_refused_with_the_way_out(
    space: spaces.Space[Any],
) -> None:
    with pytest.raises(SpaceError, match=r"accepted are Box.*FlattenObservation"):
        ObservationAdapter(space)


# What users may pass ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "one",
    [
        [1, 2, 3],
        (1.0, 2.0, 3.0),
        np.array([1, 2, 3]),
        np.array([1, 2, 3], np.float64),
        np.array([1, 2, 3], np.float16),
        np.array([1, 2, 3], np.uint8),
        torch.tensor([1.0, 2.0, 3.0]),
        torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True),
        [np.float64(1), np.int64(2), 3],
    ],
    ids=str,
)
def test_any_numbers_of_the_shape_are_one_observation(one: Any) -> None:
    values, single = batch(BOX, one)
    assert single
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, [[1, 2, 3]])


@pytest.mark.parametrize(
    "many",
    [
        [[1, 2, 3], [4, 5, 6]],
        np.array([[1, 2, 3], [4, 5, 6]], np.float32),
        torch.tensor([[1, 2, 3], [4, 5, 6]]),
        [np.array([1, 2, 3]), np.array([4, 5, 6])],
    ],
    ids=str,
)
def test_an_axis_before_the_shape_is_a_batch(many: Any) -> None:
    values, single = batch(BOX, many)
    assert not single
    np.testing.assert_array_equal(values, [[1, 2, 3], [4, 5, 6]])


def test_an_empty_batch_is_a_batch() -> None:
    values, single = batch(BOX, np.zeros((0, 3)))
    assert (values.shape, single) == ((0, 3), False)


def test_a_number_is_one_observation_of_a_space_without_axes() -> None:
    for given in (3, np.int64(3), np.array(3), torch.tensor(3), np.int8(3)):
        values, single = batch(STATES, given)
        assert (values.tolist(), single, values.dtype) == ([3], True, np.int64)
    assert batch(STATES, [2, 6])[0].tolist() == [2, 6]
    values, single = batch(spaces.Box(-1, 1, (), np.float32), 0.5)
    assert (values.tolist(), single) == ([0.5], True)


def test_truth_values_are_binary_observations() -> None:
    values, single = batch(BINARY, [True, False, True])
    assert (values.tolist(), single, values.dtype) == ([[1, 0, 1]], True, np.int8)


def test_images_may_have_their_channels_first_or_last() -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 5), dtype=np.uint8)
    for given in (image, image.transpose(1, 2, 0)):
        values, single = batch(IMAGE, given)
        assert single
        np.testing.assert_array_equal(values, image[None])
    images = np.stack([image, 255 - image])
    for given in (images, images.transpose(0, 2, 3, 1)):
        values, single = batch(IMAGE, given)
        assert not single
        assert values.flags.c_contiguous
        np.testing.assert_array_equal(values, images)


def test_a_space_of_channels_last_takes_channels_first() -> None:
    image = np.arange(40, dtype=np.uint8).reshape(2, 4, 5)
    values, single = batch(spaces.Box(0, 255, (4, 5, 2), np.uint8), image)
    assert single
    np.testing.assert_array_equal(values[0], image.transpose(1, 2, 0))


# What they may not ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "given", "complaint"),
    [
        (BOX, [1, 2], r"one observation of shape \(3,\) or a batch of shape \(B, 3\), got.*\(2,\)"),
        (BOX, np.zeros((2, 2, 3)), r"got shape \(2, 2, 3\)"),
        (BOX, 5.0, r"got shape \(\)"),
        (IMAGE, np.zeros((3, 4, 5), np.uint8), r"shape \(B, 2, 4, 5\), got shape \(3, 4, 5\)"),
        (STACK, np.zeros((6, 2, 6), np.uint8), r"shape \(B, 2, 6, 6\), got shape \(6, 2, 6\)"),
        (STACK, np.zeros((3, 6, 2, 6), np.uint8), r"got shape \(3, 6, 2, 6\)"),
        (spaces.Box(-1, 1, (2, 4, 5)), np.zeros((4, 5, 2)), r"got shape \(4, 5, 2\)"),
        (BOX, ([1, 2, 3], {}), r"a tuple \(observation, info\), as env\.reset\(\) returns; pass"),
        (BOX, (np.zeros(3), {"a": 1}), "pass its first part"),
        (BOX, {"x": [1, 2, 3], "y": 0}, r"a dict with the keys \['x', 'y'\], expected.*Box"),
        (BOX, [[1, 2], [3]], "no regular array"),
        (BOX, ["a", "b", "c"], "of dtype <U1, which cannot become float32 without loss"),
        (BOX, None, "of dtype object"),
        (BOX, np.array([1j, 2, 3]), "of dtype complex128"),
        (STATES, 2.5, r"of dtype float64, which cannot become int64 .*Discrete\(5, start=2\)"),
        (STATES, 2.0, "of dtype float64"),
        (STATES, 1, r"outside of Discrete\(5, start=2\)"),
        (STATES, [2, 7], r"outside of Discrete\(5, start=2\)"),
        (MULTI, [1, 2], "outside of MultiDiscrete"),
        (MULTI, [0, 0], "outside of MultiDiscrete"),
        (BINARY, [0, 1, 2], "outside of MultiBinary"),
        (IMAGE, np.zeros((2, 4, 5)), "of dtype float64, which cannot become uint8"),
        (IMAGE, np.full((2, 4, 5), 300), "of dtype int64, which cannot become uint8"),
        (IMAGE, np.full((2, 4, 5), -1), "which cannot become uint8"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_was_given(
    space: spaces.Space[Any], given: Any, complaint: str
) -> None:
    with pytest.raises(SpaceError, match=complaint):
        batch(space, given)


def test_whole_numbers_in_the_range_of_an_image_are_taken() -> None:
    values, single = batch(IMAGE, np.full((2, 4, 5), 255))
    assert (values.dtype, values.max(), single) == (np.uint8, 255, True)


def test_a_tuple_of_two_numbers_is_no_reset() -> None:
    values, single = batch(MULTI, (1, 0))
    assert (values.tolist(), single) == ([[1, 0]], True)


# Actions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given", [4, np.int64(4), np.array([4]), [4], np.array([4], np.int8), np.array([4], np.uint8)]
)
def test_actions_are_counted_from_zero_inside(given: Any) -> None:
    counted = actions_in(given, spaces.Discrete(3, start=2))
    assert (counted.tolist(), counted.dtype) == ([2], np.int64)


def test_a_negative_start_is_subtracted_too() -> None:
    assert actions_in([-1, 0, 1], spaces.Discrete(3, start=-1)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("given", [1, 5, [2, 5], -1])
def test_actions_outside_of_the_space_are_refused(given: Any) -> None:
    with pytest.raises(SpaceError, match=r"got actions outside of Discrete\(3, start=2\): "):
        actions_in(given, spaces.Discrete(3, start=2))


@pytest.mark.parametrize("given", [2.0, [2.5], True, "2", None])
def test_actions_that_are_no_integers_are_refused(given: Any) -> None:
    with pytest.raises(SpaceError, match="actions must be integers, got dtype"):
        actions_in(given, spaces.Discrete(3, start=2))


def test_a_discrete_action_space_is_taken() -> None:
    space = spaces.Discrete(3, start=-5)
    assert discrete_actions(space) is space


@pytest.mark.parametrize(
    ("space", "way_out"),
    [
        (BOX, r"gymnasium\.wrappers\.DiscretizeAction"),
        (MULTI, r"gymnasium\.wrappers\.TransformAction"),
        (BINARY, r"gymnasium\.wrappers\.TransformAction"),
        (spaces.Dict({"a": STATES}), r"gymnasium\.wrappers\.TransformAction"),
    ],
    ids=str,
)
def test_other_action_spaces_are_refused_with_the_way_out(
    space: spaces.Space[Any], way_out: str
) -> None:
    with pytest.raises(SpaceError, match=rf"(?s)needs a Discrete action space, not .*{way_out}"):
        discrete_actions(space)


# Observations of several parts ------------------------------------------------------------

CAR = spaces.Dict(
    {
        "eye": IMAGE,
        "inner": spaces.Dict({"gear": STATES, "speed": spaces.Box(-9, 9, (2,), np.float64)}),
    }
)
PAIR = spaces.Tuple((BOX, STATES))


def car(size: int | None = None) -> Any:
    at = () if size is None else (size,)
    eye = np.arange(40, dtype=np.uint8).reshape(2, 4, 5)
    speed = np.array([0.5, 1.0])
    return {
        "eye": np.broadcast_to(eye, (*at, 2, 4, 5)),
        "inner": {"gear": np.full(at, 3), "speed": np.broadcast_to(speed, (*at, 2))},
    }


def test_each_part_is_stored_in_its_own_dtype_and_copied() -> None:
    adapter = ObservationAdapter(CAR)
    assert adapter.layout == {
        "eye": ObservationPart((2, 4, 5), np.dtype(np.uint8)),
        "inner/gear": ObservationPart((), np.dtype(np.int64)),
        "inner/speed": ObservationPart((2,), np.dtype(np.float32)),
    }
    given = {
        "eye": np.ones((1, 2, 4, 5), np.uint8),
        "inner": {"gear": [3], "speed": np.ones((1, 2))},
    }
    stored: Any = adapter.stored(given)
    given["eye"] += 1
    given["inner"]["speed"] += 1
    assert stored["eye"].max() == stored["inner/speed"].max() == 1
    assert stored["inner/gear"].tolist() == [3]
    assert {name: part.dtype.name for name, part in stored.items()} == {
        "eye": "uint8",
        "inner/gear": "int64",
        "inner/speed": "float32",
    }


@pytest.mark.parametrize("size", [None, 1, 3])
@pytest.mark.parametrize("is_flat", [False, True])
def test_parts_come_nested_or_by_their_flat_names(size: int | None, is_flat: bool) -> None:
    given = car(size)
    if is_flat:
        given = {"eye": given["eye"], **{f"inner/{key}": v for key, v in given["inner"].items()}}
    values, single = batch(CAR, given)
    assert single == (size is None)
    assert {name: part.shape for name, part in values.items()} == {
        "eye": (size or 1, 2, 4, 5),
        "inner/gear": (size or 1,),
        "inner/speed": (size or 1, 2),
    }
    np.testing.assert_array_equal(values["eye"][-1], car()["eye"])
    assert values["inner/speed"][-1].tolist() == [0.5, 1.0]
    assert values["inner/gear"][-1] == 3


def test_parts_may_be_lists_tensors_and_images_with_channels_last() -> None:
    given = car()
    given["eye"] = given["eye"].transpose(1, 2, 0)
    given["inner"] = {"gear": torch.tensor(3), "speed": [0.5, 1]}
    values, single = batch(CAR, given)
    assert single
    np.testing.assert_array_equal(values["eye"], car()["eye"][None])


def test_a_tuple_space_takes_tuples_lists_and_numbered_parts() -> None:
    for given in (([1, 2, 3], 4), [[1, 2, 3], 4], {"0": [1, 2, 3], "1": 4}):
        values, single = batch(PAIR, given)
        assert single
        assert (values["0"].tolist(), values["1"].tolist()) == ([[1, 2, 3]], [4])
    values, single = batch(PAIR, (np.zeros((2, 3)), [4, 5]))
    assert (single, values["1"].tolist()) == (False, [4, 5])


@pytest.mark.parametrize(
    ("space", "given", "complaint"),
    [
        (
            CAR,
            {"eye": 0},
            r"must have the keys \['eye', 'inner'\].*missing \['inner'\], unknown \[\]",
        ),
        (
            CAR,
            {**car(), "ear": 0},
            r"given \['eye', 'inner', 'ear'\]: missing \[\], unknown \['ear'\]",
        ),
        (CAR, {**car(), "inner": {"gear": 3}}, r"the part 'inner' must have .*missing \['speed'\]"),
        (CAR, {**car(), "inner": 3}, r"'inner' must be a dict with the keys .*, not a int"),
        (CAR, (car(), {}), r"a tuple \(observation, info\)"),
        (CAR, [car(), car()], r"must be a dict with the keys \['eye', 'inner'\], not a list of 2"),
        (CAR, np.zeros(3), "must be a dict .* not a ndarray"),
        (PAIR, (1, 2, 3), r"must be a tuple of 2 parts, not a tuple of 3"),
        (PAIR, {"0": 1}, r"must be a tuple of 2 parts, not a dict with the keys \['0'\]"),
        (PAIR, ([1, 2], 4), r"one observation of shape \(3,\).* as the part '0', got shape \(2,\)"),
        (PAIR, ([1, 2, 3], 9), r"outside of Discrete.* as the part '1'"),
        (PAIR, ([1, 2, 3], [4]), r"the sizes given are \{'0': 'one', '1': 1\}"),
        (PAIR, (np.zeros((3, 3)), [4, 5]), r"the sizes given are \{'0': 3, '1': 2\}"),
        (
            CAR,
            {**car(), "eye": np.zeros((3, 4, 5), np.uint8)},
            "as the part 'eye'.*FrameStackObservation",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused_by_name(
    space: spaces.Space[Any], given: Any, complaint: str
) -> None:
    with pytest.raises(SpaceError, match=complaint):
        batch(space, given)


def test_a_part_that_cannot_be_stored_is_refused_with_the_way_out() -> None:
    space = spaces.Dict({"speed": BOX, "says": spaces.Text(9)})
    with pytest.raises(SpaceError, match=r"leave out 'says' with gymnasium\.wrappers\.FilterObs"):
        ObservationAdapter(space)


def test_a_stack_of_frames_of_another_shape_gets_a_hint() -> None:
    stack = spaces.Box(0, 255, (4, 8, 8), np.uint8)
    with pytest.raises(SpaceError, match=r"got shape \(8, 8\).*FrameStackObservation"):
        batch(stack, np.zeros((8, 8), np.uint8))
