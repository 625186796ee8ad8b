"""Parameters' values as JSON, and back: what can be described as data is, anything else is refused by name.

A value that JSON has stands for itself; any other is an object with one field, whose name is its type: {"tuple": [1, 2]}.
docs/saving.md lists them. Types are taken exactly, so that a value comes back as what it was. It refuses to know which
parameters there are. Imported by ``saving`` only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastmlp.network.container import MOST, Fields, FileFormatError, Tensors
from fastmlp.network.network import Network
from fastmlp.network.network_file import describe_network, network_state
from fastmlp.training.schedules import CURVES

_NOT_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
# NumPy's numbers, as scalars (parameter grids are made of them) and in arrays.
_NUMBERS = (
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
)
_KEY_WORDS = 624  # of the Mersenne twister's state


class Unsayable(Exception):
    """A value that is not data; the message is what it is, and the caller knows whose."""


class Writer:
    """Values to JSON. What is large goes to ``arrays``, under names that begin with ``prefix``."""

    def __init__(
        self, arrays: dict[str, np.ndarray], prefix: str, describe_estimator: Callable[[Any, str], dict[str, Any]]
    ) -> None:
        self._arrays = arrays
        self._prefix = prefix
        self._describe_estimator = describe_estimator

    def say(self, value: Any, name: str) -> Any:
        """JSON for a value of the parameter ``name``.

        Raises
        ------
        Unsayable
        """
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if math.isfinite(value) else {"float": str(value)}
        if kind is list:
            return [self.say(each, name) for each in value]
        if kind is tuple:
            return {"tuple": [self.say(each, name) for each in value]}
        if kind is dict:
            return {"dict": [[self.say(key, name), self.say(each, name)] for key, each in value.items()]}
        if kind is np.str_:
            return {"str_": str(value)}
        if isinstance(value, np.generic) and value.dtype.name in _NUMBERS:
            return {"scalar": [value.dtype.name, self.say(value.item(), name)]}
        if kind is np.ndarray and value.dtype.name in _NUMBERS and value.ndim == 1:
            return {"array": [value.dtype.name, self.say(value.tolist(), name)]}
        if kind in CURVES.values():
            fields = {field.name: self.say(getattr(value, field.name), name) for field in dataclasses.fields(value)}
            return {"curve": {"name": value.name, **fields}}
        if kind is np.random.RandomState:
            return {"random_state": describe_random_state(value, self._arrays, f"{self._prefix}{name}")}
        if kind is Network:
            description, arrays = describe_network(value, f"{self._prefix}{name}.")
            self._arrays |= arrays
            return {"network": description}
        if hasattr(value, "get_params"):
            return {"estimator": self._describe_estimator(value, f"{self._prefix}{name}.")}
        what = f"a {kind.__module__}.{kind.__qualname__}" if kind.__module__ != "builtins" else f"a {kind.__name__}"
        raise Unsayable(f"{value!r}, {what}")


class Reader:
    """JSON to values. Everything in it is checked; nothing is called but the constructors named here."""

    def __init__(self, tensors: Tensors, prefix: str, build_estimator: Callable[[Fields, str], Any]) -> None:
        self._tensors = tensors
        self._prefix = prefix
        self._build_estimator = build_estimator

    def value(self, said: Any, name: str) -> Any:
        """The value of the parameter ``name``."""
        if isinstance(said, list):
            return [self.value(each, name) for each in said]
        if not isinstance(said, dict):
            return said
        if len(said) != 1:
            raise FileFormatError(
                f"{name}: a value that is an object must have one field, its type, got {sorted(said)[:5]}"
            )
        ((kind, content),) = said.items()
        readers: dict[str, Callable[[Any, str], Any]] = {
            "float": self._float, "tuple": self._tuple, "dict": self._dict, "str_": self._str, "scalar": self._scalar, "array": self._array,
            "curve": self._curve, "random_state": self._random_state, "network": self._network, "estimator": self._estimator,
        }  # fmt: skip
        if kind not in readers:
            raise FileFormatError(f"{name}: a value's type must be one of {list(readers)}, got {kind[:40]!r}")
        return readers[kind](content, name)

    def _float(self, content: Any, name: str) -> float:
        if not isinstance(content, str) or content not in _NOT_FINITE:
            raise FileFormatError(f"{name}: a float that is no number of JSON must be one of {list(_NOT_FINITE)}")
        return _NOT_FINITE[content]

    def _tuple(self, content: Any, name: str) -> tuple[Any, ...]:
        return tuple(self.value(_list(content, name), name))

    def _dict(self, content: Any, name: str) -> dict[Any, Any]:
        pairs = [_list(pair, name) for pair in _list(content, name)]
        if any(len(pair) != 2 for pair in pairs):
            raise FileFormatError(f"{name}: a dict must be a list of pairs")
        made = {self.value(key, name): self.value(each, name) for key, each in pairs}
        if len(made) != len(pairs):
            raise FileFormatError(f"{name}: a dict has a key twice")
        return made

    def _str(self, content: Any, name: str) -> np.str_:
        if not isinstance(content, str):
            raise FileFormatError(f"{name}: a str_ must be a string")
        return np.str_(content)

    def _numbers(self, content: Any, name: str) -> tuple[np.dtype, Any]:
        parts = _list(content, name)
        if len(parts) != 2 or not isinstance(parts[0], str) or parts[0] not in _NUMBERS:
            raise FileFormatError(
                f"{name}: NumPy's numbers must be a pair: a type of {list(_NUMBERS)} and what they are"
            )
        return np.dtype(parts[0]), self.value(parts[1], name)

    def _scalar(self, content: Any, name: str) -> Any:
        dtype, number = self._numbers(content, name)
        return _exactly(dtype, [number], name)[0]

    def _array(self, content: Any, name: str) -> np.ndarray:
        dtype, numbers = self._numbers(content, name)
        return _exactly(dtype, _list(numbers, name), name)

    def _curve(self, content: Any, name: str) -> Any:
        fields = Fields(content, name)
        cls = CURVES[fields.name("name", CURVES)]
        names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        values = {each: self.value(fields.any(each), name) for each in names}
        fields.end()
        return cls(**values)

    def _random_state(self, content: Any, name: str) -> np.random.RandomState:
        return build_random_state(Fields(content, name), self._tensors, f"{self._prefix}{name}")

    def _network(self, content: Any, name: str) -> Network:
        return Network._from_state(network_state(Fields(content, name), self._tensors, f"{self._prefix}{name}."))

    def _estimator(self, content: Any, name: str) -> Any:
        return self._build_estimator(Fields(content, name), f"{self._prefix}{name}.")


def _list(content: Any, name: str) -> list[Any]:
    if not isinstance(content, list):
        raise FileFormatError(f"{name}: there must be a list")
    return content


def _exactly(dtype: np.dtype, numbers: list[Any], name: str) -> np.ndarray:
    """The numbers in that type, which must be able to hold each of them as it is."""
    kinds = {"b": (bool,), "f": (float,)}.get(dtype.kind, (int,))
    if not all(type(number) in kinds for number in numbers):
        raise FileFormatError(f"{name}: numbers of type {dtype} must be {kinds[0].__name__}")
    with np.errstate(over="ignore"):  # found below
        array = np.array(numbers, dtype=dtype)
    if not all(a == b or (a != a and b != b) for a, b in zip(array.tolist(), numbers, strict=True)):
        raise FileFormatError(f"{name}: a number is none of type {dtype}")
    return array


def describe_random_state(rng: np.random.RandomState, arrays: dict[str, np.ndarray], name: str) -> dict[str, Any]:
    """A generator's state; its key goes to ``arrays``.

    Raises
    ------
    Unsayable
        If it is not a Mersenne twister, which RandomState is unless it was made around another bit generator.
    """
    state = rng.get_state(legacy=False)
    if not isinstance(state, dict) or state["bit_generator"] != "MT19937":
        raise Unsayable(f"{rng!r}, which is not a Mersenne twister")
    arrays[f"{name}.key"] = np.array(state["state"]["key"], dtype=np.uint32)
    return {
        "position": int(state["state"]["pos"]),
        "has_gauss": int(state["has_gauss"]),
        "gauss": float(state["gauss"]),
    }


def build_random_state(fields: Fields, tensors: Tensors, name: str) -> np.random.RandomState:
    """The generator that ``describe_random_state`` described."""
    position = fields.take(
        "position", lambda value: type(value) is int and 0 <= value <= _KEY_WORDS, f"from 0 to {_KEY_WORDS}"
    )
    has_gauss = fields.take("has_gauss", lambda value: type(value) is int and value in (0, 1), "0 or 1")
    gauss = fields.number("gauss")
    fields.end()
    tensors.require(f"{name}.key", ("uint32",), (_KEY_WORDS,))
    rng = np.random.RandomState()
    rng.set_state(("MT19937", tensors.read(f"{name}.key"), position, has_gauss, gauss))
    return rng


def is_whole(value: Any) -> bool:
    """Whether a value that was read is a whole number that something can be counted to."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and 0 <= int(value) <= MOST


def is_real(value: Any) -> bool:
    """Whether a value that was read is a number, finite or not."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
