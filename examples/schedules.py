"""
Learning-rate schedules
=======================

With noisy targets and small batches, a constant learning rate never lets the weights settle, since each batch pulls
them another way. A high rate gets near the minimum soon and then jumps about it; a low one comes closer, but late. A
schedule combines both: large steps first, small steps at the end.

This example runs every schedule of fastmlp, and a user's own function. The left plot shows the rate over the run, the
right one the training loss. The table shows the error on new rows without noise, from three initial rates. From the
highest rate, every schedule but 'invscaling' beats the best constant rate. Which schedule it is matters less, and a
rate that is too low at the start is not worth lowering.
"""

import sys
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_friedman1
from sklearn.exceptions import ConvergenceWarning

from fastmlp import MLPRegressor
from fastmlp.training.schedules import CURVES, SCHEDULES

plt.switch_backend("Agg")
# A schedule is planned for a number of epochs: all of them are run.
warnings.filterwarnings("ignore", category=ConvergenceWarning)

# %%
# The schedules
# -------------
# ``SCHEDULES`` are scikit-learn's three, which go by epochs and for the solver 'sgd' only. ``CURVES`` plan each step of
# the run, and serve every stochastic solver. A function (step, n_steps) -> factor is as good as either: here, a
# straight line to 0.


def straight(step, n_steps):
    """Factor on learning_rate_init."""
    return 1 - step / n_steps


SCHEDULE = {**{name: name for name in (*SCHEDULES, *CURVES)}, "own function": straight}
RATES = (0.05, 0.1, 0.2)
EPOCHS, BATCH, ROWS, SEEDS = 30, 20, 2000, 4


def trained(name, rate, X, y, seed):
    """A network that was trained by this schedule. Only 'adaptive' waits for a loss that stalls, here for 2 epochs."""
    return MLPRegressor(
        hidden_layer_sizes=(32,),
        solver="sgd",
        learning_rate=SCHEDULE[name],
        learning_rate_init=rate,
        batch_size=BATCH,
        max_iter=EPOCHS,
        n_iter_no_change=2 if name == "adaptive" else np.inf,
        random_state=seed,
        dtype="float32",
    ).fit(X, y)


# %%
# What they are worth
# -------------------
# Friedman's first function of ten inputs, of which five matter; the noise has a standard deviation of 1. The error is
# measured against the function itself.

errors = {name: np.empty((SEEDS, len(RATES))) for name in SCHEDULE}
shown = {}
for seed in range(SEEDS):
    X, y = make_friedman1(ROWS, noise=1.0, random_state=seed)
    X_new, truth = make_friedman1(ROWS, random_state=100 + seed)
    centre, scale = y.mean(), y.std()
    for name in SCHEDULE:
        for column, rate in enumerate(RATES):
            model = trained(name, rate, 2 * X - 1, (y - centre) / scale, seed)
            prediction = centre + scale * model.predict(2 * X_new - 1)
            errors[name][seed, column] = np.sqrt(np.mean((prediction - truth) ** 2))
        shown.setdefault(name, model)

print(f"root mean squared error on new rows, mean and standard deviation over {SEEDS} data sets\n")
print(f"{'learning_rate_init':<19}" + "".join(f"{rate:15g}" for rate in RATES))
for name, values in errors.items():
    mean, spread = values.mean(axis=0), values.std(axis=0)
    print(f"{name:<19}" + "".join(f"{m:9.2f} ± {s:.2f}" for m, s in zip(mean, spread, strict=True)))

# %%
# Rate and loss at the highest of the three rates. 'invscaling' with scikit-learn's ``power_t=0.5`` counts rows, not
# epochs: after the first epoch the rate is down to a 45th, which is too low to get anywhere in time.

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
n_steps = EPOCHS * ROWS // BATCH
steps = np.arange(n_steps)
for number, (name, model) in enumerate(shown.items()):
    style = {"label": name, "linestyle": "--" if name in SCHEDULES else "-", "color": f"C{number}"}
    if name in CURVES:
        left.plot(steps, RATES[-1] * CURVES[name]().factors(steps, n_steps), **style)
    elif callable(SCHEDULE[name]):
        left.plot(steps, [RATES[-1] * SCHEDULE[name](step, n_steps) for step in steps], **style)
    else:
        by_epoch = [epoch["learning_rate"] for epoch in model.history_]
        left.step(ROWS // BATCH * np.arange(len(by_epoch)), by_epoch, where="post", **style)
    right.plot(range(1, len(model.loss_curve_) + 1), model.loss_curve_, **style)
left.set(xlabel="step", ylabel="learning rate")
right.set(xlabel="epoch", ylabel="training loss", yscale="log")
right.legend()
path = sys.argv[1] if len(sys.argv) > 1 else "schedules.png"
figure.savefig(path, dpi=100)
