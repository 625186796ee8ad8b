"""
Optimizers, each at a learning rate that suits it
=================================================

Solvers cannot be compared at one learning rate: the best rate of ``'momentum'`` here is a hundred times that of
``'rmsprop'``. So each solver first runs fifteen epochs at each of nine rates, from the same weights, and then forty
epochs at the best of them. The differences that remain between solvers are small beside those between a good and a bad
rate.

The list of solvers comes from fastmlp itself, so it is complete. ``'adamw'`` without ``weight_decay`` is the same as
``'adam_hat'``. ``'lbfgs'`` has no learning rate: it searches for the length of each step, on all rows at once. One of
its iterations costs about one epoch and makes one step, where the others make fourteen.
"""

import sys
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from fastmlp import MLPClassifier
from fastmlp.training.solvers import STOCHASTIC_SOLVERS

plt.switch_backend("Agg")
# Every run has the same number of epochs, whether it has converged by then or not.
warnings.filterwarnings("ignore", category=ConvergenceWarning)

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split((X / 16).astype(np.float32), y, stratify=y, random_state=0)


def trained(solver, epochs, **rate):
    """A network after so many epochs; all begin with the same weights."""
    model = MLPClassifier(
        (64, 64), solver=solver, max_iter=epochs, n_iter_no_change=np.inf, batch_size=100, random_state=0, **rate
    )
    return model.fit(X_train, y_train)


# %%
# A short search
# --------------
# The mean training loss of epochs 11 to 15: a rate at which the loss jumps up and down is not chosen for one lucky
# epoch.

RATES = 10.0 ** np.arange(-3.5, 0.6, 0.5)


def short_loss(solver, rate):
    """What the search goes by."""
    return np.mean(trained(solver, 15, learning_rate_init=rate).loss_curve_[-5:])


best = {}
print("training loss, epochs 11 to 15\n")
print(f"{'rate':<11}" + "".join(f"{rate:9.2g}" for rate in RATES))
for solver in STOCHASTIC_SOLVERS:
    losses = [short_loss(solver, rate) for rate in RATES]
    best[solver] = RATES[np.argmin(losses)]
    print(f"{solver:<11}" + "".join(f"{loss:9.3g}" for loss in losses))

# %%
# The long runs
# -------------
# A rate that is best for fifteen epochs may be too high for forty: where a curve jumps, it was. One run each, so look
# at the whole curve rather than at its last point; the differences in test accuracy are those of one or two digits in a
# hundred.

figure, axis = plt.subplots(figsize=(8, 5), layout="constrained")
print(f"\n{'solver':<11}{'rate':>8}{'training loss':>15}{'test accuracy':>15}")
for number, solver in enumerate((*STOCHASTIC_SOLVERS, "lbfgs")):
    model = trained(solver, 40, **({"learning_rate_init": best[solver]} if solver in best else {}))
    curve = [epoch["loss"] for epoch in model.history_]
    axis.plot(range(1, len(curve) + 1), curve, ("-", "--", ":")[number % 3], label=solver)
    rate = f"{best[solver]:.2g}" if solver in best else ""
    print(f"{solver:<11}{rate:>8}{curve[-1]:15.5f}{model.score(X_test, y_test):15.3f}")
axis.set(xlabel="epoch (lbfgs: iteration)", ylabel="training loss", yscale="log")
axis.legend(ncols=2)
path = sys.argv[1] if len(sys.argv) > 1 else "optimizers.png"
figure.savefig(path, dpi=100)
