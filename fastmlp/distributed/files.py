"""Where blocks of rows come from: arrays, files of NumPy, Parquet and Arrow, and functions. Each reads a range of its
rows."""

from __future__ import annotations

import glob
import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from mmap import mmap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse

from fastmlp.core.memory import refuse_masked
from fastmlp.estimators.validation.held_out import column_names

# Rows of columns that are written to rows of X at a time.
_TRANSPOSED = 2048
# Rows that show what a function makes of X.
_LOOKED_AT = 256


class Rows(NamedTuple):
    """X (n, n_features), and y and weights if there are any."""

    X: np.ndarray | None
    y: np.ndarray | None
    sample_weight: np.ndarray | None


class Wanted(NamedTuple):
    """What to read of each row; y and weights only where there are any."""

    X: bool = True
    y: bool = True
    sample_weight: bool = True


ALL = Wanted()
TARGET = Wanted(X=False)
ONLY_X = Wanted(y=False, sample_weight=False)


class Source:
    """Some of the blocks' rows: a file, a pair of files, arrays, or what a function returns.

    Attributes
    ----------
    name : str
        For messages.
    ends : sequence of int or None
        Where each group of rows that is read as a whole ends; None: any range of rows can be read by itself.
    """

    name: str
    ends: Sequence[int] | None = None
    #: Names of the features; None without.
    features: list[str] | None = None
    #: Names of the targets; None without.
    targets: list[str] | None = None

    @property
    def n_rows(self) -> int:
        """Rows in all."""
        raise NotImplementedError

    @property
    def n_features(self) -> int:
        """Columns of X."""
        raise NotImplementedError

    @property
    def dtype(self) -> np.dtype:
        """float32 if X has that type, else float64."""
        raise NotImplementedError

    @property
    def has(self) -> Wanted:
        """What it has."""
        raise NotImplementedError

    def read(self, first: int, last: int, wanted: Wanted = ALL, out: np.ndarray | None = None) -> Rows:
        """Rows first .. last - 1: with ``ends``, those of one group. X is written to ``out``, if that is given."""
        raise NotImplementedError

    def place(self, first: int, last: int) -> str:
        """The name of these rows, for messages."""
        return f"{self.name}, rows {first} to {last - 1}"


def float_type(dtype: np.dtype) -> np.dtype:
    """The element type that numbers of ``dtype`` are trained in, as arrays in memory are."""
    return np.dtype(np.float32 if dtype == np.float32 else np.float64)


def written(values: np.ndarray | None, out: np.ndarray | None) -> np.ndarray | None:
    """Copy numbers to ``out``, as the core would convert them; what ``out`` cannot hold becomes infinite."""
    if values is None or out is None or values is out:
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        out[...] = values if values.dtype.kind == "f" else values.astype(np.float64)
    return out


# --- arrays ----------------------------------------------------------------------------------------------------


class ArrayFile:
    """An array in a file, which is read by ranges of rows. No map is kept: its pages would count as the process's
    memory."""

    def __init__(self, array: np.memmap) -> None:
        self.path, self.offset = str(array.filename), array.offset
        self.shape, self.dtype = array.shape, array.dtype
        self.by_columns = array.ndim == 2 and array.flags.f_contiguous and not array.flags.c_contiguous

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last, _ = rows.indices(len(self))
        return self.read(first, last)

    def read(self, first: int, last: int, out: np.ndarray | None = None) -> np.ndarray:
        """Rows first .. last - 1, in ``out`` if that has their type and layout."""
        n = last - first
        with open(self.path, "rb", buffering=0) as file:
            if self.by_columns:
                transposed = np.empty((self.shape[1], n), self.dtype)
                for column, values in enumerate(transposed):
                    self._read(file, column * len(self) + first, values)
                return transposed.T
            fits = out is not None and out.dtype == self.dtype and out.flags.c_contiguous
            array = out if fits and out is not None else np.empty((n, *self.shape[1:]), self.dtype)
            self._read(file, first * int(np.prod(self.shape[1:], dtype=np.int64)), array)
            return array

    def _read(self, file: Any, position: int, to: np.ndarray) -> None:
        """Read numbers from a position that is counted in numbers."""
        view = to.reshape(-1).view(np.uint8).data if to.size else memoryview(b"")
        file.seek(self.offset + position * self.dtype.itemsize)
        while len(view):
            n = file.readinto(view)
            if not n:
                raise ValueError(f"{self.path} is shorter than its header says.")
            view = view[n:]


