"""Shards of a batch: the tree by brute force, one shard against epochs, the same digest whoever sums, what shards
cannot train."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from helpers import rest_slow, tolerance
from scipy.sparse import csr_array

from fastmlp import Network, core
from fastmlp.distributed.tree import additions, shards, tree_sum
from fastmlp.training.solvers import STOCHASTIC_SOLVERS

RULES = [*STOCHASTIC_SOLVERS, "sgd_momentum", "sgd_nesterov"]
SIZES, N, BATCH = (9, 20, 17, 3), 700, 600  # batches of two micro-batches
METHOD = {"seed": 5, "input_noise": 0.1, "input_mask": 0.1, "label_smoothing": 0.05}
PENALTY = {"alpha": 0.3, "l1_ratio": 0.2}


def brute(numbers):
    """The tree by recursion: the left subtree has the largest power of two below the number of leaves."""
    if len(numbers) == 1:
        return numbers[0]
    left = 1
    while 2 * left < len(numbers):
        left *= 2
    return brute(numbers[:left]) + brute(numbers[left:])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_tree_by_brute_force(dtype):
    rng = np.random.RandomState(0)
    for n in range(1, 65):
        leaves = (10.0 ** rng.uniform(-8, 8, (n, 50)) * rng.choice([-1, 1], (n, 50))).astype(dtype)
        expected = brute(list(leaves.copy()))
        assert np.array_equal(tree_sum(list(leaves)), expected)
        pairs = list(additions(n))
        assert sorted(source for _, source in pairs) == list(
            range(1, n)
        )  # each is added once, after its own sum is complete
        assert [s - t for t, s in pairs] == sorted(s - t for t, s in pairs)


def test_the_tree_is_more_exact_than_a_chain():
    numbers = np.random.RandomState(0).uniform(0, 1, (64, 1000)).astype("float32")
    exact = numbers.sum(axis=0, dtype=np.float64)
    chain = numbers[0].copy()
    for row in numbers[1:]:
        chain += row
    assert np.abs(tree_sum(list(numbers)) - exact).max() < np.abs(chain - exact).max()


def test_shards_cover_a_batch():
    for n_rows in (0, 1, 5, 64, 1000):
        for n in (1, 2, 3, 7, 64):
            parts = shards(n_rows, n)
            assert [row for part in parts for row in range(part.start, part.stop)] == list(range(n_rows))
            assert len(parts) == n
            assert max(part.stop - part.start for part in parts) - min(part.stop - part.start for part in parts) <= 1


def rows(dtype="float32"):
    rng = np.random.RandomState(1)
    return rng.standard_normal((N, 9)).astype(dtype), rng.randint(0, 3, N), rng.permutation(N).astype(np.intp)


def trainers(n, rule="adam", dtype="float32", n_threads=1, **options):
    network = Network(SIZES, "tanh", "softmax", dtype, random_state=0)
    made = [
        core.Trainer(network.plan, "log_loss", rule, BATCH, n_threads, dropout=(0.1, 0.2, 0.0), **options)
        for _ in range(n)
    ]
    for trainer in made:
        trainer.load(network.parameters)
    return network, made


def update_by(gradient, weights, n_rows, rate, t, penalty, worker):
    return worker.update(gradient, weights, n_rows, rate, t, **penalty)


def train(n_shards, n_workers=1, weight=None, dtype="float32", penalty=PENALTY, method=METHOD, X=None, **options):
    """Two epochs: parameters and losses. Each worker sums the shards whose number it has modulo their number, and
    updates all weights."""
    network, workers = trainers(n_workers, dtype=dtype, **options)
    own, y, order = rows(dtype)
    X = own if X is None else X
    losses, t = [], 0
    with ThreadPoolExecutor(n_workers) as threads:
        for _ in range(2):
            total = 0.0
            for worker in workers:
                worker.resume(t, 0, 0.0, np.zeros_like(worker.position()[2]))
            for first in range(0, N, BATCH):
                batch = order[first : first + BATCH]
                parts = shards(len(batch), n_shards)
                sums, scalars = np.empty((n_shards, network.n_parameters), dtype), np.empty((n_shards, 2))

                def add(w, batch=batch, parts=parts, sums=sums, scalars=scalars, t=t):
                    for s in range(w, n_shards, n_workers):
                        scalars[s] = workers[w].sums(
                            X, y, weight, batch[parts[s]], sums[s], t, first_row=parts[s].start, **method
                        )

                list(threads.map(add, range(n_workers)))
                gradient, (loss, weights) = tree_sum(list(sums)), tree_sum(list(scalars))
                update = partial(update_by, gradient, weights, len(batch), 0.01, t, penalty)
                penalties = list(threads.map(update, workers))
                total += loss / weights * len(batch)
                t += 1
            losses.append((total + penalties[0]) / N)
    for worker in workers[::-1]:
        worker.store(network.parameters)
    return network.parameters, losses


def epochs(weight=None, dtype="float32", penalty=PENALTY, method=METHOD, X=None, **options):
    network, (trainer,) = trainers(1, dtype=dtype, **options)
    own, y, order = rows(dtype)
    X = own if X is None else X
    losses = [trainer.epoch(X, y, weight, order, np.full(2, 0.01), t, **penalty, **method) for t in (0, 2)]
    trainer.store(network.parameters)
    return network.parameters, losses


@pytest.mark.parametrize("rule", rest_slow(RULES, "adam", "sgd_nesterov"))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_shard_has_the_bits_of_epochs(rule, dtype):
    for options in ({}, {"max_grad_norm": 0.01}, {"layer_rates": (0.0, 1.0, 0.5)}, {"n_threads": 2}):
        assert np.array_equal(
            train(1, rule=rule, dtype=dtype, **options)[0], epochs(rule=rule, dtype=dtype, **options)[0]
        )
    assert train(1, rule=rule, dtype=dtype)[1] == epochs(rule=rule, dtype=dtype)[1]


@pytest.mark.parametrize("reduction", ["weighted_mean", "mean"])
def test_weights_and_sparse_rows(reduction):
    weight = np.random.RandomState(2).randint(0, 3, N).astype(float)
    method = {**METHOD, "loss_reduction": reduction}
    assert np.array_equal(train(1, weight=weight, method=method)[0], epochs(weight=weight, method=method)[0])
    own = rows()[0]
    sparse = csr_array(own * (own > 1.2))
    assert np.array_equal(train(1, X=sparse, method={})[0], epochs(X=sparse, method={})[0])


@pytest.mark.parametrize("n_shards", rest_slow([2, 3, 5, 8, 64], 5))
@pytest.mark.parametrize(
    "options",
    [{}, {"max_grad_norm": 0.01, "dtype": "float64"}, {"rule": "amsgrad"}],
    ids=["adam", "clipping", "amsgrad"],
)
def test_the_same_digest_whoever_sums(n_shards, options):
    """On 1 to 3 workers, on one thread or two; near the result of epochs, with the same draws of dropout and noise."""
    expected = train(n_shards, **options)
    for n_workers in (2, 3):
        got = train(n_shards, n_workers, **options)
        assert np.array_equal(got[0], expected[0])
        assert got[1] == expected[1]
    assert np.array_equal(train(n_shards, n_threads=2, **options)[0], expected[0])
    plain = epochs(**options)[0]
    # adam's first steps are rate * sign(gradient): a gradient that rounds to another sign moves by two rates.
    assert np.abs(expected[0] - plain).max() <= tolerance(plain.dtype, 4 * N, 10.0)


def test_a_shard_without_rows_or_weight_adds_nothing():
    network, (trainer,) = trainers(1)
    X, y, order = rows()
    out = np.full(network.n_parameters, 7, "float32")
    assert trainer.sums(X, y, None, order[:0], out, 0) == (0.0, 0.0)
    assert not out.any()
    assert trainer.sums(X, y, np.zeros(N), order[:9], out, 0) == (0.0, 0.0)
    before = network.parameters.copy()
    trainer.update(out, 0.0, 9, 0.1, 0)
    trainer.store(network.parameters)
    assert np.array_equal(network.parameters, before)


def test_what_shards_cannot_train():
    X, y, order = rows()
    network = Network(SIZES, "tanh", "softmax", "float32", batch_norm=True, random_state=0)
    trainer = core.Trainer(network.plan, "log_loss", "adam", BATCH)
    out = np.empty(network.n_parameters, "float32")
    with pytest.raises(ValueError, match="shards cannot train batch normalisation"):
        trainer.sums(X, y, None, order[:5], out, 0)
    with pytest.raises(ValueError, match="shards cannot train batch normalisation"):
        trainer.update(out, 5.0, 5, 0.1, 0)
    network, (trainer,) = trainers(1)
    with pytest.raises(ValueError, match="a shard of 700 rows does not fit batches of 600"):
        trainer.sums(X, y, None, order, np.empty(network.n_parameters, "float32"), 0)
    with pytest.raises(ValueError, match="out"):
        trainer.sums(X, y, None, order[:5], np.empty(3, "float32"), 0)
    trainer.finish()
    with pytest.raises(RuntimeError, match="finished"):
        trainer.update(np.empty(network.n_parameters, "float32"), 5.0, 5, 0.1, 0)
