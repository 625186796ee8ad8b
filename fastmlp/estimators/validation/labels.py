"""A classifier's labels and the weights of its classes."""

from __future__ import annotations

import reprlib
from numbers import Number
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import compute_class_weight, compute_sample_weight

from fastmlp.estimators.validation.weights import weight_sum


def classes_of(y: Any) -> tuple[np.ndarray, str]:
    """Sorted classes of labels, and the kind of target by scikit-learn's names."""
    if type(y) is np.ndarray and y.ndim == 1 and y.dtype.kind in "biuU" and y.dtype.isnative:
        classes = np.unique(y)
        if 0 < 2 * len(classes) <= len(y):  # scikit-learn warns if there are more classes
            if classes.dtype.kind == "U":  # as wide as the longest
                classes = np.array(classes.tolist())
            return classes, "binary" if len(classes) <= 2 else "multiclass"
    binarizer = LabelBinarizer().fit(y)
    return binarizer.classes_, binarizer.y_type_


def check_labels(labels: np.ndarray, classes: np.ndarray, all_of_them: bool) -> None:
    """The labels of a later call must be those of the first, in ``warm_start`` all of them; scikit-learn's messages."""
    if all_of_them:
        if set(labels) != set(classes):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                f"Previously got {classes}, `y` has {labels}"
            )
    elif len(np.setdiff1d(labels, classes, assume_unique=True)):
        raise ValueError(f"`y` has classes not in `self.classes_`. `self.classes_` has {classes}. 'y' has {labels}.")


def check_form(y: Any, target_type: str, n_outputs: int | None = None) -> None:
    """y must be labels, or an indicator matrix with ``n_outputs`` columns (None: any number), as in the first call."""
    multilabel = target_type.startswith("multilabel")
    if (y.ndim == 2) != multilabel or (multilabel and n_outputs not in (None, y.shape[1])):
        raise ValueError(f"y must be of the same type as before, {target_type}, got shape {y.shape}.")


def check_known(y: Any, classes: np.ndarray) -> None:
    """Labels to score on must be among the classes, an indicator matrix of 0 and 1."""
    if y.ndim == 2:
        if not np.isin(y.data if issparse(y) else y, (0, 1)).all():
            raise ValueError("y must be an indicator matrix, of 0 and 1 only.")
    elif len(unknown := np.setdiff1d(y, classes)):
        raise ValueError(f"y has labels that are not among classes_: {reprlib.repr(unknown.tolist())}.")


def _other_class_weight(class_weight: Any, classes: np.ndarray, ndim: int) -> str:
    """What class_weight must be instead, with the given weights if it is clear which class each of them is for."""
    labels, example = classes.tolist(), {}
    if ndim == 2:
        return "class_weight must be 'balanced' or a list with a dict for each column of y: [{0: 1, 1: 2}, ...]."
    if isinstance(class_weight, dict):
        by_text = {str(key): value for key, value in class_weight.items()}
        example = {label: by_text[str(label)] for label in labels if str(label) in by_text}
    elif isinstance(class_weight, list) and len(class_weight) == len(labels):
        example = dict(zip(labels, class_weight, strict=True))
    if not example or not all(isinstance(value, Number) for value in example.values()):
        example = dict.fromkeys(labels, 1.0)
    return (
        "class_weight must be 'balanced' or a dict of numbers, whose keys are labels of the type that y has: "
        f"class_weight={reprlib.repr(example)}, for example."
    )


def apply_class_weight(class_weight: Any, classes: np.ndarray, y: Any, weight: np.ndarray | None) -> np.ndarray:
    """The weights (n,) or (n, n_outputs), or ones, times those of the rows' classes."""
    try:
        if weight is not None and weight.ndim == 2:
            own = _class_weight_of_known(class_weight, y.toarray() if issparse(y) else y, weight)[:, np.newaxis]
        elif y.ndim == 1 and class_weight != "balanced":  # for all classes, which a batch of partial_fit need not have
            if isinstance(class_weight, list):
                raise ValueError("class_weight is a list, which is for several columns of y, and y has one")
            own = compute_class_weight(class_weight, classes=classes, y=y)[np.searchsorted(classes, y)]
        else:  # rows of weight 0 change nothing and are not counted
            counted = None if weight is None or class_weight != "balanced" else np.flatnonzero(weight)
            own = compute_sample_weight(class_weight, y.toarray() if issparse(y) else y, indices=counted)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{str(error).rstrip('.')}. {_other_class_weight(class_weight, classes, y.ndim)}") from error
    weighed: np.ndarray = own if weight is None else weight * own
    total = weight_sum(weighed)
    if total == 0 or not np.isfinite(total) or weighed.min() < 0:
        raise ValueError(
            f"class_weight must leave weights that are finite and not negative, whose sum is finite and not 0, got "
            f"{class_weight!r}."
        )
    return weighed


def _class_weight_of_known(class_weight: Any, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Product (n,) over a row's outputs of the weights of their classes, without those of targets that are left out."""
    both = np.repeat([[0], [1]], y.shape[1], axis=1)
    compute_sample_weight(class_weight, both)  # checks the form of ``class_weight``
    product = np.ones(len(y))
    for output, labels in enumerate(y.T):
        known = np.flatnonzero(weight[:, output])
        of_output = class_weight if isinstance(class_weight, str) else class_weight[output]
        if isinstance(of_output, dict):
            product[known] *= np.where(labels[known] == 1, of_output.get(1, 1), of_output.get(0, 1))
        elif len(known):
            product[known] *= compute_sample_weight(of_output, labels[known])
    return product
