"""Fitted estimators as data: their description and arrays in a file, what a pickle of them holds, and both read back.

docs/saving.md has the format. It refuses to know files (``container``) and to import the estimators: those register themselves.
Imported by ``base``, ``ensemble`` and ``loading``.
"""

from __future__ import annotations

import copy
import inspect
import os
import warnings
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from sklearn.base import is_classifier
from sklearn.utils.validation import check_is_fitted

import fastmlp.core as core
from fastmlp._version import __version__
from fastmlp.estimators._sklearn import BaseEstimator
from fastmlp.estimators.values import (
    Reader,
    Unsayable,
    Writer,
    build_random_state,
    describe_random_state,
    is_real,
    is_whole,
)
from fastmlp.network import container
from fastmlp.network.container import Fields, FileFormatError, Tensors, is_number
from fastmlp.network.initialisers import initialiser
from fastmlp.network.network import Network
from fastmlp.network.network_file import describe_network, network_state
from fastmlp.training.schedules import CURVES, Curve

#: The estimators that a file may hold, by the names of their classes.
MODELS: dict[str, type[Saved]] = {}

_TARGET_TYPES = ("binary", "multiclass", "multilabel-indicator")
_PROBABILITIES = ("softmax", "logistic")
_OF_NUMBERS = tuple(sorted({output for output in core.LOSSES.values() if output not in _PROBABILITIES}))
_RULES = tuple(rule for rule in core.OPTIMIZERS if rule != "gradient")
_MOST_CODE_POINT = 0x10FFFF


def _is_none_or(valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or valid(value)


def _is_key(value: Any) -> bool:
    """Of what is drawn by position: ``OptimizerState.seed``."""
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**64)


def _is_curve(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_real, value))


def _is_history(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(entry, dict) and all(isinstance(name, str) and is_real(number) for name, number in entry.items())
        for entry in value
    )


# What training left behind, as attributes: what each must be. L-BFGS leaves the first group only.
_RECORD: dict[str, Callable[[Any], bool]] = {
    "loss_": is_real,
    "n_iter_": is_whole,
    "t_": is_whole,
    "history_": _is_history,
}
_STOCHASTIC_RECORD: dict[str, Callable[[Any], bool]] = {
    "loss_curve_": _is_curve,
    "best_loss_": _is_none_or(is_real),
    "validation_scores_": _is_none_or(_is_curve),
    "validation_loss_curve_": _is_none_or(_is_curve),
    "best_validation_score_": _is_none_or(is_real),
    "_no_improvement_count": is_whole,
}
_TERM_GROUPS = ("rate", "loss", "score", "draws")
# Attributes that are written, or that follow from those that are; one that is not here cannot be saved.
_KNOWN = {
    *_RECORD, *_STOCHASTIC_RECORD, "n_features_in_", "feature_names_in_", "classes_", "_target_type", "_sparse_target", "n_outputs_",
    "out_activation_", "n_layers_", "layer_rates_", "network_", "estimators_", "_run_terms", "_learning_rate", "_optimizer_state", "_rng",
    "_by_partial_fit",
}  # fmt: skip

# What a running fit has in its estimator; neither a copy that a callback keeps nor a file has it.
_OF_A_RUN = {
    "_callback_fit_ctx", "_skl_callbacks_to_teardown", "_callbacks_set_up", "_parent_callback_ctx", "_warn_of_end", "_run_name",
}  # fmt: skip


class InconsistentVersionWarning(UserWarning):
    """A pickle was made by another version of fastmlp.

    Parameters
    ----------
    estimator_name : str
        Class of what was pickled.
    current_version, original_version : str
        Of fastmlp: the one that reads, the one that wrote.
    """

    def __init__(self, estimator_name: str, current_version: str, original_version: str) -> None:
        self.estimator_name = estimator_name
        self.current_version = current_version
        self.original_version = original_version
        super().__init__(estimator_name, current_version, original_version)

    def __str__(self) -> str:
        return (
            f"Unpickling {self.estimator_name} of fastmlp {self.original_version} with fastmlp {self.current_version}: parameters that "
            "are new since then get their defaults. Files that save() writes are meant to be read by later versions."
        )


