"""Bad numbers: overflow, underflow, constant data, sizes beyond memory; the error's words, and the estimator
afterwards."""

from __future__ import annotations

import pickle
import sys
import warnings

import numpy as np
import pytest
from helpers import SANITIZED, classification, counts, output_of_fork, regression, tolerance, varied
from scipy import sparse
from sklearn import neural_network as sklearn_mlp
from sklearn.exceptions import ConvergenceWarning
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier

from fastmlp import MLPClassifier, MLPEnsembleClassifier, MLPRegressor, core, from_sklearn, load, reference
from fastmlp.core._testing import Kernels

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL = {"hidden_layer_sizes": (9,), "max_iter": 3, "random_state": 0}
X, Y = classification(3)
REAL = regression()[1]
COUNTS = counts()[1]
MACHINE = [(isa, dtype) for isa in core.info()["available"] for dtype in core.info()["dtypes"]]
LARGEST = {"float32": 3e38, "float64": 1e308}


@pytest.fixture(params=MACHINE, ids="-".join)
def kernels(request):
    return Kernels(*request.param)


# --- outputs and losses at the ends of the element type ------------------------------------------------------------


def logits(dtype, columns, infinite=True):
    """Rows (n, columns) of ordinary, huge and, if asked, infinite numbers."""
    big = LARGEST[dtype]
    ends = [0.0, 1.0, 1e30, -1e30, big, -big] + [np.inf, -np.inf] * infinite
    rows = [
        [ends[(first + step * column) % len(ends)] for column in range(columns)]
        for first in range(len(ends))
        for step in (0, 1, 3)
    ]
    return varied(np.array(rows, dtype))


@pytest.mark.parametrize("columns", [2, 3, 16, 17, 40])
def test_softmax_of_overflowed_logits_is_a_distribution(kernels, columns):
    """Infinite logits share the row, as the largest do; the reference says the same."""
    z = logits(kernels.dtype, columns)
    a = kernels.output("softmax", z)
    np.testing.assert_allclose(a, reference.OUTPUTS["softmax"](z), atol=tolerance(kernels.dtype, columns))
    np.testing.assert_allclose(a.sum(axis=1), 1, atol=tolerance(kernels.dtype, columns))
    most = (z == z.max(axis=1, keepdims=True)) & (z.max(axis=1, keepdims=True) != 1)  # 1 shares with 0
    np.testing.assert_allclose(
        a[most], (most / np.maximum(most.sum(axis=1, keepdims=True), 1))[most], atol=tolerance(kernels.dtype, columns)
    )


@pytest.mark.parametrize("columns", [2, 17])
def test_softmax_hides_no_nan(kernels, columns):
    z = logits(kernels.dtype, columns)
    z[:, 1] = np.nan
    assert np.isnan(kernels.output("softmax", z)).all(axis=1).all()


def test_logistic_and_exp_at_their_ends(kernels):
    z = logits(kernels.dtype, 4)
    assert np.array_equal(
        kernels.output("logistic", z),
        np.where(z == 0, 0.5, np.where(z == 1, kernels.output("logistic", np.ones((1, 1)))[0, 0], z > 0)),
    )
    a = kernels.output("exp", z)
    assert not np.isnan(a).any()
    assert np.array_equal(a[abs(z) > 1], np.where(z > 0, np.inf, 0)[abs(z) > 1])


