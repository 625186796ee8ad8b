"""Coded rows: training and prediction on them are those on their dense encoding; what codes cannot be is refused."""

from __future__ import annotations

import hashlib
import pickle
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from helpers import DIFFERENCE_STEP, difference_tolerance, output_of, tolerance, varied
from scipy.sparse import csr_array

from fastmlp import Network, core, reference
from fastmlp.training import loop
from fastmlp.training import run as training
from fastmlp.training.diagnosis import describe_scale, diagnose
from fastmlp.training.rows import TrainingData
from fastmlp.training.schedules import make_schedule

FMA_ISAS = [name for name in core.info()["available"] if name != "base"]

# Bins of each number, categories of each feature: less than a block of rows and more, one of each, one kind only.
LAYOUTS = {
    "mixed": ((48, 1, 3, 70), (5, 1, 40)),
    "numbers": ((48, 12), ()),
    "categories": ((), (7, 33)),
    "one number": ((5,), ()),
    "one category": ((), (2,)),
    "many categories": ((3,), (5000,)),
}


def coded(rng, n: int, bin_counts, category_counts, *, wide: bool = False, exact: bool = False, missing: bool = True):
    """(Codes of n rows, their dense encoding in float64); with `exact`, fractions are multiples of 1/8."""
    none = int(missing)
    bins = rng.randint([[m + none for m in bin_counts]] * n, size=(n, len(bin_counts))).astype(np.uint16)
    codes = rng.randint([[c + none for c in category_counts]] * n, size=(n, len(category_counts)))
    codes = codes.astype(np.uint32 if wide else np.uint16)
    fractions = rng.uniform(-0.3, 1.3, bins.shape)
    fractions = np.where(bins == np.array(bin_counts, int), 1, np.round(8 * fractions) / 8 if exact else fractions)
    fractions = fractions.astype(np.float32)
    layout = core.CodeLayout(bin_counts, category_counts)
    numbers = (bins, fractions) if bin_counts else (None, None)
    X = core.Codes(layout, *numbers, codes if category_counts else None)
    return X, reference.encode(bins, fractions, codes, bin_counts, category_counts)


def model_of(sizes, optimizer: str, dtype: str, rng, batch_norm: bool = False) -> tuple[reference.Model, np.ndarray]:
    """A model whose numbers are of a type, and its flat parameters."""
    layers = [(rng.standard_normal((i, o)) / np.sqrt(i), rng.uniform(-0.1, 0.1, o)) for i, o in pairwise(sizes)]
    arrays = [[part.astype(dtype).astype(np.float64) for part in parts] for parts in zip(*layers, strict=True)]
    model = reference.new_model(*arrays, optimizer, batch_norm)
    return model, np.concatenate([w.ravel() for w in model.parameters]).astype(dtype)


METHODS = {
    "plain": {},
    "dropout": {"dropout": (0.0, 0.4, 0.3)},
    "batch_norm": {"batch_norm": True},
    "residual": {"residual": True},
    "clipping": {"max_grad_norm": 0.05},
    "smoothing": {"label_smoothing": 0.1},
    "frozen": {"layer_rates": (0.0, 1.0, 1.0)},
    "rates": {"layer_rates": (0.5, 1.0, 2.0)},
}