def _data_of_terms(run_terms: dict[str, dict[str, Any]], estimator: Any = None) -> dict[str, dict[str, Any]]:
    """What a run went by, with None for functions but those that ``estimator`` still has: no later value is equal to None."""

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
    """The methods of an estimator that have to do with files, pickles and copies."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith("fastmlp.") and not cls.__name__.startswith("Base"):
            MODELS[cls.__name__] = cls

    def save(self, path: str | os.PathLike[str], *, optimizer_state: bool = False) -> None:
        """Write the fitted estimator to a safetensors file, for :func:`fastmlp.load`. Callbacks stay behind.

        Parameters
        ----------
        path : str or path-like
            An existing file is replaced as a whole: whoever reads it, and whatever happens meanwhile, finds the old one or
            the new one.
        optimizer_state : bool, default=False
            Write the optimizer's memory and the random state too, with which ``partial_fit`` goes on as if there had been no
            interruption. ``fit`` with ``warm_start`` does so without: it begins with an empty memory in any case.

        Raises
        ------
        ImportError
            Without the package safetensors.
        NotFittedError
            If there is nothing to save yet.
        TypeError
            If a parameter is not data, such as a function; it is named. Of NumPy's generators a RandomState is, of functions a
            learning-rate curve of fastmlp's own. Also for a subclass, and for attributes of other origin.
        FileFormatError
            If the model has no place in the format, such as one with a parameter that was set to what it may not be.
        OSError
            If the file cannot be written; an old one stays as it was.
        """
        check_is_fitted(self)
        arrays: dict[str, np.ndarray] = {}
        description = describe(self, arrays, "", optimizer_state)
        container.write(path, description, arrays, build)

    def __getstate__(self) -> dict[str, Any]:
        state = _without_run(super().__getstate__())
        if not state.get("_by_partial_fit", False):
            state.pop("_optimizer_state", None)
        if "_run_terms" in state:
            state["_run_terms"] = _data_of_terms(state["_run_terms"], self)
        state["_fastmlp_version"] = __version__
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        version = state.pop("_fastmlp_version", "older than 0.1.0")
        if version != __version__:
            name = type(self).__name__
            warnings.warn(
                InconsistentVersionWarning(name, __version__, str(version)),
                stacklevel=2,
            )
            state = {**_defaults(type(self)), **state}
        super().__setstate__(state)

    # Copies within a process keep the optimizer's memory, whatever pickles do.
    def __copy__(self) -> Self:
        other = type(self).__new__(type(self))
        other.__dict__.update(_without_run(self.__dict__))
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        other.__dict__.update(copy.deepcopy(_without_run(self.__dict__), memo))
        return other


# --- an estimator to its description ---------------------------------------------------------------------------


def describe(estimator: Any, arrays: dict[str, np.ndarray], prefix: str, optimizer_state: bool) -> dict[str, Any]:
    """The JSON of an estimator, fitted or not; its arrays go to ``arrays``, under names that begin with ``prefix``."""
    name = type(estimator).__name__
    if MODELS.get(name) is not type(estimator):
        raise TypeError(
            f"{type(estimator).__qualname__} cannot be saved, only {', '.join(MODELS)} themselves; pickle can."
        )
    writer = Writer(arrays, prefix, lambda value, inner: describe(value, arrays, inner, optimizer_state))
    parameters = {}
    for parameter, value in estimator.get_params(deep=False).items():
        try:
            parameters[parameter] = writer.say(value, parameter)
        except Unsayable as error:
            raise TypeError(
                f"{name} cannot be saved with {parameter}={error}: a file holds data only. Set another value with set_params, or use pickle."
            ) from None
    strange = sorted(set(vars(estimator)) - set(parameters) - _KNOWN - _OF_A_RUN - {"_skl_callbacks"})
    if strange:
        raise TypeError(f"{name} cannot be saved with the attribute {strange[0]!r}, for which the file has no place.")
    fitted = None
    if hasattr(estimator, "estimators_"):
        fitted = _describe_input(estimator, arrays, prefix)
        fitted["members"] = [
            describe(member, arrays, f"{prefix}members.{number}.", optimizer_state)
            for number, member in enumerate(estimator.estimators_)
        ]
    elif hasattr(estimator, "network_"):
        fitted = _describe_input(estimator, arrays, prefix)
        fitted |= _describe_fit(estimator, writer, arrays, prefix, optimizer_state)
    return {"class": name, "parameters": parameters, "fitted": fitted}


def _describe_input(estimator: Any, arrays: dict[str, np.ndarray], prefix: str) -> dict[str, Any]:
    """What X and y must look like."""
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
    """Labels that are Python strings; None for others, which go to ``arrays``: NumPy's strings as code points, (n, width)."""
    if classes.dtype.kind == "O" and all(type(label) is str for label in classes):
        return list(classes)
    classes = classes.astype(classes.dtype.newbyteorder("="), copy=False)
    if classes.dtype.kind == "U":
        arrays[name] = np.ascontiguousarray(classes).view(np.uint32).reshape(len(classes), -1)
    elif classes.dtype.kind in "biuf":
        arrays[name] = classes
    else:
        raise TypeError(
            f"classes_ cannot be saved: labels must be numbers, truth values or strings, got an array of {classes.dtype}."
        )
    return None