def open_npy(path: str) -> ArrayFile:
    """The array of a .npy file.

    Raises
    ------
    ValueError
        If it is not one, is cut short, or holds Python objects.
    """
    try:
        return ArrayFile(np.lib.format.open_memmap(path, mode="r"))
    except ValueError as error:
        advice = ""
        if "object" in str(error):
            advice = " Save text with a fixed width: numpy.save(path, y.astype(str))."
        raise ValueError(f"{path} cannot be read as a .npy file: {error}{advice}") from error


def from_disk(array: Any) -> Any:
    """A whole memory map as an ``ArrayFile``; anything else as it is, also a map that may differ from the file of its
    name: a copy on write, or one whose file was removed or replaced by a shorter one."""
    if not (isinstance(array, np.memmap) and isinstance(array.base, mmap)) or array.mode == "c":
        return array
    path, end = array.filename, array.offset + array.nbytes
    contiguous = array.flags.c_contiguous or (array.ndim == 2 and array.flags.f_contiguous)
    if not contiguous or array.dtype.kind == "O" or path is None:
        return array
    return ArrayFile(array) if os.path.isfile(path) and os.path.getsize(path) >= end else array


class ArraySource(Source):
    """X, y and weights with a range of rows each: arrays, memory maps, or ``ArrayFile``."""

    def __init__(self, name: str, X: Any, y: Any = None, sample_weight: Any = None) -> None:
        self.name = name
        self.arrays = tuple(map(from_disk, (X, y, sample_weight)))
        check_shapes(name, *self.arrays)

    @property
    def n_rows(self) -> int:
        return len(self.arrays[0])

    @property
    def n_features(self) -> int:
        return int(self.arrays[0].shape[1])

    @property
    def dtype(self) -> np.dtype:
        return float_type(self.arrays[0].dtype)

    @property
    def has(self) -> Wanted:
        return Wanted(*(array is not None for array in self.arrays))

    def read(self, first: int, last: int, wanted: Wanted = ALL, out: np.ndarray | None = None) -> Rows:
        X, y, weight = (
            np.asarray(array[first:last]) if wants and array is not None else None
            for array, wants in zip((None, *self.arrays[1:]), wanted, strict=True)
        )
        if wanted.X and isinstance(self.arrays[0], ArrayFile):
            X = self.arrays[0].read(first, last, out)
        elif wanted.X:
            X = self.arrays[0][first:last]
        return Rows(written(X, out), y, weight)


def check_shapes(name: str, X: Any, y: Any, sample_weight: Any) -> None:
    """Refuse an X that is not a table of numbers, and y or weights of another number of rows."""
    if X.ndim != 2:
        advice = " Each row must be flat: X.reshape(len(X), -1)." if X.ndim > 2 else ""
        raise ValueError(f"{name}: X must have two dimensions, rows and features, got shape {X.shape}.{advice}")
    if not X.shape[1]:
        raise ValueError(f"{name}: X must have features, got shape {X.shape}.")
    if X.dtype.kind not in "biuf":
        raise TypeError(f"{name}: X must be numbers, got {X.dtype}.")
    for what, array in (("y", y), ("sample_weight", sample_weight)):
        if array is not None and (array.ndim not in (1, 2) or len(array) != len(X)):
            raise ValueError(f"{name}: X has shape {X.shape}, {what} has shape {array.shape}: each row needs its own.")


