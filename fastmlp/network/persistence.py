"""Model files: safetensors, with the model's description as JSON text in the metadata. docs/saving.md has the format.

Writing is atomic: if the process is killed, the old file or the new one is there. Reading executes nothing: every field
is checked, and no array is made that the file does not hold. ``write`` and ``read`` serve all models;
``describe_network`` and ``network_state`` are for networks.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import reprlib
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from numbers import Integral, Real
from typing import Any, NamedTuple, TypeVar

import numpy as np

import fastmlp.core as core
from fastmlp._version import __version__
from fastmlp.core.memory import aligned_empty, all_finite

T = TypeVar("T")

#: Changes when a reader of the last version could not understand a file.
FORMAT_VERSION = 1
# The keys of a file's metadata.
_VERSION_KEY, _MADE_BY_KEY, _MODEL_KEY = "fastmlp_format", "fastmlp_version", "model"

#: Names of element types: safetensors' and NumPy's.
ELEMENT_TYPES = {
    "BOOL": "bool", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64", "U8": "uint8", "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64", "F16": "float16", "F32": "float32", "F64": "float64",
}  # fmt: skip
#: A network's lists of arrays, one array per layer: views of its parameters, in their order, and of its running
#: averages.
IN_PARAMETERS, IN_STATISTICS = ("coefs", "intercepts", "scales", "scalings"), ("means", "variances")
_ARRAYS = (*IN_PARAMETERS, *IN_STATISTICS)
#: Largest count in a file: the core counts in 64 bits.
MAX_COUNT = 2**62
#: Most brackets, colons and commas in a description: each may cost 64 bytes when it is parsed. The record of 400,000
#: epochs fits.
MAX_ITEMS = 5_000_000


class FileFormatError(ValueError):
    """This version of fastmlp cannot load a file; the message says why."""


# --- writing a file ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield the name of a new, empty file, which takes the place of ``path`` at the end of the block, at once and
    durably.

    The new file is ``.<name>.<random>.tmp`` in the folder of ``path``. It is removed if the block raises; a process
    that is killed leaves it. A link is followed, and an existing file keeps its permissions.
    """
    name = os.fsdecode(path)
    if name.endswith(("/", os.sep)):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    target = os.path.realpath(name)
    folder, base = os.path.split(target)
    if os.path.exists(target) and not os.path.isfile(target):  # a folder, a device, a pipe
        raise OSError(errno.EINVAL, "Only a regular file can be replaced", target)
    temporary = os.path.join(folder, f".{base[:50]}.{secrets.token_hex(8)}.tmp")
    # Created here so that the umask decides its permissions; the writer may replace it.
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError as error:  # the user knows path, not temporary
        raise OSError(error.errno, error.strerror, name) from None
    try:
        mode = os.fstat(descriptor).st_mode
        os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):
            mode = os.stat(target).st_mode
        yield temporary
        descriptor = os.open(temporary, os.O_RDWR)
        try:
            os.chmod(temporary, stat.S_IMODE(mode))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        _rename(temporary, target, folder)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _rename(temporary: str, target: str, folder: str) -> None:
    """Rename durably. The folder is opened first, so that a failure to open it leaves the old file."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows, or a folder that is writable but not readable
        os.replace(temporary, target)
        return
    try:
        os.replace(temporary, target)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot sync folders
                raise
    finally:
        os.close(descriptor)


def write(
    path: str | os.PathLike[str], description: dict[str, Any], arrays: dict[str, np.ndarray], build: Callable[..., Any]
) -> None:
    """Write a model's description and arrays, after ``build`` has made the model from them again.

    Raises
    ------
    FileFormatError
        If ``build`` fails. Nothing is written.
    OSError
        If the file cannot be written. An existing file stays as it was.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    text = json.dumps(description, allow_nan=False, separators=(",", ":"))
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    entries = {name: Tensors.Entry(array.dtype.name, array.shape, array.view) for name, array in arrays.items()}
    _rebuild(text, Tensors(entries), __version__, build)
    metadata = {_VERSION_KEY: str(FORMAT_VERSION), _MADE_BY_KEY: __version__, _MODEL_KEY: text}
    with replacing(path) as temporary:
        try:
            save_file(arrays, temporary, metadata=metadata)
        except SafetensorError as error:
            raise OSError(f"{os.fsdecode(path)} could not be written: {error}") from error


