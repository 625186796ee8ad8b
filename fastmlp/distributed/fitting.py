"""Blocks of rows for an estimator: what it learns from them first, its checks of each block, and its data for a run."""

from __future__ import annotations

import copy
import reprlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.utils import assert_all_finite

from fastmlp.core.memory import all_finite
from fastmlp.distributed.files import ALL, ONLY_X, TARGET, Wanted
from fastmlp.distributed.stream import BlockEpochs, Sources, located, read_ahead
from fastmlp.estimators._sklearn import warn
from fastmlp.estimators.validation.labels import apply_class_weight, check_known
from fastmlp.estimators.validation.messages import explain_columns, explain_labels
from fastmlp.estimators.validation.rows import check_range, check_rows
from fastmlp.estimators.validation.weights import (
    check_outputs_have_targets,
    check_weight,
    check_weight_range,
    leave_out,
    rows_that_count,
    weight_sum,
)
from fastmlp.network.network import LazyRows, Network
from fastmlp.training.rows import Part, TrainingData

# Rows that are examined where a fit goes badly, at most, and how few are too few; and places that they come from.
_SAMPLE_ROWS, _FEW_ROWS, _SAMPLE_PLACES = 2000, 200, 16


class _Table:
    """X with names, for messages about its columns."""

    def __init__(self, names: list[str], X: np.ndarray) -> None:
        self.column_names, self.columns = names, list(X.T)
        self.shape = X.shape


class Checker:
    """An estimator's checks of blocks, one at a time, by copies of it: what they learn is not the estimator's."""

    def __init__(self, estimator: Any, sources: Sources) -> None:
        self.caller = estimator
        self.sources = sources
        self.estimator = copy.copy(estimator)
        vars(self.estimator).pop("feature_names_in_", None)  # blocks are arrays
        self.for_target = copy.copy(self.estimator)

    def check_features(self, reset: bool) -> None:
        """Learn the number and the names of the features, or check them."""
        names, estimator, n = self.sources.sources[0].features, self.caller, self.sources.n_features
        if reset:
            vars(estimator).pop("feature_names_in_", None)
            estimator.n_features_in_ = n
            if names is not None:
                estimator.feature_names_in_ = np.asarray(names, dtype=object)
            return
        if n != estimator.n_features_in_:
            raise ValueError(
                f"X has {n} features, but {type(estimator).__name__} is expecting {estimator.n_features_in_} features "
                f"as input."
            )
        known = getattr(estimator, "feature_names_in_", None)
        if names is not None and known is not None and list(known) != names:
            raise ValueError(
                "The feature names should match those that were passed during fit, in their order: features="
                f"{list(known)}, got {names}."
            )
        if (names is None) != (known is None):
            has, had = ("have", "without") if known is None else ("do not have", "with")
            warn(f"The Blocks {has} feature names, but {type(estimator).__name__} was fitted {had} feature names.")

    def target(self, y: Any, weight: Any) -> tuple[Any, np.ndarray | None]:
        """y and the weights of a block, checked."""
        if weight is not None:
            weight = np.asarray(weight)
            if weight.ndim == 2 and weight.shape[1] == 1:
                weight = weight[:, 0]
            if weight.dtype.kind not in "biuf" or weight.astype(np.float64).any():
                weight = check_weight(weight, y if weight.ndim == 2 else np.zeros((len(y), 1)))
            weight = np.ascontiguousarray(weight, dtype=np.float64)
        y = leave_out(y, weight)
        _, y = check_rows(self.for_target, np.zeros((len(y), 1)), y, reset=True, caller=self.caller)
        return y, weight

    def refuse_faults(self, unit: np.ndarray, dtype: np.dtype) -> None:
        """Raise the error of numbers that are not finite in ``dtype``."""
        X = self.sources.read(unit, ONLY_X).X
        names = self.sources.sources[0].features
        assert X is not None
        with explain_columns(self.caller, X if names is None else _Table(names, X)):
            assert_all_finite(X, input_name="X")
        check_range("X", X, dtype)

    def read_X(self, units: np.ndarray, X: np.ndarray) -> None:
        """Read X of some units, and check it."""
        at = 0
        for unit in units:
            n = int(unit[2] - unit[1])
            self.sources.read(unit, ONLY_X, X[at : at + n])
            at += n
        self.check_finite(units, X)

    def check_finite(self, units: np.ndarray, X: np.ndarray) -> None:
        """Refuse units that are not finite."""
        if all_finite(X):
            return
        last = 0
        for unit in units:
            first, last = last, last + int(unit[2] - unit[1])
            if not all_finite(X[first:last]):
                place = self.sources.place(unit)
                with located(place):
                    self.refuse_faults(unit, X.dtype)
                raise ValueError(
                    f"{place} returned other rows when they were read again: numbers that are not finite came first. "
                    "The rows must be the same each time."
                )