def train(
    method, layout, dtype, batch_size, *, optimizer="adam", n_threads=1, n=110, epochs=2, dense=False, compared=True
):
    """(losses, parameters, state, statistics) of epochs on codes, or on their encoding, and the reference's (losses,
    model)."""
    rng = np.random.RandomState(5)
    options = {"dropout": (), "batch_norm": False, "residual": False, "layer_rates": (), **METHODS[method]}
    X, encoded = coded(rng, n, *LAYOUTS[layout])
    y, weight = varied(rng.randint(0, 3, n)), rng.uniform(0.5, 1.5, n)
    order = rng.permutation(n).astype(np.intp)[: n - 3]
    weight[order[:batch_size]] *= batch_size < n / 4  # a batch without weight
    sizes = (X.shape[1], 37, 37, 3)
    model, flat = model_of(sizes, optimizer, dtype, rng, options["batch_norm"])
    plan = core.Plan(sizes, ("tanh", "relu"), "softmax", dtype, options["batch_norm"], options["residual"])
    trainer = core.Trainer(
        plan, "log_loss", optimizer, batch_size, n_threads, dropout=options["dropout"] or None,
        layer_rates=options["layer_rates"] or None, max_grad_norm=options.get("max_grad_norm", 0.0),
    )  # fmt: skip
    statistics = np.concatenate([*model.means, *model.variances, np.zeros(0)]).astype(dtype)
    trainer.load(flat, None, statistics if len(statistics) else None)
    smoothing = options.get("label_smoothing", 0.0)
    spec = reference.Method(
        options["residual"], options["dropout"], options["layer_rates"], options.get("max_grad_norm", 0.0),
        label_smoothing=smoothing, seed=77, alpha=0.1, l1_ratio=0.3, eps=float(np.finfo(dtype).eps),
    )  # fmt: skip
    n_steps = -(-len(order) // batch_size)
    rates = rng.uniform(0.001, 0.01, n_steps)
    losses, expected = [], []
    for e in range(epochs):
        losses.append(trainer.epoch(
            encoded.astype(dtype) if dense else X, y, weight, order, rates, e * n_steps, alpha=0.1, l1_ratio=0.3,
            seed=77,
            label_smoothing=smoothing, epsilon=1e-3,
        ))  # fmt: skip
        if not compared:
            continue
        loss, model = reference.epoch(
            model, plan.activations, "log_loss", optimizer, batch_size, encoded, y, weight, order, rates, e * n_steps,
            reference.Hyper(0.0, epsilon=1e-3), spec,
        )  # fmt: skip
        expected.append(loss)
    state = np.empty((core.OPTIMIZERS[optimizer], len(flat)), dtype)
    trainer.store(flat, state, statistics if len(statistics) else None)
    return (losses, flat, state, statistics), (expected, model)


@pytest.mark.crossed
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("method", "layout"), [
    *((method, "mixed") for method in METHODS), *(("plain", layout) for layout in LAYOUTS),
])  # fmt: skip
def test_epochs_are_the_references_on_the_encoding(method, layout, dtype):
    """Losses, parameters, optimizer state and running averages."""
    ours, (losses, model) = train(method, layout, dtype, 25)
    bound = tolerance(dtype, 4000)
    assert np.abs(np.subtract(ours[0], losses)).max() <= bound
    expected = np.concatenate([w.ravel() for w in model.parameters])
    assert np.abs(ours[1] - expected).max() <= bound
    for k, array in enumerate(ours[2]):
        expected = np.concatenate([s[k].ravel() for s in model.state])
        assert np.abs(array - expected).max() <= bound * max(1.0, np.abs(expected).max())
    expected = np.concatenate([*model.means, *model.variances, np.zeros(0)])
    np.testing.assert_allclose(ours[3], expected, rtol=bound, atol=bound)


@pytest.mark.parametrize("method", ["plain", "clipping", "batch_norm"])
def test_micro_batches_add_up(method):
    """A step of 2,400 rows takes five micro-batches, or one under batch normalisation."""
    codes, _ = train(method, "mixed", "float64", 2400, n=5300, compared=False)
    dense, _ = train(method, "mixed", "float64", 2400, n=5300, dense=True, compared=False)
    for mine, theirs in zip(codes, dense, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=tolerance("float64", 10_000))


def digest_of(method: str, layout: str, dtype: str, batch_size: int, n_threads: int) -> str:
    """Of losses, parameters, state and averages; five epochs, of which the first two work on one thread."""
    n = 2600 if batch_size == 1100 else 110
    options = {"n_threads": n_threads, "n": n, "epochs": 5, "compared": False}
    losses, *arrays = train(method, layout, dtype, batch_size, **options)[0]
    return hashlib.sha256(repr(losses).encode() + b"".join(array.tobytes() for array in arrays)).hexdigest()


BITS = [("plain", layout, 25) for layout in LAYOUTS] + [(method, "mixed", 1100) for method in METHODS]