# --- reading a file ----------------------------------------------------------------------------------------------


class Tensors:
    """The arrays of a file. Types and shapes are known; an array is read on request."""

    class Entry(NamedTuple):
        dtype: str
        shape: tuple[int, ...]
        read: Callable[[], np.ndarray]

    def __init__(self, entries: dict[str, Entry]) -> None:
        self._entries = entries
        self._required: set[str] = set()

    def require(self, name: str, dtypes: tuple[str, ...], shape: tuple[int | None, ...]) -> None:
        """Check that an array is there, with one of these types and this shape, where None stands for any number."""
        if name not in self._entries:
            raise FileFormatError(f"tensor {name!r} is missing")
        entry = self._entries[name]
        if entry.dtype not in dtypes:
            raise FileFormatError(f"tensor {name!r} must be of type {' or '.join(dtypes)}, got {entry.dtype}")
        if len(entry.shape) != len(shape) or any(
            want not in (None, got) for got, want in zip(entry.shape, shape, strict=True)
        ):
            raise FileFormatError(f"tensor {name!r} must have shape {shape}, got {entry.shape}")
        self._required.add(name)

    def read(self, name: str) -> np.ndarray:
        """A required array; its numbers must be finite."""
        array = self._entries[name].read()
        if array.dtype.kind == "f" and not all_finite(array):
            raise FileFormatError(f"tensor {name!r} must hold finite numbers only")
        if array.dtype.kind == "b" and (array.view(np.uint8) > 1).any():
            raise FileFormatError(f"tensor {name!r} must hold 0 and 1 only")
        return array

    def end(self) -> None:
        """Check that no array is left over."""
        others = set(self._entries) - self._required
        if others:
            raise FileFormatError(f"there are tensors that do not belong to the model: {reprlib.repr(sorted(others))}")


class Fields:
    """A JSON object. Each field is taken once and checked; ``end`` checks that none is left over."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise FileFormatError(f"{where} must be an object, got {reprlib.repr(value)}")
        self._fields = dict(value)
        self._where = where

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def __iter__(self) -> Iterator[str]:
        """The fields not yet taken."""
        return iter(tuple(self._fields))

    def take(self, name: str, valid: Callable[[Any], bool] = lambda value: True, words: str = "") -> Any:
        """The field ``name``; ``words`` describe what ``valid`` checks."""
        if name not in self._fields:
            raise FileFormatError(f"{self._where} lacks the field {name!r}")
        value = self._fields.pop(name)
        if not valid(value):
            raise FileFormatError(f"{self._where}.{name} must be {words}, got {reprlib.repr(value)}")
        return value

    def flag(self, name: str) -> bool:
        return bool(self.take(name, lambda value: isinstance(value, bool), "true or false"))

    def count(self, name: str, least: int = 0) -> int:
        return int(self.take(name, lambda value: is_count(value, least), f"an integer >= {least}"))

    def number(self, name: str, least: float = -np.inf) -> float:
        return float(self.take(name, lambda value: is_number(value) and value >= least, f"a finite number >= {least}"))

    def choice(self, name: str, names: Any) -> str:
        return str(self.take(name, lambda value: isinstance(value, str) and value in names, f"one of {list(names)}"))

    def items(self, name: str) -> list[Any]:
        return list(self.take(name, lambda value: isinstance(value, list), "a list"))

    def inner(self, name: str) -> Fields:
        """A field that is an object."""
        return Fields(self.take(name), f"{self._where}.{name}")

    def end(self) -> None:
        if self._fields:
            raise FileFormatError(f"{self._where} has unknown fields: {reprlib.repr(sorted(self._fields))}")


def is_count(value: Any, least: int = 0) -> bool:
    """Whether a value is an integer in [least, MAX_COUNT]."""
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= MAX_COUNT


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, Real) and not isinstance(value, (bool, np.bool_)) and bool(np.isfinite(float(value)))


def _no_constant(word: str) -> Any:
    raise FileFormatError(f"the model's description holds {word}, which is not JSON")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise FileFormatError("the model's description names a field twice")
    return fields


def _parse_float(text: str) -> float:
    number = float(text)
    if not np.isfinite(number):
        raise FileFormatError(f"the model's description holds a number that is too large: {reprlib.repr(text)}")
    return number


def _rebuild(text: str, tensors: Tensors, made_by: str, build: Callable[[Fields, Tensors, str], T]) -> T:
    """Call ``build(fields, tensors, made_by)`` on a description. Whatever is wrong with it raises FileFormatError."""
    if sum(map(text.count, "[{:,")) > MAX_ITEMS:  # before there is an object for each of them
        raise FileFormatError(f"the model's description holds more than {MAX_ITEMS:,} values")
    try:
        parsed = json.loads(
            text, parse_constant=_no_constant, parse_float=_parse_float, object_pairs_hook=_no_duplicates
        )
        fields = Fields(parsed, "model")
        model = build(fields, tensors, made_by)
        fields.end()
        tensors.end()
    except FileFormatError:
        raise
    # From the parser, a constructor or a parameter's check.
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise FileFormatError(f"the model's description does not describe one: {error}") from error
    return model


def read(path: str | os.PathLike[str], build: Callable[[Fields, Tensors, str], T]) -> T:
    """The model that ``build`` makes of a file.

    Raises
    ------
    FileFormatError
        If ``write`` did not write the file, or wrote a newer format.
    OSError
        If it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    name = os.fsdecode(path)
    status = os.stat(name)
    try:
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would block
            raise FileFormatError("it is not a regular file")
        if status.st_size == 0:
            raise FileFormatError("it is empty")
        try:
            with safe_open(name, framework="numpy") as file:
                return _read(file, build)
        except SafetensorError as error:
            raise FileFormatError(f"{_kind_of_file(name)} ({error})") from error
    except FileFormatError as error:
        raise FileFormatError(f"{name} cannot be loaded: {error}.") from error.__cause__


