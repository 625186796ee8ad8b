"""Embeddings of coded rows, and members on shared weights: those of the reference, on any number of threads and
instruction set."""

from __future__ import annotations

import copy
import hashlib
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from core.test_codes import LAYOUTS, coded
from helpers import DIFFERENCE_STEP, difference_tolerance, output_of, rest_slow, tolerance, varied

import fastmlp
from fastmlp import MLPClassifier, Network, TabularClassifier, core, reference

FMA_ISAS = [name for name in core.info()["available"] if name != "base"]
# Hidden layers, units per feature, members: one and two; more members than rows of a chunk.
SHAPES = {
    "one": ((37,), 16, 1),
    "several": ((37, 20), 16, 5),
    "two": ((40,), 32, 2),
    "many": ((33,), 48, 150),
}


def network_of(
    shape: str, layout: str, dtype: str, rng, out_activation: str = "softmax", n_outputs: int = 3, first: str = "relu"
) -> Network:
    hidden, d, k = SHAPES[shape]
    bins, categories = LAYOUTS[layout]
    sizes = (core.CodeLayout(bins, categories).width, (len(bins) + len(categories)) * d, *hidden, n_outputs)
    activations = ("identity", *(first, "tanh")[: len(hidden)])
    network = Network(sizes, activations, out_activation, dtype, random_state=rng, embedding=d, n_members=k)
    for scalings in network.scalings:  # some features have the same
        scalings[...] = rng.uniform(-1.5, 1.5, scalings.shape)[
            :, rng.randint(scalings.shape[1], size=scalings.shape[1])
        ]
    return network


def members_of(network: Network, layout: str) -> reference.Members:
    """The same in the reference's form, in float64."""
    coefs, intercepts = (
        [np.array(part, np.float64) for part in parts] for parts in (network.coefs, network.intercepts)
    )
    if network.n_members == 1:
        coefs[-1], intercepts[-1] = coefs[-1][np.newaxis], intercepts[-1][np.newaxis]
    scalings = (
        np.array(network.scalings[0], np.float64) if network.scalings else np.ones((1, sum(map(len, LAYOUTS[layout]))))
    )
    return reference.Members(coefs, intercepts, scalings, *LAYOUTS[layout])


def flat(members: reference.Members, parts: list[np.ndarray]) -> np.ndarray:
    """Arrays in the order of a network's parameters, without the scalings."""
    return np.concatenate([part.ravel() for part in parts])


METHODS = {
    "plain": {},
    "dropout": {"dropout": (0.0, 0.3, 0.4)},
    "clipping": {"max_grad_norm": 0.02},
    "smoothing": {"label_smoothing": 0.1},
    "mean": {"loss_reduction": "mean"},
}