def targets(loss, shape):
    """Class indices, indicators or counts that vary."""
    if loss == "log_loss":
        return np.arange(shape[0], dtype=np.intp) % shape[1]
    return varied((np.arange(shape[0] * shape[1]).reshape(shape) % 3 > 0).astype(float)) * (
        5 if loss == "poisson" else 1
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("loss", ["log_loss", "binary_log_loss", "poisson"])
def test_losses_of_overflowed_outputs_are_numbers(kernels, loss, smoothing):
    """No NaN, and no loss below 0; the gradient of a probability stays within 1."""
    z = logits(kernels.dtype, 4)
    dz, value = kernels.loss(loss, z, targets(loss, z.shape), smoothing=smoothing)[:2]
    assert not np.isnan(value).any()
    assert not np.isnan(dz).any()
    assert (np.asarray(value) >= 0).all()
    if loss == "poisson":  # e^z outweighs all else
        assert np.array_equal(np.isinf(dz), z > 1)
        assert np.isinf(value[(z > 1).any(axis=1)]).all()
    else:
        assert np.isfinite(value).all()
        assert np.abs(dz).max() <= 1


def test_poisson_of_a_quotient_that_underflows(kernels):
    """y / a was 0 and its logarithm -infinity: a loss of -infinity for the worst of predictions."""
    tiny, z = float(np.finfo(kernels.dtype).tiny) * 1e3, np.log(np.array([[LARGEST[kernels.dtype]]])) - 1
    value = kernels.loss("poisson", z, np.array([[tiny]]))[1]
    np.testing.assert_allclose(value, np.exp(z[0]), rtol=tolerance(kernels.dtype, 1, float(z[0, 0])))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("Estimator", "y", "methods"), [
    (MLPClassifier, Y, ("predict", "predict_proba")), (MLPClassifier, Y > 0, ("predict", "predict_proba")),
    (MLPRegressor, COUNTS, ("predict",)),
], ids=["softmax", "logistic", "poisson"])  # fmt: skip
def test_predictions_of_weights_that_overflow_are_numbers(Estimator, y, methods, dtype):
    """Weights whose products are infinite: probabilities are 0 or 1, means 0 or infinite, and none is NaN."""
    settings = {**SMALL, "hidden_layer_sizes": (), "dtype": dtype}
    fitted = Estimator(**settings, **({"loss": "poisson"} if Estimator is MLPRegressor else {})).fit(X, y)
    fitted.coefs_[0][:] = 0
    fitted.coefs_[0][0] = np.where(np.arange(fitted.coefs_[0].shape[1]) % 2, -1, 1) * LARGEST[dtype]
    huge = np.where(np.abs(X) > 0.1, X * 100, 100)
    for method in methods:
        for n_rows in (1, 50, len(X)):
            assert not np.isnan(getattr(fitted, method)(huge[:n_rows])).any()


# --- numbers that an element type does not hold -----------------------------------------------------------------------


def state(estimator):
    """Attributes of an estimator, and copies of its arrays."""
    return dict(vars(estimator)), estimator.network_.parameters.copy(), estimator.network_.statistics.copy()


def assert_same_state(estimator, before):
    """Nothing was replaced, nothing written to."""
    attributes, parameters, statistics = before
    now = vars(estimator)
    assert {name: now.get(name) for name in attributes if name.endswith("_") or name.startswith("_")} == {
        name: value for name, value in attributes.items() if name.endswith("_") or name.startswith("_")
    }
    assert all(now[name] is attributes[name] for name in attributes if name not in estimator.get_params())
    assert np.array_equal(estimator.network_.parameters, parameters)
    assert np.array_equal(estimator.network_.statistics, statistics)


def huge(value, row=5, column=2):
    """X with one element replaced."""
    bad = X.copy()
    bad[row, column] = value
    return bad


W = np.linspace(0.5, 1.5, len(X))
BEYOND = {
    "X": (
        MLPClassifier,
        huge(1e39),
        Y,
        None,
        r"Input X contains infinity or a value too large for dtype\('float32'\): it reaches 1e\+39",
    ),
    "-X": (MLPClassifier, huge(-1e300), Y, None, "Input X .*it reaches 1e[+]300"),
    "sparse X": (MLPClassifier, sparse.csr_array(huge(1e39)), Y, None, "Input X .*too large"),
    "y": (
        MLPRegressor,
        X,
        np.where(REAL > 0, REAL, -1e39),
        None,
        r"Input y .*too large for dtype\('float32'\): it reaches 1e\+39",
    ),
    "weights": (
        MLPClassifier,
        X,
        Y,
        W * 1e300,
        "sample_weight must have its largest value in the range of float32, got 1.5e[+]300",
    ),
    "tiny weights": (
        MLPClassifier,
        X,
        Y,
        W * 1e-60,
        "sample_weight must have its largest value in the range of float32, got 1.5e-60",
    ),
}


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("name", BEYOND)
def test_numbers_beyond_float32_are_refused(name, method):
    """They would be infinite, or weigh nothing; float64 holds them. The error has the figure; a fitted estimator is as
    it was."""
    Estimator, bad_X, bad_y, weight, message = BEYOND[name]
    fitted = Estimator(**SMALL, dtype="float32").fit(X, Y if Estimator is MLPClassifier else REAL)
    before = state(fitted)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=message):
            getattr(fitted, method)(bad_X, bad_y, weight)
        if Estimator is MLPClassifier and weight is None:
            with pytest.raises(ValueError, match="eval_set must be .*" + message):
                fitted.fit(X, Y, eval_set=(bad_X, bad_y))
            for predict in (fitted.predict, fitted.predict_proba, fitted.predict_log_proba):
                with pytest.raises(ValueError, match=message):
                    predict(bad_X)
    assert_same_state(fitted, before)


