"""The file a model is kept in: safetensors, with the model's description as JSON text in its metadata. docs/saving.md has the format.

Written so that a kill at any point leaves the old file or the new one. Read as data: nothing is executed, every field is
taken as what it must be or refused, and no array is made that the file does not hold. It refuses to know what a model is;
``network_file`` and ``saving`` do.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import reprlib
import secrets
import stat
from collections.abc import Callable, Iterator
from functools import partial
from numbers import Integral, Real
from typing import Any, NamedTuple, TypeVar

import numpy as np

from fastmlp.core.memory import all_finite

T = TypeVar("T")

#: Counts changes that a reader of the last version could not understand.
FORMAT_VERSION = 1
# The metadata of a file: these and nothing else.
_VERSION_KEY, _MADE_BY_KEY, _MODEL_KEY = "fastmlp_format", "fastmlp_version", "model"

# safetensors' names of the element types that a file may hold.
_TYPES = {
    "BOOL": "bool", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64", "U8": "uint8", "U16": "uint16", "U32": "uint32",
    "U64": "uint64", "F16": "float16", "F32": "float32", "F64": "float64",
}  # fmt: skip
#: The largest whole number that a file may hold where something is counted: what the core counts in.
MOST = 2**62


class FileFormatError(ValueError):
    """A file is not one that this version of fastmlp can load; the message says what is wrong with it."""


@contextlib.contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[str]:
    """The name of a new, empty file to write; at the end of the block it takes the place of ``path``, at once and durably.

    It lies in the folder of ``path``, is called like the beginning of that with a dot before and ``.<random>.tmp`` behind, and is
    removed if the block raises; a process that is killed leaves it. A link is followed, and an existing file's permissions stay.
    """
    if os.fsdecode(path).endswith(("/", os.sep)):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    target = os.path.realpath(os.fsdecode(path))
    folder, name = os.path.split(target)
    if os.path.exists(target) and not os.path.isfile(target):  # a folder, a device, a pipe
        raise OSError(errno.EINVAL, "Only a regular file can be replaced", target)
    temporary = os.path.join(folder, f".{name[:50]}.{secrets.token_hex(8)}.tmp")
    # Made here for its permissions, which the umask decides; the writer may put a file of its own in its place.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        mode = os.fstat(descriptor).st_mode
        os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):
            mode = os.stat(target).st_mode
        yield temporary
        with _opened(temporary, os.O_RDWR) as descriptor:
            os.chmod(temporary, stat.S_IMODE(mode))
            os.fsync(descriptor)
        with _folder(folder) as durable:
            os.replace(temporary, target)
            durable()
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def _folder(path: str) -> Iterator[Callable[[], None]]:
    """A function that makes what was renamed in a folder durable, as far as the system can: it is told before anything is replaced
    whether the folder opens."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows; a folder that may be written, but not read
        yield lambda: None
        return

    def sync() -> None:
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that does not do that
                raise

    try:
        yield sync
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class Tensors:
    """The arrays of a file: their types and shapes are known, each is read when it is asked for."""

    class Entry(NamedTuple):
        dtype: str
        shape: tuple[int, ...]
        read: Callable[[], np.ndarray]

    def __init__(self, entries: dict[str, Entry]) -> None:
        self._entries = entries
        self._asked: set[str] = set()

    @classmethod
    def held(cls, arrays: dict[str, np.ndarray]) -> Tensors:
        """Arrays in memory, as if they came from a file."""
        return cls({name: cls.Entry(array.dtype.name, array.shape, array.view) for name, array in arrays.items()})

    def require(self, name: str, dtypes: tuple[str, ...], shape: tuple[int | None, ...]) -> tuple[int, ...]:
        """The shape of an array that must be there, with one of these types and this shape, None standing for any number."""
        if name not in self._entries:
            raise FileFormatError(f"tensor {name!r} is missing")
        entry = self._entries[name]
        if entry.dtype not in dtypes:
            raise FileFormatError(f"tensor {name!r} must be of type {' or '.join(dtypes)}, got {entry.dtype}")
        if len(entry.shape) != len(shape) or any(
            want not in (None, got) for got, want in zip(entry.shape, shape, strict=True)
        ):
            raise FileFormatError(f"tensor {name!r} must have shape {shape}, got {entry.shape}")
        self._asked.add(name)
        return entry.shape

    def read(self, name: str) -> np.ndarray:
        """An array that was required."""
        array = self._entries[name].read()
        if array.dtype.kind == "f" and not all_finite(array):
            raise FileFormatError(f"tensor {name!r} must hold finite numbers only")
        if array.dtype.kind == "b" and (array.view(np.uint8) > 1).any():
            raise FileFormatError(f"tensor {name!r} must hold 0 and 1 only")
        return array

    def end(self) -> None:
        """There must be no other arrays than those that were asked for."""
        others = set(self._entries) - self._asked
        if others:
            raise FileFormatError(f"there are tensors that do not belong to the model: {reprlib.repr(sorted(others))}")


