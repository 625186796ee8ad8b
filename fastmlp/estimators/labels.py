"""Labels of a classifier: which classes there are, whether a later call has the same ones, what a row of each counts.

It refuses to know networks and outputs. Imported by ``estimators`` only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import compute_class_weight, compute_sample_weight

from fastmlp.estimators.validation import weight_sum


def classes_of(y: Any) -> tuple[np.ndarray, str]:
    """Sorted classes, and the kind of target by scikit-learn's names, of labels."""
    if type(y) is np.ndarray and y.ndim == 1 and y.dtype.kind in "biuU" and y.dtype.isnative:
        classes = np.unique(y)
        if 0 < 2 * len(classes) <= len(y):  # plainly classes; scikit-learn warns of more of them
            if classes.dtype.kind == "U":  # no wider than they are
                classes = np.array(classes.tolist())
            return classes, "binary" if len(classes) <= 2 else "multiclass"
    binarizer = LabelBinarizer().fit(y)
    return binarizer.classes_, binarizer.y_type_


def check_labels(labels: np.ndarray, classes: np.ndarray, all_of_them: bool) -> None:
    """The labels of a later call must be those of the first, in ``warm_start`` all of them; scikit-learn's words."""
    if all_of_them:
        if set(labels) != set(classes):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                f"Previously got {classes}, `y` has {labels}"
            )
    elif len(np.setdiff1d(labels, classes, assume_unique=True)):
        raise ValueError(f"`y` has classes not in `self.classes_`. `self.classes_` has {classes}. 'y' has {labels}.")


def check_form(y: Any, target_type: str, n_outputs: int | None = None) -> None:
    """A later call's labels must be single ones, or an indicator matrix of so many columns (None: any), as the first's were."""
    multilabel = target_type.startswith("multilabel")
    if (y.ndim == 2) != multilabel or (multilabel and n_outputs not in (None, y.shape[1])):
        raise ValueError(f"y must be of the same type as before, {target_type}, got shape {y.shape}.")


def check_known(y: Any, classes: np.ndarray) -> None:
    """Labels to score by must be among the classes; an indicator matrix, of 0 and 1."""
    if y.ndim == 2:
        if not np.isin(y.data if issparse(y) else y, (0, 1)).all():
            raise ValueError("y must be an indicator matrix, of 0 and 1 only.")
    elif len(unknown := np.setdiff1d(y, classes)):
        raise ValueError(f"y has labels that are not among classes_: {unknown.tolist()}.")


def weighed_by_class(class_weight: Any, classes: np.ndarray, y: Any, weight: np.ndarray | None) -> np.ndarray:
    """The rows' weights (n,), or ones, times those of their classes."""
    if y.ndim == 1 and class_weight != "balanced":  # by all classes: a batch of partial_fit need not have them
        own = compute_class_weight(class_weight, classes=classes, y=y)[np.searchsorted(classes, y)]
    else:  # rows of weight 0 change nothing, so they are not counted
        counted = None if weight is None or class_weight != "balanced" else np.flatnonzero(weight)
        own = compute_sample_weight(class_weight, y.toarray() if issparse(y) else y, indices=counted)
    weighed: np.ndarray = own if weight is None else weight * own
    total = weight_sum(weighed)
    if total == 0 or not np.isfinite(total):
        raise ValueError(f"class_weight must leave finite weights whose sum is finite and not 0, got {class_weight!r}.")
    return weighed
