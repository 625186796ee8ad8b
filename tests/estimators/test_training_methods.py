"""Every training method through the estimators: that each parameter does what it says, and nothing else.

Whole fits are done again by the reference from ``random_state`` alone: initial parameters, the methods' seed, orders,
mixup's shares. Scores that steer a run, and networks that are changed between two of them, are in test_validation.py
and test_transfer.py.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import sklearn.neural_network
from helpers import (
    DIFFERENCE_STEP,
    SKLEARN_CURVE_RTOL,
    classification,
    difference_tolerance,
    multilabel,
    regression,
    tolerance,
    varied,
)
from scipy import sparse

from fastmlp import MLPClassifier, MLPRegressor, Network, core, reference
from fastmlp.network.initialisers import BIAS_INITIALISERS, WEIGHT_INITIALISERS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


# --- Whole fits, done again by the reference --------------------------------------------------------------------------

HIDDEN = (11, 11, 7)
N_ROWS, BATCH, EPOCHS, RATE, SEED = 97, 20, 3, 0.01, 2**32 - 1


class Case(NamedTuple):
    """Parameters of the estimator, and what the reference is told instead."""

    settings: dict
    method: dict = {}
    loss: str = "log_loss"


BODY = Network((9, *HIDDEN, 5), ("relu", "tanh", "relu"), dtype="float32", random_state=4)
NORMED_BODY = Network((9, *HIDDEN, 1), ("relu", "tanh", "relu"), "identity", random_state=4, batch_norm=True)
NORMED_BODY.statistics[:] = np.random.RandomState(0).uniform(0.5, 1.5, NORMED_BODY.n_statistics)
NORMED_BODY.parameters = NORMED_BODY.parameters + np.random.RandomState(1).uniform(-0.1, 0.1, NORMED_BODY.n_parameters)

CASES = {
    "plain": Case({}),
    "dropout": Case({"dropout": 0.3}, {"dropout": (0.0, 0.3, 0.3, 0.3)}),
    "dropout by layer": Case({"dropout": (0.1, 0.2, 0.0, 0.4)}, {"dropout": (0.1, 0.2, 0.0, 0.4)}),
    "batch_norm": Case({"batch_norm": True}),
    "batch_norm, biases given": Case({"batch_norm": True, "bias_init": ("uniform", 0.3)}),
    "residual": Case({"residual": True}, {"residual": True}),
    "noise": Case({"input_noise": 0.3}, {"input_noise": 0.3}),
    "mask": Case({"input_mask": 0.25}, {"input_mask": 0.25}),
    "mixup": Case({"mixup": 0.4}),
    "loss_reduction": Case({"loss_reduction": "mean", "class_weight": {0: 2.0, 1: 1.5, 2: 1.0}},
        {"loss_reduction": "mean"}),
    "smoothing": Case({"label_smoothing": 0.2}, {"label_smoothing": 0.2}),
    "clipping": Case({"max_grad_norm": 0.1}, {"max_grad_norm": 0.1}),
    "frozen body": Case({"pretrained": BODY}, {"layer_rates": (0.0, 0.0, 0.0, 1.0)}),
    "slow body": Case({"pretrained": BODY, "pretrained_rate": 0.2}, {"layer_rates": (0.2, 0.2, 0.2, 1.0)}),
    "frozen body, batch_norm": Case({"pretrained": NORMED_BODY, "batch_norm": True},
        {"layer_rates": (0.0, 0.0, 0.0, 1.0)}),
    "slow body, batch_norm": Case(
        {"pretrained": NORMED_BODY, "batch_norm": True, "pretrained_rate": 0.5}, {"layer_rates": (0.5, 0.5, 0.5, 1.0)}
    ),
    "class weights": Case({"class_weight": {0: 2.0, 2: 0.5}}),
    "class weights, one zero": Case({"class_weight": {0: 2.0, 1: 0.0}}),
    "balanced": Case({"class_weight": "balanced"}),
    "penalty": Case({"alpha": 0.5, "l1_ratio": 0.3}),
    "weight decay": Case({"solver": "adamw", "weight_decay": 0.7}),
    "initial values": Case({"weight_init": "he_normal", "bias_init": ("uniform", 0.2)}),
    "smoothing, two classes": Case({"label_smoothing": 0.2}, {"label_smoothing": 0.2}, "binary_log_loss"),
    "mixup, two classes": Case({"mixup": 0.4}, {}, "binary_log_loss"),
    "mixup, labels": Case({"mixup": 0.4, "label_smoothing": 0.1}, {"label_smoothing": 0.1}, "multilabel"),
    "absolute_error": Case({}, {}, "absolute_error"),
    "huber": Case({"huber_delta": 0.4}, {"loss_parameter": 0.4}, "huber"),
    "quantile": Case({"quantile": 0.8}, {"loss_parameter": 0.8}, "quantile"),
    "mixup, numbers": Case({"mixup": 0.4}, {}, "huber"),
    "everything": Case(
        {
            "dropout": (0.1, 0.2, 0.3, 0.1), "batch_norm": True, "residual": True, "input_noise": 0.2,
            "input_mask": 0.1,
            "mixup": 0.3, "label_smoothing": 0.1, "max_grad_norm": 0.3, "class_weight": {0: 2.0, 1: 1.5, 2: 1.0},
            "solver": "nadam", "pretrained": None, "alpha": 0.1, "l1_ratio": 0.5,
        },
        {
            "dropout": (0.1, 0.2, 0.3, 0.1), "residual": True, "input_noise": 0.2, "input_mask": 0.1,
            "label_smoothing": 0.1,
            "max_grad_norm": 0.3,
        },
    ),
}  # fmt: skip
DRAWN = ("dropout", "input_noise", "input_mask", "mixup")


def data_for(loss):
    """X, y as users give it, y as the reference reads it, number of outputs, the core's loss."""
    X, y = classification(2 if loss == "binary_log_loss" else 3, n=N_ROWS, n_features=9)
    if loss == "log_loss":
        return X, y, y, 3, loss
    if loss == "binary_log_loss":
        return X, np.array(["no", "yes"])[y], y[:, np.newaxis].astype(float), 1, loss
    if loss == "multilabel":
        y = multilabel(n=N_ROWS, n_features=9)[1]
        return X, y, y.astype(float), 4, "binary_log_loss"
    y = regression(n=N_ROWS, n_features=9, n_outputs=2)[1]
    return X, y, y, 2, loss