def train(
    shape, layout, dtype, batch_size, method="plain", n_threads=1, n=90, epochs=2, optimizer="adam", compared=True
):
    """(losses, parameters, state) of epochs, and, if they are compared, the reference's (losses, parameters)."""
    rng = np.random.RandomState(3)
    options = METHODS[method]
    network = network_of(shape, layout, dtype, rng)
    X, encoded = coded(rng, n, *LAYOUTS[layout])
    y, weight = varied(rng.randint(0, 3, n)), rng.uniform(0.5, 1.5, n)
    order = rng.permutation(n).astype(np.intp)[: n - 3]
    dropout = (*options["dropout"], *(0.0,) * 9)[: len(network.coefs)] if "dropout" in options else None
    members, activations = members_of(network, layout), network.activations
    trainer = core.Trainer(
        network.plan,
        "log_loss",
        optimizer,
        batch_size,
        n_threads,
        dropout=dropout,
        max_grad_norm=options.get("max_grad_norm", 0.0),
    )
    trainer.load(network.parameters)
    given = {name: value for name, value in options.items() if name in ("label_smoothing", "loss_reduction")}
    spec = reference.Method(
        dropout=dropout or (), seed=77, alpha=0.1, l1_ratio=0.3, eps=float(np.finfo(dtype).eps), **given
    )
    n_steps = -(-len(order) // batch_size)
    rates = rng.uniform(0.001, 0.01, n_steps)
    values = members.coefs + members.intercepts
    state = [tuple(np.zeros_like(w) for _ in range(core.OPTIMIZERS[optimizer])) for w in values]
    losses, expected = [], []
    for epoch in range(epochs):
        losses.append(trainer.epoch(
            X, y, weight, order, rates, epoch * n_steps, alpha=0.1, l1_ratio=0.3, seed=77, epsilon=1e-3, **given
        ))  # fmt: skip
        if not compared:
            continue
        total = 0.0
        for step, rows in enumerate(reference.batches(len(order), batch_size)):
            i, t = order[rows], epoch * n_steps + step + 1
            members = members._replace(coefs=values[: len(members.coefs)], intercepts=values[len(members.coefs) :])
            loss, g = reference.member_gradients(members, activations, "log_loss", encoded[i], y[i], weight[i], spec, t)
            g = reference.clip(g, [True] * len(g), options.get("max_grad_norm", 0.0))
            hyper = reference.Hyper(float(rates[step]), epsilon=1e-3)
            updated = [
                reference.OPTIMIZERS[optimizer][1](w, part, s, hyper, t)
                for w, part, s in zip(values, g, state, strict=True)
            ]
            values, state = [w for w, _ in updated], [s for _, s in updated]
            total += loss * len(i)
        expected.append(total / len(order))
    parameters = np.empty_like(network.parameters)
    arrays = np.empty((core.OPTIMIZERS[optimizer], len(parameters)), dtype)
    trainer.store(parameters, arrays)
    return (losses, parameters, arrays), (expected, np.concatenate([w.ravel() for w in values])), network


@pytest.mark.crossed
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "layout", "method"), [
    *((shape, "mixed", "plain") for shape in SHAPES if shape != "many"),
    pytest.param("many", "mixed", "plain", marks=pytest.mark.slow),
    *(("several", "mixed", method) for method in METHODS if method != "plain"),
    *(("several", layout, "plain") for layout in ("numbers", "categories", "one number", "one category")),
])  # fmt: skip
def test_epochs_are_the_references(shape, layout, method, dtype):
    """Losses and parameters; the scalings stay, and have no state."""
    (losses, parameters, state), (expected, values), network = train(shape, layout, dtype, 25, method)
    bound = tolerance(dtype, 4000)
    assert np.abs(np.subtract(losses, expected)).max() <= bound
    n = len(values)
    assert np.abs(parameters[:n] - values).max() <= bound
    np.testing.assert_array_equal(parameters[n:], network.parameters[n:])
    assert len(parameters) - n == (network.scalings[0].size if network.scalings else 0)
    assert not state[:, n:].any()


@pytest.mark.parametrize(("method", "batch_size", "n"), [("plain", 600, 1300), ("dropout", 256, 550)])
def test_micro_batches_add_up(method, batch_size, n):
    """A batch of 600 rows of five members is 3,000 rows: six micro-batches, or twelve. Dropout is drawn by the row in
    the batch."""
    (losses, parameters, _), (expected, values), _ = train("several", "mixed", "float64", batch_size, method, n=n)
    assert np.abs(np.subtract(losses, expected)).max() <= tolerance("float64", 10_000)
    assert np.abs(parameters[: len(values)] - values).max() <= tolerance("float64", 10_000)


def digest_of(shape: str, layout: str, method: str, dtype: str, n_threads: int) -> str:
    (losses, *arrays), _, network = train(shape, layout, dtype, 60, method, n_threads, 200, 5, compared=False)
    network.parameters = arrays[0]
    arrays.append(network.forward(coded(np.random.RandomState(0), 300, *LAYOUTS[layout])[0], n_threads=n_threads))
    return hashlib.sha256(repr(losses).encode() + b"".join(array.tobytes() for array in arrays)).hexdigest()


BITS = [
    ("one", "mixed", "plain"), ("several", "mixed", "dropout"), ("two", "categories", "plain"),
    ("many", "numbers", "plain"),
    ("several", "mixed", "clipping"),
]  # fmt: skip


@pytest.mark.crossed
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", BITS, ids=" ".join)
def test_bits_do_not_depend_on_threads(case, dtype):
    assert len({digest_of(*case, dtype, n_threads) for n_threads in (1, 2, 3)}) == 1


