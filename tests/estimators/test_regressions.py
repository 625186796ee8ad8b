"""What a hostile review found, so that it stays mended: thread counts, byte orders, refused assignments, misuse of the core."""

from __future__ import annotations

import copy
import sys
import threading
import warnings

import numpy as np
import pytest
import sklearn.neural_network
from helpers import SKLEARN_CURVE_RTOL, classification, regression, varied
from scipy.sparse import csr_array
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network._base import DERIVATIVES as SKLEARN_ACTIVATIONS

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor, Network, core


@pytest.mark.parametrize("activation", [name for name in core.ACTIVATIONS if name in SKLEARN_ACTIVATIONS])
def test_no_hidden_layer_draws_as_sklearn(activation):
    X, y = classification(3)
    curves = []
    for module in (sklearn.neural_network, fastmlp):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimator = module.MLPClassifier((), activation=activation, max_iter=5, random_state=5).fit(X, y)
        curves.append(estimator.loss_curve_)
    np.testing.assert_allclose(curves[1], curves[0], rtol=SKLEARN_CURVE_RTOL)


@pytest.mark.parametrize("n_threads", [0, -1, -9])
def test_forward_refuses_no_threads(n_threads):
    with pytest.raises(ValueError, match="n_threads must be positive"):
        Network((4, 3), random_state=0).forward(np.zeros((9, 4), "f"), n_threads=n_threads)


def test_forward_takes_more_threads_than_there_are():
    network, X = Network((4, 3), random_state=0), np.random.RandomState(0).rand(999, 4)
    np.testing.assert_array_equal(network.forward(X, n_threads=50_000), network.forward(X))


SWAPPED = ">" if sys.byteorder == "little" else "<"


@pytest.mark.parametrize("dtype", [SWAPPED + "f8", SWAPPED + "f4", "c16", "i8", "f2"])
def test_core_refuses_what_it_cannot_read(dtype):
    network = Network((4, 3), dtype="float64", random_state=0)
    X = np.ones((6, 4)).astype(dtype)
    with pytest.raises(ValueError, match="X must be float32 or float64"):
        network.forward(X)
    with pytest.raises(ValueError, match="out must be"):
        network.forward(np.ones((6, 4)), out=np.zeros((6, 3), dtype))


def test_core_reads_mixed_csr_indices():
    X = csr_array(np.random.RandomState(0).rand(20, 4) * (np.arange(4) % 2))
    network = Network((4, 3), random_state=0)
    want = network.forward(X)
    X.indptr = X.indptr.astype(np.int64)
    np.testing.assert_array_equal(network.forward(X), want)
    X.indices = X.indices.astype(np.float64)
    with pytest.raises(ValueError, match="indices"):
        network.forward(X)


def test_network_takes_any_byte_order_as_a_type():
    assert Network((4, 3), dtype=SWAPPED + "f4").parameters.dtype == np.dtype("float32")


