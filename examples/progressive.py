"""
Growing a trained network
=========================

``grow`` makes the hidden layers of a fitted network wider, or adds layers, without changing what it computes: units are
doubled and share their outgoing weights, and a new layer begins as the identity. The loss continues where it was.
``freeze`` keeps the trained layers as they are while a new one finds its place; ``unfreeze`` lets all of them learn.

A classifier of digits grows from 16 units to 64, and then to two layers of 64. The dashed curve is a network that has
the final size from the start: at equal total cost it ends lower, so growing is not a cheaper way to a large network.
The dotted curve is the same network, started when the small one was ready to grow: if you already have a small network,
growing it is ahead for a while.
"""

import sys
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from fastmlp import MLPClassifier

plt.switch_backend("Agg")

X, y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)


def weights(sizes):
    """Weights of a network of these hidden layers."""
    widths = [X.shape[1], *sizes, 10]
    return sum(fan_in * fan_out for fan_in, fan_out in pairwise(widths))


def train(model, epochs, rows, costs):
    """Further epochs; the cost of each is the network's number of weights."""
    for _ in range(epochs):
        model.partial_fit(*rows, classes=np.arange(10))
        costs.append(weights(model.hidden_layer_sizes))


# %%
# Three stages
# ------------
# ``partial_fit`` trains for one epoch from where the last one ended. Growing keeps the network's function up to
# rounding; that a frozen layer keeps every bit of its weights is checked here.

SMALL, WIDE, DEEP = (16,), (64,), (64, 64)
STAGES = (30, 20, 20)


def grown(rows, seed):
    """The network, what each of its epochs cost, and the log-loss before and after each growth."""
    model = MLPClassifier(SMALL, batch_size=50, random_state=seed)
    costs, around = [], []
    train(model, STAGES[0], rows, costs)
    for sizes, epochs in [(WIDE, STAGES[1]), (DEEP, STAGES[2])]:
        around.append(log_loss(rows[1], model.predict_proba(rows[0])))
        model.grow(sizes, random_state=seed)
        around.append(log_loss(rows[1], model.predict_proba(rows[0])))
        if sizes == DEEP:
            before = model.coefs_[0].copy()
            model.freeze(0)
            train(model, 3, rows, costs)
            assert np.array_equal(model.coefs_[0], before)
            model.unfreeze()
            epochs -= 3
        train(model, epochs, rows, costs)
    return model, np.array(costs), around


def begun_large(rows, seed, cost):
    """The final size from the start, for as many epochs as the cost allows."""
    model = MLPClassifier(DEEP, batch_size=50, random_state=seed)
    costs = []
    train(model, round(cost / weights(DEEP)), rows, costs)
    return model, np.array(costs)


# %%
# At equal cost
# -------------
# Over five splits: the grown network; one that is large from the start and costs as much in all; and one that is large
# and costs as much as the grown one did after its first stage.

table = {"grown": [], "large from the start": [], "large, begun when the other grew": []}
for seed in range(5):
    X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=seed)
    rows = X_train, y_train
    model, costs, around = grown(rows, seed)
    large, large_costs = begun_large(rows, seed, costs.sum())
    late, late_costs = begun_large(rows, seed, costs[STAGES[0] :].sum())
    for name, fitted in zip(table, (model, large, late), strict=True):
        parts = (X_train, y_train), (X_test, y_test)
        table[name].append([log_loss(labels, fitted.predict_proba(images)) for images, labels in parts])
    if seed == 0:
        shown = model, costs, large, large_costs, late, late_costs
        print("log-loss on the training rows, before and after growing: {:.6f} {:.6f}, {:.6f} {:.6f}\n".format(*around))

print(f"{'log-loss':<34}{'training':>18}{'test':>18}")
for name, values in table.items():
    mean, spread = np.mean(values, axis=0), np.std(values, axis=0)
    print(f"{name:<34}" + "".join(f"{m:10.3f} ± {s:.3f}" for m, s in zip(mean, spread, strict=True)))

# %%
# The curves, over the cost.

model, costs, large, large_costs, late, late_costs = shown
figure, axis = plt.subplots(figsize=(8, 4.5), layout="constrained")
axis.plot(np.cumsum(costs) / 1e6, model.loss_curve_, ".-", label=f"grown: {SMALL}, {WIDE}, {DEEP}")
axis.plot(np.cumsum(large_costs) / 1e6, large.loss_curve_, "--", label=f"{DEEP} from the start")
start = costs[: STAGES[0]].sum()
axis.plot((start + np.cumsum(late_costs)) / 1e6, late.loss_curve_, ":", label=f"{DEEP}, begun when the other grew")
for epoch in np.cumsum(STAGES[:2]):
    axis.axvline(costs[:epoch].sum() / 1e6, color="grey", linewidth=0.5)
axis.set(xlabel="cost: weights times epochs, in millions", ylabel="training loss", yscale="log")
axis.legend()
path = sys.argv[1] if len(sys.argv) > 1 else "progressive.png"
figure.savefig(path, dpi=100)