@pytest.mark.slow
@pytest.mark.skipif(len(FMA_ISAS) < 2, reason=f"this CPU and build have one FMA instruction set or none: {FMA_ISAS}")
def test_bits_do_not_depend_on_instruction_set():
    code = (
        "import sys; sys.path[:0] = sys.argv[1:2]\n"
        "from core.test_members import BITS, core, digest_of\n"
        "print(core.info()['isa'], *(digest_of(*case, dtype, 2) for case in BITS for dtype in ('float32', 'float64')))"
    )
    folder = __file__.rpartition("/core/")[0]
    with ThreadPoolExecutor() as executor:
        found = list(executor.map(lambda isa: output_of(code, folder, FASTMLP_ISA=isa).split(), FMA_ISAS))
    assert [words[0] for words in found] == FMA_ISAS
    assert len(set(found[0][1:])) == 2 * len(BITS)
    assert all(words[1:] == found[0][1:] for words in found)


@pytest.mark.parametrize("shape", rest_slow(SHAPES, "several"))
def test_gradient_is_that_of_differences(shape, rng):
    network = network_of(shape, "mixed", "float64", rng, "identity", 2, "tanh")  # without a kink
    X, _ = coded(rng, 40, *LAYOUTS["mixed"])
    y = varied(rng.standard_normal((40, 2)))
    _, gradient = network.loss_gradient(X, y, loss="squared_error", alpha=0.1)
    start = network.parameters.copy()
    n = len(start) - sum(scalings.size for scalings in network.scalings)
    assert not gradient[n:].any()
    for at in rng.choice(n, 60, replace=False):
        losses = []
        for step in (DIFFERENCE_STEP, -DIFFERENCE_STEP):
            network.parameters = start
            network.parameters[at] += step
            losses.append(network.loss_gradient(X, y, loss="squared_error", alpha=0.1)[0])
        assert abs((losses[0] - losses[1]) / (2 * DIFFERENCE_STEP) - gradient[at]) <= difference_tolerance(100)


@pytest.mark.crossed
@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("output", ["softmax", "logistic", "identity"])
@pytest.mark.parametrize("shape", SHAPES)
def test_prediction_does_not_depend_on_how_many_rows(shape, output, dtype, n_threads, rng):
    """The output of the mean of the members' logits: the same for one row, few and many, with the sums before the bins
    and without."""
    network = network_of(shape, "mixed", dtype, rng, output)
    X, encoded = coded(rng, 1100, *LAYOUTS["mixed"])
    every = network.forward(X, n_threads=n_threads)
    expected = reference.predict_members(members_of(network, "mixed"), network.activations, output, encoded)
    np.testing.assert_allclose(every, expected, rtol=0, atol=tolerance(dtype, sum(network.layer_sizes)))
    sums = core.bin_sums(network.plan, network.parameters, X.layout)
    for n in (1, 2, 5, 23, 24, 129, 1023, 1024):
        for given in (None, sums):
            got = core.forward(network.plan, network.parameters, X[7 : 7 + n], None, n_threads, sums=given)
            np.testing.assert_array_equal(got, every[7 : 7 + n])


def test_members_stay_members(rng, tmp_path):
    """A copy, a pickle and a file are the same network."""
    network = network_of("several", "mixed", "float32", rng)
    X, _ = coded(rng, 30, *LAYOUTS["mixed"])
    network.save(tmp_path / "network.safetensors")
    assert set(network.scalings[0].ravel()) != {1}
    for other in (network.copy(), copy.deepcopy(network), pickle.loads(pickle.dumps(network)), network.folded(),
                  Network.load(tmp_path / "network.safetensors")):  # fmt: skip
        assert repr(other) == repr(network)
        np.testing.assert_array_equal(other.forward(X), network.forward(X))
    network.scalings[0] = np.ones((5, network.scalings[0].shape[1]))
    network.adopt()
    assert not np.array_equal(network.forward(X), other.forward(X))


def test_scalings_are_drawn_as_signs():
    network = Network((60, 48, 5, 2), random_state=0, embedding=16, n_members=40)
    signs = network.scalings[0]
    assert signs.shape == (40, 3)
    assert set(signs.ravel()) == {-1, 1}
    assert (signs[0] == 1).all()
    assert 30 < (signs > 0).sum() < 90
    assert [W.shape for W in network.coefs] == [(60, 16), (48, 5), (40, 5, 2)]
    assert [b.shape for b in network.intercepts] == [(48,), (5,), (40, 2)]
    assert np.ptp(network.coefs[-1], axis=0).all()