class Learned:
    """What a pass over the targets and weights of all blocks found.

    Attributes
    ----------
    n_rows : int
        Rows with a weight.
    seen : ndarray
        Some rows of y with all labels of it; in regression, the first rows.
    """

    def __init__(self, checker: Checker, classes: Any) -> None:
        self.checker, self.sources = checker, checker.sources
        self.of_classes = is_classifier(checker.caller)
        self.seen: Any = None
        self.width: int | None = None
        self.n_rows = 0
        self.total, self.largest = 0.0, 0.0
        self.has_targets: Any = None
        if classes is not None:
            self._check_classes(classes)
        if classes is not None and not self.sources.sources[0].has.sample_weight:
            self.seen, self.n_rows = np.repeat(np.asarray(classes), 2), self.sources.n_rows
            return
        for unit in self.sources.units(False):
            rows = self.sources.read(unit, TARGET)
            with located(self.sources.place(unit)):
                y, weight = checker.target(rows.y, rows.sample_weight)
                self._add(y, weight)
        self._check_weights()
        if classes is not None:
            labels = np.unique(np.asarray(classes))
            with explain_labels(self.seen, checker.caller):
                check_known(self.seen, labels)
            self.seen = np.repeat(labels, 2)

    def _check_classes(self, classes: Any) -> None:
        """Refuse labels that a user names where there are none, or several for each row."""
        if not self.of_classes:
            raise ValueError(f"classes are for classifiers, and {type(self.checker.caller).__name__} has none.")
        y = self.sources.read(self.sources.units(False)[0], TARGET).y
        if y is not None and y.ndim == 2 and y.shape[1] > 1:
            raise ValueError(
                f"classes must be None where y has several columns, got {reprlib.repr(list(classes))}: those of an "
                "indicator matrix are 0 and 1."
            )

    def _add(self, y: Any, weight: np.ndarray | None) -> None:
        """Look at a block."""
        width = None if y.ndim == 1 else y.shape[1]
        if self.seen is not None and width != self.width:
            raise ValueError(f"y has {width or 1} columns, and {self.width or 1} before.")
        self.width = width
        counts = slice(None) if weight is None else rows_that_count(weight)
        self.n_rows += len(y[counts])
        if weight is not None:
            self.total += weight_sum(weight)
            self.largest = max(self.largest, float(weight.max()))
            if weight.ndim == 2:
                has = weight.any(axis=0)
                self.has_targets = has if self.has_targets is None else self.has_targets | has
        if not self.of_classes:
            self.checker.for_target._learn_target(y, False)
            self.seen = y[:1] if self.seen is None else self.seen
        elif y.ndim == 2:
            self._add_indicator(y)
        else:
            self._add_labels(y)

    def _add_labels(self, y: np.ndarray) -> None:
        """Collect the labels of a block."""
        with explain_labels(y, self.checker.caller):
            labels = np.unique(y)
            kinds = {kind_of_labels(found) for found in (self.seen, labels) if found is not None}
            if len(kinds) > 1:
                raise TypeError(
                    f"Input y holds labels of different types: {', '.join(sorted(kinds))}. Convert them to one type in "
                    "all parts."
                )
            if labels.dtype.kind == "f" and (labels != np.floor(labels)).any():  # numbers, which are no labels
                self.checker.for_target._learn_classes(np.repeat(labels, 2), False)
            known = labels if self.seen is None else np.unique(np.concatenate([self.seen, labels]))
        self.seen = np.repeat(known, 2)

    def _add_indicator(self, y: np.ndarray) -> None:
        """See whether a block is an indicator matrix."""
        values = np.unique(y)
        if not np.isin(values, (0, 1)).all():
            with explain_labels(y, self.checker.caller):
                self.checker.for_target._learn_classes(y, False)
        if self.seen is None:
            self.seen = np.zeros((2, y.shape[1]), dtype=y.dtype)
            self.seen[1] = 1

    def _check_weights(self) -> None:
        """Refuse weights that are all 0, in all or of an output."""
        if not self.sources.sources[0].has.sample_weight:
            return
        if not self.n_rows:
            raise ValueError("Sample weights must contain at least one non-zero number.")
        if not np.isfinite(self.total):
            raise ValueError(f"sample_weight must have a finite sum, got {self.total}.")
        if self.has_targets is not None:
            check_outputs_have_targets(self.has_targets[np.newaxis].astype(np.float64))