@pytest.mark.crossed
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("method", "layout", "batch_size"), BITS)
def test_bits_do_not_depend_on_threads(method, layout, batch_size, dtype):
    assert len({digest_of(method, layout, dtype, batch_size, n_threads) for n_threads in (1, 2, 3)}) == 1


@pytest.mark.skipif(len(FMA_ISAS) < 2, reason=f"this CPU and build have one FMA instruction set or none: {FMA_ISAS}")
def test_bits_do_not_depend_on_instruction_set():
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "from test_codes import BITS, core, digest_of\n"
        "print(core.info()['isa'], *(digest_of(*case[:2], dtype, case[2], 2) for case in BITS"
        " for dtype in ('float32', 'float64')))"
    )
    folders = [str(path) for path in (__file__.rpartition("/")[0], __file__.rpartition("/core/")[0])]
    with ThreadPoolExecutor() as executor:
        found = list(executor.map(lambda isa: output_of(code, *folders, FASTMLP_ISA=isa).split(), FMA_ISAS))
    assert [words[0] for words in found] == FMA_ISAS
    assert len(set(found[0][1:])) == 2 * len(BITS)
    assert all(words[1:] == found[0][1:] for words in found)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradient_is_that_of_differences(layout, rng):
    """Central differences of the loss, by the rows of the first layer's weights."""
    X, encoded = coded(rng, 40, *LAYOUTS[layout])
    network = Network((X.shape[1], 6, 2), "tanh", "identity", "float64", random_state=0)
    y = varied(rng.standard_normal((40, 2)))
    loss, gradient = network.loss_gradient(X, y, loss="squared_error", alpha=0.1)
    dense_loss, dense = network.loss_gradient(encoded, y, loss="squared_error", alpha=0.1)
    assert abs(loss - dense_loss) <= tolerance("float64", 40, 10)
    np.testing.assert_allclose(gradient, dense, rtol=0, atol=tolerance("float64", 40 * 6, 10))
    start = network.parameters.copy()
    for at in rng.choice(X.shape[1] * 6, min(60, X.shape[1] * 6), replace=False):
        losses = []
        for step in (DIFFERENCE_STEP, -DIFFERENCE_STEP):
            network.parameters = start
            network.parameters[at] += step
            losses.append(network.loss_gradient(X, y, loss="squared_error", alpha=0.1)[0])
        assert abs((losses[0] - losses[1]) / (2 * DIFFERENCE_STEP) - gradient[at]) <= difference_tolerance(100)


@pytest.mark.crossed
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_exact_sums_are_those_of_the_encoding(layout, dtype, wide, rng):
    """Where no sum is rounded, the order of the sums does not matter: the same bits in the loss, outputs and
    gradient."""
    X, encoded = coded(rng, 600, *LAYOUTS[layout], wide=wide, exact=True)
    network = Network((X.shape[1], 19, 4), "relu", "identity", dtype, random_state=0)
    network.parameters = varied(rng.randint(-2, 3, network.n_parameters) / 2)
    y = varied(rng.randint(-3, 4, (600, 4))).astype(float)
    np.testing.assert_array_equal(network.forward(X), network.forward(encoded))
    found = [network.loss_gradient(rows, y[:32], n_threads=2) for rows in (X[:32], encoded[:32])]
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])


@pytest.mark.crossed
@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("hidden", [(), (33,), (1,), (130, 70)], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_prediction_does_not_depend_on_how_many_rows(layout, hidden, dtype, n_threads, rng):
    """One row, few rows and many take different paths, with the sums before the bins and without."""
    X, encoded = coded(rng, 1100, *LAYOUTS[layout])
    network = Network((X.shape[1], *hidden, 3), "tanh", dtype=dtype, random_state=0)
    every = network.forward(X, n_threads=n_threads)
    np.testing.assert_allclose(every, network.forward(encoded), rtol=0, atol=tolerance(dtype, sum(network.layer_sizes)))
    sums = core.bin_sums(network.plan, network.parameters, X.layout)
    expected = reference.sum_bins(network.coefs[0].astype(np.float64), X.layout.bin_counts)
    np.testing.assert_allclose(sums, expected, rtol=0, atol=tolerance(dtype, 70))
    for n in (1, 2, 4, 5, 23, 24, 129, 1023, 1024):
        for given in (None, sums):
            got = core.forward(network.plan, network.parameters, X[7 : 7 + n], None, n_threads, sums=given)
            np.testing.assert_array_equal(got, every[7 : 7 + n])


def test_batch_norm_predicts_on_codes(rng):
    X, encoded = coded(rng, 1100, *LAYOUTS["mixed"])
    network = Network((X.shape[1], 33, 3), batch_norm=True, dtype="float64", random_state=0)
    network.means[0][:], network.variances[0][:] = rng.standard_normal(33), rng.uniform(0.5, 2, 33)
    for n in (1, 5, 1100):
        got, want = network.forward(X[:n]), network.forward(encoded[:n])
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance("float64", X.shape[1]))


