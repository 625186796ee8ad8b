"""Saving, loading, pickling and copying of estimators. docs/saving.md has the format.

A parameter's value is plain JSON where JSON has its type, with tuples as lists and NumPy's numbers as Python's. A value
of another type is an object with one field, the type's name: {"random_state": ...}.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
import os
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import is_classifier
from sklearn.utils.validation import check_is_fitted

import fastmlp.core as core
from fastmlp._version import __version__
from fastmlp.estimators._sklearn import BaseEstimator, warn
from fastmlp.estimators.fitted import ENSEMBLE, FITTED, RECORD, STOCHASTIC_RECORD
from fastmlp.estimators.parameters import plain
from fastmlp.network.initialisers import initialiser
from fastmlp.network.network import Network
from fastmlp.network.persistence import (
    ELEMENT_TYPES,
    Fields,
    FileFormatError,
    Tensors,
    build_network,
    describe_network,
    is_count,
    is_number,
    network_state,
    read,
    restore_network,
    write,
)
from fastmlp.training.run import Position
from fastmlp.training.schedules import CURVES, Curve

#: The estimators that a file may hold, by the names of their classes.
MODELS: dict[str, type[Saved]] = {}

_TARGET_TYPES = ("binary", "multiclass", "multilabel-indicator")
_PROBABILITIES = ("softmax", "logistic")
_OF_NUMBERS = tuple(sorted({output for output in core.LOSSES.values() if output not in _PROBABILITIES}))
_RULES = tuple(rule for rule in core.OPTIMIZERS if rule != "gradient")
_MAX_CODE_POINT = 0x10FFFF
_KEY_WORDS = 624  # of the Mersenne twister's state
# Keys of a dict that may share a hash, as -1 and -2 do. A file with many would take time quadratic in their number.
_MAX_EQUAL_HASHES = 100


class NotSerializableError(TypeError):
    """A parameter's value or an attribute cannot be saved; the message names it and suggests a way out."""


