"""Trainer: its epochs against the reference, its state stored and loaded again, what it and a Plan cannot be used
for."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from helpers import tolerance, varied
from scipy.sparse import csr_array

from fastmlp import Network, core, reference

SIZES = (7, 13, 5, 3)
CONSTANTS = {"momentum": 0.8, "beta_1": 0.85, "beta_2": 0.95, "epsilon": 1e-3, "rho": 0.7, "weight_decay": 0.6}


@pytest.mark.crossed
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", sorted(core.LOSSES))
@pytest.mark.parametrize("optimizer", sorted(core.OPTIMIZERS))
def test_epoch_is_the_references(optimizer, loss, dtype, rng):
    """Two epochs, with order, weights, a weightless batch, rates per step and penalty: loss, parameters, state."""
    output = core.LOSSES[loss]
    network = Network(SIZES, "tanh", output, dtype, random_state=0)
    X = varied(rng.standard_normal((50, 7)).astype(dtype))
    y = rng.randint(0, 3, 50) if output == "softmax" else rng.randint(0, 2, (50, 3)).astype(dtype)
    varied(y)
    order = rng.permutation(50)[:46].astype(np.intp)
    weight = rng.uniform(0.5, 1.5, 50)
    weight[order[8:16]] = 0
    rates = rng.uniform(0.001, 0.01, 6)
    penalty = {"alpha": 0.1, "l1_ratio": 0.3}
    method = reference.Method(**penalty, eps=float(np.finfo(dtype).eps))

    wide = [w.astype(np.float64) for w in network.coefs + network.intercepts]
    model = reference.new_model(wide[:3], wide[3:], optimizer)
    trainer = core.Trainer(network.plan, loss, optimizer, 8, 1)
    trainer.load(network.parameters)
    for t in (0, 6):
        expected_loss, model = reference.epoch(
            model, network.activations, loss, optimizer, 8, X.astype(np.float64), y, weight, order, rates, t,
            reference.Hyper(0.0, **CONSTANTS), method,
        )  # fmt: skip
        got_loss = trainer.epoch(X, y, weight, order, rates, t, **penalty, **CONSTANTS)
        assert abs(got_loss - expected_loss) <= tolerance(dtype, 50, max(1.0, abs(expected_loss)))
    state = np.empty((core.OPTIMIZERS[optimizer], network.n_parameters), dtype=dtype)
    trainer.store(network.parameters, state)
    # Twelve steps, each of which may move a parameter by a rate's worth of relative error in its gradient.
    expected = np.concatenate([w.ravel() for w in model.coefs + model.intercepts])
    assert np.abs(network.parameters - expected).max() <= tolerance(dtype, 12 * sum(SIZES))
    for k, array in enumerate(state):
        expected = np.concatenate([s[k].ravel() for s in model.state])
        assert np.abs(array - expected).max() <= tolerance(dtype, 12 * sum(SIZES), max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", sorted(rule for rule, n_state in core.OPTIMIZERS.items() if n_state))
def test_subnormal_averages_count_as_0_from_time_to_time(optimizer, dtype):
    """After every 128th update, as in the reference, signs kept; gradients and averages of squares stay as they are."""
    network = Network(SIZES, "identity", "identity", dtype, random_state=0)
    network.parameters = 0
    n_state, update = reference.OPTIMIZERS[optimizer]
    limits = np.finfo(dtype)
    small = float(limits.tiny) * np.array([0, -0.0, 3e-3, -3e-3, 0.5, -0.5, 1.5, -2.5, 1e9, -1e9])
    before = np.resize(small, (n_state, network.n_parameters)).astype(dtype)
    if optimizer not in reference.AVERAGES:
        before[0] = np.abs(before[0])
    before[1:] = np.abs(before[1:])
    X, y = np.zeros((8, SIZES[0]), dtype), np.full((8, SIZES[-1]), 0.5 * limits.tiny, dtype)
    biases = slice(-SIZES[-1], None)  # they alone have a gradient: a subnormal one
    for t in (63, 64, 127, 128, 129, 192, 256):  # the update that is made
        trainer = core.Trainer(network.plan, "squared_error", optimizer, 8, 1)
        trainer.load(network.parameters, before)
        trainer.epoch(X, y, None, None, np.zeros(1), t - 1, **CONSTANTS)
        after = np.empty_like(before)
        trainer.store(network.parameters, after)
        hyper, zeros = reference.Hyper(0.0, **CONSTANTS), np.zeros(network.n_parameters, dtype)
        _, want = update(zeros, zeros, tuple(before), hyper, t)
        cleared = t % 128 == 0 and optimizer in reference.AVERAGES
        want = np.array(reference.flush_subnormals(want) if cleared else want)
        got, want = after[:, : biases.start], want[:, : biases.start]
        # Among subnormal numbers rounding is absolute; an update rounds twice.
        np.testing.assert_allclose(got, want, rtol=0, atol=2 * float(limits.smallest_subnormal))
        np.testing.assert_array_equal(np.signbit(got), np.signbit(want))
        is_small = (after != 0) & (np.abs(after) < limits.tiny)
        assert is_small[0].any() == (not cleared)
        assert is_small[1:].any() == (n_state > 1)
        assert optimizer != "gradient" or is_small[0, biases].all()


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("activation", core.ACTIVATIONS)
def test_epoch_is_the_references_by_activation(activation, sparse, rng):
    """Every hidden activation, its slope taken from the input or from the output; dense rows and CSR."""
    network = Network(SIZES, activation, "identity", "float64", random_state=0)
    X = varied(np.where(rng.uniform(size=(50, 7)) < 0.1, rng.standard_normal((50, 7)), 0))
    y, rates = varied(rng.standard_normal((50, 3))), np.full(7, 0.1)
    model = reference.new_model(network.coefs, network.intercepts, "sgd")
    hyper = reference.Hyper(0.0, **CONSTANTS)
    expected_loss, model = reference.epoch(
        model, network.activations, "squared_error", "sgd", 8, X, y, None, None, rates, 0, hyper
    )
    trainer = core.Trainer(network.plan, "squared_error", "sgd", 8, 2)
    trainer.load(network.parameters)
    got_loss = trainer.epoch(csr_array(X) if sparse else X, y, None, None, rates, 0, **CONSTANTS)
    trainer.store(network.parameters)
    expected = np.concatenate([w.ravel() for w in model.coefs + model.intercepts])
    assert abs(got_loss - expected_loss) <= tolerance("float64", 50, max(1.0, abs(expected_loss)))
    assert np.abs(network.parameters - expected).max() <= tolerance("float64", 7 * sum(SIZES))


def test_epoch_resumes_from_stored_state(rng):
    """store and load in between change no bit."""
    network = Network(SIZES, "relu", random_state=0)
    X, y, rates = varied(rng.standard_normal((50, 7))), varied(rng.randint(0, 3, 50)), np.full(7, 0.01)
    results = []
    for interrupted in (False, True):
        parameters, state = network.parameters.copy(), np.zeros((2, network.n_parameters), np.float32)
        trainer = core.Trainer(network.plan, "log_loss", "adam", 8, 1)
        trainer.load(parameters)
        for epoch in range(3):
            trainer.epoch(X, y, None, None, rates, 7 * epoch)
            if interrupted:
                trainer.store(parameters, state)
                trainer = core.Trainer(network.plan, "log_loss", "adam", 8, 1)
                trainer.load(parameters, state)
        trainer.store(parameters, state)
        results.append((parameters, state))
    assert all(map(np.array_equal, *results))


def test_unknown_hyperparameter_is_an_error():
    trainer = core.Trainer(core.Plan((4, 3), (), "softmax", "float64"), "log_loss", "adam", 10, 1)
    X, y = np.zeros((10, 4)), np.zeros(10, np.intp)
    with pytest.raises(TypeError, match="unexpected keyword arguments: beta_3"):
        trainer.epoch(X, y, None, None, np.zeros(1), 0, beta_2=0.5, beta_3=0.5)


def test_core_objects_cannot_be_half_made_or_remade():
    with pytest.raises(TypeError, match="positional argument"):
        core.Plan.__new__(core.Plan)
    with pytest.raises(TypeError, match="Argument 'plan' has incorrect type"):
        core.Trainer(None, "log_loss", "adam", 10, 1)
    plan = core.Plan((4, 3), (), "softmax", "float64")
    plan.__init__((400, 300), (), "softmax", "float64")
    assert plan.layer_sizes == (4, 3)


def test_one_trainer_in_two_threads_is_an_error():
    plan = core.Plan((50, 100, 3), ("relu",), "softmax", "float64")
    trainer = core.Trainer(plan, "log_loss", "adam", 100, 1)
    X, y = np.random.RandomState(0).rand(200_000, 50), np.zeros(200_000, np.intp)
    begun, errors = threading.Event(), []

    def train():
        begun.set()
        try:
            trainer.epoch(X, y, None, None, np.full(2000, 1e-3), 0)
        except RuntimeError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=train) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == ["this Trainer is in use: an epoch of it runs, or another thread has it"]


def test_finished_trainer_is_of_no_use():
    network = Network((5, 40, 3), dtype="float64", random_state=0)
    draws = np.random.default_rng(0)
    X, y = draws.standard_normal((30, 5)), draws.integers(0, 3, 30)
    trainer = core.Trainer(network.plan, "log_loss", "adam", 10)
    parameters, state = network.parameters.copy(), np.empty((2, network.n_parameters))
    trainer.load(parameters)
    trainer.epoch(X, y, None, None, np.full(3, 1e-3), 0)
    stored, stored_state = parameters.copy(), state.copy()
    trainer.store(stored, stored_state)
    assert np.array_equal(trainer.finish(), stored_state)
    for use in (
        lambda: trainer.load(parameters),
        lambda: trainer.store(parameters),
        lambda: trainer.finish(),
        lambda: trainer.epoch(X, y, None, None, np.full(3, 1e-3), 0),
    ):
        with pytest.raises(RuntimeError, match="has finished"):
            use()
