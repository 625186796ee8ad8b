"""``loss_reduction``: what divides the sum of weighted losses. Epochs against the reference:
tests/core/test_trainer_methods.py."""

import numpy as np
import pytest
from helpers import classification, tolerance

from fastmlp import MLPClassifier, MLPEnsembleClassifier, Network, load
from fastmlp.reference import training as reference

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore:lbfgs failed")


@pytest.mark.parametrize("loss_reduction", ["weighted_mean", "mean"])
def test_weight_of_a_single_row(loss_reduction):
    """The sum of weights divides it out; the number of rows does not: one step of plain gradient descent is 100 times
    as long."""
    X, y = classification(2)
    settings = {
        "solver": "sgd", "momentum": 0.0, "learning_rate_init": 1e-3, "alpha": 0.0, "random_state": 0,
        "loss_reduction": loss_reduction,
    }  # fmt: skip
    steps = []
    for weight in (1.0, 100.0):
        model = MLPClassifier((5,), **settings).partial_fit(X, y, classes=[0, 1])
        before = model.network_.parameters.copy()
        steps.append(model.partial_fit(X[:1], y[:1], [weight]).network_.parameters - before)
    factor = 100 if loss_reduction == "mean" else 1
    # A row of 13 numbers; a step is a difference of parameters of size 1.
    np.testing.assert_allclose(steps[1], factor * steps[0], rtol=0, atol=factor * tolerance("float64", 13))


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_mean_over_rows_is_the_weighted_mean_of_weights_of_mean_1(solver):
    """All rows in one batch: only the scale of the weights differs. Losses are recorded on that scale."""
    X, y = classification(3)
    weight = np.random.RandomState(0).uniform(0.5, 3.0, len(X))
    weight /= weight.mean()
    settings = {"solver": solver, "batch_size": len(X), "max_iter": 5, "random_state": 0}
    by_weight = MLPClassifier((6,), **settings).fit(X, y, weight)
    by_rows = MLPClassifier((6,), **settings, loss_reduction="mean").fit(X, y, weight)
    bound = tolerance("float64", len(X))
    np.testing.assert_allclose(by_rows.network_.parameters, by_weight.network_.parameters, rtol=0, atol=bound)
    assert abs(by_rows.loss_ - by_weight.loss_) < bound


def test_validation_loss_has_the_same_divisor():
    X, y = classification(3)
    settings = {"max_iter": 2, "random_state": 0}
    losses = {}
    for reduction in ("weighted_mean", "mean"):
        model = MLPClassifier((6,), **settings, loss_reduction=reduction)
        model.fit(X, y, eval_set=(X, y), sample_weight_eval=np.full(len(X), 4.0))
        losses[reduction] = np.array(model.validation_loss_curve_)
    np.testing.assert_allclose(losses["mean"], 4 * losses["weighted_mean"], rtol=tolerance("float64", len(X)))


def test_ensemble_with_a_mean_over_rows_is_its_members(tmp_path):
    """Bootstrap counts are weights; files keep the parameter."""
    X, y = classification(2)
    member = MLPClassifier((5,), max_iter=3, random_state=0, loss_reduction="mean")
    model = MLPEnsembleClassifier(member, 2, members="bootstrap", random_state=0).fit(X, y)
    model.save(tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors")
    assert loaded.estimators_[0].loss_reduction == "mean"
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))


def test_gradient_is_the_references():
    """Of Network.loss_gradient, with weights and a penalty, which is divided by the number of rows too."""
    rng = np.random.RandomState(0)
    network = Network((4, 6, 3), "tanh", dtype="float64", random_state=0)
    X, y, weight = rng.standard_normal((20, 4)), rng.randint(3, size=20), rng.uniform(0, 9, 20)
    model = reference.new_model(network.coefs, network.intercepts, "sgd", False)
    method = reference.Method(alpha=0.5, l1_ratio=0.3, loss_reduction="mean")
    want = reference.gradients(model, ["tanh"], "log_loss", X, y, weight, method)
    loss, gradient = network.loss_gradient(X, y, weight, alpha=0.5, l1_ratio=0.3, loss_reduction="mean")
    bound = tolerance("float64", len(X), weight.max())
    assert abs(loss - want.loss) < bound
    np.testing.assert_allclose(gradient, np.concatenate([part.ravel() for part in want.parameters]), rtol=0, atol=bound)