def test_missing_numbers_and_no_category(rng):
    """A missing number adds its own row of weights alone, no category nothing; no row in between changes anything."""
    layout = core.CodeLayout((3, 2), (4,))
    network = Network((layout.width, 2), out_activation="identity", dtype="float64", random_state=0)
    bins, fractions = np.array([[3, 2], [1, 2]], np.uint16), np.array([[1, 1], [0.25, 1]], np.float32)
    X = core.Codes(layout, bins, fractions, np.array([[4], [3]], np.uint16))
    W, b = network.coefs[0], network.intercepts[0]
    want = [b + W[3] + W[6], b + W[0] + 0.25 * W[1] + W[6] + W[10]]
    np.testing.assert_allclose(network.forward(X), want, rtol=0, atol=tolerance("float64", 5))
    _, gradient = network.loss_gradient(X, np.zeros((2, 2)))
    rows = np.abs(gradient[: W.size].reshape(W.shape)).sum(axis=1) > 0
    np.testing.assert_array_equal(np.flatnonzero(rows), [0, 1, 3, 6, 10])


def test_no_rows():
    """Neither rows nor an order of none change anything."""
    layout = core.CodeLayout((4,), (3,))
    empty = core.Codes(layout, np.zeros((0, 1), np.uint16), np.zeros((0, 1), np.float32), np.zeros((0, 1), np.uint16))
    assert len(empty) == 0
    assert empty.shape == (0, 8)
    network = Network((8, 3), random_state=0)
    assert network.forward(empty).shape == (0, 3)
    trainer = core.Trainer(network.plan, "log_loss", "adam", 5)
    before, after = network.parameters.copy(), network.parameters.copy()
    trainer.load(before)
    one = core.Codes(layout, np.ones((1, 1), np.uint16), np.ones((1, 1), np.float32), np.ones((1, 1), np.uint16))
    y, none = np.zeros(1, np.intp), np.zeros(0)
    assert trainer.epoch(empty, y[:0], None, None, none, 0) == 0
    assert trainer.epoch(one, y, None, y[:0], none, 0) == 0
    trainer.store(after)
    np.testing.assert_array_equal(before, after)


def test_rows_of_codes(rng):
    """A slice, a mask or indices give codes of these rows, as of arrays."""
    X, encoded = coded(rng, 20, *LAYOUTS["mixed"])
    network = Network((X.shape[1], 3), dtype="float64", random_state=0)
    for rows in (slice(3, 9), slice(None, None, -2), rng.permutation(20)[:7], rng.randint(0, 2, 20) > 0):
        part = X[rows]
        assert part.layout is X.layout
        assert part.shape == encoded[rows].shape
        want = network.forward(encoded[rows])
        np.testing.assert_allclose(network.forward(part), want, rtol=0, atol=tolerance("float64", X.shape[1]))
    with pytest.raises(ValueError, match=r"bins must have shape \(n, 4\), got \(4,\)"):
        X[3]
    with pytest.raises(IndexError):
        X[np.array([20])]


