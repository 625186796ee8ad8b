"""Seeing: displays of a fit's course and of weights; scikit-learn's own displays from our estimators; history_ as a
table."""

from __future__ import annotations

import inspect
import sys

import matplotlib
import matplotlib.colors
import numpy as np
import pandas as pd
import pytest
from helpers import classification, regression, varied
from matplotlib import pyplot
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastmlp
from fastmlp import LossCurveDisplay, MLPClassifier, MLPEnsembleClassifier, MLPRegressor, WeightsDisplay

matplotlib.use("Agg")
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL = {"hidden_layer_sizes": (6, 5), "random_state": 3, "max_iter": 8}
DISPLAYS = [LossCurveDisplay, WeightsDisplay]


@pytest.fixture(autouse=True)
def _close():
    yield
    pyplot.close("all")


def fitted(**settings):
    return MLPClassifier(**{**SMALL, **settings}).fit(*classification(3))


# --- the conventions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("display", DISPLAYS)
def test_display_keeps_sklearns_conventions(display):
    """The constructor stores plain data and draws nothing; plot returns self, draws on the ax it is given or on new
    ones."""
    figure, (left, right) = pyplot.subplots(1, 2)
    made = display.from_estimator(fitted(), ax=left)
    assert isinstance(made, display)
    assert (made.ax_, made.figure_) == (left, figure)
    names = list(inspect.signature(display).parameters)
    data = {name: getattr(made, name) for name in names}
    assert all(value is None or isinstance(value, (np.ndarray, str, int, tuple, list)) for value in data.values())
    again = display(**data)
    assert not hasattr(again, "ax_")
    assert again.plot(ax=right) is again
    assert again.ax_ is right
    assert again.plot().figure_ is not figure
    assert inspect.signature(display.plot).parameters["ax"].default is None


@pytest.mark.parametrize("display", DISPLAYS)
def test_display_takes_a_pipeline_and_says_what_it_takes(display):
    X, y = classification(2)
    assert display.from_estimator(make_pipeline(StandardScaler(), MLPClassifier(**SMALL)).fit(X, y)).ax_
    for unfitted in (MLPClassifier(), make_pipeline(StandardScaler(), MLPRegressor())):
        with pytest.raises(NotFittedError):
            display.from_estimator(unfitted)
    ensemble = MLPEnsembleClassifier(MLPClassifier(**SMALL), 2).fit(X, y)
    with pytest.raises(TypeError, match="estimators_"):
        display.from_estimator(ensemble)
    assert display.from_estimator(ensemble.estimators_[0]).ax_


@pytest.mark.parametrize("call", [
    lambda: LossCurveDisplay.from_estimator(fitted()), lambda: WeightsDisplay.from_estimator(fitted()),
    lambda: LossCurveDisplay(epochs=[1], loss=[1.0]).plot(), lambda: WeightsDisplay(weights=[[1.0]]).plot(),
], ids=["fitted loss", "fitted weights", "loss", "weights"])  # fmt: skip
def test_display_without_matplotlib_names_the_extra(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"fastmlp\[plot\]"):
        call()


# --- the loss curve --------------------------------------------------------------------------------------------


def test_loss_curve_shows_what_was_recorded():
    """Both losses on one scale, score and rate on their own, the best epoch marked; a legend of all."""
    model = fitted(early_stopping=True, solver="sgd", learning_rate="one_cycle", learning_rate_init=0.3)
    display = LossCurveDisplay.from_estimator(model, linewidth=3.0)
    epochs = np.arange(1, model.n_iter_ + 1)
    rates = varied(np.array([epoch["learning_rate"] for epoch in model.history_]))
    shown = {
        display.line_: model.loss_curve_,
        display.validation_line_: model.validation_loss_curve_,
        display.score_line_: model.validation_scores_,
        display.rate_line_: rates,
    }
    for line, values in shown.items():
        np.testing.assert_array_equal(line.get_xdata(), epochs)
        np.testing.assert_array_equal(line.get_ydata(), varied(np.array(values)))
    assert display.line_.axes is display.validation_line_.axes is display.ax_
    assert len({display.ax_, display.score_ax_, display.rate_ax_}) == 3
    assert (display.score_line_.axes, display.rate_line_.axes) == (display.score_ax_, display.rate_ax_)
    assert display.line_.get_linewidth() == display.validation_line_.get_linewidth() == 3.0
    assert set(display.best_line_.get_xdata()) == {int(np.argmax(model.validation_scores_)) + 1}
    legend = [text.get_text() for text in display.rate_ax_.get_legend().get_texts()]
    assert legend[:4] == ["Training loss", "Validation loss", "Validation score", "Learning rate"]
    assert legend[4].startswith("Best epoch")
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("Epoch", "Loss")


