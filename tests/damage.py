"""Damaged archives, and a process of its own that reads them and reports what came of it.

    python -m tests.damage FOLDER SEED COUNT

reads COUNT mutations of each archive in the folder, which `write_archives` made. A process
of its own, because memory and time are limited there.
"""

from __future__ import annotations

import copy
import io
import json
import os
import resource
import signal
import struct
import sys
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import safetensors.torch
import torch

from sbdqn import DQN, MlpPolicy
from sbdqn.checkpoint import checkpoints_in
from sbdqn.errors import CheckpointError, ConfigurationError
from sbdqn.heads import Categorical
from sbdqn.replay import Prioritized
from sbdqn.schedules import Linear

CPU_SECONDS_PER_FILE = 10  # of the processor: other programs may be busy
VIRTUAL_BYTES = 4 << 30  # beyond what the first archives took: what nobody touches is cheap
CANARY = "executed"

SMALL: dict[str, Any] = {
    "env": "CartPole-v1",
    "buffer_size": 200,
    "learning_starts": 10,
    "batch_size": 8,
    "n_steps": 3,
    "train_freq": 1,
    "seed": 0,
    "device": "cpu",
}
RAINBOW: dict[str, Any] = {
    "policy": MlpPolicy(net_arch=(8, 4), dueling=True, noisy=True),
    "head": Categorical(atoms=11, low=0.0, high=100.0),
    "replay": Prioritized(beta=Linear(0.4, 1.0, 1000)),
    "exploration": "greedy",
    "learning_rate": Linear(1e-3, 1e-4, 1000),
    "n_envs": 2,
}


class Canary:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def plain(**parameters: Any) -> DQN:
    """A small model of CartPole."""
    return DQN(**{"policy": MlpPolicy(net_arch=(8,)), **SMALL, **parameters})


def write_archives(folder: Path) -> None:
    """Write one archive of each kind."""
    plain().learn(40).save(folder / "model.zip")
    rainbow = plain(**RAINBOW).learn(60)
    rainbow.save(folder / "rainbow.zip")
    rainbow.save_replay_buffer(folder / "replay.zip")
    rainbow.save_checkpoint(folder)
    checkpoints_in(folder)[0].rename(folder / "checkpoint.zip")
    plain(learning_rate=lambda remaining: 1e-3 * remaining).learn(20).save(folder / "pickled.zip")


# What is done to the bytes --------------------------------------------------------


Rng = np.random.Generator
Members = dict[str, bytes]
NUMBERS = [
    *(
        0,
        1,
        -1,
        2,
        7,
        255,
        2**31,
        2**32,
        2**63 - 1,
        2**63,
        2**64,
        10**12,
        -(10**12),
        10**40,
        10**400,
    ),
    *(0.5, -0.5, 1e-320, 1e308, -1e308),
]
VALUES = [
    *(
        None,
        True,
        False,
        "",
        "x",
        "CartPole-v1",
        "../../x",
        "\0",
        "os.system",
        [],
        {},
        [[]],
        [None],
    ),
    *({"$float": "nan"}, {"$float": "inf"}, {"$float": "x"}, {"$tuple": []}, {"$dict": []}),
    *({"$dict": [[[], 1]]}, {"$tensor": "nothing"}, {"$tensor": 3}, {"$path": "/etc/passwd"}),
    *({"$device": "cuda:99"}, {"$device": "meta"}, {"$torch": "nn.Tanh"}, {"$torch": "nn.LSTM"}),
    *({"$torch": "optim.LBFGS"}, {"$torch": "nn.Module"}, {"$torch": "os.system"}),
    *({"$space": "Discrete", "arguments": {"$dict": [["n", 10**12], ["start", 0]]}},),
    *(
        {"$spec": name, "arguments": {"$dict": []}}
        for name in ("heads.Quantile", "backups.Munchausen", "networks.MlpPolicy", "memory.Memory")
    ),
]
NAMES = [
    *("../../x", "/etc/x", "..\\..\\x", "a\0b", ".", "x/", "metadata.json/", "METADATA.JSON"),
    *("\u00fcn\u00efc\u00f6de.json", "\U0001f600", "x" * 300, "objects.pkl", "state.json"),
]


