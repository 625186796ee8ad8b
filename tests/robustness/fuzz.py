"""Kernels and whole training runs of random shapes, strides, offsets and threads against the reference: `make fuzz
SECONDS=60`.

The cases are check.py's, on every instruction set of this machine; guards around every output stand in _testing.pyx.
Each trial draws from its own seed, which is printed where it fails and runs it again. Not collected by pytest.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from fastmlp import core, reference
from fastmlp.check import Outcome, cases, coded_rows, eps_of, given, largest, targets_for, training_cases
from fastmlp.core._testing import BLOCK_ROWS, Kernels

# What has to be compared, however fast the machine and short the time.
ELEMENTS = 10_000_000
# In one matrix: the reference, in extended precision, should not take all the time.
LARGEST = 40_000
CASES = list(cases())
TRAINING = [case.operation.split()[1:] for case in training_cases()]


class Trial(NamedTuple):
    """What was compared: in words, the elements that went in and came out, and how it ended."""

    what: str
    elements: int
    outcome: Outcome


def any_size(draws: np.random.RandomState, V: int) -> int:
    """Around the sizes that kernels treat apart, small ones, or any up to some chunks."""
    edges = [0, 1, V, 2 * V, 3 * V, BLOCK_ROWS, 2 * BLOCK_ROWS, 64, 128, 256, 512, 1024]
    kind = draws.randint(3)
    if kind == 0:
        return max(0, edges[draws.randint(len(edges))] + draws.randint(-1, 2))
    return draws.randint(50) if kind == 1 else int(np.exp(draws.uniform(0, np.log(1500))))


def any_shape(draws: np.random.RandomState, V: int) -> tuple[int, int, int]:
    """(B, I, O), the larger ones cut until each matrix is small enough."""
    shape = [any_size(draws, V) for _ in range(3)]
    while max(shape[0] * shape[1], shape[1] * shape[2], shape[0] * shape[2]) > LARGEST:
        shape[int(np.argmax(shape))] //= 2
    return shape[0], shape[1], shape[2]


def kernel_trial(draws: np.random.RandomState) -> Trial:
    """One kernel, at any place in memory."""
    isa, dtype = draws.choice(core.info()["available"]), draws.choice(core.info()["dtypes"])
    place = {"offset": draws.randint(70), "first": draws.randint(40), "slack": draws.randint(40)}
    K, case = Kernels(str(isa), str(dtype), **place), CASES[draws.randint(len(CASES))]
    B, I, O = shape = any_shape(draws, K.vector)
    what = f"{case.operation}, {isa}, {dtype}, (B, I, O) = {shape}, {place}"
    try:
        outcome = case.run(K, shape, draws)
    except AssertionError as error:  # a guard
        outcome = Outcome(np.inf, 0.0, str(error))
    return Trial(what, B * I + I * O + B * O, outcome)


def training_trial(draws: np.random.RandomState) -> Trial:
    """Some steps of a whole network, on dense rows and CSR or on codes, on one thread and on several: the reference's
    parameters, and the same bits."""
    loss, optimizer = TRAINING[draws.randint(len(TRAINING))]
    sizes = tuple(1 + draws.randint(40, size=draws.randint(2, 5)))
    rows, batch = draws.randint(1, 400), draws.randint(1, 150)
    X, weights = draws.standard_normal((rows, sizes[0])), draws.uniform(0.5, 2, rows)
    X = np.where(draws.uniform(size=X.shape) < draws.choice([0.05, 1.0]), X, 0.0)
    kinds = [(1, X), (3, X), (2, csr_array(X))]
    if draws.randint(2):
        sizes = (1 + draws.randint(300), *sizes[1:])
        codes, _, _ = coded_rows(draws, rows, sizes[0], exact=False)
        X = reference.encode(*given(codes, np.arange(len(codes))))
        rows, weights = len(X), draws.uniform(0.5, 2, len(X))
        kinds = [(1, codes), (3, codes), (2, codes)]
    hidden = [str(draws.choice(core.ACTIVATIONS)) for _ in sizes[1:-1]]
    y, order = targets_for(loss, (rows, sizes[-1]), draws), draws.permutation(rows)
    rates = np.full(-(-rows // batch), 0.003)
    coefs, intercepts = reference.initialise(sizes, "relu", draws)
    start = np.concatenate([w.ravel() for w in coefs + intercepts])
    found = []
    for n_threads, data in kinds:
        trainer = core.Trainer(
            core.Plan(sizes, hidden, core.LOSSES[loss], "float64"), loss, optimizer, batch, n_threads
        )
        flat = start.copy()
        trainer.load(flat)
        value = trainer.epoch(data, y, weights, order, rates, 0, alpha=0.1, l1_ratio=0.3, weight_decay=0.7)
        trainer.store(flat)
        found.append((value, flat))
    model = reference.new_model(coefs, intercepts, optimizer)
    hyper, method = reference.Hyper(0.003, weight_decay=0.7), reference.Method(alpha=0.1, l1_ratio=0.3)
    want, model = reference.epoch(model, hidden, loss, optimizer, batch, X, y, weights, order, rates, 0, hyper, method)
    want_flat = np.concatenate([w.ravel() for w in model.coefs + model.intercepts])
    eps = eps_of(Kernels(core.info()["isa"], "float64"))
    errors = [
        largest(found[0][1] - want_flat, eps * (1 + np.abs(want_flat))),
        largest(found[0][0] - want, (1 + abs(want)) * eps),
    ]
    errors += [
        0.0 if value == found[0][0] and np.array_equal(flat, found[0][1]) else np.inf for value, flat in found[1:]
    ]
    what = (
        f"training {loss} {optimizer}, {type(kinds[0][1]).__name__}, sizes {sizes}, {hidden}, {rows} rows in batches "
        f"of {batch}"
    )
    return Trial(what, len(rates) * len(start) + X.size, Outcome(max(errors), 1e4 * len(rates), "n eps"))


def run_trial(seed: int, number: int) -> Trial:
    draws = np.random.RandomState([seed, number])
    return training_trial(draws) if draws.randint(20) == 0 else kernel_trial(draws)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "seconds", type=float, help=f"at least so long, and until {ELEMENTS} elements have been compared"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trial", type=int, help="run only this one")
    arguments = parser.parse_args()
    started, number, elements, failed, kinds = time.monotonic(), arguments.trial or 0, 0, 0, Counter()
    while True:
        what, size, outcome = run_trial(arguments.seed, number)
        elements += size
        kinds[what.split(",")[0]] += 1
        if not outcome.passed:
            failed += 1
            print(f"FAILED (--seed {arguments.seed} --trial {number}) {what}: {outcome}", flush=True)
        number += 1
        if arguments.trial is not None or (time.monotonic() - started >= arguments.seconds and elements >= ELEMENTS):
            break
    passed = kinds.total() - failed
    print(
        f"seed {arguments.seed}: {elements:.3g} elements of {len(kinds)} operations in "
        f"{time.monotonic() - started:.0f} s"
    )
    print(f"fuzz: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