def _is_count(value: Any, least: int = 0) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= MOST


class Fields:
    """A JSON object: each field is taken as what it must be, and none may be left over."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise FileFormatError(f"{where} must be an object, got {reprlib.repr(value)}")
        self._left = dict(value)
        self._where = where

    def take(self, name: str, valid: Callable[[Any], bool], words: str) -> Any:
        """The field ``name``, for which ``valid`` must hold; ``words`` say so."""
        if name not in self._left:
            raise FileFormatError(f"{self._where} lacks the field {name!r}")
        value = self._left.pop(name)
        if not valid(value):
            raise FileFormatError(f"{self._where}.{name} must be {words}, got {reprlib.repr(value)}")
        return value

    def any(self, name: str) -> Any:
        """A field to be checked by the caller."""
        return self.take(name, lambda value: True, "")

    def has(self, name: str) -> bool:
        """Whether the field is there, and not taken yet."""
        return name in self._left

    def is_model(self, kind: str) -> bool:
        """Whether the field ``class`` says so."""
        return self._left.get("class") == kind

    def flag(self, name: str) -> bool:
        return bool(self.take(name, lambda value: isinstance(value, bool), "true or false"))

    def count(self, name: str, least: int = 0) -> int:
        return int(self.take(name, lambda value: _is_count(value, least), f"a whole number from {least} on"))

    def counts(self, name: str, fewest: int, least: int = 0) -> tuple[int, ...]:
        """A list of at least ``fewest`` whole numbers, each at least ``least``."""

        def valid(value: Any) -> bool:
            return isinstance(value, list) and len(value) >= fewest and all(_is_count(each, least) for each in value)

        return tuple(self.take(name, valid, f"a list of at least {fewest} whole numbers from {least} on"))

    def number(self, name: str, least: float = -np.inf) -> float:
        """A finite number."""
        return float(
            self.take(name, lambda value: is_number(value) and value >= least, f"a finite number from {least} on")
        )

    def name(self, name: str, valid: Any) -> str:
        """One of some words."""
        return str(self.take(name, lambda value: isinstance(value, str) and value in valid, f"one of {list(valid)}"))

    def items(self, name: str) -> list[Any]:
        return list(self.take(name, lambda value: isinstance(value, list), "a list"))

    def inner(self, name: str) -> Fields:
        """A field that is an object itself."""
        return Fields(self.any(name), f"{self._where}.{name}")

    def names(self) -> list[str]:
        """The fields not yet taken."""
        return list(self._left)

    def end(self) -> None:
        if self._left:
            raise FileFormatError(f"{self._where} has unknown fields: {reprlib.repr(sorted(self._left))}")


def is_number(value: Any) -> bool:
    """Whether a value is a finite number and no truth value."""
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


def parse(text: str) -> Any:
    """JSON as the standard has it: no NaN, no Infinity, no field twice."""
    return json.loads(text, parse_constant=_no_constant, parse_float=_parse_float, object_pairs_hook=_no_duplicates)


def rebuilt(text: str, tensors: Tensors, made_by: str, build: Callable[[Fields, Tensors, str], T]) -> T:
    """``build`` on a description and its arrays. Whatever is wrong with them comes out as one class of error.

    Parameters
    ----------
    text : str
        JSON.
    tensors : Tensors
    made_by : str
        The version of fastmlp that wrote them.
    build : callable (fields, tensors, made_by) -> model
    """
    try:
        fields = Fields(parse(text), "model")
        model = build(fields, tensors, made_by)
        fields.end()
        tensors.end()
    except FileFormatError:
        raise
    # What a parser, a constructor or a parameter's check says of a value that has no place in a model.
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise FileFormatError(f"the model's description does not describe one: {error}") from error
    return model


def write(
    path: str | os.PathLike[str], description: dict[str, Any], arrays: dict[str, np.ndarray], build: Callable[..., Any]
) -> None:
    """Write a model's description and arrays, from which ``build`` must be able to make it again.

    Raises
    ------
    FileFormatError
        If it is not: nothing is then written.
    OSError
        If the file cannot be written; an old one stays as it was.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    from fastmlp._version import __version__

    text = json.dumps(description, allow_nan=False, separators=(",", ":"))
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    rebuilt(text, Tensors.held(arrays), __version__, build)
    metadata = {_VERSION_KEY: str(FORMAT_VERSION), _MADE_BY_KEY: __version__, _MODEL_KEY: text}
    with replaced(path) as temporary:
        try:
            save_file(arrays, temporary, metadata=metadata)
        except SafetensorError as error:
            raise OSError(f"{os.fsdecode(path)} could not be written: {error}") from error


