"""
Callbacks: watch a fit and stop it
==================================

A callback is an object with four methods, which a fit calls at its start, around each epoch, and at its end. It may ask
for the model as if the fit had ended there, and it ends the fit by returning true.

This example has three, a dozen lines each. One stops when the time is up. One keeps the best model by a metric of its
own. One stops a fit that falls behind the earlier ones, so that a search takes less time.
"""

import sys
import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split

from fastmlp import MLPClassifier

plt.switch_backend("Agg")
# Every fit here that is not stopped runs through all its epochs.
warnings.filterwarnings("ignore", category=ConvergenceWarning)

X, y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.4, stratify=y, random_state=0)
X_val, X_test, y_val, y_test = train_test_split(X_test, y_test, test_size=0.5, stratify=y_test, random_state=0)


# %%
# A budget of time
# ----------------
# ``context.task_name`` tells the end of an epoch from the end of the whole fit.


class Callback:
    """What the protocol asks for, doing nothing."""

    def setup(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass


class TimeBudget(Callback):
    """Stop after the epoch in which the seconds run out."""

    def __init__(self, seconds):
        self.seconds = seconds

    def setup(self, estimator, context):
        self.began = time.perf_counter()

    def on_fit_task_end(self, estimator, context):
        return context.task_name == "epoch" and time.perf_counter() - self.began > self.seconds


settings = {"hidden_layer_sizes": (64,), "max_iter": 100_000, "n_iter_no_change": np.inf, "random_state": 0}
for seconds in (0.1, 0.4):
    model = MLPClassifier(**settings).set_callbacks(TimeBudget(seconds)).fit(X_train, y_train)
    print(f"{seconds:.1f} s: {model.n_iter_:5d} epochs, test accuracy {model.score(X_test, y_test):.3f}")

# %%
# The best model by a metric of your own
# --------------------------------------
# A hook that names ``fitted_estimator`` among its keyword-only parameters gets a model of its own. Its ``history_`` has
# the loss of each epoch so far.


class KeepBest(Callback):
    """Keep the model with the highest balanced accuracy on other rows."""

    def setup(self, estimator, context):
        self.model, self.score, self.curve = None, -np.inf, []

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        if context.task_name == "epoch":
            score = balanced_accuracy_score(y_val, fitted_estimator.predict(X_val))
            self.curve.append(score)
            if score > self.score:
                self.model, self.score = fitted_estimator, score


keep = KeepBest()
settings = {"hidden_layer_sizes": (64,), "max_iter": 60, "learning_rate_init": 0.02, "random_state": 0}
last = MLPClassifier(**settings).set_callbacks(keep).fit(X_train, y_train)
print(f"\nbest of {last.n_iter_} epochs: {keep.model.n_iter_}, loss {keep.model.history_[-1]['loss']:.4f}")
for name, model in {"best": keep.model, "last": last}.items():
    print(
        f"{name}: validation {balanced_accuracy_score(y_val, model.predict(X_val)):.3f}, test "
        f"{model.score(X_test, y_test):.3f}"
    )

# %%
# A search that gives up early
# ----------------------------
# One callback for many models. After each epoch, a model stops if it is below the median of the earlier models at the
# same epoch (the median rule of Golovin et al., KDD 2017, "Google Vizier").


class MedianRule(Callback):
    """Stop a fit that is below the median of those before it, from the fifth epoch and the fourth fit on."""

    def __init__(self):
        self.curves = []

    def setup(self, estimator, context):
        self.curves.append([])

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        if context.task_name != "epoch":
            return False
        *before, curve = self.curves
        curve.append(fitted_estimator.score(X_val, y_val))
        rivals = [max(other[: len(curve)]) for other in before if len(other) >= len(curve)]
        return len(curve) >= 5 and len(rivals) >= 3 and max(curve) < np.median(rivals)


draws = np.random.RandomState(0)
grid = [{"learning_rate_init": 10 ** draws.uniform(-4.5, -1), "alpha": 10 ** draws.uniform(-5, 1)} for _ in range(20)]
median_rule = MedianRule()
for rule in (None, median_rule):
    models = []
    for candidate in grid:
        model = MLPClassifier((64,), max_iter=40, random_state=0, **candidate)
        models.append(model.set_callbacks(*[rule] * (rule is not None)).fit(X_train, y_train))
    best = max(models, key=lambda model: model.score(X_val, y_val))
    epochs = sum(model.n_iter_ for model in models)
    print(f"\n{'median rule' if rule else 'all to the end'}: {epochs} epochs for {len(grid)} candidates")
    print(f"best learning_rate_init {best.learning_rate_init:.4f}, test accuracy {best.score(X_test, y_test):.3f}")

# %%
# Each line is a candidate; the grey ones were stopped.

figure, axis = plt.subplots(figsize=(8, 4.5), layout="constrained")
for curve in median_rule.curves:
    axis.plot(range(1, len(curve) + 1), curve, color="0.7" if len(curve) < 40 else "C0", linewidth=1)
    axis.plot(len(curve), curve[-1], ".", color="0.4" if len(curve) < 40 else "C0")
axis.set(xlabel="epoch", ylabel="validation accuracy", title="a search with the median rule")
figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "callbacks.png", dpi=100)