def kind_of_labels(labels: np.ndarray) -> str:
    """What an error calls the type of these labels."""
    kinds = {**dict.fromkeys("biuf", "number"), "S": "bytes", "M": "date"}
    return kinds.get(labels.dtype.kind, "str")


def class_factors(estimator: Any, learned: Learned, checker: Checker) -> np.ndarray | None:
    """Weights of the classes: of each (n_classes,), or of 0 and 1 for each output (n_outputs, 2); None without."""
    asked = estimator.class_weight if learned.of_classes else None
    if asked is None:
        return None
    labels = estimator.classes_
    if asked != "balanced":
        apply_class_weight(asked, labels, labels if learned.width is None else learned.seen, None)  # checks it
        if learned.width is None:
            return apply_class_weight(asked, labels, labels, None)
        return np.array([[of_output.get(0, 1), of_output.get(1, 1)] for of_output in asked], dtype=np.float64)
    counts = np.zeros((learned.width or 1, len(labels) if learned.width is None else 2))
    for unit in checker.sources.units(False):
        rows = checker.sources.read(unit, TARGET)
        y, weight = checker.target(rows.y, rows.sample_weight)
        codes = np.searchsorted(labels, y)[:, np.newaxis] if learned.width is None else y.astype(np.intp)
        known = np.ones(codes.shape, dtype=bool)
        if weight is not None:
            known &= (weight if weight.ndim == 2 else weight[:, np.newaxis]) != 0
        for output, column in enumerate(codes.T):
            counts[output] += np.bincount(column[known[:, output]], minlength=counts.shape[1])
    present = (counts > 0).sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = np.where(counts > 0, counts.sum(axis=1, keepdims=True) / (present * counts), 0.0)
    return factors[0] if learned.width is None else factors