def read(path: str | os.PathLike[str], build: Callable[[Fields, Tensors, str], T]) -> T:
    """What ``build`` makes of a file.

    Raises
    ------
    FileFormatError
        If it is not a file that ``write`` wrote, and for a newer format.
    OSError
        If it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    name = os.fsdecode(path)
    status = os.stat(name)
    try:
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
            raise FileFormatError("it is not a regular file")
        if status.st_size == 0:
            raise FileFormatError("it is empty")
        try:
            with safe_open(name, framework="numpy") as file:
                return _read(file, build)
        except SafetensorError as error:
            raise FileFormatError(f"it is no safetensors file: {error}") from error
    except FileFormatError as error:
        raise FileFormatError(f"{name} cannot be loaded: {error}.") from error.__cause__


def _read(file: Any, build: Callable[[Fields, Tensors, str], T]) -> T:
    metadata = file.metadata() or {}
    version = metadata.get(_VERSION_KEY)
    if version is None:
        raise FileFormatError("it was not written by fastmlp")
    if version != str(FORMAT_VERSION):
        made_by = reprlib.repr(metadata.get(_MADE_BY_KEY))
        raise FileFormatError(
            f"it has format {reprlib.repr(version)}, written by fastmlp {made_by}; this version reads format {FORMAT_VERSION}"
        )
    if set(metadata) != {_VERSION_KEY, _MADE_BY_KEY, _MODEL_KEY}:
        raise FileFormatError(
            f"its metadata must be {_VERSION_KEY}, {_MADE_BY_KEY} and {_MODEL_KEY}, got {reprlib.repr(sorted(metadata))}"
        )
    entries = {}
    names: list[str] = file.keys()
    for name in names:
        part = file.get_slice(name)
        if part.get_dtype() not in _TYPES:
            raise FileFormatError(f"tensor {reprlib.repr(name)} has the unknown type {part.get_dtype()}")
        entries[name] = Tensors.Entry(_TYPES[part.get_dtype()], tuple(part.get_shape()), partial(file.get_tensor, name))
    return rebuilt(metadata[_MODEL_KEY], Tensors(entries), metadata[_MADE_BY_KEY], build)