def test_loss_curve_leaves_out_what_there_is_not():
    """No panel for scores without validation rows, for a constant rate, for L-BFGS's rate, or for what the caller
    leaves out."""
    plain = LossCurveDisplay.from_estimator(fitted())
    assert len(plain.figure_.axes) == 1
    assert [plain.validation_line_, plain.score_line_, plain.rate_line_, plain.best_line_] == [None] * 4
    assert plain.ax_.get_legend() is not None
    with_rate = LossCurveDisplay.from_estimator(fitted(), plot_learning_rate=True)
    assert set(with_rate.rate_line_.get_ydata()) == {0.001}
    lbfgs = LossCurveDisplay.from_estimator(fitted(solver="lbfgs"), plot_learning_rate=True)
    assert lbfgs.rate_line_ is None
    assert len(varied(lbfgs.line_.get_ydata())) == SMALL["max_iter"]
    unscored = LossCurveDisplay.from_estimator(fitted(early_stopping=True), plot_score=False)
    assert (unscored.score_line_, unscored.score_ax_) == (None, None)
    assert unscored.validation_line_ is not None


def test_loss_curve_of_several_fits_is_one():
    """warm_start goes on counting; epochs without held-out rows leave a gap in what such rows give."""
    X, y = classification(3)
    model = MLPClassifier(**{**SMALL, "max_iter": 3}, warm_start=True, validation_metric="neg_log_loss").fit(X, y)
    model.fit(X, y, eval_set=(X, y))
    display = LossCurveDisplay.from_estimator(model)
    assert list(display.epochs) == [1, 2, 3, 4, 5, 6]
    assert np.isnan(display.validation_score).tolist() == [True] * 3 + [False] * 3
    assert display.best_epoch == 4 + int(np.argmax(model.validation_scores_))
    assert "neg_log_loss" in display.score_ax_.get_ylabel()


# --- weights ---------------------------------------------------------------------------------------------------


def test_weights_as_a_heat_map():
    """A row per input, a column per unit, colours even about 0; names of features."""
    X, y = classification(3)
    frame = pd.DataFrame(X, columns=[f"column {k}" for k in range(X.shape[1])])
    model = MLPClassifier(**SMALL).fit(frame, y)
    display = WeightsDisplay.from_estimator(model)
    shown = np.asarray(display.image_.get_array())
    np.testing.assert_array_equal(shown, varied(model.coefs_[0]))
    low, high = display.image_.get_clim()
    assert -low == high == np.abs(model.coefs_[0]).max()
    assert [label.get_text() for label in display.ax_.get_yticklabels()] == list(frame.columns)
    assert display.colorbar_.mappable is display.image_
    later = WeightsDisplay.from_estimator(model, layer=-1, units=[2, 0], colorbar=False, cmap="PuOr", vmax=3)
    np.testing.assert_array_equal(np.asarray(later.image_.get_array()), model.coefs_[2][:, [2, 0]])
    assert (later.colorbar_, later.feature_names, later.image_.get_cmap().name) == (None, None, "PuOr")
    assert later.image_.get_clim() == (-3, 3)
    assert later.ax_.get_ylabel() != display.ax_.get_ylabel()


@pytest.mark.parametrize(("n", "rows", "columns"), [(1, 1, 1), (5, 2, 3), (6, 2, 3), (7, 3, 3)])
def test_weights_as_images(n, rows, columns):
    """Unit by unit from the left, height by width, a blank line between; nothing where there is no unit."""
    height, width = 2, 3
    weights = varied(np.arange(height * width * n, dtype=float).reshape(height * width, n))
    display = WeightsDisplay(weights=weights, image_shape=(height, width)).plot()
    shown = np.ma.filled(display.image_.get_array(), np.nan)
    assert shown.shape == (rows * 3 - 1, columns * 4 - 1)
    for unit in range(n):
        row, column = divmod(unit, columns)
        image = shown[row * 3 : row * 3 + height, column * 4 : column * 4 + width]
        np.testing.assert_array_equal(image, weights[:, unit].reshape(height, width))
    assert np.isfinite(shown).sum() == weights.size