def factor_of_rows(factors: np.ndarray, codes: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    """The weights (n,) of the rows' classes; with weights of outputs, of the classes whose target is known."""
    if factors.ndim == 1:
        return np.asarray(factors[codes])
    product = np.ones(len(codes))
    for output, column in enumerate(codes.T):
        own = np.where(column == 1, factors[output, 1], factors[output, 0])
        product *= own if weight is None or weight.ndim == 1 else np.where(weight[:, output] != 0, own, 1)
    return product


class BlockData:
    """A run's rows that are read in blocks. It reads, checks and encodes them; an estimator has learnt from them
    before."""

    def __init__(self, checker: Checker, learned: Learned, network: Network, loss: str) -> None:
        self.checker, self.sources, self.learned = Checker(checker.caller, checker.sources), checker.sources, learned
        self.network, self.loss = network, loss
        self.estimator = self.checker.estimator
        self.factors = class_factors(self.estimator, learned, self.checker)
        self.n_rows = learned.n_rows
        self.units: np.ndarray | None = None  # None: all
        self._sample: TrainingData | None = None
        if self.factors is not None and not self.factors.all():
            self.n_rows = self._count(self.sources.units(False))
        if learned.largest or self.factors is not None:
            largest = (learned.largest or 1.0) * (1.0 if self.factors is None else float(self.factors.max()))
            check_weight_range(np.array([largest]), network.dtype)

    def _count(self, units: np.ndarray) -> int:
        """Rows of some units that have a weight."""
        return sum(len(self.encode(unit[np.newaxis], self._read_target(unit))[2]) for unit in units)

    def _read_target(self, unit: np.ndarray) -> tuple[Any, Any]:
        rows = self.sources.read(unit, TARGET)
        return rows.y, rows.sample_weight

    def encode(
        self, units: np.ndarray, given: tuple[Any, Any]
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, Any]:
        """Target as the network reads it, weights, the indices of the rows that count, and y. An error names the
        unit."""
        try:
            y, weight = self.checker.target(*given)
            if self.learned.of_classes:
                self._check_labels(y)
            else:
                self.estimator._check_target(y)
            target = self.estimator._network_target(self.network, self.loss, y)
        except (ValueError, TypeError):
            if len(units) == 1:
                with located(self.sources.place(units[0])):
                    raise
            for unit in units:
                self.encode(unit[np.newaxis], self._read_target(unit))
            raise
        if self.factors is not None:
            codes = y.astype(np.intp) if y.ndim == 2 else np.searchsorted(self.estimator.classes_, y)
            own = factor_of_rows(self.factors, codes, weight)
            weight = own if weight is None else weight * (own[:, np.newaxis] if weight.ndim == 2 else own)
        counted = np.arange(len(y), dtype=np.intp)
        if weight is not None:
            counted = np.flatnonzero(rows_that_count(weight)).astype(np.intp)
        return target, weight, counted, y

    def _check_labels(self, y: Any) -> None:
        """Refuse labels that are not among the classes."""
        classes = self.estimator.classes_
        if y.ndim == 1 and self.learned.width is None:
            places = np.minimum(np.searchsorted(classes, y), len(classes) - 1)
            if (classes[places] == y).all():
                return
        self.estimator._check_target(y)

    def read(self, units: np.ndarray, before: int) -> tuple[Part, np.ndarray]:
        """X, target and weights of some units behind ``before`` rows that are not written, and the rows that count."""
        n = int((units[:, 2] - units[:, 1]).sum())
        X = np.empty((before + n, self.sources.n_features), dtype=self.network.dtype)
        ys: list[Any] = []
        weights: list[Any] = []
        at = before
        for unit in units:
            size = int(unit[2] - unit[1])
            rows = self.sources.read(unit, ALL, X[at : at + size])
            ys.append(rows.y)
            weights.append(rows.sample_weight)
            at += size
        self.checker.check_finite(units, X[before:])
        weight = None if weights[0] is None else np.concatenate(weights)
        target, weight, counted, _ = self.encode(units, (np.concatenate(ys), weight))
        if before:
            target = np.concatenate([np.empty((before, *target.shape[1:]), target.dtype), target])
            if weight is not None:
                weight = np.concatenate([np.empty((before, *weight.shape[1:])), weight])
            counted += before
        return Part(X, target, weight, None), counted

    def epochs(self, batch_size: int, rng: np.random.RandomState | None, alone: bool = False) -> BlockEpochs:
        """The rows for a run."""
        seed = None if rng is None else int(rng.randint(2**32, dtype=np.uint64))
        units = self.sources.units(rng is not None) if self.units is None else self.units
        return BlockEpochs(self, units, batch_size, seed)

    def sample(self) -> TrainingData:
        """Some rows with a weight, spread over all blocks, to examine."""
        if self._sample is None:
            self._sample = self._read_sample(self.sources.units(True) if self.units is None else self.units)
        return self._sample

    def _read_sample(self, units: np.ndarray) -> TrainingData:
        """Read rows of more and more places until enough of them have a weight."""
        found: list[Part] = []
        places, n_rows, n_read = _SAMPLE_PLACES, 0, 0
        read: set[tuple[int, ...]] = set()
        while True:
            chosen = [unit for unit in self.sources.spread(units, places) if tuple(unit.tolist()) not in read]
            total = sum(int(unit[2] - unit[1]) for unit in chosen)
            for unit in chosen:
                part, counted = self.read(unit[np.newaxis], 0)
                rows = counted[evenly(len(counted), -(-_SAMPLE_ROWS * int(unit[2] - unit[1]) // total))]
                weight = None if part.sample_weight is None else part.sample_weight[rows]
                found.append(Part(part.X[rows], part.y[rows], weight, None))
                n_rows += len(rows)
            read.update(tuple(unit.tolist()) for unit in chosen)
            n_read += total
            if n_rows >= min(_FEW_ROWS, self.n_rows) or n_read == int((units[:, 2] - units[:, 1]).sum()):
                X, y, weight = (
                    None if found[0][i] is None else np.concatenate([part[i] for part in found]) for i in range(3)
                )
                assert y is not None
                return TrainingData(X, y, weight)
            places *= 2

    def split_off(self, fraction: float, rng: np.random.RandomState) -> tuple[BlockData, tuple[Any, ...]]:
        """The rows to train on, and some units, drawn at random, to score on."""
        units = self.sources.units(True)
        counts = units[:, 2] - units[:, 1]
        if self.sources.sources[0].has.sample_weight or (self.factors is not None and not self.factors.all()):
            counts = np.array([self._count(unit[np.newaxis]) for unit in units])
            units, counts = units[counts > 0], counts[counts > 0]
        order = rng.permutation(len(units))
        ends = np.cumsum(counts[order])
        n = int(np.searchsorted(ends, fraction * ends[-1])) + 1
        if n >= len(units):
            raise ValueError(
                f"early_stopping holds out {fraction:g} of the rows in whole pieces, and there are {len(units)}: give "
                "an eval_set, or write smaller row groups."
            )
        held, trained = np.sort(order[:n]), np.sort(order[n:])
        train = copy.copy(self)
        train.units, train._sample = units[trained], None
        scored = self.held_out(units[held])
        train.n_rows = int(counts[trained].sum())
        if counts[held].sum() < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        if self.learned.of_classes and self.learned.width is None:
            lacking = np.setdiff1d(self.estimator.classes_, scored[2]).tolist()
            if lacking:
                warn(
                    f"The rows that early_stopping holds out lack the classes {lacking}. Give an eval_set that has "
                    f"them."
                )
        return train, scored

    def held_out(self, units: np.ndarray) -> tuple[LazyRows, np.ndarray, Any, np.ndarray | None]:
        """The rows of units that have a weight, to score on: X, read when it is needed, and target, y and weights in
        memory."""
        found: list[Any] = [self.encode(unit[np.newaxis], self._read_target(unit)) for unit in units]
        counted = [part[2] for part in found]
        target, weight, y = (
            None if found[0][i] is None else np.concatenate([part[i][part[2]] for part in found]) for i in (0, 1, 3)
        )
        assert target is not None
        return BlockRows(self.checker, units, self.network.dtype, counted), target, y, weight


def rows_to_score(checker: Checker, network: Network, loss: str) -> tuple[LazyRows, np.ndarray, Any, np.ndarray | None]:
    """All rows as an ``eval_set``: X, read when it is needed, and target, y and weights in memory."""
    units, found = checker.sources.units(False), []
    for unit in units:
        rows = checker.sources.read(unit, TARGET)
        with located(checker.sources.place(unit)):
            y, weight = checker.target(rows.y, rows.sample_weight)
            checker.estimator._check_target(y)
            found.append((checker.estimator._network_target(network, loss, y), y, weight))
    target, y, weight = (None if found[0][i] is None else np.concatenate([part[i] for part in found]) for i in range(3))
    assert target is not None
    if weight is not None and not weight.any():
        raise ValueError("Sample weights of the rows to score on must contain at least one non-zero number.")
    return BlockRows(checker, units, network.dtype), target, y, weight


def evenly(n: int, most: int) -> np.ndarray:
    """At most so many of n indices, spread over all of them."""
    return np.linspace(0, n - 1, min(n, most)).astype(np.intp)


class BlockRows(LazyRows):
    """X of some units, read when it is needed, one block ahead, and checked.

    counted: the indices of the rows of each unit that are of use; None for all.
    """

    def __init__(
        self, checker: Checker, units: np.ndarray, dtype: np.dtype, counted: list[np.ndarray] | None = None
    ) -> None:
        self.checker, self.units, self.counted = checker, units, counted
        self._dtype = dtype

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n_features)."""
        n_rows = int((self.units[:, 2] - self.units[:, 1]).sum())
        return n_rows if self.counted is None else sum(map(len, self.counted)), self.checker.sources.n_features

    @property
    def dtype(self) -> np.dtype:
        """That of the network which reads it."""
        return self._dtype

    def parts(self) -> Iterator[tuple[slice, np.ndarray]]:
        """All rows in their order."""
        yield from read_ahead(self._parts())

    def _parts(self) -> Any:
        first = unit = 0
        for window in self.checker.sources.windows(self.units, False):
            X = self.read(window)
            if self.counted is not None:
                starts = np.cumsum(window[:, 2] - window[:, 1]) - (window[:, 2] - window[:, 1])
                counted = self.counted[unit : unit + len(window)]
                rows = np.concatenate([start + own for start, own in zip(starts, counted, strict=True)])
                X = X if len(rows) == len(X) else X[rows]
                unit += len(window)
            yield slice(first, first + len(X)), X
            first += len(X)
            del X

    def read(self, units: np.ndarray) -> np.ndarray:
        """X of some units."""
        X = np.empty((int((units[:, 2] - units[:, 1]).sum()), self.shape[1]), dtype=self._dtype)
        self.checker.read_X(units, X)
        return X

    def sample(self) -> np.ndarray:
        """Some rows, spread over all units, to examine."""
        units = self.checker.sources.spread(self.units, _SAMPLE_PLACES)
        share = -(-_SAMPLE_ROWS // len(units))
        found = []
        for unit in units:
            X = self.read(unit[np.newaxis])
            found.append(X[evenly(len(X), share)])
        return np.concatenate(found)


def whole(sources: Sources, wanted: Wanted) -> tuple[np.ndarray, np.ndarray | None]:
    """y and weights of all rows."""
    found: list[Any] = [sources.read(unit, wanted) for unit in sources.units(False)]
    weight = None if found[0].sample_weight is None else np.concatenate([rows.sample_weight for rows in found])
    return np.concatenate([rows.y for rows in found]), weight