def _describe_fit(
    estimator: Any, writer: Writer, arrays: dict[str, np.ndarray], prefix: str, optimizer_state: bool
) -> dict[str, Any]:
    """The network, the record of its training, and what ``partial_fit`` goes on from."""
    network, own = describe_network(estimator.network_, prefix)
    arrays |= own
    record = {
        name: writer.say(getattr(estimator, name), name)
        for name in (*_RECORD, *_STOCHASTIC_RECORD)
        if hasattr(estimator, name)
    }
    record["history_"] = [
        {name: writer.say(number, "history_") for name, number in entry.items()} for entry in estimator.history_
    ]
    if hasattr(estimator, "_run_terms"):
        record["_run_terms"] = {
            group: {name: writer.say(term, name) for name, term in terms.items()}
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
        arrays[f"{prefix}optimizer"] = state["arrays"]
        optimizer = {
            "rule": state["rule"],
            "n_updates": int(state["n_updates"]),
            "seed": state.get("seed"),
            "learning_rate": float(estimator._learning_rate),
        }
    if getattr(estimator, "_rng", None) is not None:
        seed, rng = estimator._rng
        generator = {"seed": int(seed), "state": describe_random_state(rng, arrays, f"{prefix}generator")}
    return {"optimizer": optimizer, "generator": generator}


# --- a description to an estimator -----------------------------------------------------------------------------


def build(fields: Fields, tensors: Tensors, made_by: str, prefix: str = "") -> Any:
    """The estimator that ``describe`` described; all of it is checked."""
    cls = MODELS[fields.name("class", MODELS)]
    estimator: Any = cls(**_build_parameters(cls, fields.inner("parameters"), tensors, made_by, prefix))
    estimator._validate_params()
    content = fields.any("fitted")
    if content is None:
        return estimator
    fitted = Fields(content, f"{prefix}fitted")
    _build_input(estimator, fitted, tensors, prefix)
    if hasattr(estimator, "_member_class"):
        _build_members(estimator, fitted, tensors, made_by, prefix)
    else:
        _check_parameters(estimator)
        _build_fit(estimator, fitted, tensors, prefix)
    fitted.end()
    return estimator


def _build_parameters(cls: type, fields: Fields, tensors: Tensors, made_by: str, prefix: str) -> dict[str, Any]:
    """The constructor's arguments. A file of another version may lack some, which came later; they have their defaults."""

    def inner(nested: Fields, nested_prefix: str) -> Any:
        estimator = build(nested, tensors, made_by, nested_prefix)
        nested.end()
        return estimator

    reader = Reader(tensors, prefix, inner)
    values = _defaults(cls)
    for name in list(values):
        if fields.has(name) or made_by == __version__:
            values[name] = reader.value(fields.any(name), f"{prefix}{name}")
    fields.end()
    return values


def _check_parameters(estimator: Any) -> None:
    """Where scikit-learn's check of a parameter takes any sequence or word: each member, and the word."""
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
            raise FileFormatError("class_weight must give finite numbers")


def _build_input(estimator: Any, fields: Fields, tensors: Tensors, prefix: str) -> None:
    estimator.n_features_in_ = fields.count("n_features_in", least=1)
    names = fields.any("feature_names_in")
    if names is not None:
        if (
            not isinstance(names, list)
            or len(names) != estimator.n_features_in_
            or not all(isinstance(name, str) for name in names)
        ):
            raise FileFormatError(f"feature_names_in must be null or {estimator.n_features_in_} strings")
        estimator.feature_names_in_ = np.array(names, dtype=object)
    if is_classifier(estimator):
        target = fields.inner("target")
        estimator._target_type = target.name("type", _TARGET_TYPES)
        estimator._sparse_target = target.flag("sparse")
        estimator.classes_ = _build_classes(target.any("classes"), tensors, f"{prefix}classes")
        target.end()
        if (estimator._target_type == "binary") != (
            len(estimator.classes_) == 2
        ) and estimator._target_type != _TARGET_TYPES[2]:
            raise FileFormatError(
                f"target.type is {estimator._target_type}, but there are {len(estimator.classes_)} classes"
            )


def _build_classes(labels: Any, tensors: Tensors, name: str) -> np.ndarray:
    if labels is not None:
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise FileFormatError("target.classes must be null or strings")
        classes = np.empty(len(labels), dtype=object)
        classes[:] = labels
    else:
        classes = _read_classes(tensors, name)
    if len(classes) < 2 or not (classes[:-1] < classes[1:]).all():
        raise FileFormatError("target.classes must be different labels in rising order")
    return classes


def _read_classes(tensors: Tensors, name: str) -> np.ndarray:
    numbers = (
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
    try:
        tensors.require(name, numbers, (None,))
    except FileFormatError:
        tensors.require(name, ("uint32",), (None, None))
        codes = np.ascontiguousarray(tensors.read(name))
        if codes.size == 0 or codes.max() > _MOST_CODE_POINT:
            raise FileFormatError(f"tensor {name!r} must hold code points") from None
        return codes.view(f"U{codes.shape[1]}")[:, 0]
    return tensors.read(name)


def _build_fit(estimator: Any, fields: Fields, tensors: Tensors, prefix: str) -> None:
    network = Network._from_state(network_state(fields.inner("network"), tensors, prefix))
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
            raise FileFormatError(f"the network has {n_outputs} outputs, its target asks for {expected}")
    if network.out_activation not in allowed:
        raise FileFormatError(f"the network's out_activation must be one of {allowed}, got {network.out_activation}")
    rates = fields.items("layer_rates")
    if len(rates) != len(network.coefs) or not all(is_number(rate) and rate >= 0 for rate in rates):
        raise FileFormatError(f"layer_rates must be {len(network.coefs)} finite numbers from 0 on")
    estimator.network_ = network
    estimator.n_outputs_ = n_outputs
    estimator.n_layers_ = len(network.layer_sizes)
    estimator.out_activation_ = network.out_activation
    estimator.layer_rates_ = tuple(float(rate) for rate in rates)
    _build_record(estimator, fields.inner("record"), tensors, prefix)
    content = fields.any("continuation")
    estimator._rng = None
    estimator._by_partial_fit = False
    if content is not None:
        _build_continuation(estimator, Fields(content, f"{prefix}continuation"), tensors, prefix)


def _build_record(estimator: Any, fields: Fields, tensors: Tensors, prefix: str) -> None:
    def no_estimator(nested: Fields, nested_prefix: str) -> Any:
        raise FileFormatError("record must hold no estimator")

    reader = Reader(tensors, prefix, no_estimator)
    checks = dict(_RECORD)
    stochastic = fields.has("loss_curve_")
    if stochastic:
        checks |= _STOCHASTIC_RECORD
    for name, valid in checks.items():
        content = fields.any(name)
        if name == "history_" and isinstance(
            content, list
        ):  # plain objects, not values of the type that their one field names
            value: Any = [
                {key: reader.value(number, name) for key, number in entry.items()} if isinstance(entry, dict) else None
                for entry in content
            ]
        else:
            value = reader.value(content, name)
        if not valid(value):
            raise FileFormatError(f"record.{name} is not what it must be")
        setattr(estimator, name, value)
    if stochastic:
        groups = fields.inner("_run_terms")
        terms = {}
        for group in _TERM_GROUPS:
            said = groups.inner(group)
            terms[group] = {name: reader.value(said.any(name), name) for name in said.names()}
            if not all(term is None or isinstance(term, (str, Curve)) for term in terms[group].values()):
                raise FileFormatError(f"record._run_terms.{group} must hold strings and curves")
        groups.end()
        estimator._run_terms = terms
    fields.end()


def _build_continuation(estimator: Any, fields: Fields, tensors: Tensors, prefix: str) -> None:
    network = estimator.network_
    content = fields.any("optimizer")
    if content is not None:
        optimizer = Fields(content, f"{prefix}continuation.optimizer")
        rule = optimizer.name("rule", _RULES)
        n_updates = optimizer.count("n_updates")
        seed = optimizer.take("seed", _is_key, "a whole number of 64 bits that is not 0, or null")
        estimator._learning_rate = optimizer.number("learning_rate", least=0)
        optimizer.end()
        shape = (core.OPTIMIZERS[rule], network.n_parameters)
        tensors.require(f"{prefix}optimizer", (network.dtype.name,), shape)
        arrays = np.array(tensors.read(f"{prefix}optimizer"))
        estimator._optimizer_state = {"rule": rule, "arrays": arrays, "n_updates": n_updates, "seed": seed}
        estimator._by_partial_fit = True  # so that a pickle keeps it too
    content = fields.any("generator")
    if content is not None:
        generator = Fields(content, f"{prefix}continuation.generator")
        seed = generator.count("seed")
        estimator._rng = (seed, build_random_state(generator.inner("state"), tensors, f"{prefix}generator"))
        generator.end()
    fields.end()


def _build_members(ensemble: Any, fields: Fields, tensors: Tensors, made_by: str, prefix: str) -> None:
    members: list[Any] = []
    for number, content in enumerate(fields.items("members")):
        inner = Fields(content, f"members.{number}")
        member = build(inner, tensors, made_by, f"{prefix}members.{number}.")
        inner.end()
        if type(member) is not ensemble._member_class or not hasattr(member, "network_"):
            raise FileFormatError(f"members.{number} must be a fitted {ensemble._member_class.__name__}")
        same = (
            member.n_features_in_ == ensemble.n_features_in_
            and member.n_outputs_ == (members or [member])[0].n_outputs_
        )
        if is_classifier(ensemble):
            same = (
                same
                and np.array_equal(member.classes_, ensemble.classes_)
                and member._target_type == ensemble._target_type
            )
        if not same:
            raise FileFormatError(
                f"members.{number} must take the rows and give the classes or outputs of the ensemble"
            )
        members.append(member)
    if not members:
        raise FileFormatError("members must be at least one")
    ensemble.estimators_ = members
    ensemble.n_outputs_ = members[0].n_outputs_