def _is_none_or(valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or valid(value)


def _is_real(value: Any) -> bool:
    """Whether a value is a number, finite or not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_seed(value: Any) -> bool:
    """Whether a value may be ``OptimizerState.seed``."""
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**64)


def _is_curve(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_real, value))


def _is_history(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(epoch, dict) and all(map(_is_real, epoch.values())) for epoch in value
    )


# Checks of the attributes of a record.
_CHECKS: dict[str, Callable[[Any], bool]] = {
    "loss_": _is_real,
    "n_iter_": is_count,
    "t_": is_count,
    "history_": _is_history,
    "loss_curve_": _is_curve,
    "best_loss_": _is_none_or(_is_real),
    "validation_scores_": _is_none_or(_is_curve),
    "validation_loss_curve_": _is_none_or(_is_curve),
    "best_validation_score_": _is_none_or(_is_real),
    "_no_improvement_count": is_count,
}
# Attributes of a record with an element per epoch.
_LISTS = ("history_", "loss_curve_", "validation_scores_", "validation_loss_curve_")
_TERM_GROUPS = ("rate", "loss", "score", "draws")
_POSITION_COUNTS = {"n_rows": 1, "batch_size": 1, "best_epoch": 0, "n_steps": 0}
_POSITION_ARRAYS = ("parameters", "statistics", "penalties")
# Attributes of a running fit. Copies and files do not have them.
_OF_A_RUN = {"_callback_fit_ctx", "_skl_callbacks_to_teardown", "_parent_callback_ctx"}


class InconsistentVersionWarning(UserWarning):
    """A pickle was made by another version of fastmlp.

    Parameters
    ----------
    estimator_name : str
        Class of the pickled estimator.
    current_version, original_version : str
        The version of fastmlp that reads the pickle, and the one that wrote it.
    """

    def __init__(self, estimator_name: str, current_version: str, original_version: str) -> None:
        self.estimator_name = estimator_name
        self.current_version = current_version
        self.original_version = original_version
        super().__init__(estimator_name, current_version, original_version)

    def __str__(self) -> str:
        return (
            f"Unpickling {self.estimator_name} of fastmlp {self.original_version} with fastmlp {self.current_version}: "
            "newer parameters get their defaults. Later versions read the files that save() writes."
        )


def _data_of_terms(run_terms: dict[str, dict[str, Any]], estimator: Any = None) -> dict[str, dict[str, Any]]:
    """The terms of a run. A function that ``estimator`` no longer has becomes None, which equals no later value."""

    def data(name: str, term: Any) -> Any:
        still = estimator is not None and term is getattr(estimator, name, None)
        return term if still or isinstance(term, str) or type(term) in CURVES.values() else None

    return {group: {name: data(name, term) for name, term in terms.items()} for group, terms in run_terms.items()}


def _without_run(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if name not in _OF_A_RUN}


def _defaults(cls: type) -> dict[str, Any]:
    """The parameters of an estimator's constructor, with their defaults."""
    return {name: p.default for name, p in inspect.signature(cls).parameters.items()}


class Saved(BaseEstimator):
    """Files, pickles and copies of an estimator."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith("fastmlp.") and not cls.__name__.startswith("Base"):
            MODELS[cls.__name__] = cls

    # What a class of models has beside the attributes that all have, for those that have such.
    _own_attributes: ClassVar[tuple[str, ...]] = ()

    def _describe_own(self, arrays: dict[str, np.ndarray], prefix: str) -> dict[str, Any]:
        """JSON of these attributes, as fields of ``fitted``; arrays go to ``arrays``, under names that begin with
        ``prefix``."""
        return {}

    def _build_own(self, fields: Fields, tensors: Tensors, prefix: str) -> None:
        """Set these attributes."""

    def _takes_member(self, member: Any) -> bool:
        """Whether a member that was read takes the inputs that it is given."""
        fits: bool = member.n_features_in_ == self.n_features_in_
        return fits

    def _check_members(self) -> None:
        """An error if the members that were read do not fit these attributes."""

    def save(self, path: str | os.PathLike[str], *, optimizer_state: bool = False) -> None:
        """Write the fitted estimator to a safetensors file, for :func:`fastmlp.load`. Callbacks are left out.

        Parameters
        ----------
        path : str or path-like
            An existing file is replaced at once: a reader finds the old file or the new one, whatever happens.
        optimizer_state : bool, default=False
            Write the optimizer's state and the random state too, so that ``partial_fit``, and ``fit`` with ``resume``,
            continue as if training had not been interrupted. ``fit`` with ``warm_start`` does not need them: it begins
            with an empty optimizer state.

        Raises
        ------
        ImportError
            Without the package safetensors.
        NotFittedError
            If there is nothing to save yet.
        NotSerializableError
            A TypeError: if a parameter is a function or another object that is not data; the message names it. Of
            NumPy's generators a RandomState is data, of functions fastmlp's own learning-rate schedules. Also for a
            subclass, and for attributes that are not fastmlp's.
        FileFormatError
            If the model could not be loaded again, such as one with an invalid parameter or weights that are not
            finite.
        OSError
            If the file cannot be written. An existing file stays as it was.
        """
        check_is_fitted(self)
        arrays: dict[str, np.ndarray] = {}
        write(path, _describe(self, arrays, "", optimizer_state), arrays, _build)

    def __getstate__(self) -> dict[str, Any]:
        state = _without_run(super().__getstate__())
        unfinished = (state.get("_position") or {}).get("unfinished", False)
        if not unfinished and not state.get("_by_partial_fit", False):
            state.pop("_optimizer_state", None)
            state.pop("_position", None)
        if "_run_terms" in state:
            state["_run_terms"] = _data_of_terms(state["_run_terms"], self)
        state["_fastmlp_version"] = __version__
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        version = state.pop("_fastmlp_version", "older than 0.1.0")
        if version != __version__:
            name = type(self).__name__
            warn(InconsistentVersionWarning(name, __version__, str(version)))
            state = {**_defaults(type(self)), **state}
        super().__setstate__(state)

    # Copies within a process keep the optimizer's state; pickles keep it only after partial_fit.
    def __copy__(self) -> Self:
        other = type(self).__new__(type(self))
        attributes = _without_run(self.__dict__)
        # A further fit appends to the record's lists.
        record = {name: list(attributes[name]) for name in _LISTS if isinstance(attributes.get(name), list)}
        other.__dict__.update({**attributes, **record})
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        other.__dict__.update(copy.deepcopy(_without_run(self.__dict__), memo))
        return other


def load(path: str | os.PathLike[str]) -> Any:
    """Read a model that ``save`` wrote.

    Nothing in the file is executed. Every field is checked, and no array is made that the file does not hold.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    MLPClassifier, MLPRegressor, MLPEnsembleClassifier, MLPEnsembleRegressor, TabularClassifier, TabularRegressor or
    Network
        With the same parameters, attributes and predictions as the one that was saved.

    Raises
    ------
    ImportError
        Without the package safetensors.
    FileFormatError
        If neither this version's ``save`` nor an earlier one's wrote the file.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> import os, tempfile
    >>> import fastmlp
    >>> from sklearn.datasets import make_classification
    >>> X, y = make_classification(n_samples=100, random_state=1)
    >>> estimator = fastmlp.MLPClassifier(solver="lbfgs", random_state=1).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     estimator.save(os.path.join(folder, "model.safetensors"))
    ...     other = fastmlp.load(os.path.join(folder, "model.safetensors"))
    >>> bool((other.predict_proba(X) == estimator.predict_proba(X)).all())
    True
    """
    return read(path, _build)


# --- values of parameters --------------------------------------------------------------------------------------


def _to_json(value: Any, name: str, arrays: dict[str, np.ndarray], prefix: str, optimizer_state: bool) -> Any:
    """JSON of a value of the parameter ``name``; large arrays go to ``arrays``, under names that begin with
    ``prefix``."""
    value, kind = plain(value), type(value)

    def inner(part: Any) -> Any:
        return _to_json(part, name, arrays, prefix, optimizer_state)

    if value is None or isinstance(value, (bool, int, float, str)):
        return _number_to_json(value)
    if isinstance(value, tuple):
        return [inner(part) for part in value]
    if isinstance(value, dict):
        return {"dict": [[inner(key), inner(part)] for key, part in value.items()]}
    if kind in CURVES.values():
        fields = {field.name: inner(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"schedule": {"name": value.name, **fields}}
    if kind is np.random.RandomState:
        return {"random_state": _describe_random_state(value, name, arrays, f"{prefix}{name}")}
    if kind is Network:
        description, own = describe_network(value, f"{prefix}{name}.")
        arrays |= own
        return {"network": description}
    if hasattr(value, "get_params"):
        return {"estimator": _describe(value, arrays, f"{prefix}{name}.", optimizer_state)}
    raise _not_serializable(name, value)


def _not_serializable(name: str, value: Any) -> NotSerializableError:
    kind = type(value)
    return NotSerializableError(
        f"{name}={value!r} of type {kind.__module__}.{kind.__qualname__} cannot be saved: a file holds data only. "
        "Set another value with set_params, or use pickle."
    )


def _from_json(content: Any, name: str, tensors: Tensors, made_by: str, prefix: str) -> Any:
    """The value of the parameter ``name``."""

    def inner(part: Any) -> Any:
        return _from_json(part, name, tensors, made_by, prefix)

    if isinstance(content, list):
        return tuple(map(inner, content))
    if not isinstance(content, dict) or "float" in content:
        return _number_from_json(content, name)
    fields = Fields(content, f"{prefix}{name}")
    if "dict" in fields:
        value: Any = _build_dict([inner(pair) for pair in fields.items("dict")], name)
    elif "schedule" in fields:
        schedule = fields.inner("schedule")
        cls = CURVES[schedule.choice("name", CURVES)]
        value = cls(**{field.name: inner(schedule.take(field.name)) for field in dataclasses.fields(cls)})  # type: ignore[arg-type]
        schedule.end()
    elif "random_state" in fields:
        value = _build_random_state(fields.inner("random_state"), tensors, f"{prefix}{name}")
    elif "network" in fields:
        value = restore_network(Network, network_state(fields.inner("network"), tensors, f"{prefix}{name}."))
    elif "estimator" in fields:
        estimator = fields.inner("estimator")
        value = _build(estimator, tensors, made_by, f"{prefix}{name}.")
        estimator.end()
    else:
        raise FileFormatError(f"{name}: an object of the unknown type {str(next(iter(content), None))[:40]!r}")
    fields.end()
    return value


def _build_dict(pairs: list[Any], name: str) -> dict[Any, Any]:
    if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        raise FileFormatError(f"{name}: a dict must be a list of pairs")
    if len(pairs) - len({hash(key) for key, _ in pairs}) > _MAX_EQUAL_HASHES:
        raise FileFormatError(f"{name}: a dict has too many keys with equal hashes")
    made = dict(pairs)
    if len(made) != len(pairs):
        raise FileFormatError(f"{name}: a dict has a key twice")
    return made


def _number_to_json(value: Any) -> Any:
    """A number, string or None; lists and dicts of them. A float that is not finite is an object."""
    if isinstance(value, dict):
        return {name: _number_to_json(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_number_to_json(part) for part in value]
    value = plain(value)
    return {"float": str(value)} if isinstance(value, float) and not math.isfinite(value) else value


def _number_from_json(content: Any, name: str) -> Any:
    if isinstance(content, list):
        return [_number_from_json(part, name) for part in content]
    if not isinstance(content, dict):
        return content
    if "float" not in content:
        return {key: _number_from_json(part, name) for key, part in content.items()}
    if len(content) > 1 or content["float"] not in ("inf", "-inf", "nan"):
        raise FileFormatError(f"{name}: float must be 'inf', '-inf' or 'nan'")
    return float(content["float"])


def _describe_random_state(
    rng: np.random.RandomState, name: str, arrays: dict[str, np.ndarray], prefix: str
) -> dict[str, Any]:
    """The state of a generator; its key goes to ``arrays``."""
    state = rng.get_state(legacy=False)
    if not isinstance(state, dict) or state["bit_generator"] != "MT19937":
        raise _not_serializable(name, rng)
    arrays[f"{prefix}.key"] = np.array(state["state"]["key"], dtype=np.uint32)
    return {
        "position": int(state["state"]["pos"]),
        "has_gauss": int(state["has_gauss"]),
        "gauss": float(state["gauss"]),
    }


def _build_random_state(fields: Fields, tensors: Tensors, prefix: str) -> np.random.RandomState:
    position = fields.take(
        "position", lambda value: is_count(value) and value <= _KEY_WORDS, f"an integer from 0 to {_KEY_WORDS}"
    )
    has_gauss = fields.take("has_gauss", lambda value: type(value) is int and value in (0, 1), "0 or 1")
    gauss = fields.number("gauss")
    fields.end()
    tensors.require(f"{prefix}.key", ("uint32",), (_KEY_WORDS,))
    rng = np.random.RandomState()
    rng.set_state(("MT19937", tensors.read(f"{prefix}.key"), position, has_gauss, gauss))
    return rng


# --- from an estimator to its description ----------------------------------------------------------------------


def _describe(estimator: Any, arrays: dict[str, np.ndarray], prefix: str, optimizer_state: bool) -> dict[str, Any]:
    """The JSON of an estimator, fitted or not; its arrays go to ``arrays``, under names that begin with ``prefix``."""
    name = type(estimator).__name__
    if MODELS.get(name) is not type(estimator):
        raise NotSerializableError(
            f"{type(estimator).__qualname__} cannot be saved, only {', '.join(MODELS)} themselves. Use pickle."
        )
    parameters = {
        parameter: _to_json(value, parameter, arrays, prefix, optimizer_state)
        for parameter, value in estimator.get_params(deep=False).items()
    }
    unknown = sorted(
        set(vars(estimator))
        - set(parameters)
        - {*FITTED, *ENSEMBLE, *estimator._own_attributes}
        - _OF_A_RUN
        - {"_skl_callbacks"}
    )
    if unknown:
        raise NotSerializableError(
            f"{name} cannot be saved with the attribute {unknown[0]!r}, which is not one of fastmlp's. Delete it, or "
            f"use pickle."
        )
    fitted = None
    if hasattr(estimator, "estimators_"):
        fitted = _describe_input(estimator, arrays, prefix) | estimator._describe_own(arrays, prefix)
        fitted["members"] = [
            _describe(member, arrays, f"{prefix}members.{number}.", optimizer_state)
            for number, member in enumerate(estimator.estimators_)
        ]
    elif hasattr(estimator, "network_"):
        fitted = _describe_input(estimator, arrays, prefix)
        fitted |= _describe_fit(estimator, arrays, prefix, optimizer_state)
    return {"class": name, "parameters": parameters, "fitted": fitted}


def _describe_input(estimator: Any, arrays: dict[str, np.ndarray], prefix: str) -> dict[str, Any]:
    """Features and target."""
    names = getattr(estimator, "feature_names_in_", None)
    described: dict[str, Any] = {
        "n_features_in": int(estimator.n_features_in_),
        "feature_names_in": None if names is None else [str(name) for name in names],
    }
    if is_classifier(estimator):
        described["target"] = {
            "type": estimator._target_type,
            "sparse": estimator._sparse_target,
            "classes": _describe_classes(estimator.classes_, arrays, f"{prefix}classes"),
        }
    return described


def _describe_classes(classes: np.ndarray, arrays: dict[str, np.ndarray], name: str) -> list[str] | None:
    """Labels that are Python strings; None for others, which go to ``arrays``: NumPy's strings as code points, (n,
    width)."""
    if classes.dtype.kind == "O" and all(type(label) is str for label in classes):
        return list(classes)
    classes = classes.astype(classes.dtype.newbyteorder("="), copy=False)
    if classes.dtype.kind == "U":
        arrays[name] = np.ascontiguousarray(classes).view(np.uint32).reshape(len(classes), -1)
    elif classes.dtype.kind in "biuf":
        arrays[name] = classes
    else:
        raise NotSerializableError(
            f"classes_ cannot be saved: labels must be numbers, truth values or strings, got an array of "
            f"{classes.dtype}."
        )
    return None


def _describe_fit(estimator: Any, arrays: dict[str, np.ndarray], prefix: str, optimizer_state: bool) -> dict[str, Any]:
    """The network, the record of its training, and the state that ``partial_fit`` continues from."""
    network, own = describe_network(estimator.network_, prefix)
    arrays |= own
    record = {
        name: _number_to_json(getattr(estimator, name))
        for name in (*RECORD, *STOCHASTIC_RECORD)
        if hasattr(estimator, name)
    }
    if hasattr(estimator, "_run_terms"):
        record["_run_terms"] = {
            group: {name: _to_json(term, name, arrays, prefix, False) for name, term in terms.items()}
            for group, terms in _data_of_terms(estimator._run_terms).items()
        }
    return {
        "network": network,
        "layer_rates": [float(rate) for rate in estimator.layer_rates_],
        "record": record,
        "continuation": _describe_continuation(estimator, arrays, prefix) if optimizer_state else None,
    }


def _describe_continuation(estimator: Any, arrays: dict[str, np.ndarray], prefix: str) -> dict[str, Any]:
    optimizer = generator = None
    state = getattr(estimator, "_optimizer_state", None)
    if state is not None:
        arrays[f"{prefix}optimizer"] = np.asarray(state["arrays"])
        optimizer = {
            "rule": state["rule"],
            "n_updates": int(state["n_updates"]),
            "seed": state.get("seed"),
            "learning_rate": float(estimator._learning_rate),
        }
    if getattr(estimator, "_rng", None) is not None:
        seed, rng = estimator._rng
        generator = {
            "seed": int(seed),
            "state": _describe_random_state(rng, "random_state", arrays, f"{prefix}generator"),
        }
    continuation = {"optimizer": optimizer, "generator": generator}
    if getattr(estimator, "_position", None) is not None:
        continuation["position"] = _describe_position(estimator._position, arrays, prefix)
    return continuation


def _describe_position(position: dict[str, Any], arrays: dict[str, np.ndarray], prefix: str) -> dict[str, Any]:
    """Where the last fit ended; ``fit`` with ``resume`` goes on from there."""
    given = [name for name in _POSITION_ARRAYS if position[name] is not None]
    arrays |= {f"{prefix}position.{name}": position[name] for name in given}
    numbers = {name: value for name, value in position.items() if name not in (*_POSITION_ARRAYS, "generator")}
    generator = _describe_random_state(position["generator"], "random_state", arrays, f"{prefix}position.generator")
    return {**numbers, "arrays": given, "generator": generator}


# --- from a description to an estimator ------------------------------------------------------------------------


def _build(fields: Fields, tensors: Tensors, made_by: str, prefix: str = "") -> Any:
    """The model that a file describes; every field is checked."""
    if not prefix and "network" in fields:
        return build_network(Network, fields, tensors, made_by)
    cls = MODELS[fields.choice("class", MODELS)]
    estimator: Any = cls(**_build_parameters(cls, fields.inner("parameters"), tensors, made_by, prefix))
    estimator._validate_params()
    content = fields.take("fitted")
    if content is None:
        return estimator
    fitted = Fields(content, f"{prefix}fitted")
    _build_input(estimator, fitted, tensors, prefix)
    if hasattr(estimator, "_member_class"):
        estimator._build_own(fitted, tensors, prefix)
        _build_members(estimator, fitted, tensors, made_by, prefix)
    else:
        _check_parameters(estimator)
        _build_fit(estimator, fitted, tensors, made_by, prefix)
    fitted.end()
    return estimator


def _build_parameters(cls: type, fields: Fields, tensors: Tensors, made_by: str, prefix: str) -> dict[str, Any]:
    """The constructor's arguments. A file of another version may lack newer ones, which then have their defaults."""
    values = _defaults(cls)
    for name in list(values):
        if name in fields or made_by == __version__:
            values[name] = _from_json(fields.take(name), name, tensors, made_by, prefix)
    fields.end()
    if isinstance(values.get("class_weight"), tuple):  # one dict per output: scikit-learn's check takes a list only
        values["class_weight"] = list(values["class_weight"])
    return values


