"""What a training run does beyond the plain one, held against the reference: dropout, batch normalisation, residual
layers, changed input, mixup, label smoothing, clipping, layers at rates of their own."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from helpers import tolerance, varied

from fastmlp import core, reference

# Philox4x32-10 of three counters and keys, from the tables that its authors publish with Random123.
KNOWN_WORDS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]

FACTORS = tuple(((1.0 / (1 + l), 1.0 + l, 0.5 * l), (0.1, 2.0, 3.0)) for l in range(4))
METHODS = {
    "plain": {},
    "dropout": {"dropout": (0.2, 0.5, 0.0, 0.3)},
    "batch_norm": {"batch_norm": True},
    "residual": {"residual": True},
    "noise": {"input_noise": 0.3},
    "mask": {"input_mask": 0.25},
    "mixup": {"mix": True},
    "smoothing": {"label_smoothing": 0.1},
    "mean": {"loss_reduction": "mean"},
    "mean of mixed rows": {"loss_reduction": "mean", "mix": True, "batch_norm": True},
    "clipping": {"max_grad_norm": 0.05},
    "rates": {"layer_rates": (0.0, 0.1, 1.0, 2.0)},
    "frozen body": {"layer_rates": (0.0, 0.0, 0.0, 1.0), "batch_norm": True},
    "frozen middle": {"layer_rates": (1.0, 0.0, 1.0, 1.0), "batch_norm": True, "residual": True},
    "frozen clipping": {"layer_rates": (0.0, 1.0, 0.5, 1.0), "max_grad_norm": 0.05},
    "factors": {"factors": FACTORS, "weight_decay": 0.3},
    "input scaling": {"factors": FACTORS, "input_scaling": (6.0, 0.5, 2.0), "weight_decay": 0.3},
    "input scaling, clipping": {"input_scaling": (3.0, 1.0, 1.0), "max_grad_norm": 0.05, "batch_norm": True},
    "schedules": {"dropout": (0.2, 0.5, 0.1, 0.3), "schedules": True, "weight_decay": 0.3},
    "everything": {
        "dropout": (0.1, 0.2, 0.3, 0.4), "batch_norm": True, "residual": True, "input_noise": 0.2, "input_mask": 0.1,
        "mix": True,
        "label_smoothing": 0.1, "max_grad_norm": 0.1, "layer_rates": (1.0, 0.5, 1.0, 2.0),
        "factors": FACTORS, "input_scaling": (2.0, 1.0, 1.0), "schedules": True, "weight_decay": 0.1,
    },
}  # fmt: skip
SIZES = (9, 37, 37, 21, 3)
CONSTANTS = {"momentum": 0.8, "beta_1": 0.85, "beta_2": 0.95, "epsilon": 1e-3, "rho": 0.7}
SEED = 0x123456789ABCDEF


def of_network(model):
    """The parameters of the model's network, whose first layer does the work of the input's scale."""
    W, *others = model.coefs
    s = model.input_scale[0][:, np.newaxis] if model.input_scale else 1.0
    return [s * W, *others, *model.intercepts, *model.scales]


def train(method, activation, loss, optimizer, dtype, batch_size, n_threads=1, n_rows=110, epochs=2, compared=True):
    """(losses, step losses, parameters, state, statistics) by the core, and (losses, model) by the reference if
    compared."""
    rng = np.random.RandomState(3)
    options = {"batch_norm": False, "residual": False, "mix": False, "dropout": (), "layer_rates": (), **method}
    plan = core.Plan(SIZES, (activation,) * 3, core.LOSSES[loss], dtype, options["batch_norm"], options["residual"])
    X = varied(rng.standard_normal((n_rows, SIZES[0])).astype(dtype))
    softmax = plan.output == "softmax"
    y = varied(rng.randint(0, 3, n_rows) if softmax else rng.randint(0, 2, (n_rows, 3)).astype(dtype))
    weight = rng.uniform(0.5, 1.5, n_rows)
    order = rng.permutation(n_rows).astype(np.intp)[: n_rows - 5]
    n_steps = -(-len(order) // batch_size)
    rates, mix = rng.uniform(0.001, 0.01, n_steps), rng.beta(0.4, 0.4, n_steps) if options["mix"] else None
    layers = [(rng.standard_normal((i, o)) / np.sqrt(i), rng.uniform(-0.1, 0.1, o)) for i, o in pairwise(SIZES)]
    model = reference.new_model(
        [W for W, _ in layers], [b for _, b in layers], optimizer, options["batch_norm"], "input_scaling" in options
    )
    model = model._replace(scales=[rng.uniform(0.5, 1.5, s.shape) for s in model.scales])
    flat = np.concatenate([w.ravel() for w in of_network(model)]).astype(dtype)
    model = model._replace(
        coefs=[w.astype(dtype).astype(np.float64) for w in model.coefs],
        intercepts=[b.astype(dtype).astype(np.float64) for b in model.intercepts],
        scales=[s.astype(dtype).astype(np.float64) for s in model.scales],
    )
    statistics = (
        np.concatenate([w.ravel() for w in model.means + model.variances]).astype(dtype)
        if options["batch_norm"]
        else None
    )
    trainer = core.Trainer(
        plan, loss, optimizer, batch_size, n_threads, dropout=options["dropout"] or None,
        layer_rates=options["layer_rates"] or None, max_grad_norm=options.get("max_grad_norm", 0.0),
        factors=options.get("factors"), input_scaling=options.get("input_scaling"),
    )  # fmt: skip
    trainer.load(flat, None, statistics)
    constants = {
        k: options[k] for k in ("input_noise", "input_mask", "label_smoothing", "loss_reduction") if k in options
    }
    schedules = {}
    if options.get("schedules"):
        schedules = {"dropout_factors": np.linspace(1, 0, n_steps), "decay_factors": np.linspace(0.2, 1, n_steps)}
    own = {**CONSTANTS, "weight_decay": options.get("weight_decay", 0.0)}
    spec = reference.Method(
        options["residual"], options["dropout"], options["layer_rates"], options.get("max_grad_norm", 0.0),
        loss_parameter=0.7, seed=SEED, alpha=0.1, l1_ratio=0.3, eps=float(np.finfo(dtype).eps),
        factors=options.get("factors", ()),
        input_scaling=options.get("input_scaling", ()), **constants,
    )  # fmt: skip
    ours, theirs, step_losses = [], [], np.zeros(n_steps)
    for e in range(epochs):
        ours.append(trainer.epoch(
            X, y, weight, order, rates, e * n_steps, alpha=0.1, l1_ratio=0.3, seed=SEED, mix=mix, loss_parameter=0.7,
            step_losses=step_losses, **schedules, **constants, **own,
        ))  # fmt: skip
        if not compared:
            continue
        loss_value, model = reference.epoch(
            model, plan.activations, loss, optimizer, batch_size, X.astype(np.float64), y, weight, order, rates,
            e * n_steps,
            reference.Hyper(0.0, **own), spec, mix, **schedules,
        )  # fmt: skip
        theirs.append(loss_value)
    state = np.empty((core.OPTIMIZERS[optimizer], len(flat)), dtype)
    trainer.store(flat, state, statistics)
    return (ours, step_losses, flat, state, statistics, plan), (theirs, model, spec)


def test_words_are_philox():
    """The reference's generator is the published one."""
    for counter, key, expected in KNOWN_WORDS:
        assert tuple(int(word) for word in reference.philox(np.array(counter), key)) == expected


