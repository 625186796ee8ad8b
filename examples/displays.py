"""
Displays: plots of a fit and of weights
=======================================

fastmlp has displays for loss curves and weights, which work like scikit-learn's: ``from_estimator`` draws on the given
axes or on new ones, and ``ax_``, ``figure_`` and the lines can be changed afterwards. For everything else use
scikit-learn's displays, such as the confusion matrix here.

The weights into a unit form an image, because the features do. With a small penalty they look like noise; with a larger
one, useless weights vanish and strokes appear.
"""

import sys

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import train_test_split

from fastmlp import LossCurveDisplay, MLPClassifier, WeightsDisplay

plt.switch_backend("Agg")

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, stratify=y, random_state=0)

# %%
# Two networks, which differ in the penalty only
# ----------------------------------------------

models = {
    alpha: MLPClassifier(
        (25,), alpha=alpha, learning_rate="one_cycle", learning_rate_init=0.01, max_iter=60, early_stopping=True,
        n_iter_no_change=60, random_state=0,
    ).fit(X_train, y_train)
    for alpha in (1e-4, 3.0)
}  # fmt: skip

# %%
# ``history_`` is a table in one line.

for alpha, model in models.items():
    history = pd.DataFrame(model.history_).set_index("epoch")
    print(f"alpha={alpha}: test accuracy {model.score(X_test, y_test):.3f}")
    print(history.loc[[1, 10, 30, 60], ["loss", "validation_loss", "validation_score", "learning_rate"]].round(4), "\n")

# %%
# The picture
# -----------
# Above, each network's losses, its score, its rate, and the epoch whose parameters were kept; below, the weights into
# its 25 hidden units, and which digits it takes for which.

figure = plt.figure(figsize=(22, 9), layout="constrained")
for half, (alpha, model) in zip(figure.subfigures(1, 2), models.items(), strict=True):
    axes = half.subplot_mosaic([["course", "course"], ["weights", "confusion"]])
    LossCurveDisplay.from_estimator(model, ax=axes["course"])
    axes["course"].set_title(f"alpha={alpha}")
    WeightsDisplay.from_estimator(model, image_shape=(8, 8), ax=axes["weights"])
    ConfusionMatrixDisplay.from_estimator(model, X_test, y_test, ax=axes["confusion"], colorbar=False)
path = sys.argv[1] if len(sys.argv) > 1 else "displays.png"
figure.savefig(path, dpi=70)