def as_arrays(name: str, rows: Any) -> tuple[np.ndarray, Any, Any]:
    """A part as a user gives it, X or a tuple (X, y) or (X, y, sample_weight), as arrays."""
    parts = rows if isinstance(rows, tuple) else (rows,)
    if not 1 <= len(parts) <= 3:
        raise ValueError(f"{name} must be X, (X, y) or (X, y, sample_weight), got a tuple of {len(parts)}.")
    for argument, values in zip(("X", "y", "sample_weight"), parts, strict=False):
        if issparse(values):
            raise TypeError(f"{name}: {argument} must be dense, got a sparse matrix: toarray() makes an array of it.")
        refuse_masked(argument, values)
    if parts[0] is None:
        raise ValueError(f"{name}: X is None.")
    if isinstance(rows, list) and rows and np.ndim(rows[0]) > 1:
        raise TypeError(f"{name} must be X, or a tuple (X, y) or (X, y, sample_weight), got a list of arrays.")
    arrays = [values if isinstance(values, np.ndarray) or values is None else np.asarray(values) for values in parts]
    X = arrays[0]
    assert X is not None
    if X.ndim == 2 and (X.dtype.kind == "O" or (X.dtype.kind not in "biuf" and column_names(parts[0]) is not None)):
        arrays[0] = numbers_of(name, parts[0], X)
    return (*arrays, None, None)[:3]  # type: ignore[return-value]


def names_of(rows: Any) -> list[str] | None:
    """Names of the columns of a part's X; None without, or if they are not text."""
    names = column_names(rows[0] if isinstance(rows, tuple) else rows)
    return names if names is not None and all(isinstance(name, str) for name in names) else None


def numbers_of(name: str, table: Any, objects: np.ndarray) -> np.ndarray:
    """The numbers of a table of columns of several types, or of Python objects; a gap is NaN."""
    frame = hasattr(table, "iloc")
    labels = column_names(table)
    types = list(table.dtypes) if frame else [None]
    plain = all(isinstance(dtype, np.dtype) and dtype.kind in "biuf" for dtype in types)
    single = plain and np.result_type(*types) == np.float32
    X = np.empty(objects.shape, dtype=np.float32 if single else np.float64)
    for i, values in enumerate(objects.T):
        column = table.iloc[:, i] if frame else values
        try:
            if getattr(column.dtype, "kind", "O") in "mMc":
                raise TypeError(f"got {column.dtype}")
            X[:, i] = column.to_numpy(dtype=np.float64, na_value=np.nan) if frame else column.astype(np.float64)
        except (ValueError, TypeError) as error:
            label = i if labels is None else labels[i]
            raise TypeError(f"{name}: X must be numbers, and column {label!r} is not: {error}.") from error
    return X


class FunctionSource(Source):
    """What a function returns, each time that it is called: X, (X, y) or (X, y, sample_weight)."""

    def __init__(self, name: str, load: Callable[[], Any]) -> None:
        self.name, self.load = name, load
        self._known: tuple[int, int, np.dtype, Wanted, list[str] | None] | None = None

    def _look(self) -> tuple[int, int, np.dtype, Wanted, list[str] | None]:
        """Rows, features, element type, what there is, and names of the features, from a first call."""
        if self._known is None:
            self._call()
        assert self._known is not None
        return self._known

    def _call(self) -> tuple[np.ndarray, Any, Any]:
        rows = self.load()
        arrays = as_arrays(self.name, rows)
        check_shapes(self.name, *arrays)
        X, names = arrays[0], names_of(rows)
        found = len(X), X.shape[1], float_type(X.dtype), Wanted(*(array is not None for array in arrays)), names
        if self._known not in (None, found):
            named = "" if names is None else f", {names},"
            raise ValueError(
                f"{self.name} returned {len(X)} rows of {X.shape[1]} features{named} in {X.dtype}, and other rows "
                "before: it must return the same ones in each call."
            )
        self._known = found
        return arrays

    @property
    def ends(self) -> Sequence[int]:  # type: ignore[override]
        return [self.n_rows] if self.n_rows else []

    @property
    def n_rows(self) -> int:
        return self._look()[0]

    @property
    def n_features(self) -> int:
        return self._look()[1]

    @property
    def dtype(self) -> np.dtype:
        return self._look()[2]

    @property
    def has(self) -> Wanted:
        return self._look()[3]

    @property
    def features(self) -> list[str] | None:  # type: ignore[override]
        return self._look()[4]

    def read(self, first: int, last: int, wanted: Wanted = ALL, out: np.ndarray | None = None) -> Rows:
        X, y, weight = (array if wants else None for array, wants in zip(self._call(), wanted, strict=True))
        return Rows(written(X, out), y, weight)

    def place(self, first: int, last: int) -> str:
        return self.name