def test_ensemble_refuses_numbers_beyond_float32():
    ensemble = MLPEnsembleClassifier(MLPClassifier(**SMALL, dtype="float32"), 2).fit(X, Y)
    with pytest.raises(ValueError, match="too large"):
        ensemble.predict(huge(1e39))


WEIGHTS = {
    "all 0": (np.zeros(len(X)), "non-zero"),
    "negative": (np.where(np.arange(len(X)) >= 7, -0.5, 1.0), "sample_weight must not be negative, got -0.5 for row 7"),
    "adding up to infinity": (np.full(len(X), 1e307), "finite sum, got inf"),
    "NaN": (np.where(W > 1, np.nan, W), "contains NaN"),
    "infinity": (np.where(W > 1, np.inf, W), "contains infinity"),
    "words": (np.full(len(X), "much"), "could not convert|numeric"),
    "too few": (W[:-1], "sample_weight.shape"),
    "2-D": (np.stack([W, W], axis=1), "give a weight for each row, in one dimension"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_without_a_meaning_are_refused(name):
    """By fit, partial_fit and eval_set; a fitted estimator is as it was."""
    weight, message = WEIGHTS[name]
    fitted = MLPClassifier(**SMALL).fit(X, Y)
    before = state(fitted)
    for call in (
        lambda: fitted.fit(X, Y, weight),
        lambda: fitted.partial_fit(X, Y, weight),
        lambda: fitted.fit(X, Y, eval_set=(X, Y), sample_weight_eval=weight),
        lambda: MLPEnsembleClassifier(MLPClassifier(**SMALL), 2).fit(X, Y, weight),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert_same_state(fitted, before)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_weights_of_any_common_size_train_alike(solver, dtype):
    """Without a penalty, a factor on all weights changes nothing: a power of 2 not a bit, subnormal or huge as they may
    be."""
    settings = {**SMALL, "solver": solver, "dtype": dtype, "alpha": 0.0}
    want = MLPClassifier(**settings).fit(X, Y, W).network_.parameters
    for exponent in (-100, 100) if dtype == "float32" else (-1000, 900):
        got = MLPClassifier(**settings).fit(X, Y, W * 2.0**exponent).network_.parameters
        assert np.array_equal(got, want) or solver == "lbfgs"
        np.testing.assert_allclose(got, want, atol=tolerance("float32", 200))


# --- data with nothing to learn from ----------------------------------------------------------------------------------


def shapes():
    """Data that do not vary, are few, or wide."""
    wide = np.random.RandomState(0).standard_normal((5, 300))
    return {
        "no variance": (np.full_like(X, 3.0), Y, REAL),
        "zeros": (np.zeros_like(X), Y, REAL),
        "a column without variance": (huge(0, slice(None)), Y, REAL),
        "more features than rows": (wide, np.arange(5) % 2, np.arange(5.0)),
        "two rows": (X[:2], np.array([0, 1]), REAL[:2]),
        "twice the same rows": (np.repeat(X[:1], 40, axis=0), np.arange(40) % 2, REAL[:40]),
        "one column": (X[:, :1], Y, REAL),
        "targets without variance": (X, Y, np.full(len(X), 7.0)),
        "targets of 0": (X, Y, np.zeros(len(X))),
        "subnormal": (X * 1e-310, Y, REAL * 1e-310),
        "huge": (X * 1e15, Y, REAL * 1e15),
    }


PLAIN_DATA_SETTINGS = [{}, {"solver": "sgd"}, {"solver": "lbfgs"}, {"batch_norm": True}, {"activation": "gelu"}]


@pytest.mark.parametrize(("name", "settings"), [
    (name, settings) for name in shapes() for settings in PLAIN_DATA_SETTINGS
    if (name, settings) != ("huge", {"solver": "sgd"})  # diverges, and should: test_divergence_is_named
], ids=str)  # fmt: skip
def test_data_with_little_in_them_train_to_numbers(name, settings):
    """Finite parameters, losses and predictions, wherever scikit-learn's MLP has them."""
    data, labels, numbers = shapes()[name]
    for Estimator, y in ((MLPClassifier, labels), (MLPRegressor, numbers)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted = Estimator(**SMALL, **settings).fit(data, y)
        assert np.isfinite(fitted.network_.parameters).all()
        assert np.isfinite(fitted.loss_)
        assert np.isfinite(fitted.predict(data)).all()
        if settings.get("activation") != "gelu" and not settings.get("batch_norm"):
            theirs = getattr(sklearn_mlp, Estimator.__name__)(**SMALL, **settings).fit(data, y)
            assert np.isfinite(theirs.loss_)


def test_one_row_trains():
    """A regressor; a classifier in partial_fit, which knows the classes."""
    assert np.isfinite(MLPRegressor(**SMALL).fit(X[:1], REAL[:1]).predict(X)).all()
    assert np.isfinite(MLPRegressor(**SMALL, solver="lbfgs").fit(X[:1], REAL[:1]).predict(X)).all()
    assert np.isfinite(MLPClassifier(**SMALL).partial_fit(X[:1], Y[:1], classes=[0, 1, 2]).predict_proba(X)).all()


ONE_CLASS = [np.zeros(len(X), int), np.ones(len(X)), np.full(len(X), "yes"), np.full(len(X), True)]


@pytest.mark.parametrize("y", ONE_CLASS, ids=lambda y: str(y[0]))
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"solver": "lbfgs"},
        {"early_stopping": True, "validation_metric": "neg_log_loss"},
        {"class_weight": "balanced", "dtype": "float32"},
    ],
    ids=str,
)
def test_one_class_is_predicted_with_certainty(settings, y, tmp_path):
    """With a warning that names it, as scikit-learn's forests do; also after a file, a pickle, and from scikit-learn's
    network."""
    fitted = MLPClassifier(**SMALL, **settings)
    with pytest.warns(UserWarning, match=f"only one class, {y.tolist()[0]!r}"):
        fitted.fit(X, y)
    fitted.save(tmp_path / "model")
    for model in (fitted, load(tmp_path / "model"), pickle.loads(pickle.dumps(fitted))):
        assert np.array_equal(model.predict(X), y)
        assert np.array_equal(model.predict_proba(X), np.ones((len(X), 1)))
        assert np.array_equal(model.predict_log_proba(X), np.zeros((len(X), 1)))
    assert np.array_equal(fitted.to_sklearn().predict(X), y)
    theirs = sklearn_mlp.MLPClassifier((3,), max_iter=2).fit(X, y)
    assert np.array_equal(from_sklearn(theirs).predict(X), theirs.predict(X))


def test_one_class_in_partial_fit():
    """MultiOutputClassifier hands each column's classes on."""
    model = MLPClassifier(**SMALL)
    with pytest.warns(UserWarning, match="classes contains only one class, 'u'"):
        model.partial_fit(X, ["u"] * len(X), classes=["u"])
    assert np.array_equal(model.partial_fit(X[:1], ["u"]).predict_proba(X), np.ones((len(X), 1)))
    with pytest.raises(ValueError, match=r"classes not in `self.classes_`"):
        model.partial_fit(X[:1], ["v"])


@pytest.mark.filterwarnings("ignore:y contains only one class")
def test_one_class_within_other_estimators():
    both = np.column_stack([np.asarray(Y) == Y[0], np.zeros(len(X), bool)]).astype(int)
    for outer in (MultiOutputClassifier, ClassifierChain):
        assert not outer(MLPClassifier(**SMALL)).fit(X, both).predict(X)[:, 1].any()
    assert np.array_equal(MLPEnsembleClassifier(MLPClassifier(**SMALL), 2).fit(X, both[:, 1]).predict(X), both[:, 1])


@pytest.mark.parametrize(("Estimator", "y", "message"), [
    (MLPClassifier, Y[:-1], "inconsistent numbers of samples"),
    (MLPRegressor, REAL[:-1], "inconsistent numbers of samples"),
    (MLPClassifier, Y[:0], "0 sample"),
    (MLPRegressor, np.where(REAL > 0, REAL, np.nan), "Input y contains NaN"),
    (MLPRegressor, np.where(REAL > 0, REAL, np.inf), "Input y contains infinity"),
    (MLPRegressor, REAL[:, np.newaxis, np.newaxis], "dim 3"),
    (MLPRegressor, None, "requires y to be passed"),
    (MLPRegressor, REAL + 1j, "Complex data not supported"),
    (MLPClassifier, np.where(Y > 0, Y, np.nan), "Input y contains NaN"),
    (MLPClassifier, Y[:, np.newaxis, np.newaxis], "dim 3"),
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_bad_targets_are_refused(Estimator, y, message):
    """By scikit-learn's MLP in the same words; a fitted estimator is as it was."""
    fitted = Estimator(**SMALL).fit(X, Y if Estimator is MLPClassifier else REAL)
    before = state(fitted)
    for call in (fitted.fit, fitted.partial_fit, getattr(sklearn_mlp, Estimator.__name__)(**SMALL).fit):
        with pytest.raises(ValueError, match=message):
            call(X, y)
    assert_same_state(fitted, before)


# --- sizes ------------------------------------------------------------------------------------------------------------

# Under a limit on its address space, so that the error does not depend on the machine.
LIMITED = """
import resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
import warnings
import numpy as np
from fastmlp import MLPClassifier, Network
warnings.simplefilter("ignore")
X, y = np.random.RandomState(0).rand(20, 5), np.arange(20) % 2
fitted = MLPClassifier((3,), max_iter=2, random_state=0, n_iter_no_change=1, tol=10.0).fit(X, y)
before, attributes = fitted.predict_proba(X), set(vars(fitted))
class Undrawn(np.random.RandomState):
    def uniform(self, *arguments):
        raise AssertionError("drawn")
drawn = Undrawn(0)
for sizes in [(70000, 70000), (2**31,), (2**62,), (2**63, 2), (10**30,)]:
    for settings in ({"solver": "adam"}, {"solver": "lbfgs"}, {"solver": "sgd", "dtype": "float32"}):
        fitted.set_params(hidden_layer_sizes=sizes, random_state=drawn, **settings)
        try:
            fitted.fit(X, y)
        except MemoryError as error:
            print(error)
        assert np.array_equal(fitted.predict_proba(X), before) and set(vars(fitted)) == attributes
    try:
        Network((5, *sizes, 2), random_state=drawn)
    except MemoryError as error:
        print(error)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or SANITIZED,
    reason="a limit on the address space is Linux's, and sanitizers need more of it",
)
def test_layers_that_memory_cannot_hold_are_refused_with_the_figure():
    """Before anything is drawn or changed."""
    lines = output_of_fork(LIMITED).splitlines()
    assert len(lines) == 20
    assert lines[0].startswith(
        "hidden_layer_sizes=(70000, 70000), with 5 features and 1 outputs, makes 4,900,560,001 parameters."
    )
    assert lines[0].endswith("needs at least 146 GiB of memory, and there are 8 GiB. Take fewer units.")
    assert lines[3].startswith("A network of layers (5, 70000, 70000, 2) has")
    assert lines[3].endswith("needs at least 18.3 GiB of memory, and there are 8 GiB. Take fewer units.")
    assert all("GiB" in line for line in lines)


@pytest.mark.parametrize("settings", [
    {"max_iter": 2**70, "n_iter_no_change": 1, "tol": 10.0},
    {"max_iter": 2**70, "n_iter_no_change": 1, "tol": 10.0, "learning_rate": "cosine"},
    {"n_iter_no_change": 2**70}, {"n_jobs": 2**40}, {"solver": "lbfgs", "max_fun": 2**70}, {"batch_size": 2**70},
], ids=str)  # fmt: skip
def test_huge_counts_are_counts(settings):
    """More than 64 bits: scikit-learn takes them too."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Got `batch_size` less than 1 or larger")
        assert MLPClassifier(**{**SMALL, **settings}).fit(X, Y).n_iter_ < 10


def test_core_refuses_sizes_that_overflow():
    """Bytes beyond 64 bits; they wrapped around to a few, and would have been written beyond."""
    for sizes in ((2**62, 4, 2), (2**63, 1), (2**31, 2**31), (10**30, 2)):
        with pytest.raises(MemoryError, match=r"make .* parameters"):
            core.Plan(sizes, ("relu",) * (len(sizes) - 2), "softmax", "float32")
    plan = core.Plan((5, 4, 2), ("relu",), "softmax", "float32", True)
    for batch_size in (2**62, 2**59, 2**50):
        with pytest.raises(MemoryError, match=rf"batches of {batch_size} rows .* GiB"):
            core.Trainer(plan, "log_loss", "adam", batch_size, 1)
    with pytest.raises(MemoryError, match="on 2000000000 threads"):
        core.Trainer(core.Plan((1, 2**20), (), "softmax", "float32"), "log_loss", "sgd", 1, 2_000_000_000)


# --- divergence -------------------------------------------------------------------------------------------------------


def explode(after, rate=1e300):
    """A learning rate that leaves reason behind after some steps."""
    return lambda step, n_steps: 1.0 if step < after else rate


NAMED = (
    r"Solver produced non-finite parameter weights\..*"
    r"in epoch {epoch} \(learning rate {rate}, layers \[{layers}\] of 3\)"
)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("solver", ["adam", "sgd", "rmsprop", "adamw"])
@pytest.mark.parametrize("epoch", [1, 4])
def test_divergence_is_named(epoch, solver, dtype):
    """The epoch in which it happens, not a later one; the rates of its steps; the layers. The estimator is as it
    was."""
    settings = {
        "hidden_layer_sizes": (9, 7),
        "max_iter": 9,
        "random_state": 0,
        "batch_size": 50,
        "n_iter_no_change": np.inf,
    }
    fitted = MLPRegressor(**settings, solver=solver, dtype=dtype).fit(X, REAL)
    before = state(fitted)
    n_steps = -(-len(X) // 50)
    fitted.set_params(learning_rate=explode((epoch - 1) * n_steps + 2), learning_rate_init=1e-3)
    with pytest.raises(ValueError, match=NAMED.format(epoch=epoch, rate=r"0\.001 to 1e\+297", layers="[0-2, ]+")):
        fitted.fit(X, REAL)
    assert_same_state(fitted, before)
    fitted.set_params(learning_rate="constant").partial_fit(X, REAL)
    assert np.isfinite(fitted.loss_)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_divergence_names_the_layer(layer):
    """Of layers that do not learn, none diverges."""
    settings = {
        "hidden_layer_sizes": (9, 7),
        "random_state": 0,
        "activation": "tanh",
        "solver": "sgd",
        "learning_rate_init": 1e308,
    }
    fitted = (
        MLPRegressor(**settings)
        .set_params(learning_rate_init=1e-3)
        .partial_fit(X, REAL)
        .freeze([0, 1, 2])
        .unfreeze(layer)
    )
    fitted.set_params(learning_rate_init=1e308)
    with pytest.raises(ValueError, match=NAMED.format(epoch=1, rate=r"1e\+308", layers=layer)):
        fitted.partial_fit(X * 1e3, REAL * 1e3)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("own_eval_set", [False, True])
def test_divergence_keeps_the_best_parameters(early_stopping, own_eval_set):
    """With rows to score on, a run that diverges ends with the parameters that scored best, and a warning that names
    it."""
    settings = {
        "hidden_layer_sizes": (9, 7),
        "max_iter": 9,
        "random_state": 0,
        "batch_size": 60,
        "n_iter_no_change": np.inf,
    }
    settings |= {"early_stopping": early_stopping, "validation_metric": "neg_mean_absolute_error"}
    arguments = {"eval_set": (X[:50], REAL[:50])} if own_eval_set or not early_stopping else {}
    estimator = MLPRegressor(
        **settings, learning_rate=explode(16)
    )  # four steps make an epoch, with the split and without
    with pytest.warns(
        ConvergenceWarning, match=r"no longer finite after epoch 5 \(learning rate 1e\+297, layers \[[0-2, ]+\] of 3\)"
    ):
        estimator.fit(X, REAL, **arguments)
    assert estimator.n_iter_ == 5
    assert np.isfinite(estimator.predict(X)).all()
    assert len(estimator.validation_scores_) == 4
    best = int(np.argmax(estimator.validation_scores_)) + 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same = MLPRegressor(**{**settings, "max_iter": best}).fit(X, REAL, **arguments)
    assert np.array_equal(estimator.network_.parameters, same.network_.parameters)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("Estimator", "y", "settings"), [
    (MLPClassifier, Y, {}), (MLPClassifier, Y > 0, {}), (MLPRegressor, COUNTS, {"loss": "poisson"}),
    (MLPRegressor, REAL, {}),
], ids=["softmax", "logistic", "poisson", "squared_error"])  # fmt: skip
@pytest.mark.parametrize("factor", [1e8, 1e18, 1e36])
def test_huge_input_trains_to_numbers_or_is_refused(Estimator, y, settings, factor):
    """float32: either a model whose parameters, loss and predictions are numbers, or an error that names what
    happened."""
    data = (X * factor).astype(np.float32)
    estimator = Estimator(**SMALL, **settings)
    try:
        estimator.fit(data, y)
    except ValueError as error:
        assert "It happened in epoch" in str(error)  # noqa: PT017
        assert not hasattr(estimator, "network_")
        return
    assert np.isfinite(estimator.network_.parameters).all()
    assert not np.isnan(estimator.loss_curve_).any()
    assert not np.isnan(estimator.predict(data)).any()


def test_a_score_of_predictions_that_overflow_is_none():
    """A metric that raises at infinity does not end the run: the epoch has no score."""
    data, settings = (
        X.astype(np.float32),
        {**SMALL, "loss": "poisson", "validation_metric": "neg_mean_poisson_deviance"},
    )
    judged = MLPRegressor(**settings).fit(data, COUNTS, eval_set=(data * 1e4, COUNTS))
    assert np.isinf(judged.predict(data * 1e4)).any()
    assert np.isnan(judged.validation_scores_).all()
    assert np.array_equal(judged.network_.parameters, MLPRegressor(**settings).fit(data, COUNTS).network_.parameters)


@pytest.mark.parametrize("solver", ["adam", "adagrad", "rmsprop"])
def test_averages_that_overflow_are_told_of(solver):
    """Squares of gradients of 1e25 are infinite in float32, and steps 0: training stood still without a word."""
    data = (X * 1e25).astype(np.float32)
    with pytest.warns(
        ConvergenceWarning, match=rf"Gradients overflowed in the averages of solver='{solver}'.*Scale the input"
    ):
        MLPClassifier(**SMALL, solver=solver).fit(data, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*Maximum iterations")
        MLPClassifier(**SMALL, solver=solver).fit(X.astype(np.float32), Y)


def test_averages_that_overflow_in_members_are_told_of():
    with pytest.warns(ConvergenceWarning, match="Gradients overflowed in the averages .* in 2 of 2 members"):
        MLPEnsembleClassifier(MLPClassifier(**SMALL), 2, random_state=0).fit((X * 1e25).astype(np.float32), Y)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_lbfgs_names_a_loss_that_is_no_number():
    """It stopped where it had begun, with NaN as its loss."""
    fitted = MLPRegressor(**SMALL, solver="lbfgs").fit(X, REAL)
    before = state(fitted)
    with pytest.raises(
        ValueError, match=r"Solver produced non-finite.*in the loss, after 0 iterations: scale the input\."
    ):
        fitted.fit(X * 1e300, REAL * 1e300)
    assert_same_state(fitted, before)


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber", "quantile"])
@pytest.mark.parametrize(("value", "word"), [(np.inf, "infinity"), (None, "NaN"), (np.nan, "NaN")])
def test_targets_among_objects_are_looked_at(loss, value, word):
    """scikit-learn looks at objects before they are numbers. In ``eval_set`` too."""
    X, y = np.random.RandomState(0).randn(40, 3), np.arange(40.0)
    odd = y.astype(object)
    odd[7] = value
    estimator = MLPRegressor(loss, (4,), max_iter=3)
    with pytest.raises(ValueError, match=f"contains {word}"):
        estimator.fit(X, odd)
    assert not hasattr(estimator, "network_")
    with pytest.raises(ValueError, match=rf"eval_set .* contains {word}"):
        estimator.fit(X, y, eval_set=(X, odd))


@pytest.mark.parametrize("value", [7, 0.5, -1])
def test_multilabel_eval_set_is_an_indicator(value):
    """Other numbers would make a loss of no meaning."""
    X = np.random.RandomState(0).randn(40, 3)
    y = (X[:, :2] > 0).astype(int)
    with pytest.raises(ValueError, match=r"eval_set .* indicator matrix"):
        MLPClassifier((4,), max_iter=3).fit(X, y, eval_set=(X, y * value))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("early_stopping", [False, True])
def test_running_averages_that_overflow_are_divergence(early_stopping):
    """Squares of 1e25 have no place in float32: the averages were infinite, the parameters finite, the predictions
    NaN."""
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


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore::RuntimeWarning")
def test_clipping_of_gradients_whose_squares_overflow():
    """Beyond 2e19 in float32 the norm was infinite and the factor 0: no step was made, and none was missed. Where
    doubles end, it is divergence."""
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