@pytest.mark.parametrize(("sizes", "options", "message"), [
    ((9, 20, 2), {"embedding": 20}, "embedding must be a multiple of 16, and layer_sizes.1. one of it"),
    ((9, 40, 2), {"embedding": 16}, "embedding must be a multiple of 16, and layer_sizes.1. one of it"),
    ((9, 32, 2), {"embedding": -16}, "embedding must be a multiple of 16"),
    ((9, 32), {"embedding": 16}, "an embedding needs a layer after it"),
    ((9, 32, 2), {"embedding": 16, "batch_norm": True}, "no batch normalisation"),
    ((9, 32, 2), {"n_members": 3}, "n_members must lie in .1, 65536., and be 1 without an embedding, got 3"),
    ((9, 32, 2), {"embedding": 16, "n_members": 0}, "n_members must lie in .1, 65536."),
    ((9, 32, 2), {"embedding": 16, "n_members": 2}, "several members need a hidden layer to share"),
    ((9, 32, 2), {"embedding": 16, "n_members": 2**40}, "n_members must lie in .1, 65536."),
    ((9, 32, 2), {"embedding": 16, "n_members": 2**80}, "n_members must be below 2..62"),
])  # fmt: skip
def test_networks_that_cannot_be_are_refused(sizes, options, message):
    with pytest.raises(ValueError, match=message):
        Network(sizes, **options)


def test_embeddings_take_codes_of_their_features(rng):
    network = network_of("several", "mixed", "float32", rng)
    rows = np.zeros((3, network.layer_sizes[0]), np.float32)
    with pytest.raises(ValueError, match="an embedding takes coded rows: X must be Codes"):
        network.forward(rows)
    with pytest.raises(ValueError, match="an embedding takes coded rows: X must be Codes"):
        network.loss_gradient(rows, np.zeros(3, int))
    layout = core.CodeLayout((network.layer_sizes[0] - 1,))
    one = core.Codes(layout, np.zeros((3, 1), np.uint16), np.zeros((3, 1), np.float32))
    with pytest.raises(ValueError, match="the network embeds 7 features, the codes have 1"):
        network.forward(one)


def test_files_with_other_members_are_refused(rng, tmp_path):
    path = tmp_path / "network.safetensors"
    network_of("several", "mixed", "float32", rng).save(path)
    content = path.read_bytes()
    for old, new in (
        (b'n_members\\":5', b'n_members\\":6'),
        (b'n_members\\":5', b'n_members\\":0'),
        (b'embedding\\":16', b'embedding\\":15'),
    ):
        assert content.count(old) == 1
        path.write_bytes(content.replace(old, new))
        with pytest.raises(fastmlp.FileFormatError):
            Network.load(path)


def test_what_needs_dense_layers_names_the_embedding(rng):
    """Nothing takes an embedding's weights for a dense layer's."""
    X, _ = coded(rng, 40, *LAYOUTS["mixed"])
    frame = rng.standard_normal((60, 2))
    fitted = TabularClassifier("tabm", n_folds=2, max_iter=1, n_members=2, random_state=0).fit(frame, frame[:, 0] > 0)
    estimator = fitted.estimators_[0]
    network = estimator.network_
    dense = MLPClassifier(network.layer_sizes[1:-1], pretrained=network)
    for call in (
        estimator.to_sklearn,
        lambda: estimator.set_params(early_stopping=False).partial_fit(
            np.zeros((4, network.layer_sizes[0])), [0, 1, 0, 1]
        ),
        lambda: estimator.grow(hidden_layer_sizes=(64, 128, 256)),
        lambda: estimator.transform(X[:2]),
        lambda: dense.fit(np.zeros((4, network.layer_sizes[0])), [0, 1, 0, 1]),
    ):
        with pytest.raises(ValueError, match="embeds coded features"):
            call()
    with pytest.raises(AttributeError, match=r"are not a network with an embedding.*network_\.intercepts"):
        _ = estimator.intercepts_