class MappedSource(Source):
    """Another source's rows, X as a function makes it of each block."""

    def __init__(self, source: Source, function: Callable[[Any], Any]) -> None:
        self.source, self.function = source, function
        self.name, self.targets = source.name, source.targets
        last = source.n_rows if source.ends is None else next((end for end in source.ends if end), 0)
        first = self._map(source.read(0, last if source.ends is not None else min(last, _LOOKED_AT), ONLY_X).X)
        self._width, self._dtype = first.shape[1], float_type(first.dtype)
        self.features = source.features if self._width == source.n_features else None

    def _map(self, X: np.ndarray | None) -> np.ndarray:
        assert X is not None
        mapped = self.function(X)
        arrays = as_arrays(f"{self.name}, mapped", mapped)
        check_shapes(f"{self.name}, mapped", *arrays)
        if len(arrays[0]) != len(X):
            raise ValueError(f"{self.name}: the function of map returned {len(arrays[0])} rows for {len(X)}.")
        return arrays[0]

    @property
    def ends(self) -> Sequence[int] | None:  # type: ignore[override]
        return self.source.ends

    @property
    def n_rows(self) -> int:
        return self.source.n_rows

    @property
    def n_features(self) -> int:
        return int(self._width)

    @property
    def dtype(self) -> np.dtype:
        return self._dtype

    @property
    def has(self) -> Wanted:
        return self.source.has

    def read(self, first: int, last: int, wanted: Wanted = ALL, out: np.ndarray | None = None) -> Rows:
        rows = self.source.read(first, last, wanted)
        return rows._replace(X=written(self._map(rows.X), out)) if wanted.X else rows

    def place(self, first: int, last: int) -> str:
        return self.source.place(first, last)


# --- Parquet and Arrow -----------------------------------------------------------------------------------------


def pyarrow() -> Any:
    """PyArrow, with its modules for files.

    Raises
    ------
    ImportError
        Without it; the message names the extra.
    """
    try:
        for module in ("compute", "ipc", "parquet"):
            importlib.import_module(f"pyarrow.{module}")
        return importlib.import_module("pyarrow")
    except ImportError as error:
        raise ImportError(f"Parquet and Arrow files need pyarrow: pip install fastmlp[arrow] ({error}).") from error


def is_text(kind: Any) -> bool:
    """Whether a type of Arrow is text, in any of its layouts."""
    is_ = pyarrow().types
    tests = [is_.is_string, is_.is_large_string, *([is_.is_string_view] if hasattr(is_, "is_string_view") else [])]
    return any(test(kind) for test in tests)


class Columns(NamedTuple):
    """The names of the columns that are read."""

    features: list[str]
    targets: list[str]
    weight: str | None
    #: y has one dimension.
    single: bool

    @classmethod
    def choose(cls, names: Sequence[str], features: Any, target: Any, sample_weight: str | None) -> Columns:
        """Check a user's choice; without ``features``, all columns but the target and the weight."""
        targets = [] if target is None else [target] if isinstance(target, str) else target
        others = {*targets, sample_weight}
        chosen = [name for name in names if name not in others] if features is None else features
        asked = [*chosen, *targets, *([sample_weight] if sample_weight is not None else [])]
        if lacking := [name for name in asked if name not in names]:
            raise ValueError(f"there are no columns {lacking}; the file has {list(names)}.")
        if twice := sorted({name for name in asked if asked.count(name) > 1}):
            raise ValueError(f"the columns {twice} are asked for twice.")
        if doubled := sorted({name for name in asked if list(names).count(name) > 1}):
            raise ValueError(f"there are several columns of the names {doubled}.")
        if not chosen:
            raise ValueError("there are no columns for X.")
        return cls(chosen, targets, sample_weight, isinstance(target, str))

    def wanted(self, wanted: Wanted) -> list[str]:
        """The columns that must be read."""
        names = [*(self.features if wanted.X else []), *(self.targets if wanted.y else [])]
        return [*names, self.weight] if wanted.sample_weight and self.weight is not None else names


