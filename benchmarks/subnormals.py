"""What subnormal numbers add to a training step: python -m benchmarks.subnormals

Ratios of processor time on one thread, a step with such numbers to the same step without, median of rounds taken in
turns. They say something about the processor they were measured on: some take 100 cycles and more for what others do in
passing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from fastmlp import Network, core

SIZES, BATCH, ROWS, ROUNDS = (200, 256, 128, 1), 128, 384, 15
N_PARAMETERS = sum(fan_in * fan_out + fan_out for fan_in, fan_out in pairwise(SIZES))
N_BIASES = sum(SIZES[1:])


def epoch(
    activation: str,
    X: np.ndarray,
    parameters: np.ndarray,
    rule: str,
    state: np.ndarray | None,
    rate: float,
    alpha: float,
) -> Callable[[], float]:
    """A function that trains for an epoch from ``parameters`` and returns its processor time in seconds."""
    network = Network(SIZES, activation, "identity", X.dtype, parameters)
    trainer = core.Trainer(network.plan, "squared_error", rule, BATCH, 1)
    y, rates = np.zeros((len(X), 1), X.dtype), np.full(-(-len(X) // BATCH), rate)

    def run() -> float:
        trainer.load(network.parameters, state)
        started = time.thread_time()
        trainer.epoch(X, y, None, None, rates, 0, alpha=alpha)
        return time.thread_time() - started

    return run


def cases(dtype: str) -> dict[str, tuple[Callable[[], float], Callable[[], float]]]:
    """Name -> (with subnormal numbers, without)."""
    rng, tiny = np.random.RandomState(0), 1e-40 if dtype == "float32" else 1e-310
    X, W = rng.standard_normal((ROWS, SIZES[0])).astype(dtype), (rng.standard_normal(N_PARAMETERS) * 0.05).astype(dtype)
    unbiased = W.copy()
    unbiased[-N_BIASES:] = 0
    # Gradients go by the fifth power of this: their squares, a thousandth of which enters adam's average, are
    # subnormal.
    small = unbiased * (9e-4 if dtype == "float32" else 1.4e-30)
    deep = -np.abs(X) * (15 if dtype == "float32" else 113)  # logistic of sums near the end of exp

    def pair(
        subnormal: tuple[np.ndarray, np.ndarray],
        activation: str = "relu",
        rule: str = "adam",
        state=None,
        rate=1e-3,
        alpha=0.0,
    ):
        plain = (X, W)
        return tuple(
            epoch(activation, x.astype(dtype), w.astype(dtype), rule, s, rate, alpha)
            for (x, w), s in ((subnormal, state), (plain, None))
        )

    return {
        "X": pair((X * tiny, W)),
        "X and all products": pair((X * tiny, unbiased)),
        "X, through tanh": pair((X * tiny, W), "tanh"),
        "weights, adam": pair((X, W * tiny), rate=0.0),
        "weights, sgd": pair((X, W * tiny), rule="sgd_momentum", rate=0.0),
        "weights that a penalty takes down": pair((X, W * tiny), rule="sgd_momentum", alpha=1.0),
        "squares of gradients, adam": pair((X, small), rate=0.0),
        "squares of gradients, rmsprop": pair((X, small), rule="rmsprop", rate=0.0),
        "adam's averages": pair((X * 0, W * 0), state=np.full((2, N_PARAMETERS), tiny, dtype), rate=0.0),
        "logistic that underflows": pair((deep, np.abs(W)), "logistic"),
    }


def main() -> None:
    """Print a table: case, ratio in float32 and in float64."""
    ratios = {
        dtype: {
            name: np.median([slow() / fast() for _ in range(ROUNDS)]) for name, (slow, fast) in cases(dtype).items()
        }
        for dtype in ("float32", "float64")
    }
    print("| subnormal | float32 | float64 |\n| --- | ---: | ---: |")
    for name in ratios["float32"]:
        print(f"| {name} | {ratios['float32'][name]:.2f} | {ratios['float64'][name]:.2f} |")


if __name__ == "__main__":
    main()
