"""Mutated model files: each loads as a model that works, or raises FileFormatError. python
tests/robustness/fuzz_files.py N [SEED]

The process gives itself a limit of memory little above what it has, and of time per file, so that a file that asks for
more than it holds, or that hangs, is a failure here. tests/robustness/test_hostile_files.py runs a few thousand.
"""

from __future__ import annotations

import copy
import json
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fastmlp

ROOM = 64 * 2**20  # bytes that a load may take beyond what the process has; the files are less than a thousandth of it
SECONDS = 20  # for one file
DATA = Path(__file__).parents[1] / "data"
# What stands in a JSON document where something else should.
STRANGE: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, 2**31, 2**62, 2**63, 2**64, 10**400, 0.5, -0.5, 1e308, 1e-320, "", "0",
    "relu", "float64", "nan",
    "log_loss", "\ud800", "\0", "x" * 5000, [], [[]], {}, [None], [1, 2], ["a", "b"], {"a": 1}, {"float": "nan"},
    {"float": "inf"},
    {"float": 1}, {"float": "inf", "a": 1}, {"dict": [[[], 1]]}, {"dict": [[1, 2], [1, 3]]},
    {"dict": [[{"dict": []}, 1]]}, {"dict": [1]},
    {"schedule": {"name": "cosine", "final": 0.0}}, {"schedule": {"name": "cosine", "final": {"float": "nan"}}},
    {"network": {}},
    {"random_state": {}}, {"estimator": {}},
]  # fmt: skip


def parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    """A file's header and the rest."""
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def joined(header: dict[str, Any] | bytes, rest: bytes) -> bytes:
    """A file from its header and the rest."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + rest


def places(value: Any) -> list[tuple[Any, Any]]:
    """All places (container, key) in a JSON document."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in [(value, key), *places(value[key])]]


def disturb(document: Any, draws: random.Random) -> None:
    """Change one place of a JSON document."""
    container, key = draws.choice(places(document))
    other, other_key = draws.choice(places(document))
    strange = copy.deepcopy(draws.choice(STRANGE))
    action = draws.randrange(6)
    if action == 0:
        del container[key]
    elif action == 1:
        container[key], other[other_key] = copy.deepcopy((other[other_key], container[key]))
    elif action == 2 and isinstance(container, dict):
        container[draws.choice(["x", "", "loss_", str(key) + "_"])] = strange
    elif action == 3 and isinstance(container, list):
        container.insert(key, draws.choice([copy.deepcopy(container[key]), strange]))
    elif action == 4 and type(container[key]) in (int, float):
        container[key] = draws.choice([container[key] + 1, -container[key], container[key] * 2**20, container[key] - 1])
    else:
        container[key] = strange


def flip_bytes(data: bytes, draws: random.Random) -> bytes:
    """A few bytes changed anywhere, more often in front."""
    changed = bytearray(data)
    for _ in range(draws.choice([1, 1, 2, 8])):
        end = draws.choice([8, 200, 4000, len(data)])
        changed[draws.randrange(min(end, len(data)))] = draws.randrange(256)
    return bytes(changed)


def cut(data: bytes, draws: random.Random) -> bytes:
    """Shorter, longer, or with a piece moved."""
    a, b = sorted(draws.randrange(len(data) + 1) for _ in range(2))
    return draws.choice([data[:a], data[:a] + data[b:], data + data[a:b], data[:b] + data[a:], data[b:] + data[:b]])


def change_header(data: bytes, draws: random.Random) -> bytes:
    """The arrays' names, types, shapes, offsets, or the metadata."""
    header, rest = parts(data)
    disturb(header, draws)
    return joined(header, rest)


def change_description(data: bytes, draws: random.Random) -> bytes:
    """The model's own fields."""
    header, rest = parts(data)
    model = json.loads(header["__metadata__"]["model"])
    for _ in range(draws.choice([1, 1, 1, 2, 3])):
        if places(model):
            disturb(model, draws)
    header["__metadata__"]["model"] = json.dumps(model)
    return joined(header, rest)


def break_json(data: bytes, draws: random.Random) -> bytes:
    """The description as text: deep, long, cut, with words that are no JSON."""
    header, rest = parts(data)
    text = header["__metadata__"]["model"]
    place = draws.randrange(len(text))
    piece = draws.choice(
        [
            "NaN",
            "Infinity",
            "1e999",
            "[" * 100_000,
            '{"a":' * 5000,
            "9" * 5000,
            ",",
            "}",
            '"',
            "\\",
            "\ud800",
            "1" * 300 + ".5",
        ]
    )
    header["__metadata__"]["model"] = text[:place] + piece + text[place + draws.randrange(3) :]
    return joined(header, rest)


def change_numbers(data: bytes, draws: random.Random) -> bytes:
    """Numbers of the arrays that are not finite, negative or huge."""
    header, rest = parts(data)
    numbers = np.frombuffer(rest, dtype=draws.choice(["<f8", "<f4"]), count=len(rest) // 8).copy()
    numbers[draws.randrange(len(numbers))] = draws.choice([np.nan, np.inf, -1.0, np.finfo(numbers.dtype).max, -0.0])
    return joined(header, numbers.tobytes() + rest[numbers.nbytes :])


MUTATIONS: list[Callable[[bytes, random.Random], bytes]] = [
    flip_bytes, cut, change_header, change_description, change_description, change_description, break_json,
    change_numbers,
]  # fmt: skip


def use(model: Any) -> None:
    """What loads must work: it predicts, shows itself, and can be saved again."""
    network = getattr(model, "network_", model)
    n = network.layer_sizes[0] if hasattr(network, "layer_sizes") else model.n_features_in_
    X = np.zeros((2, n))
    with np.errstate(all="ignore"):
        output = model.forward(X) if isinstance(model, fastmlp.Network) else model.predict(X)
    assert output.shape[0] == 2
    repr(model)


def run(n_files: int, seed: int = 0) -> Counter[str]:
    """Load mutated files; how many of each outcome there were.

    Raises
    ------
    Whatever a load raised that is no FileFormatError: MemoryError and TimeoutError among them.
    """
    draws = random.Random(seed)
    files = [path.read_bytes() for path in sorted(DATA.glob("*.safetensors"))]
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        for data in files:  # so that everything is imported, and buffers are there, before memory is limited
            path.write_bytes(data)
            use(fastmlp.load(path))
        limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + ROOM
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for _ in range(n_files):
            mutation = draws.choice(MUTATIONS)
            path.unlink()
            try:
                path.write_bytes(mutation(draws.choice(files), draws))
            except (UnicodeEncodeError, RecursionError):
                path.write_bytes(b"")
            signal.alarm(SECONDS)
            begun = time.perf_counter()
            try:
                use(fastmlp.load(path))
                outcomes["loaded"] += 1
            except fastmlp.FileFormatError:
                outcomes["refused"] += 1
            except BaseException:
                kept = Path(tempfile.gettempdir()) / "fastmlp-failed.safetensors"
                kept.write_bytes(path.read_bytes())
                print(f"{mutation.__name__}: kept as {kept}", file=sys.stderr)
                raise
            signal.alarm(0)
            slowest = max(slowest, time.perf_counter() - begun)
    print(f"{n_files} files: {dict(outcomes)}, slowest {slowest:.3f} s")
    return outcomes


def _too_slow(signum: int, frame: Any) -> None:
    raise TimeoutError("a file takes too long")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _too_slow)
    run(*map(int, sys.argv[1:]))