class TableSource(Source):
    """A file of a table, in groups of rows that are read as a whole."""

    #: What a message calls a group.
    group = "row group"

    def __init__(self, path: str, features: Any, target: Any, sample_weight: str | None) -> None:
        self.name = path
        try:
            schema, self.ends = self._look()
        except OSError as error:
            if error.filename is not None:
                raise
            raise OSError(f"{path} cannot be read: {error}") from error
        except (pyarrow().ArrowInvalid, pyarrow().ArrowNotImplementedError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from error
        try:
            self.columns = Columns.choose(schema.names, features, target, sample_weight)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        self.features = self.columns.features
        self.targets = self.columns.targets or None
        types = {name: schema.field(name).type for name in self.columns.wanted(ALL)}
        self._check_types(types)
        single = all(types[name] == pyarrow().float32() for name in self.features)
        self._dtype = np.dtype(np.float32 if single else np.float64)

    def _look(self) -> tuple[Any, Sequence[int]]:
        """The schema, and where each group ends."""
        raise NotImplementedError

    def _read_group(self, number: int, names: list[str]) -> Any:
        """A table, or a batch, of these columns."""
        raise NotImplementedError

    def _check_types(self, types: dict[str, Any]) -> None:
        """Refuse columns that are no numbers, and targets that are neither numbers nor labels."""
        is_ = pyarrow().types
        for name, kind in types.items():
            inner = kind.value_type if is_.is_dictionary(kind) else kind
            number = any(test(inner) for test in (is_.is_integer, is_.is_floating, is_.is_boolean, is_.is_decimal))
            words = is_text(inner)
            if is_.is_dictionary(kind) and name not in self.columns.targets:
                number = False
            if number or (words and name in self.columns.targets):
                continue
            advice = (
                " Encode it as numbers first, or leave it out of features." if name in self.columns.features else ""
            )
            raise TypeError(f"{self.name}: column {name!r} must be numbers, got {kind}.{advice}")

    @property
    def n_rows(self) -> int:
        return self.ends[-1] if self.ends else 0

    @property
    def n_features(self) -> int:
        return len(self.columns.features)

    @property
    def dtype(self) -> np.dtype:
        return self._dtype

    @property
    def has(self) -> Wanted:
        return Wanted(True, bool(self.columns.targets), self.columns.weight is not None)

    def read(self, first: int, last: int, wanted: Wanted = ALL, out: np.ndarray | None = None) -> Rows:
        assert self.ends is not None
        table = self._read_group(int(np.searchsorted(self.ends, last)), self.columns.wanted(wanted))
        X = y = weight = None
        if wanted.X:
            X = np.empty((last - first, self.n_features), self._dtype) if out is None else out
            columns = [self._values(table, name) for name in self.columns.features]
            for start in range(0, last - first, _TRANSPOSED):  # a part of X that stays in the cache
                part = slice(start, start + _TRANSPOSED)
                for i, values in enumerate(columns):
                    written(values[part], X[part, i])
        if wanted.y and self.columns.targets:
            columns = [self._values(table, name) for name in self.columns.targets]
            y = columns[0] if self.columns.single else np.stack(columns, axis=1)
        if wanted.sample_weight and self.columns.weight is not None:
            weight = self._values(table, self.columns.weight)
        return Rows(X, y, weight)

    def _values(self, table: Any, name: str) -> np.ndarray:
        """A column's numbers, a gap being NaN, or its words."""
        pa = pyarrow()
        column = table.column(name)
        is_encoded = pa.types.is_dictionary(column.type)
        if is_text(column.type.value_type if is_encoded else column.type):
            chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
            return np.concatenate([np.empty(0, np.str_), *(self._words(chunk, name) for chunk in chunks)])
        if is_encoded:
            column = column.cast(column.type.value_type)
        if pa.types.is_decimal(column.type):
            column = column.cast(pa.float64())
        array: np.ndarray = column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy()
        return array.astype(np.float64) if array.dtype.kind == "O" else array  # truth values with gaps

    def _words(self, column: Any, name: str) -> np.ndarray:
        """The text of an Arrow array, as it is or encoded by a dictionary, in any layout of text."""
        pa = pyarrow()
        if not pa.types.is_dictionary(column.type):
            column = column.cast(pa.large_string()).dictionary_encode()
        known = column.is_valid().to_numpy(zero_copy_only=False)
        words = column.dictionary.to_pylist()
        codes = column.indices.fill_null(0).to_numpy(zero_copy_only=False)
        if column.dictionary.null_count:
            known &= np.array([word is not None for word in words])[codes]
        if not known.all():
            raise ValueError(
                f"Column {name!r} has no label in row {int(np.argmin(known))}. Leave out rows without a label."
            )
        chosen: np.ndarray = np.array(words, dtype=np.str_)[codes]
        return chosen

    def place(self, first: int, last: int) -> str:
        assert self.ends is not None
        return f"{self.name}, {self.group} {int(np.searchsorted(self.ends, last))}"


class ParquetSource(TableSource):
    """A Parquet file, by row group."""

    def _look(self) -> tuple[Any, Sequence[int]]:
        with pyarrow().parquet.ParquetFile(self.name) as file:
            self._metadata = file.metadata
            counts = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
            return file.schema_arrow, np.cumsum(counts, dtype=np.int64).tolist()

    def _read_group(self, number: int, names: list[str]) -> Any:
        # Neither a map nor a reading ahead of PyArrow's own: what is in memory is what is asked for.
        with pyarrow().parquet.ParquetFile(self.name, metadata=self._metadata, pre_buffer=False) as file:
            return file.read_row_group(number, columns=names)


class ArrowSource(TableSource):
    """An Arrow file (the IPC file format, Feather), by record batch."""

    group = "record batch"

    def _look(self) -> tuple[Any, Sequence[int]]:
        pa = pyarrow()
        with pa.memory_map(self.name) as file, pa.ipc.open_file(file) as reader:
            counts = [reader.get_batch(i).num_rows for i in range(reader.num_record_batches)]
            return reader.schema, np.cumsum(counts, dtype=np.int64).tolist()

    def _read_group(self, number: int, names: list[str]) -> Any:
        pa = pyarrow()
        with pa.OSFile(self.name) as file:
            with pa.ipc.open_file(file) as reader:
                fields = [reader.schema.get_field_index(name) for name in names]
            options = pa.ipc.IpcReadOptions(included_fields=sorted(fields))
            file.seek(0)
            with pa.ipc.open_file(file, options=options) as reader:
                return reader.get_batch(number)


# --- lists and patterns of names ------------------------------------------------------------------------------


def listed(argument: str, names: Any) -> list[str] | None:
    """Names of columns as a list, which several files can be read by; None stays."""
    if names is None:
        return None
    if isinstance(names, (str, bytes)) or not hasattr(names, "__iter__"):
        raise TypeError(f"{argument} must be a list of names, got {names!r}.")
    return list(names)


def find(argument: str, files: Any) -> list[str]:
    """The files of a pattern, a path, or a list of these; those of a pattern in the order of their names."""
    if isinstance(files, (str, os.PathLike)):
        path = os.fspath(files)
        if os.path.exists(path) or not glob.has_magic(path):
            found = [path]
        else:
            found = sorted(glob.glob(path, recursive=True))
            if not found:
                raise FileNotFoundError(f"{argument}={path!r} matches no file.")
        for name in found:
            if not Path(name).exists():
                raise FileNotFoundError(f"{argument}: there is no file {name!r}.")
            if Path(name).is_dir():
                raise IsADirectoryError(
                    f"{argument}: {name!r} is a folder; {os.path.join(name, '*')!r} names its files."
                )
        return found
    if isinstance(files, np.ndarray) or not hasattr(files, "__iter__"):
        raise TypeError(
            f"{argument} must name files, got {type(files).__name__}. Arrays are parts: Blocks([(numpy.load(path, "
            f"mmap_mode='r'), y)])."
        )
    names = [name for part in files for name in find(argument, part)]
    if not names:
        raise ValueError(f"{argument} is an empty list.")
    return names


def pairs(X: list[str], others: dict[str, list[str] | None]) -> Iterator[tuple[str, dict[str, str]]]:
    """Each file of X with the files that belong to it."""
    for argument, files in others.items():
        if files is not None and len(files) != len(X):
            raise ValueError(f"X names {len(X)} files and {argument} {len(files)}: each file of X needs its own.")
    for i, path in enumerate(X):
        yield path, {argument: files[i] for argument, files in others.items() if files is not None}
