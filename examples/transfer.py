"""
Transfer learning: a trained body with a new head
=================================================

Hidden layers trained on one task can help with another that has few rows. ``pretrained=other.network_`` copies them;
only the output layer is new. ``pretrained_rate`` multiplies their learning rate: 0 freezes them, 0.1 lets them adapt
slowly, 1 makes them a mere starting point.

The old task is seven digits with many rows, the new one is the other three with few. The experiment runs twice. When
the digits lie anywhere on a larger canvas, the network has to learn strokes in every position. The old layers know
them, and help: frozen while there are few rows, trained along when there are more. When all digits lie in one place,
the pixels themselves are good features, and the old layers are in the way. Transfer does not always help.
"""

import sys
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from fastmlp import MLPClassifier

plt.switch_backend("Agg")
# So few rows are cheap: all epochs are run.
warnings.filterwarnings("ignore", category=ConvergenceWarning)

X, y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)

# %%
# Two kinds of images
# -------------------


def in_place(images, rng):
    """Digits (n, 64) as they are."""
    return images


def anywhere(images, rng):
    """Digits (n, 64) each somewhere on a black canvas of 12 by 12 pixels."""
    canvas = np.zeros((len(images), 12, 12), dtype=np.float32)
    for number, (row, column) in enumerate(rng.randint(5, size=(len(images), 2))):
        canvas[number, row : row + 8, column : column + 8] = images[number].reshape(8, 8)
    return canvas.reshape(len(images), -1)


# %%
# The experiment
# --------------
# Five times, each with other digits. The head and, where they start anew, the hidden layers see the same few rows in
# all cases.

LAYERS = (128, 64)
WAYS = {
    "from scratch": lambda body: {},
    "frozen body": lambda body: {"pretrained": body.network_},
    "pretrained_rate=0.1": lambda body: {"pretrained": body.network_, "pretrained_rate": 0.1},
    "pretrained_rate=1": lambda body: {"pretrained": body.network_, "pretrained_rate": 1.0},
}
ROWS = (5, 20, 80)
SEEDS = 5


def accuracies(place, copies):
    """Test accuracy in percent (ways, seeds, numbers of rows); the body sees each old digit so many times."""
    result = np.empty((len(WAYS), SEEDS, len(ROWS)))
    for seed in range(SEEDS):
        rng = np.random.RandomState(seed)
        old = np.isin(y, rng.permutation(10)[:7])
        body = MLPClassifier(LAYERS, max_iter=200 // copies, random_state=seed)
        body.fit(np.concatenate([place(X[old], rng) for _ in range(copies)]), np.tile(y[old], copies))
        for column, rows in enumerate(ROWS):
            parts = train_test_split(X[~old], y[~old], train_size=3 * rows, stratify=y[~old], random_state=seed)
            X_train, X_test = place(parts[0], rng), place(parts[1], rng)
            for number, way in enumerate(WAYS.values()):
                model = MLPClassifier(LAYERS, batch_size=15, max_iter=100, random_state=seed, **way(body))
                result[number, seed, column] = 100 * model.fit(X_train, parts[2]).score(X_test, parts[3])
    return result


print(f"test accuracy in percent on the three new digits, mean and standard deviation over {SEEDS} choices of them")
figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
TASKS = [("digits anywhere on the canvas", anywhere, 10), ("digits in one place", in_place, 1)]
for axis, (title, place, copies) in zip(axes, TASKS, strict=True):
    print(f"\n{title:<31}" + "".join(f"{f'{rows} rows each':>15}" for rows in ROWS))
    for name, values in zip(WAYS, accuracies(place, copies), strict=True):
        mean, spread = values.mean(axis=0), values.std(axis=0)
        print(f"  {name:<29}" + "".join(f"{m:9.1f} ± {s:3.1f}" for m, s in zip(mean, spread, strict=True)))
        axis.errorbar(range(len(ROWS)), mean, spread, marker="o", capsize=3, label=name)
    axis.set(title=title, xlabel="training rows of each new digit", xticks=range(len(ROWS)), xticklabels=ROWS)
axes[0].set_ylabel("test accuracy in percent")
axes[1].legend(loc="lower right")
figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "transfer.png", dpi=100)