@pytest.mark.crossed
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("loss", "optimizer", "activation"), [
    ("log_loss", "adamw", "relu"), ("binary_log_loss", "sgd_nesterov", "tanh"), ("huber", "rmsprop", "logistic"),
])  # fmt: skip
def test_epochs_are_the_references(method, loss, optimizer, activation, dtype):
    """Loss, parameters, optimizer state and running averages after two epochs of four steps."""
    options = dict(METHODS[method])
    if loss == "huber":
        options.pop("label_smoothing", None)
    ours, theirs = train(options, activation, loss, optimizer, dtype, 32)
    # A relu whose input rounding takes across the kink changes a gradient by a whole term; batches of such size hide
    # it.
    bound = tolerance(dtype, 40 * sum(SIZES))
    assert np.abs(np.subtract(ours[0], theirs[0])).max() <= bound
    model = theirs[1]
    expected = np.concatenate([w.ravel() for w in of_network(model)])
    assert np.abs(ours[2] - expected).max() <= bound
    for k, array in enumerate(ours[3]):
        expected = np.concatenate([s[k].ravel() for s in model.state])[: len(array)]
        assert np.abs(array - expected).max() <= bound * max(1.0, np.abs(expected).max())
    if options.get("batch_norm"):
        expected = np.concatenate(model.means + model.variances)
        assert np.abs(ours[4] - expected).max() <= bound * max(1.0, np.abs(expected).max())