def test_runs_of_codes_are_judged(rng):
    """The loop of epochs takes codes, and so does the diagnosis, which finds no column far from unit scale."""
    X, encoded = coded(rng, 300, (12, 5), (4,))
    y = (encoded[:, 4] > 0.5).astype(np.intp)
    settings = training.Settings(max_epochs=5, batch_size=50, shuffle=True, tol=0, patience=5)
    rows = np.arange(0, 300, 2, dtype=np.intp)

    def trained(rate: float) -> training.StochasticRun:
        network = Network((X.shape[1], 8, 2), random_state=0)
        run = training.StochasticRun(
            network=network, loss="log_loss", data=TrainingData(X, y, None, rows), settings=settings,
            rng=np.random.RandomState(0), schedule=make_schedule("constant", "adam", rate, 0.5),
            optimizer=training.OptimizerState.new("adam", network),
        )  # fmt: skip
        loop.train_epochs(run)
        return run

    good, bad = trained(0.03), trained(1e3)
    losses = [run.record.loss_curve[-1] for run in (good, bad)]
    assert losses[0] < np.log(2) < losses[1]
    assert [diagnose(good), diagnose(bad), describe_scale(bad)] == ["", "", ""]


# ---- What is refused -------------------------------------------------------------------------------------------------

BINS, FRACTIONS, CATEGORIES = (
    np.full((5, 2), 2, np.uint16),
    np.full((5, 2), 0.5, np.float32),
    np.ones((5, 1), np.uint16),
)


def with_one(array: np.ndarray, value) -> np.ndarray:
    """The array, with another number in its fourth row."""
    other = array.copy()
    other[3, -1] = value
    return other


def misaligned(array: np.ndarray) -> np.ndarray:
    """The same numbers, one byte from alignment."""
    room = np.zeros(array.nbytes + 1, np.uint8)[1:]
    room[:] = np.frombuffer(array.tobytes(), np.uint8)
    return room.view(array.dtype).reshape(array.shape)


@pytest.mark.parametrize(("arrays", "message"), [
    ((None, FRACTIONS, CATEGORIES), "bins must be a C-contiguous array"),
    ((BINS, None, CATEGORIES), "fractions must be a C-contiguous array"),
    ((BINS, FRACTIONS, None), "categories must be a C-contiguous array"),
    ((BINS.tolist(), FRACTIONS, CATEGORIES), "bins must be a C-contiguous array"),
    ((BINS.astype(np.int16), FRACTIONS, CATEGORIES), "bins must be an aligned array of uint16, got format 'h'"),
    ((BINS.astype(np.uint32), FRACTIONS, CATEGORIES), "bins must be an aligned array of uint16"),
    ((BINS.astype(">u2"), FRACTIONS, CATEGORIES), "bins must be an aligned array of uint16"),
    ((BINS, FRACTIONS.astype(np.float64), CATEGORIES), "fractions must be an aligned array of float32"),
    ((BINS, FRACTIONS.astype(">f4"), CATEGORIES), "fractions must be an aligned array of float32"),
    ((BINS, FRACTIONS, CATEGORIES.astype(np.int64)), "categories must be an aligned array of uint16 or uint32"),
    ((BINS, FRACTIONS, CATEGORIES.astype(object)), "categories must be an aligned array"),
    ((misaligned(BINS), FRACTIONS, CATEGORIES), "bins must be an aligned array"),
    ((BINS, misaligned(FRACTIONS), CATEGORIES), "fractions must be an aligned array"),
    ((np.asfortranarray(BINS), FRACTIONS, CATEGORIES), "bins must be a C-contiguous array"),
    ((BINS[:, :1].copy(), FRACTIONS, CATEGORIES), r"bins must have shape \(n, 2\), got \(5, 1\)"),
    ((BINS.ravel(), FRACTIONS, CATEGORIES), r"bins must have shape \(n, 2\), got \(10,\)"),
    ((BINS, FRACTIONS[:4].copy(), CATEGORIES), r"fractions must have shape \(5, 2\), got \(4, 2\)"),
    ((BINS, FRACTIONS, CATEGORIES[:4].copy()), r"categories must have shape \(5, 1\), got \(4, 1\)"),
    ((with_one(BINS, 10), FRACTIONS, CATEGORIES),
        r"bins must lie in \[0, 9\] for a number of 9 bins, got 10 for feature 1 of row 3"),
    ((with_one(BINS, 65535), FRACTIONS, CATEGORIES), r"bins must lie in \[0, 9\]"),
    ((with_one(BINS, 9), FRACTIONS, CATEGORIES),
        "fractions must be 1 for missing numbers, got 0.5 for feature 1 of row 3"),
    ((with_one(BINS, 9), with_one(FRACTIONS, np.nan), CATEGORIES), "fractions must be 1 for missing numbers, got nan"),
    ((BINS, FRACTIONS, with_one(CATEGORIES, 4)),
        r"categories must lie in \[0, 3\] for a feature of 3 categories, got 4"),
    ((BINS, FRACTIONS, with_one(CATEGORIES.astype(np.uint32), 2**32 - 1)), r"got 4294967295 for feature 2 of row 3"),
])  # fmt: skip
def test_arrays_that_hold_no_codes_are_refused(arrays, message):
    with pytest.raises(ValueError, match=message):
        core.Codes(core.CodeLayout((4, 9), (3,)), *arrays)


