"""
Augmentation: noise, masks, mixup and shifts
============================================

If a training row changes a little each time it is used, and keeps its label, the network learns to ignore the change.
``input_noise``, ``input_mask`` and ``mixup`` change rows while a batch is gathered: nothing is stored, and each epoch
draws new changes. Other changes, here images shifted by a pixel, are made beforehand with NumPy.

The network learns from 200 handwritten digits. The table shows each method on clean test digits, and on test digits
that are noisy, have missing pixels, or are shifted by a pixel. The gain is large where the changes resemble the new
rows. On clean digits only noise helps. Mixup, which was invented for large networks on photographs, does harm here.
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
# All epochs are run on purpose: the loss of rows that change says little about when to stop.
warnings.filterwarnings("ignore", category=ConvergenceWarning)

X, y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)

# %%
# Rows that were changed
# ----------------------
# A shift moves an image up, down, left or right; the row or column it leaves behind is black.

MOVES = [(1, 0), (-1, 0), (0, 1), (0, -1)]


def shifted(images, down, right):
    """Digits (n, 64) moved by whole pixels."""
    padded = np.pad(images.reshape(-1, 8, 8), [(0, 0), (1, 1), (1, 1)])
    return padded[:, 1 - down : 9 - down, 1 - right : 9 - right].reshape(-1, 64)


def with_shifts(images, labels):
    """The digits, and four copies of each."""
    return np.concatenate([images] + [shifted(images, *move) for move in MOVES]), np.tile(labels, 1 + len(MOVES))


def test_sets(images, rng):
    """The digits as they are, and in three states that a camera or a form might leave them in."""
    moved = np.stack([shifted(images, *move) for move in MOVES])
    return {
        "clean": images,
        "noisy": images + rng.normal(scale=0.3, size=images.shape),
        "missing": images * (rng.uniform(size=images.shape) > 0.3),
        "shifted": moved[rng.randint(len(MOVES), size=len(images)), np.arange(len(images))],
    }


# %%
# Accuracy over five splits
# -------------------------
# Each method makes the same number of steps: five times as many rows, a fifth of the epochs.

EPOCHS = 300
METHODS = {
    "none": ({}, False),
    "input_noise=0.3": ({"input_noise": 0.3}, False),
    "input_mask=0.2": ({"input_mask": 0.2}, False),
    "mixup=0.4": ({"mixup": 0.4}, False),
    "shifted copies": ({}, True),
    "shifted + input_noise=0.2": ({"input_noise": 0.2}, True),
}

scores = {name: [] for name in METHODS}
for seed in range(5):
    X_train, X_test, y_train, y_test = train_test_split(X, y, train_size=200, stratify=y, random_state=seed)
    tests = test_sets(X_test, np.random.RandomState(seed))
    for name, (method, shift) in METHODS.items():
        rows = with_shifts(X_train, y_train) if shift else (X_train, y_train)
        model = MLPClassifier(
            (256,),
            batch_size=50,
            max_iter=EPOCHS // 5 if shift else EPOCHS,
            n_iter_no_change=np.inf,
            random_state=seed,
            **method,
        ).fit(*rows)
        scores[name].append([model.score(rows, y_test) for rows in tests.values()])

print("test accuracy in percent, mean and standard deviation over 5 splits; training on 200 digits\n")
print(f"{'method':<27}" + "".join(f"{name:>14}" for name in tests))
for name, values in scores.items():
    mean, spread = 100 * np.mean(values, axis=0), 100 * np.std(values, axis=0)
    print(f"{name:<27}" + "".join(f"{m:8.1f} ± {s:3.1f}" for m, s in zip(mean, spread, strict=True)))

# %%
# The spread is that of the splits, which all methods share; method by method on the same split tells more.

gain = 100 * (np.array(scores["input_noise=0.3"]) - scores["none"])[:, 0]
print("\ngain of input_noise on clean digits, split by split: " + ", ".join(f"{value:+.1f}" for value in gain))

# %%
# A test digit in its four states, and the accuracy on each.

figure = plt.figure(figsize=(9, 5.5), layout="constrained")
above, below = figure.subfigures(2, 1, height_ratios=(1, 2))
for axis, (name, images) in zip(above.subplots(1, len(tests)), tests.items(), strict=True):
    axis.imshow(images[0].reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
    axis.set(title=name, xticks=[], yticks=[])
axis = below.subplots()
for number, (name, values) in enumerate(scores.items()):
    positions = np.arange(len(tests)) + 0.13 * (number - len(scores) / 2)
    axis.bar(positions, 100 * np.mean(values, axis=0), width=0.13, align="edge", label=name)
axis.set(
    ylabel="test accuracy in percent",
    ylim=(0, 130),
    yticks=range(0, 101, 20),
    xticks=range(len(tests)),
    xticklabels=tests,
)
axis.legend(fontsize="small", ncols=3)
figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "augmentation.png", dpi=100)
