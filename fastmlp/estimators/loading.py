"""load and from_sklearn: estimators that come from elsewhere, from a file or from scikit-learn.

It refuses to say how: ``saving`` and ``conversion`` do, and do not know the estimators' classes. Imported by users only.
"""

from __future__ import annotations

import os
from typing import Any

from sklearn import neural_network
from sklearn.utils.validation import check_is_fitted

from fastmlp.estimators import ensemble
from fastmlp.estimators import persistence as saving
from fastmlp.estimators.classifier import MLPClassifier, MLPRegressor
from fastmlp.estimators.conversion import take_over
from fastmlp.network import container
from fastmlp.network.container import Fields, Tensors
from fastmlp.network.network import Network


def load(path: str | os.PathLike[str]) -> Any:
    """Read what ``save`` wrote.

    Nothing in the file is executed. Each field is checked, and no array is made that the file does not hold.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    MLPClassifier, MLPRegressor, MLPEnsembleClassifier, MLPEnsembleRegressor or Network
        With the same parameters, attributes and predictions as the one that was saved.

    Raises
    ------
    ImportError
        Without the package safetensors.
    FileFormatError
        If the file is anything else than what ``save`` of this version or an earlier one writes.
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
    return container.read(path, _build)


# To be read, an estimator's class must have been imported.
_READABLE = (MLPClassifier, MLPRegressor, ensemble.MLPEnsembleClassifier, ensemble.MLPEnsembleRegressor)


def _build(fields: Fields, tensors: Tensors, made_by: str) -> Any:
    if fields.is_model("Network"):
        return Network._from_fields(fields, tensors, made_by)
    return saving.build(fields, tensors, made_by)


def from_sklearn(estimator: Any) -> MLPClassifier | MLPRegressor:
    """The same model as an estimator of fastmlp.

    Parameters
    ----------
    estimator : sklearn.neural_network.MLPClassifier or MLPRegressor
        Fitted. It stays as it is, and shares nothing with the result.

    Returns
    -------
    MLPClassifier or MLPRegressor
        Fitted: predictions agree to rounding, and ``partial_fit`` and ``fit`` with ``warm_start`` go on from the same
        parameters, record and optimizer's memory. ``history_`` has epochs and losses; ``validation_loss_curve_`` is None.

    Raises
    ------
    TypeError
        For another estimator.
    NotFittedError
    ValueError
        For a classifier of one class, which fastmlp does not have, and for parameters of which it would not train on.

    Examples
    --------
    >>> import fastmlp
    >>> from sklearn.datasets import make_regression
    >>> from sklearn.neural_network import MLPRegressor
    >>> X, y = make_regression(n_samples=100, n_features=5, random_state=1)
    >>> fastmlp.from_sklearn(MLPRegressor(solver="lbfgs", random_state=1).fit(X, y)).predict(X[:2]).shape
    (2,)
    """
    for ours, theirs in ((MLPClassifier, neural_network.MLPClassifier), (MLPRegressor, neural_network.MLPRegressor)):
        if isinstance(estimator, theirs):
            check_is_fitted(estimator)
            taken: MLPClassifier | MLPRegressor = take_over(ours, estimator)
            return taken
    raise TypeError(
        f"from_sklearn takes an MLPClassifier or MLPRegressor of scikit-learn, got {type(estimator).__qualname__}."
    )