def test_arrays_of_features_that_there_are_not_are_refused():
    with pytest.raises(ValueError, match="categories must be None"):
        core.Codes(core.CodeLayout((4, 9)), BINS, FRACTIONS, CATEGORIES)
    with pytest.raises(ValueError, match="fractions must be None"):
        core.Codes(core.CodeLayout((), (3,)), None, FRACTIONS, CATEGORIES)


@pytest.mark.parametrize(("counts", "error", "message"), [
    (((), ()), ValueError, "at least one feature"),
    (((0,),), ValueError, r"bin_counts must lie in \[1, 65535\], got \(0,\)"),
    (((65536,),), ValueError, "bin_counts must lie in"),
    (((3, -1),), ValueError, "bin_counts must lie in"),
    (((3,), (0,)), ValueError, r"category_counts must lie in \[1, 4294967295\]"),
    (((3,), (2**32,)), ValueError, "category_counts must lie in"),
    (((2.5,),), TypeError, "integer"),
    ((("3",),), TypeError, "integer"),
])  # fmt: skip
def test_layouts_that_cannot_be_are_refused(counts, error, message):
    with pytest.raises(error, match=message):
        core.CodeLayout(*counts)


def test_layout_is_a_value():
    layout = core.CodeLayout([np.int64(4), 9], [3])
    assert (layout.bin_counts, layout.category_counts, layout.offsets, layout.width) == (
        (4, 9),
        (3,),
        (0, 5, 15, 18),
        18,
    )
    assert layout == core.CodeLayout((4, 9), (3,)) == pickle.loads(pickle.dumps(layout))
    assert layout != core.CodeLayout((4, 9), (4,))
    assert layout != (4, 9)
    assert len({layout, core.CodeLayout((4, 9), (3,))}) == 1
    assert eval(repr(layout), {"CodeLayout": core.CodeLayout}) == layout


def test_largest_counts():
    """The last bin of 65,535, missing numbers beyond it, and a code of 32 bits."""
    layout = core.CodeLayout((65535,), (70_000,))
    network = Network((layout.width, 1), out_activation="identity", dtype="float64", random_state=0)
    bins, fractions = np.array([[65534], [65535]], np.uint16), np.ones((2, 1), np.float32)
    X = core.Codes(layout, bins, fractions, np.array([[69_999], [70_000]], np.uint32))
    W, b = network.coefs[0][:, 0], network.intercepts[0]
    want = np.array([b + W[:65535].sum() + W[-1], b + W[65535]])
    np.testing.assert_allclose(network.forward(X), want, rtol=0, atol=tolerance("float64", 65535, 0.01 * 65535))
    _, gradient = network.loss_gradient(X, np.zeros((2, 1)))
    out = network.forward(X)[:, 0]
    expected = np.concatenate([np.full(65535, out[0]), out[1:], np.zeros(69_999), out[:1]]) / 2
    np.testing.assert_allclose(gradient[:-1], expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["bins", "fractions", "categories"])