def _check_parameters(estimator: Any) -> None:
    """Check the members of sequences, and the names that scikit-learn's check of a parameter does not know."""
    sizes = estimator._hidden_layer_sizes()
    estimator._dropout_rates(len(sizes) + 1)
    for name in ("weight_init", "bias_init"):
        initialiser(name, getattr(estimator, name))
    names = [] if isinstance(estimator.activation, str) else list(estimator.activation)
    if any(not isinstance(name, str) or name not in core.ACTIVATIONS for name in names):
        raise FileFormatError(f"activation must be names of {list(core.ACTIVATIONS)}")
    weights = getattr(estimator, "class_weight", None)
    for weight in weights if isinstance(weights, list) else [weights]:
        if isinstance(weight, dict) and not all(is_number(number) for number in weight.values()):
            raise FileFormatError("class_weight must hold finite numbers")


def _build_input(estimator: Any, fields: Fields, tensors: Tensors, prefix: str) -> None:
    estimator.n_features_in_ = fields.count("n_features_in", least=1)
    names = fields.take("feature_names_in")
    if names is not None:
        strings = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if not strings or len(names) != estimator.n_features_in_:
            raise FileFormatError(f"feature_names_in must be null or {estimator.n_features_in_} strings")
        estimator.feature_names_in_ = np.array(names, dtype=object)
    if is_classifier(estimator):
        target = fields.inner("target")
        estimator._target_type = target.choice("type", _TARGET_TYPES)
        estimator._sparse_target = target.flag("sparse")
        estimator.classes_ = _build_classes(target.take("classes"), tensors, f"{prefix}classes")
        target.end()
        kind, n_classes = estimator._target_type, len(estimator.classes_)
        if kind != "multilabel-indicator" and (kind == "binary") != (n_classes <= 2):
            raise FileFormatError(f"target.type is {kind}, but there are {n_classes} classes")


