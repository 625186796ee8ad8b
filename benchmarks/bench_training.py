"""A training step of each workload beside reference.py's: agreement and time in one case.

Each workload with Adam, the four in float64 too; and, on the first of them, each activation, loss and update rule of
the tables, and each method of benchmarks/methods.py (with tanh, which has no kink that rounding might cross). A step on
coded rows, and on their dense encoding. The reference computes in float64 and with all the threads that NumPy's BLAS
takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.measure import note_agreement, note_speed, rounds_for
from benchmarks.methods import PLAIN, Case, cases
from benchmarks.workloads import OTHER_SHAPES, WORKLOADS, Workload
from fastmlp import Network, core, reference
from fastmlp.check import Outcome, targets_for
from fastmlp.training.run import Method
from fastmlp.training.threads import choose_threads

# Floating-point operations of a round: long enough to time, with as many steps as that takes.
ROUND_FLOPS = 2e9


class Training(NamedTuple):
    """What is trained, and how."""

    workload: Workload
    loss: str = "log_loss"
    optimizer: str = "adam"
    case: Case = PLAIN

    @property
    def name(self) -> str:
        w = self.workload
        words = [f"training {w.name} {w.activation} {self.loss} {self.optimizer}"]
        return " ".join(words + ([] if self.case is PLAIN else [self.case.kind, self.case.name]))


def trainings() -> Iterator[Training]:
    """Each once, in the order of the table."""
    first = WORKLOADS[0]
    every = [Training(w) for w in (*WORKLOADS, *OTHER_SHAPES)]
    every += [Training(replace(w, dtype="float64")) for w in WORKLOADS]
    every += [Training(replace(first, activation=name)) for name in core.ACTIVATIONS]
    every += [Training(first, loss=name) for name in core.LOSSES]
    every += [Training(first, optimizer=name) for name in core.OPTIMIZERS]
    seen = {(replace(t.workload, name=""), t.loss, t.optimizer): t for t in reversed(every)}
    yield from (t for t in every if seen[replace(t.workload, name=""), t.loss, t.optimizer] is t)
    smooth = replace(first, activation="tanh")
    yield from (Training(smooth, case=case) for case in cases(len(first.layers)) if case.network or case.method)


class Run:
    """One training set up both ways, from the same parameters."""

    def __init__(self, training: Training) -> None:
        w = training.workload
        self.training, self.workload = training, w
        draws = np.random.RandomState(0)
        self.X = w.data().X
        y = targets_for(training.loss, (w.n_rows, w.n_classes), draws)
        self.y = y.astype(np.intp) if y.ndim == 1 else y.astype(w.dtype)
        self.order = draws.permutation(w.n_rows)
        coefs, intercepts = reference.initialise(w.layer_sizes, w.activation, draws)
        self.start = np.concatenate([a.ravel() for a in coefs + intercepts]).astype(w.dtype)
        self.hidden = [w.activation] * (len(w.layer_sizes) - 2)
        self.n_threads = choose_threads(None, w.step_flops)
        self.method = Method(seed=12345, **training.case.method)
        output = core.LOSSES[training.loss]
        self.network = Network(w.layer_sizes, self.hidden, output, w.dtype, random_state=0, **training.case.network)
        self.network.parameters[: len(self.start)] = self.start
        self.trainer = self.method.trainer(
            self.network, training.loss, training.optimizer, w.batch_size, self.n_threads
        )
        self.n_steps = int(min(max(ROUND_FLOPS / w.step_flops, 1), w.n_steps, 1000))
        self.trainer.load(self.network.parameters, None, self.network.statistics)
        self.order = self.clear_rows_first()

    def clear_rows_first(self) -> np.ndarray:
        """The order, with a first batch of rows that keep off the kink of relu by more than rounding moves them.

        On the other side of it a unit's derivative is 0 instead of 1, a difference that no bound on rounding covers.
        """
        w, model = self.workload, self.reference_model()
        some, rest = np.split(self.order, [2 * w.batch_size])
        a, z = self.X[some], []
        for W, b, name in zip(model.coefs, model.intercepts, self.hidden, strict=False):
            z.append(a @ W + b)
            a = reference.ACTIVATIONS[name][0](z[-1])
        distance = np.abs(np.hstack([*z, np.ones((len(some), 1))])).min(axis=1)
        clear = distance > 4 * np.sqrt(sum(w.layer_sizes)) * np.finfo(w.dtype).eps
        assert clear.sum() >= w.batch_size
        return np.concatenate([some[clear], some[~clear], rest])

    def steps(self, n: int) -> float:
        """The first n steps of an epoch, by fastmlp."""
        w = self.workload
        rates, order = np.full(n, w.learning_rate), self.order[: n * w.batch_size]
        mix = self.method.mix(0, n)
        return float(self.trainer.epoch(self.X, self.y, None, order, rates, 0, mix=mix, **self.method.constants()))

    def reference_model(self) -> reference.Model:
        """The parameters at the start, in float64."""
        arrays, at = [], 0
        for shape in [*self.workload.layers, *((fan_out,) for fan_out in self.workload.layer_sizes[1:])]:
            size = int(np.prod(shape))
            arrays.append(self.start[at : at + size].astype(np.float64).reshape(shape))
            at += size
        n_layers = len(arrays) // 2
        batch_norm = self.network.batch_norm
        return reference.new_model(arrays[:n_layers], arrays[n_layers:], self.training.optimizer, batch_norm)

    def reference_step(self, model: reference.Model) -> tuple[float, reference.Model]:
        """The first step, by reference.py."""
        w, rows = self.workload, self.order[: self.workload.batch_size]
        hyper, eps = reference.Hyper(w.learning_rate), float(np.finfo(w.dtype).eps)
        loss, rule = self.training.loss, self.training.optimizer
        names = set(reference.Method._fields) & set(vars(self.method))
        shared = {name: getattr(self.method, name) for name in names}
        method = reference.Method(self.network.residual, eps=eps, **shared)
        mix = self.method.mix(0, 1)
        return reference.step(
            model, self.hidden, loss, rule, self.X[rows].astype(np.float64), self.y[rows], None, hyper, 1, method,
            None if mix is None else float(mix[0]),
        )  # fmt: skip

    def agreement(self) -> Outcome:
        """Loss, parameters and the optimizer's arrays after one step: the largest relative error, in n eps.

        Each array's is |got - want| / |want| in the Euclidean norm: a single element may differ by more, where Adam
        divides a gradient of nothing by its own size. n is the number of terms along the longest path of sums.
        """
        w, model = self.workload, self.reference_model()
        loss = self.steps(1)
        got = np.empty_like(self.network.parameters)
        state = np.empty((len(model.state[0]), got.size), got.dtype)
        self.trainer.store(got, state)
        want_loss, model = self.reference_step(model)
        errors = [abs(loss - want_loss) / abs(want_loss)]
        for mine, theirs in zip((got, *state), (model.parameters, *zip(*model.state, strict=True)), strict=True):
            want = np.concatenate([a.ravel() for a in theirs])
            errors.append(float(np.linalg.norm(mine - want) / np.linalg.norm(want)))
        n_terms = w.batch_size + sum(map(sum, w.layers))
        return Outcome(max(errors) / (n_terms * float(np.finfo(w.dtype).eps)), 1.0, "n eps")


@pytest.mark.parametrize(
    "training", list(trainings()), ids=lambda training: f"{training.name} {training.workload.dtype}"
)
def test_training_step_beside_reference(benchmark: BenchmarkFixture, training: Training) -> None:
    run, w = Run(training), training.workload
    shape = "-".join(map(str, w.layer_sizes)) + f" x{w.batch_size}"
    note_agreement(benchmark, training.name, w.dtype, shape, run.n_threads, run.agreement())
    benchmark.pedantic(run.steps, (run.n_steps,), rounds=rounds_for(lambda: run.steps(run.n_steps)))
    model = run.reference_model()
    note_speed(benchmark, lambda: run.reference_step(model), calls=run.n_steps, flops=w.step_flops)


# Of a table: bins of its numbers, categories of its other columns; hidden units, rows, batch.
BINS, CATEGORIES, HIDDEN, ROWS, BATCH = (48,) * 20, (3, 8, 20, 50), (256, 256), 12_800, 256


@pytest.mark.parametrize("given", ["codes", "encoding"])
def test_step_on_codes_beside_their_encoding(benchmark: BenchmarkFixture, given: str) -> None:
    """The same step on coded rows and on the dense encoding, both beside the reference's on the encoding."""
    draws, layout = np.random.RandomState(0), core.CodeLayout(BINS, CATEGORIES)
    bins, codes = draws.randint(BINS, size=(ROWS, len(BINS))), draws.randint(CATEGORIES, size=(ROWS, len(CATEGORIES)))
    arrays = bins.astype(np.uint16), draws.uniform(size=bins.shape).astype(np.float32), codes.astype(np.uint16)
    encoding = reference.encode(*arrays, BINS, CATEGORIES)
    X = core.Codes(layout, *arrays) if given == "codes" else encoding.astype(np.float32)
    y, order, n_steps = draws.randint(2, size=ROWS), draws.permutation(ROWS), ROWS // BATCH
    network = Network((layout.width, *HIDDEN, 2), "tanh", random_state=0)
    w = Workload(given, network.layer_sizes, BATCH, ROWS, "tanh")
    n_threads = choose_threads(None, w.step_flops)
    trainer = core.Trainer(network.plan, "log_loss", "adam", BATCH, n_threads)
    trainer.load(network.parameters)
    model = reference.new_model(
        *([a.astype(np.float64) for a in part] for part in (network.coefs, network.intercepts)), "adam"
    )

    def steps(n: int) -> float:
        return float(trainer.epoch(X, y, None, order[: n * BATCH], np.full(n, w.learning_rate), 0))

    def reference_step() -> tuple[float, reference.Model]:
        rows, hyper = order[:BATCH], reference.Hyper(w.learning_rate)
        return reference.step(model, ["tanh"] * 2, "log_loss", "adam", encoding[rows], y[rows], None, hyper, 1)

    loss, (want_loss, want) = steps(1), reference_step()
    got = np.empty_like(network.parameters)
    trainer.store(got)
    flat = np.concatenate([a.ravel() for a in want.parameters])
    error = max(abs(loss / want_loss - 1), float(np.linalg.norm(got - flat) / np.linalg.norm(flat)))
    n_terms = BATCH + sum(map(sum, w.layers))
    outcome = Outcome(error / (n_terms * float(np.finfo(np.float32).eps)), 1.0, "n eps")
    shape = "-".join(map(str, w.layer_sizes)) + f" x{BATCH}"
    note_agreement(benchmark, f"training table tanh adam, {given}", "float32", shape, n_threads, outcome)
    benchmark.pedantic(steps, (n_steps,), rounds=rounds_for(lambda: steps(n_steps)))
    note_speed(benchmark, reference_step, calls=n_steps)


