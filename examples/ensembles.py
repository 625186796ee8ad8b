"""
Ensembles: better probabilities from several networks
=====================================================

Networks that start from different weights, or see different rows, make different errors. The mean of their
probabilities is right a little more often, and much less often sure of a wrong answer. ``MLPEnsembleClassifier`` trains
such networks at once: from different ``'seeds'``, on ``'bootstrap'`` samples, or as ``'snapshots'`` of one run whose
learning rate falls and restarts. scikit-learn's voting, bagging and stacking take an ``MLPClassifier`` like any other
estimator.

With 600 digits for training and four splits, accuracy differs by no more than its spread. The log-loss falls by a
fifth, whereas training one network for as many epochs raises it. Snapshots get most of the gain for the epochs of one
network.
"""

import sys
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from fastmlp import MLPClassifier, MLPEnsembleClassifier

plt.switch_backend("Agg")
# Each network runs all its epochs, so that the cost can be told.
warnings.filterwarnings("ignore", category=ConvergenceWarning)

X, y = load_digits(return_X_y=True)
X = X / 16

# %%
# The contestants
# ---------------
# Five members each. A network takes 30 epochs; five snapshots share the epochs of one network or, in the second row of
# them, of five. A bootstrap sample has 0.63 as many different rows, so its epochs count for less; stacking in two folds
# fits each member to all rows, and to either half.

EPOCHS, MEMBERS = 30, 5


def network(epochs=EPOCHS, seed=None):
    """One network."""
    return MLPClassifier(
        (64, 64), batch_size=40, learning_rate_init=0.01, max_iter=epochs, n_iter_no_change=np.inf, random_state=seed
    )


def contestants(seed):
    """Names, estimators, and the epochs that they cost, in epochs over all training rows."""
    members = [(f"member {number}", network(seed=MEMBERS * seed + number)) for number in range(MEMBERS)]

    def ensemble(kind, epochs=EPOCHS):
        return MLPEnsembleClassifier(network(epochs), MEMBERS, members=kind, random_state=seed)

    many = MEMBERS * EPOCHS
    return {
        "one network": (network(seed=seed), EPOCHS),
        "one network, five times as long": (network(many, seed), many),
        "MLPEnsemble, seeds": (ensemble("seeds"), many),
        "MLPEnsemble, bootstrap": (ensemble("bootstrap"), round(0.63 * many)),
        "MLPEnsemble, snapshots": (ensemble("snapshots"), EPOCHS),
        "MLPEnsemble, longer snapshots": (ensemble("snapshots", many), many),
        "VotingClassifier, soft": (VotingClassifier(members, voting="soft"), many),
        "BaggingClassifier": (BaggingClassifier(network(), MEMBERS, random_state=seed), round(0.63 * many)),
        "StackingClassifier, 2 folds": (StackingClassifier(members, LogisticRegression(max_iter=1000), cv=2), 2 * many),
    }


results = {}
for seed in range(4):
    X_train, X_test, y_train, y_test = train_test_split(X, y, train_size=600, stratify=y, random_state=seed)
    for name, (estimator, cost) in contestants(seed).items():
        estimator.fit(X_train, y_train)
        result = estimator.score(X_test, y_test), log_loss(y_test, estimator.predict_proba(X_test))
        results.setdefault((name, cost), []).append(result)

print("on test digits, mean and standard deviation over 4 splits\n")
print(f"{'':<34}{'epochs':>8}{'accuracy':>18}{'log-loss':>18}")
for (name, cost), values in results.items():
    mean, spread = np.mean(values, axis=0), np.std(values, axis=0)
    print(f"{name:<34}{cost:8}" + "".join(f"{m:10.3f} ± {s:.3f}" for m, s in zip(mean, spread, strict=True)))

# %%
# Log-loss over cost: low and to the left is better.

figure, axis = plt.subplots(figsize=(9, 4.5), layout="constrained")
for (name, cost), values in results.items():
    mean, spread = np.mean(values, axis=0), np.std(values, axis=0)
    axis.errorbar(cost, mean[1], spread[1], fmt="o", capsize=3, label=name)
axis.set(xlabel="cost in epochs over all training rows", ylabel="log-loss on test digits")
figure.legend(loc="outside right upper", fontsize="small")
figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "ensembles.png", dpi=100)