def _kind_of_file(name: str) -> str:
    """Describe a file that safetensors cannot read."""
    with open(name, "rb") as file:
        start = file.read(2)
    if start[:1] == b"\x80" and start[1:] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "it is a pickle, which pickle.load or joblib.load reads"
    return "it is not a safetensors file"


def _read(file: Any, build: Callable[[Fields, Tensors, str], T]) -> T:
    metadata = file.metadata() or {}
    version = metadata.get(_VERSION_KEY)
    if version is None:
        raise FileFormatError("it was not written by fastmlp")
    if version != str(FORMAT_VERSION):
        made_by = reprlib.repr(metadata.get(_MADE_BY_KEY))
        raise FileFormatError(
            f"it has format {reprlib.repr(version)}, written by fastmlp {made_by}; this version reads format "
            f"{FORMAT_VERSION}"
        )
    if set(metadata) != {_VERSION_KEY, _MADE_BY_KEY, _MODEL_KEY}:
        raise FileFormatError(
            f"its metadata must be {_VERSION_KEY}, {_MADE_BY_KEY} and {_MODEL_KEY}, got "
            f"{reprlib.repr(sorted(metadata))}"
        )
    entries = {}
    names: list[str] = file.keys()
    for name in names:
        part = file.get_slice(name)
        if part.get_dtype() not in ELEMENT_TYPES:
            raise FileFormatError(f"tensor {reprlib.repr(name)} has the unknown type {part.get_dtype()}")
        entries[name] = Tensors.Entry(
            ELEMENT_TYPES[part.get_dtype()], tuple(part.get_shape()), partial(file.get_tensor, name)
        )
    return _rebuild(metadata[_MODEL_KEY], Tensors(entries), metadata[_MADE_BY_KEY], build)


# --- networks ----------------------------------------------------------------------------------------------------