def test_codes_overwritten_since_are_found(name):
    """Arrays are not copied, so each call checks the codes."""
    arrays = {"bins": BINS.copy(), "fractions": FRACTIONS.copy(), "categories": CATEGORIES.copy()}
    arrays["bins"][0], arrays["fractions"][0] = (4, 9), 1  # missing
    layout = core.CodeLayout((4, 9), (3,))
    X = core.Codes(layout, **arrays)
    network = Network((layout.width, 3), random_state=0)
    trainer = core.Trainer(network.plan, "log_loss", "adam", 5)
    y = np.zeros(5, np.intp)
    network.forward(X)
    arrays[name][0, 0] = {"bins": 60_000, "fractions": 0.5, "categories": 4}[name]
    for use in (
        lambda: network.forward(X),
        lambda: trainer.epoch(X, y, None, None, np.zeros(1), 0),
        lambda: network.loss_gradient(X, y),
    ):
        with pytest.raises(ValueError, match=f"{name} must"):
            use()


def test_another_width_is_refused():
    X = core.Codes(core.CodeLayout((4, 9), (3,)), BINS, FRACTIONS, CATEGORIES)
    network = Network((17, 3), random_state=0)
    with pytest.raises(ValueError, match="X encodes 18 columns, the network takes 17"):
        network.forward(X)
    with pytest.raises(ValueError, match="X encodes 18 columns, the network takes 17"):
        network.loss_gradient(X, np.zeros(5, int))
    with pytest.raises(ValueError, match="the layout encodes 18 columns, the network takes 17"):
        core.bin_sums(network.plan, network.parameters, X.layout)
    network = Network((18, 3), random_state=0)
    with pytest.raises(ValueError, match="sums must be an aligned array of 45 float32"):
        core.forward(network.plan, network.parameters, X, sums=np.zeros((15, 2), np.float32))


@pytest.mark.parametrize("options", [
    {"input_noise": 0.1}, {"input_mask": 0.1}, {"mix": np.full(1, 0.5)}, {"dropout": (0.1, 0.0)},
])  # fmt: skip
def test_codes_are_not_changed(options):
    """Noise, a mask, mixup and dropout of the input are of numbers."""
    X = core.Codes(core.CodeLayout((4, 9), (3,)), BINS, FRACTIONS, CATEGORIES)
    plan = core.Plan((18, 4, 3), ("relu",), "softmax", "float32")
    trainer = core.Trainer(plan, "log_loss", "adam", 5, dropout=options.pop("dropout", None))
    trainer.load(np.zeros(plan.n_parameters, np.float32))
    with pytest.raises(ValueError, match="codes cannot be changed"):
        trainer.epoch(X, np.zeros(5, np.intp), None, None, np.zeros(1), 0, **options)


def test_codes_are_not_added_to_an_output():
    X = core.Codes(core.CodeLayout((4, 9), (3,)), BINS, FRACTIONS, CATEGORIES)
    network = Network((18, 18, 3), residual=True, random_state=0)
    with pytest.raises(ValueError, match="the first layer must not be residual"):
        network.forward(X)
    with pytest.raises(ValueError, match="the first layer must not be residual"):
        network.loss_gradient(X, np.zeros(5, int))


def test_a_trainer_takes_one_kind_of_rows_after_the_other(rng):
    """Codes, their encoding, codes of another layout as wide: what one epoch needs does not stay for the next."""
    X, encoded = coded(rng, 200, (48, 5), (10,))
    other, other_encoded = coded(rng, 200, (3,), (30, 31))
    network = Network((65, 40, 3), dtype="float64", random_state=0)
    y, rates = varied(rng.randint(0, 3, 200)).astype(np.intp), np.full(4, 0.01)
    found = []
    for data in ([X, encoded, other, X], [encoded, X, other_encoded, encoded]):
        trainer, parameters = core.Trainer(network.plan, "log_loss", "sgd", 50, 2), network.parameters.copy()
        trainer.load(parameters)
        for t, rows in enumerate(data):
            trainer.epoch(rows, y, None, None, rates, 4 * t)
        trainer.store(parameters)
        found.append(parameters)
    np.testing.assert_allclose(*found, rtol=0, atol=tolerance("float64", 65 * 16))


# ---- Bins of numbers -------------------------------------------------------------------------------------------------

EDGES = {
    "few": [-1.0, 0.0, 0.5],
    "one bin": [2.0, 3.0],
    "one edge": [7.0],
    "many": np.sort(np.random.RandomState(1).standard_normal(300)).tolist(),
    "far apart": [-1.7e308, 0.0, 1.7e308],
    "close": [1.0, np.nextafter(1.0, 2.0), 2.0],
}


