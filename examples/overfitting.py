"""
Overfitting, and what helps against it
======================================

The data are 442 patients, ten measurements, and a disease's progress after a year, half of which the measurements
explain. A network with 11,000 weights learns such a table by heart: its training loss falls to nothing, while its loss
on other patients begins to rise after a few epochs.

Each panel shows both losses for one remedy: a penalty on the squares of the weights (``alpha``) or on their absolute
values (``l1_ratio``), ``dropout``, ``early_stopping`` on an ``eval_set``, ``input_noise``, or fewer units. Watch the
gap between the two curves, and where the validation loss ends.
"""

import sys
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from fastmlp import MLPRegressor

plt.switch_backend("Agg")
# To see a network overfit, one has to let it run.
warnings.filterwarnings("ignore", category=ConvergenceWarning)

COMMON = {
    "hidden_layer_sizes": (100, 100),
    "alpha": 0.0,
    "batch_size": 32,
    "max_iter": 200,
    "n_iter_no_change": np.inf,
    "dtype": "float32",
    "n_jobs": 1,  # a network this small gains nothing by a second thread
}
CURES = {
    "no cure": {},
    "alpha=3": {"alpha": 3.0},
    "alpha=0.3, l1_ratio=1": {"alpha": 0.3, "l1_ratio": 1.0},
    "dropout=(0.2, 0.5, 0.5)": {"dropout": (0.2, 0.5, 0.5)},
    "early_stopping": {"early_stopping": True, "n_iter_no_change": 20},
    "input_noise=1": {"input_noise": 1.0},
    "4 units instead of 200": {"hidden_layer_sizes": (4,)},
}

# %%
# Training and validation loss
# ----------------------------
# Half of the patients train; a quarter is the ``eval_set``, on which the loss is recorded after each epoch, and which
# ``early_stopping`` goes by; the last quarter is kept for the end, so that no cure was chosen on it. Five such splits.

X, y = load_diabetes(return_X_y=True)


def split(seed):
    """Three parts, all scaled by what the first one shows."""
    X_train, X_rest, y_train, y_rest = train_test_split(X, y, test_size=0.5, random_state=seed)
    X_val, X_test, y_val, y_test = train_test_split(X_rest, y_rest, test_size=0.5, random_state=seed)
    of_X, of_y = StandardScaler().fit(X_train), StandardScaler().fit(y_train[:, np.newaxis])
    return [
        (of_X.transform(rows), of_y.transform(targets[:, np.newaxis])[:, 0])
        for rows, targets in [(X_train, y_train), (X_val, y_val), (X_test, y_test)]
    ]


first, r2 = {}, {name: [] for name in [*CURES, "linear model"]}
for seed in range(5):
    train, validation, test = split(seed)
    for name, cure in CURES.items():
        model = MLPRegressor(**{**COMMON, **cure}, random_state=seed).fit(*train, eval_set=validation)
        first.setdefault(name, model)
        r2[name].append((model.score(*train), model.score(*test)))
    linear = LinearRegression().fit(*train)
    r2["linear model"].append((linear.score(*train), linear.score(*test)))

# %%
# The curves, of the first split. The training loss is what the solver sees: it contains the penalty, and the noise of
# dropout and of the input, and so may end above the validation loss. The dot marks the best epoch, which
# ``early_stopping`` goes back to.

figure, axes = plt.subplots(2, 4, figsize=(11, 5), sharex=True, sharey=True, layout="constrained")
for axis, (name, model) in zip(axes.flat, first.items(), strict=False):
    axis.plot(model.loss_curve_, label="training")
    axis.plot(model.validation_loss_curve_, label="validation")
    best = int(np.argmax(model.validation_scores_))
    axis.plot(best, model.validation_loss_curve_[best], "o", color="tab:orange")
    axis.set(title=name, ylim=(0, 0.7))
axes[0, 0].legend()
axes[1, 3].axis("off")
figure.supxlabel("epoch")
figure.supylabel("half the mean squared error")
path = sys.argv[1] if len(sys.argv) > 1 else "overfitting.png"
figure.savefig(path, dpi=100)

# %%
# R² on the rows that were trained on and on the last quarter, mean over the splits. A linear model stands beside the
# networks: on so few rows it is hard to beat, and a cure brings a network back to it, hardly beyond.

print(f"{'cure':<25}{'R² training':>12}{'R² test':>18}")
for name, scores in r2.items():
    on_train, on_test = np.transpose(scores)
    print(f"{name:<25}{on_train.mean():12.2f}{on_test.mean():11.2f} ± {on_test.std():.2f}")