def parameter_shapes(sizes: Sequence[int], embedding: int, n_members: int) -> dict[str, list[tuple[int, ...]]]:
    """Shapes of the lists ``coefs``, ``intercepts`` and ``scalings`` of a network."""
    members = () if n_members == 1 else (n_members,)
    last = len(sizes) - 2
    coefs = [(fan_in, fan_out) for fan_in, fan_out in pairwise(sizes)]
    if embedding:
        coefs[0] = (sizes[0], embedding)
    return {
        "coefs": [*coefs[:last], (*members, *coefs[last])],
        "intercepts": [*((size,) for size in sizes[1:-1]), (*members, sizes[-1])],
        "scalings": [(n_members, sizes[1] // embedding)] if members else [],
    }


def describe_network(network: Any, prefix: str = "") -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Description and arrays of a network; ``prefix`` begins the arrays' names."""
    network.adopt()
    description = {
        "layer_sizes": list(network.layer_sizes),
        "activations": list(network.activations),
        "out_activation": network.out_activation,
        "dtype": network.dtype.name,
        "batch_norm": network.batch_norm,
        "residual": network.residual,
    }
    if network.embedding:
        description |= {"embedding": network.embedding, "n_members": network.n_members}
    arrays = {
        f"{prefix}{name}.{layer}": array for name in _ARRAYS for layer, array in enumerate(getattr(network, name))
    }
    return description, arrays


def network_state(fields: Fields, tensors: Tensors, prefix: str = "") -> dict[str, Any]:
    """The argument of ``Network.__setstate__``, from a description and its arrays.

    All types and shapes are checked before memory is allocated.
    """
    sizes = fields.items("layer_sizes")
    if len(sizes) < 2 or not all(is_count(size, 1) for size in sizes):
        raise FileFormatError("layer_sizes must be at least two integers >= 1")
    names = fields.items("activations")
    if len(names) != len(sizes) - 2 or not all(isinstance(name, str) and name in core.ACTIVATIONS for name in names):
        raise FileFormatError(
            f"activations must be names of {list(core.ACTIVATIONS)}, one for each of {len(sizes) - 2} hidden layers"
        )
    out_activation = fields.choice("out_activation", dict.fromkeys(core.OUTPUTS + core.ACTIVATIONS))
    dtype = fields.choice("dtype", ("float32", "float64"))
    batch_norm, residual = fields.flag("batch_norm"), fields.flag("residual")
    embedding, n_members = 0, 1
    if "embedding" in fields:
        embedding, n_members = fields.take("embedding"), fields.take("n_members")
        if not is_count(embedding, 1) or not is_count(n_members, 1):
            raise FileFormatError("embedding and n_members must be integers >= 1")
    fields.end()
    if embedding:
        try:
            core.Plan(sizes, names, out_activation, dtype, batch_norm, residual, embedding, n_members)
        except (ValueError, OverflowError) as error:
            raise FileFormatError(str(error)) from None

    layout, shapes = (
        core.parameter_layout(sizes, batch_norm, embedding, n_members),
        parameter_shapes(sizes, embedding, n_members),
    )
    for name in _ARRAYS:
        for layer in range(len(getattr(layout, name))):
            shape = shapes[name][layer] if name in shapes else (sizes[layer + 1],)
            tensors.require(f"{prefix}{name}.{layer}", (dtype,), shape)

    def joined(names: tuple[str, ...], n: int) -> np.ndarray:
        """The arrays in one array. Each is read into its place, so that only one layer is held twice."""
        flat = aligned_empty(n, dtype)
        for name in names:
            for layer, place in enumerate(getattr(layout, name)):
                flat[place] = tensors.read(f"{prefix}{name}.{layer}").ravel()
        return flat

    statistics = joined(IN_STATISTICS, layout.n_statistics)
    if (np.split(statistics, 2)[1] < 0).any():
        raise FileFormatError(f"tensors {prefix}variances must hold no negative numbers")
    return {
        "layer_sizes": tuple(sizes),
        "activations": tuple(names),
        "out_activation": out_activation,
        "dtype": dtype,
        "batch_norm": batch_norm,
        "residual": residual,
        "embedding": embedding,
        "n_members": n_members,
        "parameters": joined(IN_PARAMETERS, layout.n_parameters),
        "statistics": statistics,
    }


def save_network(network: Any, path: str | os.PathLike[str]) -> None:
    """``Network.save``."""
    description, arrays = describe_network(network)
    write(path, {"class": "Network", "network": description}, arrays, partial(build_network, type(network)))


def build_network(cls: type[T], fields: Fields, tensors: Tensors, made_by: str) -> T:
    """The network, of class ``cls``, that a file describes."""
    kind = fields.take("class")
    if kind != "Network":
        raise FileFormatError(f"its class is {reprlib.repr(kind)}, not 'Network'; fastmlp.load reads estimators")
    return restore_network(cls, network_state(fields.inner("network"), tensors))


def restore_network(cls: type[T], state: dict[str, Any]) -> T:
    """A network from the state that ``network_state`` returns."""
    network: Any = cls.__new__(cls)
    network.__setstate__(state)
    restored: T = network
    return restored