def weights_of(class_weight, y):
    """What each row counts, by class_weight alone; None where all count alike."""
    if class_weight is None:
        return None
    if class_weight == "balanced":
        counts = np.bincount(y)
        return len(y) / (len(counts) * counts[y])
    return np.array([class_weight.get(label, 1.0) for label in y.tolist()])


def done_again(case, X, y, loss, n_out):
    """Loss curve and model after EPOCHS, from SEED, by the reference."""
    settings = {"solver": "adam", "alpha": 0.0001, "l1_ratio": 0.0, "mixup": 0.0, "batch_norm": False, **case.settings}
    rng = np.random.RandomState(SEED)
    activations = ("relu", "tanh", "relu")
    coefs, intercepts = reference.initialise(
        (9, *HIDDEN, n_out), activations, rng, settings.get("weight_init", "auto"), settings.get("bias_init", "auto")
    )
    if settings["batch_norm"] and "bias_init" not in settings:
        intercepts[:-1] = [np.zeros_like(b) for b in intercepts[:-1]]
    model = reference.new_model(coefs, intercepts, settings["solver"], settings["batch_norm"])
    if settings.get("pretrained") is not None:
        body = settings["pretrained"].copy("float64")
        model.coefs[:-1], model.intercepts[:-1] = body.coefs[:-1], body.intercepts[:-1]
        model.scales[:], model.means[:], model.variances[:] = body.scales, body.means, body.variances
    low, high = 0, 0
    if any(np.any(settings.get(name, 0)) for name in DRAWN):
        low, high = (int(word) for word in rng.randint(0, 2**32, size=2, dtype=np.uint64))
    weight = weights_of(settings.get("class_weight"), y)
    order = np.arange(len(X)) if weight is None else np.flatnonzero(weight)
    n_steps = -(-len(order) // BATCH)
    penalty = {"alpha": settings["alpha"], "l1_ratio": settings["l1_ratio"]}
    method = reference.Method(seed=low | high << 32, **penalty, **case.method)
    hyper = reference.Hyper(0.0, weight_decay=settings.get("weight_decay", 0.0))
    curve = []
    for t in range(0, EPOCHS * n_steps, n_steps):
        rng.shuffle(order)
        mix = (
            np.random.RandomState([low, high, t]).beta(settings["mixup"], settings["mixup"], n_steps)
            if settings["mixup"]
            else None
        )
        value, model = reference.epoch(
            model, activations, loss, settings["solver"], BATCH, X, y, weight, order, np.full(n_steps, RATE), t, hyper,
            method, mix,
        )  # fmt: skip
        curve.append(value)
    return curve, model


@pytest.mark.crossed
@pytest.mark.parametrize("kind", ["dense", "csr"])
@pytest.mark.parametrize("name", CASES)
def test_fit_is_the_references(name, kind):
    """Loss curve, parameters, running averages and predictions after three epochs, the last batch of each a short
    one."""
    case = CASES[name]
    X, y, target, n_out, loss = data_for(case.loss)
    if kind == "csr":
        X = np.where(np.random.RandomState(0).uniform(size=X.shape) < 0.1, X, 0)
    settings = {
        "hidden_layer_sizes": HIDDEN, "activation": ["relu", "tanh", "relu"], "batch_size": BATCH, "max_iter": EPOCHS,
        "learning_rate_init": RATE, "random_state": SEED, **case.settings,
    }  # fmt: skip
    estimator = (
        MLPClassifier(**settings)
        if case.loss in ("log_loss", "binary_log_loss", "multilabel")
        else MLPRegressor(loss, **settings)
    )
    estimator.fit(sparse.csr_array(X) if kind == "csr" else X, y)
    curve, model = done_again(case, X, target, loss, n_out)
    bound = tolerance("float64", 40 * sum(HIDDEN))
    assert np.abs(np.subtract(estimator.loss_curve_, curve)).max() <= bound * max(1.0, *curve)
    found = (
        *estimator.network_.coefs,
        *estimator.network_.intercepts,
        *estimator.network_.scales,
        *estimator.network_.means,
        *estimator.network_.variances,
    )
    expected = (*model.parameters, *model.means, *model.variances)
    for ours, theirs in zip(found, expected, strict=True):
        assert np.abs(ours - theirs).max() <= bound
    output = reference.predict(
        model, ("relu", "tanh", "relu"), core.LOSSES[loss], X, case.method.get("residual", False)
    )
    if case.loss == "binary_log_loss":
        output = np.hstack([1 - output, output])
    predicted = estimator.predict(X) if isinstance(estimator, MLPRegressor) else estimator.predict_proba(X)
    assert np.abs(varied(predicted) - output).max() <= bound


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.settings])
def test_case_differs_from_the_plain_one(name):
    """A parameter that did nothing would not be found by comparing what does nothing either."""
    case = CASES[name]
    X, _, target, n_out, loss = data_for(case.loss)
    with_it, without = (done_again(each, X, target, loss, n_out)[1] for each in (case, Case({}, {}, case.loss)))
    assert max(np.abs(a - b).max() for a, b in zip(with_it.coefs, without.coefs, strict=True)) > 1e-4


