"""Names that people bring from other libraries, or misspell: the name here that is meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

# How near a misspelling must be, for difflib.
_NEAR = 0.75
# Endings that other libraries' names have.
_ENDINGS = ("loss", "lr", "score", "init")
# Another library's name, in small letters without other characters and endings -> names here. Of several, the one that
# the argument takes.
_ELSEWHERE = {
    # activations
    "sigmoid": ("logistic",), "expit": ("logistic",), "linear": ("identity",), "none": ("identity", "constant"),
    "swish": ("silu",),
    "lrelu": ("leaky_relu",), "rectifier": ("relu",),
    # solvers
    "gd": ("sgd",), "nag": ("sgd",), "nesterov": ("sgd",), "bfgs": ("lbfgs",), "lbfgsb": ("lbfgs",),
    # schedules
    "fixed": ("constant",), "inverse": ("invscaling",), "inversescaling": ("invscaling",),
    "cosineannealing": ("cosine",),
    "cosinedecay": ("cosine",), "stepdecay": ("step",), "exponentialdecay": ("exponential",), "plateau": ("adaptive",),
    "reduceonplateau": ("adaptive",), "reducelronplateau": ("adaptive",), "warmup": ("warmup_cosine",),
    # losses and metrics
    "mse": ("squared_error", "neg_mean_squared_error"), "rmse": ("squared_error", "neg_root_mean_squared_error"),
    "l2": ("squared_error", "neg_mean_squared_error"), "squared": ("squared_error",),
    "leastsquares": ("squared_error",),
    "meansquarederror": ("squared_error",), "mae": ("absolute_error", "neg_mean_absolute_error"),
    "l1": ("absolute_error", "neg_mean_absolute_error"), "absolute": ("absolute_error",), "lad": ("absolute_error",),
    "meanabsoluteerror": ("absolute_error",), "smoothl1": ("huber",), "pinball": ("quantile",),
    "poissondeviance": ("poisson", "neg_mean_poisson_deviance"), "poissonnll": ("poisson",),
    "acc": ("accuracy",), "auc": ("roc_auc",), "crossentropy": ("neg_log_loss",), "log": ("neg_log_loss",),
    # initial values
    "xavier": ("glorot_uniform",), "xavieruniform": ("glorot_uniform",), "xaviernormal": ("glorot_normal",),
    "glorot": ("glorot_uniform",),
    "kaiming": ("he_uniform",), "kaiminguniform": ("he_uniform",), "kaimingnormal": ("he_normal",),
    "he": ("he_uniform",),
    # element types and words
    "auto": ("balanced",),
    "single": ("float32",), "float": ("float64", "float32"), "f4": ("float32",), "double": ("float64",),
    "f8": ("float64",),
}  # fmt: skip


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def near_name(value: Any, names: Iterable[str]) -> str | None:
    """The one of ``names`` that ``value`` means: written otherwise, another library's name for it, or misspelt; None if
    none is near."""
    if not isinstance(value, str):
        return None
    valid = {_plain(name): name for name in names}
    word = _plain(value)
    ending = next((ending for ending in _ENDINGS if word.endswith(ending) and word != ending), "")
    for form in (word, word.removesuffix(ending)):
        if form in valid:
            return valid[form]
        elsewhere = next((name for name in _ELSEWHERE.get(form, ()) if _plain(name) in valid), None)
        if elsewhere is not None:
            return elsewhere
        if "neg" + form in valid:  # a metric of which less is better
            return valid["neg" + form]
    near = difflib.get_close_matches(word, valid, n=1, cutoff=_NEAR)
    return valid[near[0]] if near else None


def hint(value: Any, names: Iterable[str]) -> str:
    """A question that ends an error's message, with a space before it; '' if no name is near."""
    meant = near_name(value, names)
    return "" if meant is None else f" Did you mean {meant!r}?"
