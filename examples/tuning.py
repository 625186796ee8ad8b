"""
Tuning: a range test, then grid, random and halving search
==========================================================

The learning-rate range test (Smith, WACV 2017) raises the rate from step to step and records the loss. One short run
shows the range of rates that is worth searching.

Learning rate, batch size, penalty and momentum depend on each other, so they are searched together. scikit-learn's
searches take ``MLPClassifier`` like any other estimator. A grid tries a few values of each; a random search tries a new
value of each in every trial; successive halving gives few epochs to many candidates, three times as many epochs to the
best third, and so on.

All searches spend the same number of epochs. The tables show what each found on 500 digits, and its accuracy on digits
that it did not see. All improve much on the defaults, and differ from each other by no more than the spread over the
splits. The best settings differ from split to split, so none of them is the true best value.
"""

import sys
import warnings

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import loguniform, randint, uniform
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401 (the halving searches ask for it)
from sklearn.model_selection import GridSearchCV, HalvingRandomSearchCV, RandomizedSearchCV, train_test_split

from fastmlp import MLPClassifier, learning_rate_range

plt.switch_backend("Agg")
# The epochs are the budget: all of them are spent.
warnings.filterwarnings("ignore", category=ConvergenceWarning)

X, y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)
EPOCHS, SEEDS = 27, 3


def network(seed):
    """The settings to start from.

    The rate falls to 0 over the run: else a score depends on where the last steps happened to jump. One thread is
    enough for so small a network; with several cores, give the searches ``n_jobs=-1``.
    """
    return MLPClassifier(
        (64,),
        solver="sgd",
        learning_rate="cosine",
        max_iter=EPOCHS,
        n_iter_no_change=np.inf,
        random_state=seed,
        n_jobs=1,
    )


# %%
# The range of the learning rate
# ------------------------------
# Of the four it matters most, so its range must be wide enough: from a fiftieth of what the test suggests, at which
# little is learnt in so few epochs, to the rate at which the loss jumps.

X_some, _, y_some, _ = train_test_split(X, y, train_size=500, stratify=y, random_state=0)
test_run = learning_rate_range(network(0), X_some, y_some, low=1e-4, high=10)
print(test_run, "\n")
LOWEST_RATE, HIGHEST_RATE = test_run.suggestion / 50, test_run.divergence_rate

axes = test_run.plot()
axes.figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "tuning.png", dpi=100)

# %%
# Three searches
# --------------
# The grid has 24 points, the random search 24 draws, of 27 epochs each. Halving begins with 72 candidates of 3 epochs;
# ``max_iter`` is what it gives more of, and the cosine schedule fits itself to that. Three folds each.

GRID = {
    "learning_rate_init": [LOWEST_RATE, 0.05, HIGHEST_RATE],
    "batch_size": [16, 64],
    "alpha": [1e-4, 1e-1],
    "momentum": [0.5, 0.9],
}
DRAWN = {
    "learning_rate_init": loguniform(LOWEST_RATE, HIGHEST_RATE),
    "batch_size": randint(8, 129),
    "alpha": loguniform(1e-5, 10),
    "momentum": uniform(0, 0.95),
}


def searches(seed):
    """The three, by name."""
    base = network(seed)
    return {
        "grid": GridSearchCV(base, GRID, cv=3),
        "random": RandomizedSearchCV(base, DRAWN, n_iter=24, cv=3, random_state=seed),
        "halving": HalvingRandomSearchCV(
            base,
            DRAWN,
            n_candidates=72,
            resource="max_iter",
            min_resources=3,
            max_resources=27,
            cv=3,
            random_state=seed,
        ),
    }


def epochs_spent(search):
    """Epochs of all fits of a search, the last one on all rows included."""
    results = search.cv_results_
    per_fit = results.get("n_resources", np.full(len(results["params"]), EPOCHS))
    return 3 * int(np.sum(per_fit)) + search.best_estimator_.max_iter


test, found = {"no search": []}, {}
for seed in range(SEEDS):
    X_train, X_test, y_train, y_test = train_test_split(X, y, train_size=500, stratify=y, random_state=seed)
    test["no search"].append(network(seed).fit(X_train, y_train).score(X_test, y_test))
    for name, search in searches(seed).items():
        search.fit(X_train, y_train)
        test.setdefault(name, []).append(search.score(X_test, y_test))
        found[name, seed] = search

print("what was found\n")
print(
    f"{'search':<9}{'split':>5}{'epochs':>8}" + "".join(f"{name:>20}" for name in GRID) + f"{'accuracy in folds':>20}"
)
for (name, seed), search in found.items():
    values = "".join(f"{search.best_params_[parameter]:20.3g}" for parameter in GRID)
    print(f"{name:<9}{seed:5}{epochs_spent(search):8}{values}{search.best_score_:20.3f}")

# %%
# The accuracy in the folds is that of the best of many, on networks that saw fewer rows. What counts is the accuracy on
# other rows. Without a search, sgd keeps its default rate of 0.001, at which it gets nowhere in so few epochs.

print(f"\naccuracy on test digits, mean and standard deviation over {SEEDS} splits\n")
for name, values in test.items():
    print(f"{name:<14}{np.mean(values):8.3f} ± {np.std(values):.3f}")