def members_of(archive: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        return {name: file.read(name) for name in file.namelist()}


def archive_of(members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    result = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of duplicates
        with zipfile.ZipFile(result, "w", compression) as file:
            for name, content in members:
                file.writestr(name, content)
    return result.getvalue()


def flipped(content: bytes, rng: Rng, first: int = 0) -> bytes:
    """The same with some other bytes, from the first one on."""
    damaged = np.frombuffer(content, np.uint8).copy()
    if first < damaged.size:
        places = rng.integers(first, damaged.size, rng.integers(1, 9))
        damaged[places] = rng.integers(0, 256, places.size)
    return damaged.tobytes()


def flip(archive: bytes, rng: Rng) -> bytes:
    return flipped(archive, rng)


def flip_directory(archive: bytes, rng: Rng) -> bytes:
    return flipped(archive, rng, max(0, len(archive) - 400))


def patch_headers(archive: bytes, rng: Rng) -> bytes:
    """Sizes, offsets, flags and names' lengths in the zip's headers."""
    damaged = bytearray(archive)
    signatures = {b"PK\1\2": 46, b"PK\3\4": 30, b"PK\5\6": 22}
    signature = list(signatures)[rng.integers(3)]
    places = [place for place in range(len(archive)) if archive.startswith(signature, place)]
    begin = places[rng.integers(len(places))]
    offset = begin + int(rng.integers(4, signatures[signature] - 3))
    number = [0, 1, 0xFFFFFFFF, 0x7FFFFFFF, 1 << 20, int(rng.integers(1 << 32))][rng.integers(6)]
    struct.pack_into("<I", damaged, offset, number)
    return bytes(damaged)


def truncate(archive: bytes, rng: Rng) -> bytes:
    return archive[: rng.integers(len(archive))]


def surround(archive: bytes, rng: Rng) -> bytes:
    rubbish = rng.bytes(int(rng.integers(1, 5000)))
    return rubbish + archive if rng.random() < 0.5 else archive + rubbish


def change_members(archive: bytes, rng: Rng) -> bytes:
    """Drop, rename, double, empty, exchange or compress members, or add some."""
    members = list(members_of(archive).items())
    index = int(rng.integers(len(members)))
    name, content = members[index]
    other = NAMES[rng.integers(len(NAMES))]
    kind = int(rng.integers(8))
    if kind == 0:
        del members[index]
    elif kind == 1:
        members[index] = (other, content)
    elif kind == 2:
        members.append((name, content if rng.random() < 0.5 else b"{}"))
    elif kind == 3:
        members[index] = (name, b"")
    elif kind == 4:
        members[index] = (name, members[rng.integers(len(members))][1])
    elif kind == 5:
        return archive_of(members, zipfile.ZIP_DEFLATED)
    elif kind == 6:
        members[index] = (name, content + b" " * (40 << 20))
        return archive_of(members, zipfile.ZIP_DEFLATED if rng.random() < 0.5 else 0)
    else:
        members.append((other, rng.bytes(100)))
    return archive_of(members)


def flip_in_member(archive: bytes, rng: Rng) -> bytes:
    """Flip or cut off bytes of one member, whose checksum is right again."""
    members = members_of(archive)
    name = list(members)[rng.integers(len(members))]
    if rng.random() < 0.2:
        members[name] = members[name][: rng.integers(len(members[name]))]
    else:
        members[name] = flipped(members[name], rng)
    return archive_of(list(members.items()))


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    children = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        children = enumerate(value)
    for key, child in children:
        yield from paths(child, (*path, key))


def mutated_json(content: bytes, rng: Rng) -> bytes:
    """JSON with something else at a random place."""
    root = [json.loads(content)]
    places = list(paths(root[0], (0,)))
    if rng.random() < 0.3:  # numbers are rare, and matter most
        numbers = [path for path in places if type(at(root, path)) in (int, float)]
        places = numbers or places
    path = places[rng.integers(len(places))]
    parent, key = at(root, path[:-1]), path[-1]
    kind = rng.random()
    if kind < 0.35:
        parent[key] = NUMBERS[rng.integers(len(NUMBERS))]
    elif kind < 0.7:
        parent[key] = copy.deepcopy(VALUES[rng.integers(len(VALUES))])
    elif kind < 0.8 and len(path) > 1:
        del parent[key]
    elif kind < 0.9:
        other = at(root, places[rng.integers(len(places))])
        parent[key] = copy.deepcopy(other)
    else:
        parent[key] = "@@"
        odd = [
            *("NaN", "-Infinity", "1e999", "9" * 5000, "[" * 5000 + "]" * 5000, '"\\ud800"'),
            *('{"a": 1, "a": 2}', '{"$tuple": ' * 400 + "[]" + "}" * 400, "", "00", "\ufeff1"),
        ]
        text = odd[rng.integers(len(odd))]
        return json.dumps(root[0]).replace('"@@"', text, 1).encode()
    return json.dumps(root[0]).encode()


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def change_json(archive: bytes, rng: Rng) -> bytes:
    members = members_of(archive)
    names = ["metadata.json", *["parameters.json", "state.json"] * 4]
    name = names[rng.integers(len(names))]
    members[name] = mutated_json(members[name], rng)
    return archive_of(list(members.items()))


def change_tensor_header(archive: bytes, rng: Rng) -> bytes:
    members = members_of(archive)
    content = members["tensors.safetensors"]
    length = int.from_bytes(content[:8], "little")
    header = mutated_json(content[8 : 8 + length], rng)
    claimed = len(header)
    if rng.random() < 0.1:
        claimed = [0, 1, 1 << 26, (1 << 63) + 5, (1 << 64) - 1][rng.integers(5)]
    values = content[8 + length :]
    members["tensors.safetensors"] = claimed.to_bytes(8, "little") + header + values
    return archive_of(list(members.items()))


def change_tensor(archive: bytes, rng: Rng) -> bytes:
    """A tensor of another shape, dtype or number, in a sound file."""
    members = members_of(archive)
    tensors = safetensors.torch.load(members["tensors.safetensors"])
    name = list(tensors)[rng.integers(len(tensors))]
    tensor = tensors[name]
    changes: list[Callable[[], torch.Tensor]] = [
        lambda: tensor[None],
        lambda: tensor.reshape(-1)[:-1],
        lambda: tensor.reshape(-1),
        lambda: torch.zeros(0),
        lambda: torch.zeros(0, 1 << 40),
        tensor.double,
        tensor.half,
        tensor.bool,
        lambda: tensor.to(torch.int64) - 1,
        lambda: torch.full_like(tensor, 200),
        lambda: (
            torch.full(tensor.shape, torch.nan, dtype=tensor.dtype)
            if tensor.is_floating_point()
            else torch.full_like(tensor, 100)
        ),
        lambda: torch.cat([tensor.reshape(-1), tensor.reshape(-1)]),
    ]
    tensors[name] = changes[rng.integers(len(changes))]().contiguous()
    members["tensors.safetensors"] = safetensors.torch.save(
        {each: value.clone() for each, value in tensors.items()}
    )
    return archive_of(list(members.items()))


def claim_much(archive: bytes, rng: Rng) -> bytes:
    """Parameters that ask for more than there is."""
    members = members_of(archive)
    parameters = json.loads(members["parameters.json"])
    much = [10**6, 10**9, 10**12, 10**15, 2**63 - 1][rng.integers(5)]
    if not parameters:
        return change_json(archive, rng)  # a replay
    kind = int(rng.integers(7))
    if kind < 3:
        parameters[("n_envs", "buffer_size", "n_steps")[kind]] = much
    elif kind < 5:
        layers = [much] if rng.random() < 0.5 else [1] * 2000
        arguments = [["net_arch", {"$tuple": layers}]]
        parameters["policy"] = {"$spec": "networks.MlpPolicy", "arguments": {"$dict": arguments}}
    elif kind == 5:
        arguments = [["atoms", much], ["low", 0.0], ["high", 1.0]]
        parameters["head"] = {"$spec": "heads.Categorical", "arguments": {"$dict": arguments}}
    else:
        state = json.loads(members["state.json"])
        box: list[list[Any]] = [
            *(["low", 0.0], ["high", 1.0], ["dtype", "float32"]),
            ["shape", {"$tuple": [much] if rng.random() < 0.5 else [10**6, 10**6, 0, 10**6]}],
        ]
        space = {"$space": "Box", "arguments": {"$dict": box}}
        state["$dict"] = [
            [key, space if key == "observation_space" else value] for key, value in state["$dict"]
        ]
        members["state.json"] = json.dumps(state).encode()
    members["parameters.json"] = json.dumps(parameters).encode()
    return archive_of(list(members.items()))


def plant(archive: bytes, rng: Rng) -> bytes:
    """A pickle that executes something, under any name."""
    members = members_of(archive)
    pickled = cloudpickle.dumps({"learning_rate": Canary(Path(CANARY))})
    names = ["objects.pkl", *members, "data.pkl", "archive/data.pkl"]
    members[names[rng.integers(len(names))]] = pickled
    if rng.random() < 0.5 and members["metadata.json"] is not pickled:
        metadata = json.loads(members["metadata.json"])
        members["metadata.json"] = json.dumps({**metadata, "objects": ["learning_rate"]}).encode()
    return archive_of(list(members.items()))


MUTATIONS: dict[str, tuple[Callable[[bytes, Rng], bytes], float]] = {
    "bytes flipped": (flip, 1),
    "bytes of the directory flipped": (flip_directory, 1.5),
    "zip headers": (patch_headers, 2),
    "truncated": (truncate, 0.7),
    "something around it": (surround, 0.3),
    "members": (change_members, 1.5),
    "bytes flipped, checksums repaired": (flip_in_member, 2.5),
    "JSON": (change_json, 6),
    "header of the tensors": (change_tensor_header, 2),
    "tensors": (change_tensor, 2),
    "claims": (claim_much, 1),
    "pickles": (plant, 1),
}


# What comes of it -----------------------------------------------------------------


class Reader:
    """Reads one kind of archive in every way.

    Args:
        kind: the name of the archive.
        folder: for files.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.path = folder / "damaged.zip"
        parameters = RAINBOW if kind in ("rainbow", "replay", "checkpoint") else {}
        self.model = plain(**parameters).learn(30)
        self.kept = self._kept()

    def read(self, archive: bytes) -> str:
        """What came of it, in a word; anything but a `CheckpointError` is passed on."""
        self.path.write_bytes(archive)
        if self.kind == "replay":
            return self._attempt(lambda: self._load_replay(self.path))
        if self.kind == "checkpoint":
            return self._attempt(self._resume)
        outcome = self._attempt(lambda: self._use(self.path))
        assert outcome == self._attempt(lambda: self._use(io.BytesIO(archive)))
        self._attempt(lambda: self.model.set_parameters(self.path))
        return outcome

    def _attempt(self, action: Callable[[], object]) -> str:
        before = self.kept
        try:
            action()
        except CheckpointError:
            assert same(self._kept(), before), "a failed attempt changed the model"
            return "refused"
        self.kept = self._kept()
        return "loaded"

    def _use(self, source: Any) -> None:
        given = {"learning_rate": 1e-3} if self.kind == "pickled" else {}
        model = DQN.load(source, device="cpu", **given)
        model.predict(model.observation_space.sample())
        model.q_values([model.observation_space.sample() for _ in range(2)])

    def _resume(self) -> None:
        model = DQN.resume(self.path, device="cpu")
        model.predict(model.observation_space.sample())
        if model.replay_buffer.sampleable:
            with suppress(ConfigurationError):  # of a schedule with values out of range
                model.replay_buffer.sample(16, model.trainer.clock)

    def _load_replay(self, source: Any) -> None:
        self.model.load_replay_buffer(source)
        if self.model.replay_buffer.sampleable:
            self.model.replay_buffer.sample(16, self.model.trainer.clock)

    def _kept(self) -> Any:
        if self.kind == "replay":
            return copy.deepcopy(self.model.replay_buffer.state_dict())
        return self.model.get_parameters()


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor):
        return torch.equal(one.nan_to_num(7.5), other.nan_to_num(7.5))
    return bool(one == other) or (one != one and other != other)  # NaN


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(folder: Path, seed: int, count: int) -> None:
    """Read damaged archives, and print what came of them."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    os.chdir(folder)  # where a canary would show
    archives = {kind: (folder / f"{kind}.zip").read_bytes() for kind in KINDS}
    readers = {kind: Reader(kind, folder) for kind in KINDS}
    for kind, archive in archives.items():
        assert readers[kind].read(archive) == "loaded"
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = in_use + VIRTUAL_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    before = peak_bytes()
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    weights = np.array([weight for _, weight in MUTATIONS.values()])
    for kind, archive in archives.items():
        for number in range(count):
            rng = np.random.default_rng([seed, KINDS.index(kind), number])
            label = list(MUTATIONS)[rng.choice(len(weights), p=weights / weights.sum())]
            damaged = MUTATIONS[label][0](archive, rng)
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS_PER_FILE)  # which ends the process
            try:
                outcomes[f"{label}: {readers[kind].read(damaged)}"] += 1
            except BaseException as error:
                failures.append(f"{kind} {number} ({label}): {error!r}"[:600])
            signal.setitimer(signal.ITIMER_PROF, 0)
    print(
        json.dumps(
            {
                "outcomes": outcomes,
                "failures": failures,
                "grown_by": peak_bytes() - before,
                "executed": Path(CANARY).exists(),
            }
        )
    )


KINDS = ("model", "rainbow", "replay", "pickled", "checkpoint")

if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