def _build_classes(labels: Any, tensors: Tensors, name: str) -> np.ndarray:
    if labels is not None:
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise FileFormatError("target.classes must be null or strings")
        classes = np.empty(len(labels), dtype=object)
        classes[:] = labels
    else:
        classes = _read_classes(tensors, name)
    if not len(classes) or not (classes[:-1] < classes[1:]).all():
        raise FileFormatError("target.classes must be different labels in rising order")
    return classes


def _read_classes(tensors: Tensors, name: str) -> np.ndarray:
    try:
        tensors.require(name, tuple(ELEMENT_TYPES.values()), (None,))
    except FileFormatError:
        tensors.require(name, ("uint32",), (None, None))
        codes = np.ascontiguousarray(tensors.read(name))
        if codes.size == 0 or codes.max() > _MAX_CODE_POINT:
            raise FileFormatError(f"tensor {name!r} must hold code points") from None
        return codes.view(f"U{codes.shape[1]}")[:, 0]
    return tensors.read(name)


def _build_fit(estimator: Any, fields: Fields, tensors: Tensors, made_by: str, prefix: str) -> None:
    network = restore_network(Network, network_state(fields.inner("network"), tensors, prefix))
    n_outputs = network.layer_sizes[-1]
    if network.layer_sizes[0] != estimator.n_features_in_:
        raise FileFormatError(
            f"the network has {network.layer_sizes[0]} inputs for {estimator.n_features_in_} features"
        )
    allowed = _OF_NUMBERS
    if is_classifier(estimator):
        allowed = ("softmax",) if estimator._target_type == "multiclass" else ("logistic",)
        expected = 1 if estimator._target_type == "binary" else len(estimator.classes_)
        if n_outputs != expected:
            raise FileFormatError(f"the network has {n_outputs} outputs, its target needs {expected}")
    if network.out_activation not in allowed:
        raise FileFormatError(f"the network's out_activation must be one of {allowed}, got {network.out_activation}")
    rates = fields.items("layer_rates")
    if len(rates) != len(network.coefs) or not all(is_number(rate) and rate >= 0 for rate in rates):
        raise FileFormatError(f"layer_rates must be {len(network.coefs)} finite numbers >= 0")
    estimator.network_ = network
    estimator.n_outputs_ = n_outputs
    estimator.n_layers_ = len(network.layer_sizes)
    estimator.out_activation_ = network.out_activation
    estimator.layer_rates_ = tuple(float(rate) for rate in rates)
    _build_record(estimator, fields.inner("record"), tensors, made_by, prefix)
    content = fields.take("continuation")
    estimator._rng = None
    estimator._by_partial_fit = False
    if content is not None:
        _build_continuation(estimator, Fields(content, f"{prefix}continuation"), tensors, prefix)


