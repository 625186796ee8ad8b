"""The optimizer's state in panels, from one Trainer to the next, and the memory that goes with it."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest
from scipy.sparse import csr_array

from fastmlp import Network, core

SIZES, ROWS = (70, 37, 37, 3), 45
X = np.random.RandomState(0).standard_normal((ROWS, SIZES[0]))
Y = np.arange(ROWS) % 3
THIN = csr_array(np.where(np.abs(X) > 1.7, X, 0))
# The rows of the first two batches of 10 count nothing: no update reads the state there.
LATE = np.where(np.arange(ROWS) < 20, 0.0, 1.0)
CASES = {
    "plain": ({}, X, None),
    "late": ({}, X, LATE),
    "no update": ({}, X, 0 * LATE),
    "frozen": ({"layer_rates": (1.0, 0.0, 0.5)}, X, None),
    "last layer": ({"layer_rates": (0.0, 0.0, 1.0)}, X, LATE),
    "clipped": ({"max_grad_norm": 0.01}, X, LATE),
    "sparse": ({}, THIN, None),
    "batch_norm": ({"batch_norm": True}, X, LATE),
    "frozen batch_norm": ({"batch_norm": True, "layer_rates": (0.0, 1.0, 1.0)}, X, None),
    "threads": ({"n_threads": 3}, X, LATE),
}


def make(dtype="float64", batch_norm=False):
    return Network(SIZES, "tanh", "softmax", dtype, random_state=0, batch_norm=batch_norm)


def epoch(network, optimizer, state, rows, weight, t, *, batch_size=10, cancelled=False, **options):
    """One epoch of a Trainer of its own, which begins with `state`; returns it before it has finished."""
    trainer = core.Trainer(network.plan, "log_loss", optimizer, batch_size, **options)
    trainer.load(network.parameters, state, network.statistics)
    n_steps = -(-ROWS // batch_size)
    if cancelled:
        trainer.cancel = threading.Event()
        trainer.cancel.set()
        with pytest.raises(core.Cancelled):
            trainer.epoch(rows, Y, weight, None, np.full(n_steps, 0.01), t)
    else:
        trainer.epoch(rows, Y, weight, None, np.full(n_steps, 0.01), t, alpha=0.1)
    trainer.store(network.parameters, None, network.statistics)
    return trainer


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "amsgrad"])
def test_panels_continue_like_arrays(optimizer, case, dtype):
    """The same bits, epoch after epoch, and an earlier state is never changed."""
    options, rows, weight = CASES[case]
    options = dict(options)
    ours, theirs = (make(dtype, options.get("batch_norm", False)) for _ in range(2))
    options.pop("batch_norm", None)
    rows = rows.astype(dtype)
    panels = arrays = None
    for t in (0, 5, 10):
        before = None if panels is None else np.asarray(panels)
        last = panels
        panels = epoch(ours, optimizer, panels, rows, weight if t else None, t, **options).finish()
        arrays = np.asarray(epoch(theirs, optimizer, arrays, rows, weight if t else None, t, **options).finish())
        assert np.array_equal(np.asarray(panels), arrays)
        assert np.array_equal(ours.parameters, theirs.parameters)
        assert np.array_equal(ours.statistics, theirs.statistics)
        assert last is None or np.array_equal(np.asarray(last), before)
    assert len(arrays) == 0 or np.any(arrays[-1])


def test_run_that_ends_before_its_first_update_keeps_the_state():
    network = make()
    panels = epoch(network, "adam", None, X, None, 0).finish()
    cancelled = epoch(network, "adam", panels, X, None, 5, cancelled=True)
    stored = np.empty(panels.shape)
    cancelled.store(network.parameters.copy(), stored)
    assert np.array_equal(stored, np.asarray(panels))
    assert np.array_equal(np.asarray(cancelled.optimizer_state()), stored)
    again = epoch(network, "adam", panels, X, None, 5, cancelled=True)
    again.cancel.clear()
    again.epoch(X, Y, None, None, np.full(5, 0.01), 5)
    expected = epoch(make(), "adam", None, X, None, 0)
    expected.epoch(X, Y, None, None, np.full(5, 0.01), 5)
    assert np.array_equal(np.asarray(again.finish()), np.asarray(expected.finish()))


@pytest.mark.parametrize("n_state", [0, 2])
def test_new_state_is_zero(n_state):
    plan = make().plan
    panels = core.OptimizerPanels(plan, n_state)
    assert panels.shape == (n_state, plan.n_parameters)
    assert panels.is_finite()
    assert np.array_equal(np.asarray(panels), np.zeros(panels.shape))


def test_panels_are_shared_by_copies_and_pickled_as_arrays():
    panels = epoch(make(), "adam", None, X, None, 0).finish()
    assert copy.deepcopy(panels) is panels
    assert copy.copy(panels) is panels
    pickled = pickle.loads(pickle.dumps(panels))
    assert type(pickled) is np.ndarray
    assert np.array_equal(pickled, np.asarray(panels))
    assert np.asarray(panels, dtype=np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(panels, copy=False)


def test_the_pace_of_another_network_is_not_taken_over():
    """Whether more threads help depends on the sizes of layers and batches, and on the element type."""
    reserve = core.Reserve()

    def paced(sizes, batch_size, dtype="float32", n_threads=2):
        network = Network(sizes, dtype=dtype, random_state=0)
        trainer = core.Trainer(network.plan, "log_loss", "adam", batch_size, n_threads, reserve=reserve)
        trainer.load(network.parameters)
        trainer.finish()
        return trainer.paced

    assert [paced((4, 5, 3), 10), paced((4, 5, 3), 10), paced((4, 50, 3), 10), paced((4, 5, 3), 10)] == [
        False,
        True,
        False,
        False,
    ]
    assert [paced((4, 5, 3), 20), paced((4, 5, 3), 20, "float64"), paced((4, 5, 3), 20, "float64", 1)] == [False] * 3
    assert paced((4, 5, 3), 20, "float64", 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_finite_state_and_parameters(dtype, bad):
    """One number in any place is seen; the largest numbers are finite."""
    network = make(dtype, True)
    trainer = core.Trainer(network.plan, "log_loss", "momentum", 10)
    state = np.full((1, network.n_parameters), np.finfo(dtype).max, dtype)
    parameters, statistics = -state[0], network.statistics
    trainer.load(parameters, state, statistics)
    assert trainer.store(parameters, None, statistics) is True
    assert trainer.optimizer_state().is_finite()
    places = np.random.RandomState(0).choice(network.n_parameters, 50, replace=False)
    for place in (0, network.n_parameters - 1, *places):
        state[0, place], parameters[place] = bad, bad
        trainer.load(parameters, state, statistics)
        assert trainer.store(parameters.copy(), None, statistics) is False
        assert not trainer.optimizer_state().is_finite()
        state[0, place], parameters[place] = 1, 1
    statistics[3] = bad
    trainer.load(parameters, state, statistics)
    assert trainer.store(parameters, None, statistics) is False


@pytest.mark.parametrize("options", [{"dtype": "float32"}, {"batch_norm": True}])
def test_panels_of_another_network_are_refused(options):
    panels = epoch(make(), "adam", None, X, None, 0).finish()
    other = make(**options)
    trainer = core.Trainer(other.plan, "log_loss", "adam", 10)
    with pytest.raises(ValueError, match="for this network"):
        trainer.load(other.parameters, panels, other.statistics)
    with pytest.raises(ValueError, match="for this network"):
        core.Trainer(make().plan, "log_loss", "momentum", 10).load(make().parameters, panels)


def test_reserve_lends_memory_and_changes_no_bit():
    """Blocks of more than 4 MiB go from a Trainer to the next, of other batches and other state, with what is in
    them."""
    sizes, rows = (600, 1000, 600), np.random.RandomState(0).standard_normal((700, 600))
    target = np.arange(700) % 600
    reserve, networks = core.Reserve(), [Network(sizes, dtype="float64", random_state=0) for _ in range(2)]
    states = [None, None]
    for t, batch_size in enumerate([700, 1, 700, 300, 2]):
        for i, lender in enumerate((reserve, None)):
            trainer = core.Trainer(networks[i].plan, "log_loss", "adam", batch_size, reserve=lender)
            trainer.load(networks[i].parameters, states[i] if t != 3 else None)
            trainer.epoch(rows[:batch_size], target[:batch_size], None, None, np.full(1, 1e-3), t)
            trainer.store(networks[i].parameters)
            states[i] = trainer.finish()
        assert np.array_equal(networks[0].parameters, networks[1].parameters)
        assert np.array_equal(np.asarray(states[0]), np.asarray(states[1]))
    assert states[0].reserve is reserve
    assert states[1].reserve is None