def test_weights_display_says_what_it_takes():
    model = fitted()
    for wrong in ({"layer": 3}, {"layer": -4}, {"units": 7}, {"units": []}, {"units": [6]}, {"image_shape": (3, 4)}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            WeightsDisplay.from_estimator(model, **wrong)
    assert WeightsDisplay.from_estimator(model, units=np.int64(2)).weights.shape == (13, 2)


def test_weights_display_keeps_a_copy():
    """What was shown stays what was shown while the model trains on."""
    model = fitted(warm_start=True)
    display = WeightsDisplay.from_estimator(model)
    before = display.weights.copy()
    model.coefs_[0][:] = 0
    np.testing.assert_array_equal(display.weights, varied(before))


# --- scikit-learn's displays -----------------------------------------------------------------------------------


def _two_features(cls):
    X, y = classification(3) if cls is MLPClassifier else regression()
    return X[:, :2], y


SKLEARN_DISPLAYS = {
    "ConfusionMatrixDisplay": lambda m: m.ConfusionMatrixDisplay.from_estimator(fitted(), *classification(3)),
    "RocCurveDisplay": lambda m: m.RocCurveDisplay.from_estimator(
        MLPClassifier(**SMALL).fit(*classification(2)), *classification(2)
    ),
    "PrecisionRecallDisplay": lambda m: m.PrecisionRecallDisplay.from_estimator(
        MLPClassifier(**SMALL).fit(*classification(2)), *classification(2)
    ),
    "DetCurveDisplay": lambda m: m.DetCurveDisplay.from_estimator(
        MLPClassifier(**SMALL).fit(*classification(2)), *classification(2)
    ),
    "CalibrationDisplay": lambda m: m.CalibrationDisplay.from_estimator(
        MLPClassifier(**SMALL).fit(*classification(2)), *classification(2)
    ),
    "PredictionErrorDisplay": lambda m: m.PredictionErrorDisplay.from_estimator(
        MLPRegressor(**SMALL).fit(*regression()), *regression()
    ),
    "DecisionBoundaryDisplay": lambda m: m.DecisionBoundaryDisplay.from_estimator(
        MLPClassifier(**SMALL).fit(*_two_features(MLPClassifier)),
        _two_features(MLPClassifier)[0],
        response_method="predict",
    ),
    "LearningCurveDisplay": lambda m: m.LearningCurveDisplay.from_estimator(
        MLPClassifier(**SMALL), *classification(3), cv=2
    ),
    "ValidationCurveDisplay": lambda m: m.ValidationCurveDisplay.from_estimator(
        MLPRegressor(**SMALL), *regression(), param_name="alpha", param_range=[1e-4, 1.0], cv=2
    ),
    "PartialDependenceDisplay": lambda m: m.PartialDependenceDisplay.from_estimator(
        MLPRegressor(**SMALL).fit(*regression()), regression()[0], [0, (0, 1)], grid_resolution=5
    ),
}


@pytest.mark.parametrize("name", SKLEARN_DISPLAYS)
def test_sklearns_displays_work_from_our_estimators(name):
    """Each draws something."""
    import sklearn.calibration
    import sklearn.inspection
    import sklearn.metrics
    import sklearn.model_selection

    homes = (sklearn.metrics, sklearn.inspection, sklearn.model_selection, sklearn.calibration)
    display = SKLEARN_DISPLAYS[name](next(home for home in homes if hasattr(home, name)))
    axes = display.figure_.axes
    assert axes
    assert any(ax.lines or ax.images or ax.collections for ax in axes)


# --- history ---------------------------------------------------------------------------------------------------


def test_history_is_a_data_frame_in_one_line():
    """A row per epoch, a column per quantity, numbers throughout."""
    frame = pd.DataFrame((model := fitted(early_stopping=True)).history_)
    assert list(frame) == ["epoch", "loss", "learning_rate", "rows", "time", "validation_score", "validation_loss"]
    assert len(frame) == model.n_iter_
    assert all(np.issubdtype(kind, np.number) for kind in frame.dtypes)
    assert frame["loss"].tolist() == model.loss_curve_
    assert frame["validation_score"].tolist() == model.validation_scores_
    assert frame["epoch"].tolist() == list(range(1, len(frame) + 1))


def test_displays_are_public():
    assert {"LossCurveDisplay", "WeightsDisplay"} <= set(fastmlp.__all__)


def test_best_epoch_is_of_the_metric_that_steers_now():
    """After another metric in an earlier fit, whose scores are no measure for this one's."""
    X, y = classification(2, n=200)
    model = MLPClassifier(
        (8,), early_stopping=True, warm_start=True, max_iter=8, n_iter_no_change=50, random_state=0
    ).fit(X, y)
    model.set_params(validation_metric="neg_log_loss").fit(X, y)
    scores = [entry["validation_score"] for entry in model.history_]
    display = LossCurveDisplay.from_estimator(model)
    assert display.best_epoch == 1 + scores.index(model.best_validation_score_) > 8
    assert model.best_validation_score_ < max(scores)
    model.set_params(early_stopping=False, max_iter=3).fit(X, y)
    assert model.best_validation_score_ is None
    assert LossCurveDisplay.from_estimator(model).best_epoch is None


def test_short_names_of_styles_and_norms():
    """What matplotlib takes: ``c`` for color, a norm with limits of its own."""
    X, y = classification(2)
    model = MLPClassifier((6,), max_iter=3, early_stopping=True, random_state=0).fit(X, y)
    display = LossCurveDisplay.from_estimator(model, c="red", lw=3)
    assert (display.line_.get_color(), display.validation_line_.get_linewidth()) == ("red", 3)
    norm = matplotlib.colors.SymLogNorm(0.1)
    assert WeightsDisplay.from_estimator(model, norm=norm).image_.norm is norm


@pytest.mark.parametrize("shape", [4, (2, 2, 1), (-2, -2), (2, 3)])
def test_image_shapes_of_wrong_form(shape):
    with pytest.raises(ValueError, match="image_shape must have height"):
        WeightsDisplay(weights=np.ones((4, 3)), image_shape=shape).plot()