@pytest.mark.crossed
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("batch_size", [1, 7, 96, 2500])
def test_bits_do_not_depend_on_threads(method, batch_size):
    """1, 2 and 3 threads: random numbers, statistics, norms and sums are the same bits.

    A trainer works alone in its first two slices of time, of which an epoch is at least one, and then tries all
    threads.
    """
    n_rows = 5300 if batch_size == 2500 else 110
    found = []
    for n_threads in (1, 2, 3):
        losses, step_losses, parameters, state, statistics, _ = train(
            METHODS[method],
            "relu",
            "log_loss",
            "adam",
            "float32",
            batch_size,
            n_threads,
            n_rows,
            epochs=5,
            compared=False,
        )[0]
        found.append(
            [
                losses,
                step_losses.tobytes(),
                parameters.tobytes(),
                state.tobytes(),
                None if statistics is None else statistics.tobytes(),
            ]
        )
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("method", ["plain", "batch_norm", "residual", "everything"])
@pytest.mark.parametrize("n_rows", [1, 3, 100, 1100])
def test_prediction_is_the_references(method, n_rows):
    """Running averages and residual layers, on every path that prediction takes: the same bits for each number of
    rows."""
    ours, (_, model, spec) = train(METHODS[method], "tanh", "log_loss", "adam", "float64", 32)
    _, _, parameters, _, statistics, plan = ours
    X = np.random.RandomState(0).standard_normal((1100, SIZES[0]))
    got = core.forward(plan, parameters, X[:n_rows], statistics=statistics)
    expected = reference.predict(model, plan.activations, plan.output, X[:n_rows], spec.residual)
    assert np.abs(got - expected).max() <= tolerance("float64", 40 * sum(SIZES))
    for n_threads in (1, 2):
        np.testing.assert_array_equal(core.forward(plan, parameters, X, None, n_threads, statistics)[:n_rows], got)


def test_frozen_layers_do_not_change_a_bit():
    """Weights, biases, scales and averages of layers at rate 0."""
    method = {"layer_rates": (0.0, 0.0, 1.0, 1.0), "batch_norm": True, "dropout": (0.1,) * 4}
    before = train(method, "relu", "log_loss", "adam", "float32", 32, epochs=0)[0]
    after = train(method, "relu", "log_loss", "adam", "float32", 32)[0]
    frozen = SIZES[0] * SIZES[1] + SIZES[1] * SIZES[2]
    np.testing.assert_array_equal(before[2][:frozen], after[2][:frozen])
    assert not np.array_equal(before[2][frozen:], after[2][frozen:])
    hidden = sum(SIZES[1:-1])
    for statistics in (slice(0, SIZES[1] + SIZES[2]), slice(hidden, hidden + SIZES[1] + SIZES[2])):
        np.testing.assert_array_equal(before[4][statistics], after[4][statistics])


def test_clipping_bounds_the_step():
    """With plain gradient descent a step is rate * gradient: its norm is at most rate * max_grad_norm, and reaches
    it."""
    for max_norm in (0.01, 0.1):
        plan = core.Plan((5, 8, 2), ("relu",), "softmax", "float64")
        rng = np.random.RandomState(0)
        X, y, parameters = (
            varied(rng.standard_normal((40, 5)) * 10),
            varied(rng.randint(0, 2, 40)),
            rng.standard_normal(plan.n_parameters),
        )
        trainer = core.Trainer(plan, "log_loss", "sgd", 40, max_grad_norm=max_norm)
        trainer.load(parameters)
        after = parameters.copy()
        trainer.epoch(X, y, None, None, np.array([0.5]), 0)
        trainer.store(after)
        assert abs(np.linalg.norm(after - parameters) / (0.5 * max_norm) - 1) < tolerance("float64", 100)


def test_step_losses_add_up():
    """The epoch's loss is the mean of its steps' by rows, where no penalty is paid."""
    plan = core.Plan((5, 8, 2), ("relu",), "softmax", "float64")
    rng = np.random.RandomState(0)
    X, y = varied(rng.standard_normal((45, 5))), varied(rng.randint(0, 2, 45))
    trainer = core.Trainer(plan, "log_loss", "sgd", 20)
    trainer.load(rng.standard_normal(plan.n_parameters))
    losses = np.zeros(3)
    total = trainer.epoch(X, y, None, None, np.full(3, 0.1), 0, step_losses=losses)
    assert abs(total - np.average(varied(losses), weights=[20, 20, 5])) < tolerance("float64", 10)


@pytest.mark.parametrize(("argument", "value"), [
    ("dropout", (0.5,)), ("dropout", (0.0, 1.0)), ("dropout", (-0.1, 0.0)), ("dropout", (float("nan"), 0.0)),
    ("layer_rates", (1.0,)), ("layer_rates", (1.0, -1.0)), ("layer_rates", (1.0, float("inf"))),
    ("max_grad_norm", -1.0),
    ("max_grad_norm", float("nan")),
])  # fmt: skip
def test_trainer_names_what_it_cannot_use(argument, value):
    plan = core.Plan((5, 8, 2), ("relu",), "softmax", "float64")
    with pytest.raises(ValueError, match=argument):
        core.Trainer(plan, "log_loss", "adam", 10, **{argument: value})