@pytest.mark.parametrize("n_members", [1, 8])
def test_gradient_of_members_beside_reference(benchmark: BenchmarkFixture, n_members: int) -> None:
    """The gradient of a batch of coded rows, through embeddings and members, beside that of as many dense networks."""
    draws, layout, d = np.random.RandomState(0), core.CodeLayout(BINS, CATEGORIES), 16
    bins, codes = draws.randint(BINS, size=(BATCH, len(BINS))), draws.randint(CATEGORIES, size=(BATCH, len(CATEGORIES)))
    arrays = bins.astype(np.uint16), draws.uniform(size=bins.shape).astype(np.float32), codes.astype(np.uint16)
    X, encoding, y = (
        core.Codes(layout, *arrays),
        reference.encode(*arrays, BINS, CATEGORIES),
        draws.randint(2, size=BATCH),
    )
    sizes = (layout.width, len(BINS + CATEGORIES) * d, 128, 128, 2)
    network = Network(sizes, ("identity", "relu", "relu"), random_state=0, embedding=d, n_members=n_members)
    coefs, intercepts = ([a.astype(np.float64) for a in part] for part in (network.coefs, network.intercepts))
    if n_members == 1:
        coefs[-1], intercepts[-1] = coefs[-1][np.newaxis], intercepts[-1][np.newaxis]
    scalings = network.scalings[0].astype(np.float64) if n_members > 1 else np.ones((1, len(BINS + CATEGORIES)))
    members = reference.Members(coefs, intercepts, scalings, BINS, CATEGORIES)
    n_threads = choose_threads(None, n_members * Workload("members", sizes[1:], BATCH, BATCH, "relu").step_flops)
    gradient = np.empty_like(network.parameters)

    def ours() -> float:
        return network.loss_gradient(X, y, out=gradient, n_threads=n_threads)[0]

    def theirs() -> tuple[float, list[np.ndarray]]:
        return reference.member_gradients(members, network.activations, "log_loss", encoding, y)

    loss, (want_loss, want) = ours(), theirs()
    flat = np.concatenate([a.ravel() for a in want])
    error = max(abs(loss / want_loss - 1), float(np.linalg.norm(gradient[: len(flat)] - flat) / np.linalg.norm(flat)))
    outcome = Outcome(error / ((BATCH + sum(sizes)) * float(np.finfo(np.float32).eps)), 1.0, "n eps")
    note_agreement(
        benchmark, f"gradient of {n_members} members", "float32", "-".join(map(str, sizes)), n_threads, outcome
    )
    benchmark.pedantic(ours, rounds=rounds_for(ours))
    note_speed(benchmark, theirs)