def _build_record(estimator: Any, fields: Fields, tensors: Tensors, made_by: str, prefix: str) -> None:
    stochastic = "loss_curve_" in fields
    for name in (*RECORD, *(STOCHASTIC_RECORD if stochastic else ())):
        value = _number_from_json(fields.take(name), name)
        if not _CHECKS[name](value):
            raise FileFormatError(f"record.{name} has a wrong type or value")
        setattr(estimator, name, value)
    if stochastic:
        groups = fields.inner("_run_terms")
        terms = {}
        for group in _TERM_GROUPS:
            content = groups.inner(group)
            terms[group] = {name: _from_json(content.take(name), name, tensors, made_by, prefix) for name in content}
            if not all(term is None or isinstance(term, (str, Curve)) for term in terms[group].values()):
                raise FileFormatError(f"record._run_terms.{group} must hold strings and schedules")
        groups.end()
        estimator._run_terms = terms
    fields.end()


def _build_continuation(estimator: Any, fields: Fields, tensors: Tensors, prefix: str) -> None:
    network = estimator.network_
    content = fields.take("optimizer")
    if content is not None:
        optimizer = Fields(content, f"{prefix}continuation.optimizer")
        rule = optimizer.choice("rule", _RULES)
        n_updates = optimizer.count("n_updates")
        seed = optimizer.take("seed", _is_seed, "a 64-bit integer > 0, or null")
        estimator._learning_rate = optimizer.number("learning_rate", least=0)
        optimizer.end()
        shape = (core.OPTIMIZERS[rule], network.n_parameters)
        tensors.require(f"{prefix}optimizer", (network.dtype.name,), shape)
        arrays = np.array(tensors.read(f"{prefix}optimizer"))
        estimator._optimizer_state = {"rule": rule, "arrays": arrays, "n_updates": n_updates, "seed": seed}
        estimator._by_partial_fit = True  # so that a pickle keeps it too
    content = fields.take("generator")
    if content is not None:
        generator = Fields(content, f"{prefix}continuation.generator")
        seed = generator.count("seed")
        estimator._rng = (seed, _build_random_state(generator.inner("state"), tensors, f"{prefix}generator"))
        generator.end()
    if "position" in fields:
        estimator._position = _build_position(fields.inner("position"), tensors, network, f"{prefix}position")
    fields.end()


