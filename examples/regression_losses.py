"""
Losses for regression: squared, absolute, Huber, quantile
=========================================================

The squared error predicts the mean of y given x, and a single outlier can move a mean far. The absolute error predicts
the median, which outliers hardly move. Huber's loss is squared up to ``huber_delta``, so that small errors all count,
and absolute beyond. The quantile loss predicts the value below which a given share of targets lies: two networks, for 5
and 95 percent, make an interval.

The data are a generated wave whose noise grows with x, so predictions can be compared with the wave itself. On clean
targets, the squared error is a little better than the absolute one; when a tenth of the targets are far too high, it is
useless.
"""

import sys
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.exceptions import ConvergenceWarning

from fastmlp import MLPRegressor

plt.switch_backend("Agg")
# The rate falls to 0 over the epochs: all of them are run.
warnings.filterwarnings("ignore", category=ConvergenceWarning)

SEEDS = 5


def draw(n, seed, wild):
    """x (n, 1), targets of which a share is wild, and the wave."""
    rng = np.random.RandomState(seed)
    x = rng.uniform(-1, 1, n)
    wave = np.sin(4 * x)
    y = wave + (0.05 + 0.15 * (x + 1)) * rng.standard_normal(n)
    is_wild = rng.uniform(size=n) < wild
    y[is_wild] += rng.uniform(2, 8, is_wild.sum())
    return x[:, np.newaxis], y, wave


def network(seed, **loss):
    """A network that minimises this loss."""
    return MLPRegressor(
        **loss,
        hidden_layer_sizes=(32, 32),
        learning_rate="cosine",
        learning_rate_init=0.01,
        batch_size=50,
        max_iter=60,
        n_iter_no_change=np.inf,
        random_state=seed,
    )


# %%
# Four losses for the middle
# --------------------------

MIDDLE = {
    "squared_error": {"loss": "squared_error"},
    "absolute_error": {"loss": "absolute_error"},
    "huber, huber_delta=1": {"loss": "huber", "huber_delta": 1.0},
    "huber, huber_delta=0.3": {"loss": "huber", "huber_delta": 0.3},
}
SHARES = (0.0, 0.1)
grid = np.linspace(-1, 1, 200)[:, np.newaxis]

errors = {name: np.empty((SEEDS, len(SHARES))) for name in MIDDLE}
curves = {}
for seed in range(SEEDS):
    for column, wild in enumerate(SHARES):
        x, y, _ = draw(800, seed, wild)
        x_new, _, wave = draw(2000, 100 + seed, 0)
        for name, loss in MIDDLE.items():
            model = network(seed, **loss).fit(x, y)
            errors[name][seed, column] = np.sqrt(np.mean((model.predict(x_new) - wave) ** 2))
            if seed == 0 and wild:
                curves[name] = model.predict(grid)
                wild_rows = x, y

print(f"root mean squared distance from the wave, mean and standard deviation over {SEEDS} data sets\n")
print(f"{'':<24}" + "".join(f"{f'{share:.0%} wild':>17}" for share in SHARES))
for name, values in errors.items():
    mean, spread = values.mean(axis=0), values.std(axis=0)
    print(f"{name:<24}" + "".join(f"{m:9.3f} ± {s:.3f}" for m, s in zip(mean, spread, strict=True)))

# %%
# An interval
# -----------
# On clean targets. 90 percent of new targets should lie inside; those of a network are a little fewer, as it fits the
# very rows that the bounds are drawn from. Nothing keeps two networks from crossing; whether they did is counted.

inside, crossed = [], []
for seed in range(SEEDS):
    x, y, _ = draw(800, seed, 0)
    x_new, y_new, _ = draw(2000, 100 + seed, 0)
    low, high = (network(seed, loss="quantile", quantile=q).fit(x, y) for q in (0.05, 0.95))
    inside.append(np.mean((low.predict(x_new) <= y_new) & (y_new <= high.predict(x_new))))
    crossed.append(np.mean(low.predict(x_new) > high.predict(x_new)))
    if seed == 0:
        clean_rows, bounds = (x, y), (low.predict(grid), high.predict(grid))

print(f"\nnew targets inside the interval: {np.mean(inside):.1%} ± {np.std(inside):.1%}")
print(f"where the bounds cross: {np.mean(crossed):.1%}")

# %%
# Both beside the wave that the targets were made of.

figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
for name, curve in curves.items():
    axes[0].plot(grid, curve, label=name, zorder=3)
axes[0].plot(*wild_rows, ".", color="0.8", markersize=3)
axes[1].plot(*clean_rows, ".", color="0.6", markersize=3)
axes[1].fill_between(grid[:, 0], *bounds, alpha=0.3, label="5 to 95 percent")
axes[0].set(title="a tenth of the targets is wild", xlabel="x", ylabel="y", ylim=(-2, 8))
axes[1].set(title="clean targets, two quantiles", xlabel="x", ylim=(-2, 2))
for axis in axes:
    axis.plot(grid, np.sin(4 * grid), "k:", label="the wave")
    axis.legend()
path = sys.argv[1] if len(sys.argv) > 1 else "regression_losses.png"
figure.savefig(path, dpi=100)