def test_cases_name_every_parameter():
    """A training method that is added wants a case."""
    covered = {name for case in CASES.values() for name in case.settings}
    ours = set(MLPClassifier().get_params()) | set(MLPRegressor().get_params())
    theirs = set(sklearn.neural_network.MLPClassifier().get_params()) | set(
        sklearn.neural_network.MLPRegressor().get_params()
    )
    # Elsewhere: element types and threads (test_bits), rmsprop's rho (core/test_trainer.py), scores
    # (test_validation.py).
    assert ours - theirs - {"loss"} - covered == {"dtype", "n_jobs", "rho", "validation_metric"}


def test_hyperparameters_have_one_default():
    assert reference.Hyper._field_defaults == core.HYPERPARAMETERS
    for estimator in (MLPClassifier(), MLPRegressor()):
        assert {name: getattr(estimator, name) for name in core.HYPERPARAMETERS} == core.HYPERPARAMETERS


@pytest.mark.parametrize("name", ["dropout", "noise", "mask", "mixup", "everything"])
def test_draws_follow_random_state(name):
    """The same seed, the same bits; another one, others; and partial_fit, which draws anew in each call, is not the
    same mask twice."""
    X, y, *_ = data_for("log_loss")
    settings = {"hidden_layer_sizes": HIDDEN, "batch_size": BATCH, "max_iter": 2, **CASES[name].settings}
    first, again, other = (
        MLPClassifier(random_state=seed, **settings).fit(X, y).network_.parameters for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    fixed = {
        **settings,
        "shuffle": False,
        "solver": "sgd",
        "momentum": 0.0,
        "learning_rate_init": 1e-12,
        "batch_norm": False,
    }
    estimator = MLPClassifier(random_state=1, **fixed)
    losses = [estimator.partial_fit(X, y, classes=[0, 1, 2]).loss_ for _ in range(3)]
    assert len({round(loss, 6) for loss in losses}) == 3


# --- Defaults change nothing -----------------------------------------------------------------------

NEUTRAL = {
    "dropout": (0.0, 0.0), "batch_norm": False, "residual": False, "max_grad_norm": 1e300, "input_noise": 0.0,
    "input_mask": 0.0,
    "mixup": 0.0, "l1_ratio": 0.0, "weight_decay": 0.0, "pretrained": None, "pretrained_rate": 0.5,
    "weight_init": "auto",
    "bias_init": "auto", "rho": 0.1, "dtype": "float64", "validation_metric": None,
}  # fmt: skip


@pytest.mark.parametrize(
    "settings", [{}, {"early_stopping": True}, {"solver": "sgd", "learning_rate": "adaptive"}], ids=str
)
@pytest.mark.parametrize("cls", ["MLPClassifier", "MLPRegressor"])
def test_neutral_values_leave_sklearns_numbers(cls, settings):
    """With every parameter of ours said and doing nothing, the loss curve is scikit-learn's, and the bits are the
    defaults'."""
    classifies = cls == "MLPClassifier"
    X, y = classification(2) if classifies else regression()
    ours = {"MLPClassifier": MLPClassifier, "MLPRegressor": MLPRegressor}[cls]
    neutral = (
        {**NEUTRAL, "label_smoothing": 0.0, "class_weight": None}
        if classifies
        else {**NEUTRAL, "quantile": 0.3, "huber_delta": 2.0}
    )
    common = {"hidden_layer_sizes": (17,), "max_iter": 20, "random_state": 3, "batch_size": 32, **settings}
    theirs = getattr(sklearn.neural_network, cls)(**common).fit(X, y)
    plain, said = ours(**common).fit(X, y), ours(**common, **neutral).fit(X, y)
    np.testing.assert_allclose(said.loss_curve_, theirs.loss_curve_, rtol=SKLEARN_CURVE_RTOL, atol=0)
    assert said.loss_curve_ == plain.loss_curve_
    np.testing.assert_array_equal(said.network_.parameters, plain.network_.parameters)


def test_neutral_class_weights_and_smoothing_change_no_bit():
    """Weights of 1 for each class, and an eval_set that does not steer."""
    X, y = classification(3)
    settings = {"hidden_layer_sizes": (17,), "max_iter": 5, "random_state": 3}
    plain = MLPClassifier(**settings).fit(X, y)
    weighted = MLPClassifier(**settings, class_weight={0: 1, 1: 1, 2: 1}).fit(X, y)
    watched = MLPClassifier(**settings).fit(X, y, eval_set=(X, y))
    for other in (weighted, watched):
        np.testing.assert_array_equal(other.network_.parameters, plain.network_.parameters)


# --- Losses and weights by what they mean -----------------------------------------------------------------------------

LEARNING = {
    "hidden_layer_sizes": (16,),
    "random_state": 0,
    "max_iter": 400,
    "learning_rate_init": 0.01,
    "n_iter_no_change": np.inf,
}


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_quantile_splits_the_targets(quantile):
    """So large a share of the targets lies below the prediction."""
    X, y = regression(n=500, n_features=2)
    estimator = MLPRegressor("quantile", quantile=quantile, **LEARNING).fit(X, y)
    assert abs(np.mean(y < estimator.predict(X)) - quantile) < 0.05


def test_absolute_error_does_not_mind_outliers():
    """Targets that are a thousand times too large, for one row in twenty: the squared error runs after them."""
    X, y = regression(n=500, n_features=2)
    spoilt = np.where(np.arange(500) % 20 == 0, 1000.0, y)
    settings = {**LEARNING, "learning_rate_init": 0.003}
    errors = {
        loss: np.median(np.abs(MLPRegressor(loss, **settings).fit(X, spoilt).predict(X) - y))
        for loss in ("squared_error", "absolute_error", "huber")
    }
    assert errors["absolute_error"] < 0.2
    assert errors["huber"] < 0.2
    assert errors["squared_error"] > 5


def test_losses_agree_where_they_are_the_same():
    """Huber's is the squared error within delta; the median's pinball loss is half the absolute error."""
    X, y = regression()
    settings = {"hidden_layer_sizes": (9,), "random_state": 0, "max_iter": 10}
    squared, huber = (MLPRegressor(loss, huber_delta=1e3, **settings).fit(X, y) for loss in ("squared_error", "huber"))
    np.testing.assert_allclose(huber.loss_curve_, squared.loss_curve_, rtol=tolerance("float64", 200))
    settings |= {"solver": "sgd", "alpha": 0.0}
    absolute = MLPRegressor("absolute_error", learning_rate_init=0.001, **settings).fit(X, y)
    median = MLPRegressor("quantile", learning_rate_init=0.002, **settings).fit(X, y)
    np.testing.assert_allclose(2 * np.array(median.loss_curve_), absolute.loss_curve_, rtol=tolerance("float64", 200))


@pytest.mark.parametrize("early_stopping", [False, True])
def test_class_weight_is_the_sample_weight_it_stands_for(early_stopping):
    """Balanced, as a dict, on top of weights that are given; in the split's score too."""
    X, y = classification(3)
    keep = np.random.RandomState(0).uniform(size=len(y)) < np.array([0.3, 0.6, 1.0])[y]
    X, y = X[keep], y[keep]
    names = np.array(["a", "b", "c"])[y]
    own = np.random.RandomState(0).uniform(0.5, 2, len(y))
    counts = np.bincount(y)
    settings = {"hidden_layer_sizes": (9,), "random_state": 0, "max_iter": 8, "early_stopping": early_stopping}
    for class_weight, factors in (
        ("balanced", len(y) / (3 * counts)),
        ({"a": 3.0, "c": 0.0}, np.array([3.0, 1.0, 0.0])),
    ):
        for given in (None, own):
            weighted = MLPClassifier(**settings, class_weight=class_weight).fit(X, names, given)
            plain = MLPClassifier(**settings).fit(X, names, factors[y] * (1 if given is None else given))
            np.testing.assert_array_equal(weighted.network_.parameters, plain.network_.parameters)
            assert weighted.validation_scores_ == plain.validation_scores_


def test_class_weight_of_labels_is_their_product():
    """In multi-label, one dict per output; a row counts what its labels make together."""
    X, y = multilabel(n_labels=3)
    settings = {"hidden_layer_sizes": (9,), "random_state": 0, "max_iter": 4}
    factors = [{0: 1.0, 1: 2.0}, {0: 0.5, 1: 1.0}, {0: 1.0, 1: 3.0}]
    weight = np.prod([[factor[label] for label in column] for factor, column in zip(factors, y.T, strict=True)], axis=0)
    weighted = MLPClassifier(**settings, class_weight=factors).fit(X, y)
    np.testing.assert_array_equal(
        weighted.network_.parameters, MLPClassifier(**settings).fit(X, y, weight).network_.parameters
    )


@pytest.mark.parametrize("rule", [*WEIGHT_INITIALISERS, ("normal", 0.3), ("uniform", 0.2), ("constant", 0.1)], ids=str)
def test_initial_values_reach_the_network(rule):
    """A fit that does not move (its rate is nothing) shows what it began with: the reference's draws from
    random_state."""
    X, y = classification(3)
    bias = rule if rule in BIAS_INITIALISERS or isinstance(rule, tuple) else "auto"
    estimator = MLPClassifier(
        (8, 6), "logistic", random_state=5, max_iter=1, learning_rate_init=1e-300, weight_init=rule, bias_init=bias
    ).fit(X, y)
    expected = reference.initialise((13, 8, 6, 3), "logistic", np.random.RandomState(5), rule, bias)
    for ours, theirs in zip(estimator.coefs_ + estimator.intercepts_, [*expected[0], *expected[1]], strict=True):
        assert np.abs(ours - theirs).max() <= tolerance("float64", 13)


# --- Gradients against differences ------------------------------------------------------------------------------------


def least_input(network, X):
    """The least distance from 0 of any activation's input, where kinks are."""
    a, least = X, np.inf
    for layer, (W, b) in enumerate(zip(network.coefs[:-1], network.intercepts[:-1], strict=True)):
        u = reference.normalise(a @ W, network.scales[layer], b)[0] if network.batch_norm else a @ W + b
        least = min(least, np.abs(u).min())
        y = reference.ACTIVATIONS[network.activations[layer]][0](u)
        a = y + a if network.residual and W.shape[0] == W.shape[1] else y
    return least


def assert_gradient(network, X, y, **settings):
    """Each parameter's derivative is the slope of the loss."""
    start, h = network.parameters.copy(), DIFFERENCE_STEP
    statistics = network.statistics.copy()
    _, gradient = network.loss_gradient(X, y, **settings)
    slopes = np.empty_like(gradient)
    for k in range(start.size):
        values = []
        for step in (h, -h):
            network.parameters[k] = start[k] + step
            values.append(network.loss_gradient(X, y, **settings)[0])
        network.parameters[k] = start[k]
        slopes[k] = (values[0] - values[1]) / (2 * h)
    assert np.abs(slopes - varied(gradient)).max() < difference_tolerance(100.0)
    np.testing.assert_array_equal(network.statistics, statistics)


@pytest.mark.parametrize(("batch_norm", "residual"), [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("activation", core.ACTIVATIONS)
def test_gradient_through_layers(activation, batch_norm, residual):
    """Batch normalisation, residual layers and both, for every activation of the table: weights, shifts and scales."""
    for seed in range(100):
        rng = np.random.RandomState(seed)
        network = Network(
            (4, 5, 5, 5, 3), activation, dtype="float64", random_state=rng, batch_norm=batch_norm, residual=residual
        )
        network.parameters = network.parameters + rng.uniform(-0.2, 0.2, network.n_parameters)
        X, y = varied(rng.standard_normal((9, 4))), varied(rng.randint(0, 3, 9))
        if least_input(network, X) > 100 * DIFFERENCE_STEP:
            break
    assert least_input(network, X) > 100 * DIFFERENCE_STEP
    assert_gradient(network, X, y, sample_weight=rng.uniform(0.5, 2, 9), alpha=0.2, l1_ratio=0.3)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(
    ("loss", "smoothing"), [*((loss, 0.0) for loss in core.LOSSES), ("log_loss", 0.3), ("binary_log_loss", 0.3)]
)
def test_gradient_of_losses(loss, smoothing, batch_norm, rng):
    """Every loss with its parameter, away from kinks, and with smoothed labels where there are labels."""
    output = core.LOSSES[loss]
    network = Network((4, 5, 5, 3), "tanh", output, "float64", random_state=rng, batch_norm=batch_norm)
    X = varied(rng.standard_normal((9, 4)))
    if output == "softmax":
        y = varied(rng.randint(0, 3, 9))
    elif output == "logistic":
        y = varied(rng.randint(0, 2, (9, 3)).astype(float))
    else:
        # Residuals of 0.3 to 0.5 and 0.9 to 1.1: on either side of delta = 0.7, and none near 0 or delta.
        a = network.forward(X) if not batch_norm else output_of_a_batch(network, X)
        y = a + rng.choice([-1, 1], a.shape) * (rng.choice([0.4, 1.0], a.shape) + rng.uniform(-0.1, 0.1, a.shape))
        y = np.abs(y) if loss == "poisson" else y
    assert_gradient(
        network, X, y, loss=loss, loss_parameter=0.7, label_smoothing=smoothing, sample_weight=rng.uniform(0.5, 2, 9)
    )


def output_of_a_batch(network, X):
    """Of a tanh network that normalises by the batch itself, as in training."""
    a = X
    for W, b, scale in zip(network.coefs[:-1], network.intercepts[:-1], network.scales, strict=True):
        a = np.tanh(reference.normalise(a @ W, scale, b)[0])
    return reference.OUTPUTS[network.out_activation](a @ network.coefs[-1] + network.intercepts[-1])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_last_batch_of_one_row_counts_as_one_row():
    """Its variance is 0: with a whole batch's say in the running averages it took a score of 0.96 down to 0.70."""
    X, y = regression(n=401, n_features=4)
    settings = {"hidden_layer_sizes": (32,), "batch_norm": True, "batch_size": 200, "max_iter": 150, "random_state": 0}
    settings |= {"learning_rate_init": 0.01, "n_iter_no_change": np.inf}
    whole, rest = (MLPRegressor(**settings).fit(X[:n], y[:n]).score(X[:n], y[:n]) for n in (400, 401))
    assert whole > 0.9
    assert rest > whole - 0.05


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_class_weights_of_a_batch_without_all_classes():
    """partial_fit knows the classes; scikit-learn's weights of what a batch happens to hold called the others
    unknown."""
    X, y = classification(3)
    few = y < 2
    settings = {"hidden_layer_sizes": (4,), "random_state": 0}
    weighted = MLPClassifier(**settings, class_weight={0: 2.0, 2: 3.0}).partial_fit(X[few], y[few], classes=[0, 1, 2])
    plain = MLPClassifier(**settings).partial_fit(X[few], y[few], np.where(y[few] == 0, 2.0, 1.0), classes=[0, 1, 2])
    np.testing.assert_array_equal(weighted.predict_proba(X), plain.predict_proba(X))


@pytest.mark.parametrize("class_weight", [{0: 0, 1: 0}, {0: np.nan}, {1: np.inf}, {1: -1.0}], ids=str)
def test_class_weights_without_a_meaning(class_weight):
    """No ZeroDivisionError, no divergence: the parameter's name."""
    X, y = classification(2)
    with pytest.raises(ValueError, match="class_weight must leave weights that are finite and not negative"):
        MLPClassifier((4,), class_weight=class_weight).fit(X, y)