def _build_position(fields: Fields, tensors: Tensors, network: Network, prefix: str) -> dict[str, Any]:
    given = fields.items("arrays")
    if any(name not in _POSITION_ARRAYS for name in given) or ("parameters" in given) != ("statistics" in given):
        raise FileFormatError(f"position.arrays must be names of {list(_POSITION_ARRAYS)}")
    shapes = {
        "parameters": (network.dtype.name, len(network.parameters)),
        "statistics": (network.statistics.dtype.name, len(network.statistics)),
        "penalties": ("float64", None),
    }
    arrays: dict[str, np.ndarray | None] = dict.fromkeys(_POSITION_ARRAYS)
    for name in given:
        dtype, length = shapes[name]
        tensors.require(f"{prefix}.{name}", (dtype,), (length,))
        arrays[name] = np.array(tensors.read(f"{prefix}.{name}"))
    flags = {name: fields.flag(name) for name in ("warm", "shuffle", "unfinished", "returns_best")}
    counts = {name: fields.count(name, least) for name, least in _POSITION_COUNTS.items()}
    loss = fields.number("loss")
    generator = _build_random_state(fields.inner("generator"), tensors, f"{prefix}.generator")
    fields.end()
    return dict(vars(Position(generator=generator, loss=loss, **flags, **counts, **arrays)))  # type: ignore[arg-type]


def _build_members(ensemble: Any, fields: Fields, tensors: Tensors, made_by: str, prefix: str) -> None:
    members: list[Any] = []
    for number, content in enumerate(fields.items("members")):
        inner = Fields(content, f"members.{number}")
        member = _build(inner, tensors, made_by, f"{prefix}members.{number}.")
        inner.end()
        if type(member) is not ensemble._member_class or not hasattr(member, "network_"):
            raise FileFormatError(f"members.{number} must be a fitted {ensemble._member_class.__name__}")
        members.append(member)
        same = [ensemble._takes_member(member), member.n_outputs_ == members[0].n_outputs_]
        if is_classifier(ensemble):
            same += [np.array_equal(member.classes_, ensemble.classes_), member._target_type == ensemble._target_type]
        if not all(same):
            raise FileFormatError(f"members.{number} must have the features and the classes or outputs of the ensemble")
    if not members:
        raise FileFormatError("members must be at least one")
    ensemble.estimators_ = members
    ensemble._check_members()
    ensemble.n_outputs_ = members[0].n_outputs_