def test_refused_coefs_leave_the_model_as_it_was():
    X, y = classification(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MLPClassifier((7,), max_iter=2, random_state=0).fit(X, y)
    before = model.predict_proba(X)
    good = [W.copy() for W in model.coefs_]
    for bad in ([np.zeros((2, 2))] * 2, good[:1], [np.zeros_like(good[0]), good[1] * 1j]):
        with pytest.raises(ValueError, match="coefs"):
            model.coefs_ = bad
        np.testing.assert_array_equal(model.predict_proba(X), before)


def test_packed_records_are_read():
    X, y = classification(3)
    records = np.zeros(len(X), [("flag", "i1"), ("x", "f8", (X.shape[1],))])
    records["x"] = X
    settings = {"hidden_layer_sizes": (7,), "max_iter": 2, "random_state": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want, got = MLPClassifier(**settings).fit(X, y), MLPClassifier(**settings).fit(records["x"], y)
    np.testing.assert_array_equal(got.predict_proba(records["x"]), want.predict_proba(X))


def test_core_objects_cannot_be_half_made_or_remade():
    with pytest.raises(TypeError):
        core.Plan.__new__(core.Plan)
    with pytest.raises(TypeError):
        core.Trainer(None, "log_loss", "adam", 10, 1)
    plan = core.Plan((4, 3), (), "softmax", "float64")
    plan.__init__((400, 300), (), "softmax", "float64")
    assert plan.layer_sizes == (4, 3)


def test_one_trainer_in_two_threads_is_an_error():
    plan = core.Plan((50, 100, 3), ("relu",), "softmax", "float64")
    trainer = core.Trainer(plan, "log_loss", "adam", 100, 1)
    X, y = np.random.RandomState(0).rand(200_000, 50), np.zeros(200_000, np.intp)
    begun, errors = threading.Event(), []

    def train():
        begun.set()
        try:
            trainer.epoch(X, y, None, None, np.full(2000, 1e-3), 0)
        except RuntimeError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=train) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == ["this Trainer is in use: an epoch of it runs, or another thread has it"]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore:lbfgs failed")
@pytest.mark.parametrize(("name", "value"), [
    *(("solver", solver) for solver in ("lbfgs", "sgd", "adam", "rmsprop")), ("loss", "huber"), ("activation", "tanh"),
    ("activation", ["tanh"]), ("dtype", "float32"), ("learning_rate", "cosine"), ("weight_init", "he_normal"),
    ("validation_metric", "r2"),
])  # fmt: skip
def test_names_may_be_numpys(name, value):
    """What a grid over an array of names hands in: NumPy's strings, which are a subclass of Python's."""
    X, y = regression()
    settings = {
        "hidden_layer_sizes": (4,),
        "max_iter": 2,
        "random_state": 0,
        "early_stopping": name == "validation_metric",
    }
    given = np.array(value)[()]
    assert type(value) is not type(given)
    want, got = (MLPRegressor(**settings, **{name: each}).fit(X, y) for each in (value, given))
    np.testing.assert_array_equal(got.predict(X), want.predict(X))


def test_network_names_may_be_numpys():
    X, y = classification(3)
    network = Network((13, 3), np.str_("tanh"), np.str_("softmax"), np.str_("float64"), random_state=0)
    assert network.loss_gradient(X, y, loss=np.str_("log_loss"))[0] == network.loss_gradient(X, y)[0]


# --- Training methods -------------------------------------------------------------------------------------------


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
@pytest.mark.parametrize("early_stopping", [False, True])
def test_running_averages_that_overflow_are_divergence(early_stopping):
    """Squares of 1e25 have no place in float32: the averages were infinite, the parameters finite, the predictions NaN."""
    X, y = classification(2, dtype="float32")
    estimator = MLPClassifier((8,), batch_norm=True, early_stopping=early_stopping, max_iter=3, random_state=0)
    with pytest.raises(ValueError, match=r"in epoch 1 \(.*\): scale the input"):
        estimator.fit(X * np.float32(1e25), y)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_training_goes_on_after_a_divergence_that_was_caught():
    """The best parameters were finite, adam's moments were not: the next partial_fit diverged too."""
    X, y = regression()
    estimator = MLPRegressor(
        hidden_layer_sizes=(8, 8), max_iter=60, random_state=0, learning_rate_init=1e-3, n_iter_no_change=np.inf
    )
    estimator.set_params(learning_rate=lambda step, n_steps: 1.0 if step < 6 else 1e300)
    with pytest.warns(UserWarning, match=r"no longer finite after epoch [2-9]"):
        estimator.fit(X, y, eval_set=(X, y))
    assert np.isfinite(estimator.predict(X)).all()
    estimator.set_params(learning_rate="constant").partial_fit(X, y)
    assert np.isfinite(estimator.loss_)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_scores_that_are_not_numbers_do_not_undo_training():
    """R^2 of one row, say: no score was the best one, and the parameters went back to where they began."""
    X, y = regression()
    settings = {"hidden_layer_sizes": (8,), "max_iter": 5, "random_state": 0}
    plain = MLPRegressor(**settings).fit(X, y)
    judged = MLPRegressor(**settings, early_stopping=True, validation_metric=lambda estimator, X, y: np.nan)
    judged.fit(X, y, eval_set=(X, y))
    assert np.isnan(judged.validation_scores_).all()
    np.testing.assert_array_equal(judged.network_.parameters, plain.network_.parameters)


CONVERGED = {
    "hidden_layer_sizes": (8,),
    "learning_rate_init": 0.02,
    "max_iter": 500,
    "random_state": 0,
    "warm_start": True,
    "tol": 1e-3,
}


@pytest.mark.parametrize(
    "change",
    [
        lambda estimator: estimator.grow((24,), random_state=0),
        lambda estimator: estimator.freeze(),
        lambda estimator: estimator.freeze().unfreeze(1).freeze(0),
    ],
    ids=["grow", "freeze", "freeze both ways"],
)
def test_a_changed_network_gets_its_own_patience(change):
    """After a plateau the count of epochs without improvement stood at its limit: one epoch, and the next fit was over."""
    X, y = classification(3)
    estimator = MLPClassifier(**CONVERGED).fit(X, y)
    assert estimator.n_iter_ < 500
    estimator.set_params(learning_rate_init=1.0)  # nothing gets better now
    assert copy.deepcopy(estimator).fit(X, y).n_iter_ == 1  # unchanged, as in scikit-learn
    change(estimator)
    estimator.fit(X, y)
    assert estimator.n_iter_ > estimator.n_iter_no_change
    assert estimator.best_loss_ == min(estimator.loss_curve_[-estimator.n_iter_ :])


def test_a_changed_metric_is_a_new_measure():
    """No log-loss, which is below 0 as a score, is better than an accuracy: the run ended at once, where it had begun."""
    X, y = classification(3)
    estimator = MLPClassifier(**CONVERGED, early_stopping=True).fit(X, y)
    start = estimator.network_.parameters.copy()
    estimator.set_params(validation_metric="neg_log_loss", learning_rate_init=1e-4, max_iter=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(X, y)
    assert estimator.n_iter_ == 3
    assert estimator.best_validation_score_ == max(estimator.validation_scores_[-3:]) < 0
    assert not np.array_equal(estimator.network_.parameters, start)


def test_early_stopping_goes_by_the_loss_that_was_asked_for():
    """R^2 is least for the mean, not for a quantile: by it, a run that learns the 95 % quantile was ended at its beginning."""
    rng = np.random.RandomState(0)
    X = varied(rng.uniform(-1, 1, (2000, 3)))
    y = X @ [1.0, -2.0, 0.5] + rng.exponential(size=2000)
    fitted = MLPRegressor(
        "quantile", (16,), quantile=0.95, early_stopping=True, learning_rate_init=0.01, max_iter=100, random_state=0
    ).fit(X, y)
    assert 0.92 < np.mean(y < fitted.predict(X)) < 0.98
    np.testing.assert_array_equal(fitted.validation_scores_, np.negative(fitted.validation_loss_curve_))


def test_grow_takes_a_number():
    """As the constructor does."""
    X, y = classification(2)
    estimator = MLPClassifier(8, max_iter=2, random_state=0)
    with pytest.warns(ConvergenceWarning):
        estimator.fit(X, y)
    assert estimator.grow(32).network_.layer_sizes == (X.shape[1], 32, 1)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_metric_without_weights_takes_weighted_rows():
    """(estimator, X, y) -> float, as it is documented, and metrics that know no weights: a TypeError after the first epoch."""
    X, y = classification(2)
    settings = {"hidden_layer_sizes": (4,), "max_iter": 2, "random_state": 0, "early_stopping": True}
    weight = np.linspace(0.5, 2, len(X))
    plain = MLPClassifier(**settings, validation_metric=lambda estimator, X, y: estimator.score(X, y))
    for arguments in ({"sample_weight": weight}, {"eval_set": (X, y), "sample_weight_eval": weight}):
        assert 0 < plain.fit(X, y, **arguments).best_validation_score_ <= 1
    assert plain.set_params(class_weight="balanced").fit(X, y).best_validation_score_ > 0
    assert MLPRegressor(**settings, validation_metric="neg_max_error").fit(X, y, weight).best_validation_score_ < 0
    got = []

    def weighted(estimator, X, y, sample_weight=None):
        got.append(sample_weight)
        return estimator.score(X, y, sample_weight)

    judged = MLPClassifier(**settings, validation_metric=weighted).fit(X, y, eval_set=(X, y), sample_weight_eval=weight)
    np.testing.assert_array_equal(got, [weight, weight])
    by_default = MLPClassifier(**settings).fit(X, y, eval_set=(X, y), sample_weight_eval=weight)
    assert judged.validation_scores_ == by_default.validation_scores_


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_class_weights_of_a_batch_without_all_classes():
    """partial_fit knows the classes; scikit-learn's weights of what a batch happens to hold called the others unknown."""
    X, y = classification(3)
    few = y < 2
    settings = {"hidden_layer_sizes": (4,), "random_state": 0}
    weighted = MLPClassifier(**settings, class_weight={0: 2.0, 2: 3.0}).partial_fit(X[few], y[few], classes=[0, 1, 2])
    plain = MLPClassifier(**settings).partial_fit(X[few], y[few], np.where(y[few] == 0, 2.0, 1.0), classes=[0, 1, 2])
    np.testing.assert_array_equal(weighted.predict_proba(X), plain.predict_proba(X))


@pytest.mark.parametrize("class_weight", [{0: 0, 1: 0}, {0: np.nan}, {1: np.inf}], ids=str)
def test_class_weights_that_leave_nothing_to_learn_from(class_weight):
    """No ZeroDivisionError, no divergence: the parameter's name."""
    X, y = classification(2)
    with pytest.raises(ValueError, match="class_weight must leave finite weights"):
        MLPClassifier((4,), class_weight=class_weight).fit(X, y)


@pytest.mark.parametrize("name", ["coefs", "intercepts", "scales", "means", "variances"])
def test_replaced_arrays_are_adopted_alike(name):
    """``folded`` went by scales and averages that were put in place of views, ``forward`` by those that had been there."""
    X = np.random.RandomState(0).standard_normal((20, 4))
    network = Network((4, 6, 5, 3), "tanh", dtype="float64", random_state=0, batch_norm=True)
    written = network.copy()
    getattr(written, name)[1][...] *= 3
    getattr(written, name)[1][...] += 1
    getattr(network, name)[1] = getattr(network, name)[1] * 3 + 1
    folded = network.folded()
    np.testing.assert_array_equal(network.forward(X), written.forward(X))
    np.testing.assert_array_equal(folded.forward(X), written.folded().forward(X))
    assert getattr(network, name)[1].base is not None
    before = network.forward(X)
    for bad in (np.zeros(2), getattr(network, name)[1] * 1j):
        getattr(network, name)[1] = bad
        with pytest.raises(ValueError, match=rf"{name}\[1\] must have shape"):
            network.adopt()
    np.testing.assert_array_equal(network.forward(X), before)


def test_unfrozen_layers_begin_with_small_steps():
    """adam's first step is the learning rate, its later ones are not much more. For layers that had been frozen it took the count
    of all updates, and made their steps six times as large."""
    X, y = classification(3)
    rate = 1e-6
    estimator = MLPClassifier((8,), random_state=0, batch_size=20, learning_rate_init=rate, shuffle=False)
    estimator.partial_fit(X, y, classes=[0, 1, 2]).freeze(0)
    for _ in range(40):
        estimator.partial_fit(X, y)
    before = estimator.coefs_[0].copy()
    estimator.unfreeze().partial_fit(X, y)
    n_steps = -(-len(X) // 20)
    moved = np.abs(estimator.coefs_[0] - before).max()
    assert 0.5 * rate < moved <= 1.5 * rate * n_steps


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore::RuntimeWarning")
def test_clipping_of_gradients_whose_squares_overflow():
    """Beyond 2e19 in float32 the norm was infinite and the factor 0: no step was made, and none was missed. Where doubles end,
    it is divergence."""
    X, y = classification(2, dtype="float32")
    settings = {
        "hidden_layer_sizes": (8,),
        "activation": "identity",
        "solver": "sgd",
        "max_grad_norm": 1.0,
        "learning_rate_init": 0.1,
    }
    estimator = MLPClassifier(**settings, random_state=0, max_iter=20)
    losses = estimator.fit(X * np.float32(1e25), y).loss_curve_
    assert losses[-1] < 0.5 * losses[0]
    with pytest.raises(ValueError, match=r"in epoch 1 \(.*\): scale the input"):
        estimator.fit(X.astype(np.float64) * 1e200, y)


def test_coefs_of_an_unfitted_estimator_are_missing_by_name():
    for name in ("coefs_", "intercepts_"):
        with pytest.raises(AttributeError, match=f"'MLPClassifier' object has no attribute '{name}'"):
            getattr(MLPClassifier(), name)
