"""Blocks: rows that need not fit into memory, for fit, predict and score."""

from __future__ import annotations

import copy
import os
import reprlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from fastmlp.distributed.files import (
    TARGET,
    ArraySource,
    ArrowSource,
    FunctionSource,
    MappedSource,
    ParquetSource,
    Rows,
    Source,
    TableSource,
    as_arrays,
    find,
    listed,
    names_of,
    open_npy,
    pairs,
)
from fastmlp.distributed.fitting import BlockData, BlockRows, Checker, Learned, rows_to_score, whole
from fastmlp.distributed.stream import Sources, read_ahead
from fastmlp.network.network import LazyRows
from fastmlp.training.rows import RowSource


class Blocks(RowSource):
    """Rows that need not fit into memory: arrays, memory maps, files, or what functions return.

    ``fit``, ``partial_fit``, ``predict``, ``predict_proba``, ``transform`` and ``score`` of MLPClassifier and
    MLPRegressor take Blocks in the place of X and y; fitted ensembles of these predict and score Blocks. They read some
    rows at a time, one block ahead. Memory does not grow with the number of rows, but for y in ``score``, and what
    ``predict`` returns.

    With ``shuffle=True``, an epoch takes pieces of 256 rows in a random order, 64 at once, and shuffles the rows of
    these. Rows of a row group of Parquet, a record batch of Arrow, or of what a function returns, are read together: as
    many of these as fit into 64 MiB, at least one, are shuffled at once. The order follows from ``random_state`` and
    the epoch alone.

    Parameters
    ----------
    parts : sequence
        Each is X, (X, y) or (X, y, sample_weight), or a function without arguments that returns such, the same rows in
        each call. Arrays are read in place; a memory map of a whole file is read piece by piece.
    classes : array-like, default=None
        All labels there are, for classifiers of one output. Without weights, ``fit`` then needs no pass over y to find
        them; the first ``partial_fit`` needs them here or as its own ``classes``.

    Attributes
    ----------
    shape : tuple of int
        Rows and features.
    dtype : numpy.dtype
        float32 if all of X is, else float64: the element type of a network with ``dtype='auto'``.
    features : list of str or None
        Names of the features.

    Raises
    ------
    ValueError, TypeError
        For parts that do not belong together, or are not tables of numbers. Errors in ``fit`` and ``predict`` name the
        file, the row group and the column.

    See Also
    --------
    Blocks.npy, Blocks.parquet, Blocks.arrow : Blocks of files.

    Examples
    --------
    >>> import numpy as np
    >>> from fastmlp import Blocks, MLPClassifier
    >>> X = np.random.RandomState(0).standard_normal((1000, 5))
    >>> y = (X[:, 0] > 0).astype(int)
    >>> blocks = Blocks([(X[:600], y[:600]), lambda: (X[600:], y[600:])])
    >>> blocks.shape
    (1000, 5)
    >>> MLPClassifier(random_state=0, max_iter=300).fit(blocks).predict(blocks).shape
    (1000,)
    """

    def __init__(self, parts: Sequence[Any], *, classes: ArrayLike | None = None) -> None:
        if isinstance(parts, (tuple, np.ndarray, str, os.PathLike)) or not hasattr(parts, "__iter__"):
            raise TypeError(
                f"Blocks takes a list of parts, Blocks([(X, y)]), got {type(parts).__name__}. Blocks.npy, "
                "Blocks.parquet and Blocks.arrow read files."
            )
        sources: list[Source] = []
        for i, part in enumerate(parts):
            name = f"part {i}"
            if callable(part):
                sources.append(FunctionSource(name, part))
                continue
            source = ArraySource(name, *as_arrays(name, part))
            source.features = names_of(part)
            sources.append(source)
        self._set(sources, classes)

    def _set(self, sources: list[Source], classes: ArrayLike | None) -> None:
        if not sources:
            raise ValueError("Blocks must have parts, got none.")
        if classes is not None and (np.ndim(classes) != 1 or not np.size(classes)):
            raise ValueError(f"classes must be a list of labels, got {reprlib.repr(classes)}.")
        self._sources = Sources(sources)
        self._classes = classes
        self._learned: Learned | None = None
        self._checker: Checker | None = None

    @classmethod
    def _of(cls, sources: list[Source], classes: ArrayLike | None) -> Self:
        blocks = cls.__new__(cls)
        blocks._set(sources, classes)
        blocks._sources.check()
        return blocks

    @classmethod
    def npy(
        cls,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        features: Sequence[str] | None = None,
        classes: ArrayLike | None = None,
    ) -> Self:
        """Blocks of .npy files.

        Parameters
        ----------
        X, y, sample_weight : str, path-like or list of these
            A file, a pattern such as ``"rows/X-*.npy"``, or a list. A pattern names files in the order of their names;
            each file of X needs one of y, and of weights, with as many rows.
        features : sequence of str, default=None
            Names of the features.
        classes : array-like, default=None
            As in the class.

        Returns
        -------
        Blocks
        """
        others = {
            argument: None if files is None else find(argument, files)
            for argument, files in (("y", y), ("sample_weight", sample_weight))
        }
        names = listed("features", features)
        sources: list[Source] = []
        for path, belonging in pairs(find("X", X), others):
            arrays = {"X": open_npy(path), **{argument: open_npy(file) for argument, file in belonging.items()}}
            for argument, file in belonging.items():
                if len(arrays[argument]) != len(arrays["X"]):
                    raise ValueError(f"{path} has {len(arrays['X'])} rows, {file} has {len(arrays[argument])}.")
            source = ArraySource(path, **arrays)
            if names is not None:
                source.features = names
                if len(source.features) != source.n_features:
                    raise ValueError(f"{path} has {source.n_features} features, and {len(source.features)} have names.")
            sources.append(source)
        return cls._of(sources, classes)

    @classmethod
    def parquet(
        cls,
        files: Any,
        features: Sequence[str] | None = None,
        target: str | Sequence[str] | None = None,
        sample_weight: str | None = None,
        *,
        classes: ArrayLike | None = None,
    ) -> Self:
        """Blocks of Parquet files, read by row group. It needs pyarrow: ``pip install fastmlp[arrow]``.

        Parameters
        ----------
        files : str, path-like or list of these
            A file, a pattern such as ``"rows/*.parquet"``, or a list.
        features : sequence of str, default=None
            The columns of X; None: all others.
        target : str or sequence of str, default=None
            The column of y, or several.
        sample_weight : str, default=None
            The column of weights.
        classes : array-like, default=None
            As in the class.

        Returns
        -------
        Blocks

        Raises
        ------
        ImportError
            Without pyarrow.
        """
        return cls._of_tables(ParquetSource, files, features, target, sample_weight, classes)

    @classmethod
    def arrow(
        cls,
        files: Any,
        features: Sequence[str] | None = None,
        target: str | Sequence[str] | None = None,
        sample_weight: str | None = None,
        *,
        classes: ArrayLike | None = None,
    ) -> Self:
        """Blocks of Arrow files (the IPC file format; Feather), read by record batch. It needs pyarrow.

        Parameters
        ----------
        files, features, target, sample_weight, classes
            As in ``parquet``.

        Returns
        -------
        Blocks

        Raises
        ------
        ImportError
            Without pyarrow.
        """
        return cls._of_tables(ArrowSource, files, features, target, sample_weight, classes)

    @classmethod
    def _of_tables(
        cls, kind: type[TableSource], files: Any, features: Any, target: Any, sample_weight: str | None, classes: Any
    ) -> Self:
        chosen = listed("features", features)
        targets = target if isinstance(target, str) else listed("target", target)
        return cls._of([kind(path, chosen, targets, sample_weight) for path in find("files", files)], classes)

    # --- what there is -----------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and features."""
        return self._sources.n_rows, self._sources.n_features

    @property
    def dtype(self) -> np.dtype:
        """float32 if all of X is, else float64."""
        return self._sources.dtype

    @property
    def features(self) -> list[str] | None:
        """Names of the features."""
        return self._sources.sources[0].features

    def __repr__(self) -> str:
        sources = self._sources.sources
        return f"Blocks([{sources[0].name!r}{', ...' if len(sources) > 1 else ''}])"

    def __iter__(self) -> Iterator[Rows]:
        """Some rows at a time, in order: named tuples ``(X, y, sample_weight)`` of arrays, read one ahead."""
        return read_ahead(self._sources.read(unit) for unit in self._sources.units(False))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise TypeError(
            "Blocks are read in parts and do not become one array: MLPClassifier and MLPRegressor take them, and other "
            "steps take each part, for X, y, weight in blocks: scaler.partial_fit(X)."
        )

    def map(self, function: Callable[[np.ndarray], Any]) -> Blocks:
        """Blocks whose X is what a function makes of it, whenever some rows are read: scaled, or encoded.

        Parameters
        ----------
        function : callable (X) -> X
            Of some rows at a time, an array (n, n_features): ``scaler.transform``, for example. It must return as many
            rows, numbers only, and the same ones for the same row.

        Returns
        -------
        Blocks
            Names of features stay if their number does.
        """
        self._sources.check()
        return Blocks._of(
            [MappedSource(source, function) for source in self._sources.sources if source.n_rows], self._classes
        )

    def to_npy(self, folder: str | os.PathLike[str]) -> Blocks:
        """Write all rows to .npy files, block by block, and return Blocks of these.

        Any piece of such files can be read by itself, so that epochs mix rows better than those of large row groups,
        and take less time.

        Parameters
        ----------
        folder : str or path-like
            It is made if there is none. The files are X.npy, and y.npy and sample_weight.npy if there are such.

        Returns
        -------
        Blocks

        Raises
        ------
        FileExistsError
            If the folder has such files.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        paths = {name: folder / f"{name}.npy" for name in Rows._fields}
        for path in paths.values():
            if path.exists():
                raise FileExistsError(f"{path} exists.")
        types: list[np.dtype | None] = [self.dtype, None, None]
        shapes: list[tuple[int, ...]] = [(self.shape[1],), (), ()]
        for unit in self._sources.units(False):
            for i, array in enumerate(self._sources.read(unit, TARGET)):
                if array is not None:
                    array = array.astype(np.str_) if array.dtype.kind == "O" else array
                    known = types[i]
                    types[i] = array.dtype if known is None else np.result_type(known, array.dtype)
                    shapes[i] = array.shape[1:]
        maps: list[Any] = [None, None, None]
        try:
            for i, name in enumerate(Rows._fields):
                if (dtype := types[i]) is not None:
                    header = {
                        "descr": np.lib.format.dtype_to_descr(dtype),
                        "fortran_order": False,
                        "shape": (self.shape[0], *shapes[i]),
                    }
                    maps[i] = open(paths[name], "wb")  # noqa: SIM115
                    np.lib.format.write_array_header_2_0(maps[i], header)
            for rows in self:
                for file, array, dtype in zip(maps, rows, types, strict=True):
                    if file is not None and array is not None:
                        file.write(np.ascontiguousarray(array, dtype=dtype).data)
        finally:
            for file in maps:
                if file is not None:
                    file.close()
        found = {name: str(path) for name, path in paths.items() if path.exists()}
        return Blocks.npy(**found, features=self.features, classes=self._classes)

    # --- for estimators ----------------------------------------------------------------------------------------

    def _learn(self, estimator: Any, *, reset: bool, incremental: bool) -> Self:
        """Learn features and target; for ``fit`` and ``partial_fit``."""
        self._require_target(estimator)
        checker = Checker(estimator, self._sources)
        learned = Learned(checker, self._classes)
        checker.check_features(reset)
        with_target = copy.copy(self)
        with_target._learned, with_target._checker = learned, checker
        seen = learned.seen
        if learned.of_classes and incremental and getattr(estimator, "class_weight", None) == "balanced":
            estimator._apply_class_weight(seen, None, True)  # an error
        estimator._learn_target(seen, incremental)
        return with_target

    def _require_target(self, estimator: Any) -> None:
        self._sources.check()
        if not self._sources.sources[0].has.y:
            raise ValueError(
                f"This {type(estimator).__name__} estimator requires y to be passed, but the Blocks have none: "
                f"Blocks([(X, y)]), "
                'Blocks.npy("X.npy", "y.npy") or Blocks.parquet("rows.parquet", target="y").'
            )

    def _labels(self, estimator: Any) -> np.ndarray:
        """Some rows of y with all of its labels."""
        self._require_target(estimator)
        seen: np.ndarray = Learned(Checker(estimator, self._sources), None).seen
        return seen

    def _training_data(self, estimator: Any, network: Any, loss: str) -> BlockData:
        """The rows for a run."""
        assert self._checker is not None
        assert self._learned is not None
        return BlockData(self._checker, self._learned, network, loss)

    def _validation_data(
        self, estimator: Any, network: Any, loss: str
    ) -> tuple[LazyRows, np.ndarray, Any, np.ndarray | None]:
        """Rows to score on."""
        self._require_target(estimator)
        checker = Checker(estimator, self._sources)
        checker.check_features(reset=False)
        return rows_to_score(checker, network, loss)

    def _checked_by(self, estimator: Any) -> LazyRows:
        """X for a prediction."""
        self._sources.check()
        checker = Checker(estimator, self._sources)
        checker.check_features(reset=False)
        return BlockRows(checker, self._sources.units(False), estimator._networks()[0].dtype)

    def _target_and_weight(self) -> tuple[np.ndarray, np.ndarray | None]:
        """y and weights of all rows, in memory."""
        if not self._sources.sources[0].has.y:
            raise ValueError("score needs y, and the Blocks have none: Blocks([(X, y)]).")
        return whole(self._sources, TARGET)