@pytest.mark.parametrize("fraction_type", ["float32", "float64"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("fill", [0.3, np.nan])
def test_bins_are_the_references(dtype, fill, fraction_type, rng):
    """Of all numbers at once, on edges and beside them, far out, missing; rows and columns of any strides."""
    edges = [np.array(own) for own in EDGES.values()]
    bins = core.Bins(edges, [fill] * len(edges), largest=1e4)
    values = np.concatenate([*edges, *(np.nextafter(own, np.inf) for own in edges), 3 * rng.standard_normal(900)])
    values = np.concatenate([values, [np.nan, -0.0, 1e300, -1e300]])
    x = np.array([rng.permutation(values) for _ in edges])
    with np.errstate(over="ignore"):
        x = x.astype(dtype)
    found = np.empty((len(values), len(edges)), np.uint16), np.empty((len(values), len(edges)), fraction_type)
    bins.encode(x.T, *found)
    expected = [
        [reference.find_bin(float(value), own, fill, 1e4) for value in column]
        for column, own in zip(x, edges, strict=True)
    ]
    expected = np.array(expected).transpose(2, 1, 0)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1].astype(fraction_type))
    again = np.empty_like(found[0][::3]), np.empty_like(found[1][::3])
    bins.encode(np.repeat(x, 2, axis=1)[:, ::6].T, *again)
    for mine, theirs in zip(again, found, strict=True):
        np.testing.assert_array_equal(mine, theirs[::3])
    layout = core.CodeLayout(bins.bin_counts)
    assert core.Codes(layout, found[0], found[1].astype("float32")).shape == (len(values), layout.width)


def test_most_edges():
    """65,535 bins, the last of which leaves a number for missing ones."""
    bins = core.Bins([np.arange(65536.0)], [np.nan])
    found = np.empty((4, 1), np.uint16), np.empty((4, 1), np.float32)
    bins.encode(np.array([[65534.5], [0.25], [np.nan], [np.inf]]), *found)
    assert [*map(tuple, np.c_[found].tolist())] == [(65534, 0.5), (0, 0.25), (65535, 1.0), (65534, 1e6)]


@pytest.mark.parametrize(("edges", "message"), [
    ([[]], "edges must be 1 to 65536 of each number"),
    ([np.arange(65537.0)], "edges must be 1 to 65536 of each number"),
    ([[0.0, 0.0]], r"must be finite and rise, got \[0. 0.\] for number 0"),
    ([[0.0], [1.0, 0.5]], "for number 1"),
    ([[0.0, np.inf]], "must be finite and rise"),
    ([[np.nan]], "must be finite and rise"),
])  # fmt: skip
def test_edges_that_make_no_bins_are_refused(edges, message):
    with pytest.raises(ValueError, match=message):
        core.Bins([np.array(own, dtype=float) for own in edges], [0.0] * len(edges))


@pytest.mark.parametrize(("arrays", "message"), [
    ((np.zeros((5, 3)), BINS, FRACTIONS), "X has 3 columns"),
    ((np.zeros((4, 2)), BINS, FRACTIONS), "bins must be an aligned array of 8 uint16"),
    ((np.zeros((5, 2)), BINS.astype(np.int16), FRACTIONS), "bins must be an aligned array of 10 uint16"),
    ((np.zeros((5, 2)), BINS, FRACTIONS.astype(np.float16)), "fractions must be an aligned array of 10 float32"),
    ((np.zeros((5, 2)), np.asfortranarray(BINS), FRACTIONS), "bins must be a C-contiguous writeable array"),
    ((np.zeros((5, 2), int), BINS, FRACTIONS), "X must be float32 or float64"),
    ((csr_array(np.zeros((5, 2))), BINS, FRACTIONS), "x must be an array"),
])  # fmt: skip
def test_arrays_that_take_no_bins_are_refused(arrays, message):
    with pytest.raises(ValueError, match=message):
        core.Bins([np.array([0.0, 1.0])] * 2, [0.0] * 2).encode(*arrays)
