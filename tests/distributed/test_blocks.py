"""Blocks: the bits of a fit in memory, whatever holds the rows; targets and weights of every kind; predictions;
messages."""

from __future__ import annotations

import sys
import threading
import warnings
from itertools import pairwise

import numpy as np
import pytest
from helpers import rest_slow
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler

import fastmlp
from fastmlp import Blocks, MLPClassifier, MLPEnsembleClassifier, MLPRegressor, TabularClassifier, learning_rate_range
from fastmlp.distributed import files, fitting, stream
from fastmlp.estimators.validation import rows as validation
from fastmlp.training.run import DivergenceError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
pandas = pytest.importorskip("pandas")

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
N, F = 700, 5
ENDS = (0, 300, 301, 700)
NAMES = [f"x{i}" for i in range(F)]


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    """Units and windows that small data have many of."""
    monkeypatch.setattr(stream, "_PIECE_ROWS", 16)
    monkeypatch.setattr(stream, "_RUN_ROWS", 50)
    monkeypatch.setattr(stream, "_RUN_BYTES", 100 * F * 4)
    monkeypatch.setattr(stream, "_AT_ONCE", 5)


def data(dtype="float32"):
    X = np.random.RandomState(0).standard_normal((N, F)).astype(dtype)
    return X, (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.3)


def in_parts(*arrays):
    return [tuple(array[first:last] for array in arrays) for first, last in pairwise(ENDS)]


def of_npy(folder, X, y, weight=None, order="C"):
    for i, part in enumerate(in_parts(*(array for array in (X, y, weight) if array is not None))):
        for name, array in zip("Xyw", part, strict=False):
            np.save(folder / f"{name}-{i}.npy", np.asarray(array, order=order))
    return Blocks.npy(folder / "X-*.npy", folder / "y-*.npy", None if weight is None else folder / "w-*.npy")


def table(X, y, weight=None):
    columns = {"w": weight, **dict(zip(NAMES, X.T, strict=True))}
    columns |= {"y": y} if y.ndim == 1 else {f"y{i}": column for i, column in enumerate(y.T)}
    return pyarrow.table({name: column for name, column in columns.items() if column is not None})


def of_table(kind, folder, X, y, weight=None, groups=64):
    target = "y" if y.ndim == 1 else [f"y{i}" for i in range(y.shape[1])]
    for i, part in enumerate(in_parts(*(array for array in (X, y, weight) if array is not None))):
        if kind == "parquet":
            parquet.write_table(table(*part), folder / f"{i}.parquet", row_group_size=groups)
        else:
            with pyarrow.ipc.new_file(folder / f"{i}.arrow", table(*part).schema) as file:
                file.write_table(table(*part), max_chunksize=groups)
    return getattr(Blocks, kind)(folder / f"*.{kind}", NAMES, target, None if weight is None else "w")


FORMS = {
    "npy": of_npy,
    "columns": lambda folder, *arrays: of_npy(folder, *arrays, order="F"),
    "arrays": lambda folder, *arrays: Blocks(in_parts(*(array for array in arrays if array is not None))),
    "functions": lambda folder, *arrays: Blocks(
        [lambda part=part: part for part in in_parts(*(array for array in arrays if array is not None))]
    ),
    "parquet": lambda folder, *arrays: of_table("parquet", folder, *arrays),
    "arrow": lambda folder, *arrays: of_table("arrow", folder, *arrays),
}


def settings(**changed):
    return {"hidden_layer_sizes": (8,), "random_state": 0, "max_iter": 3, "batch_size": 37, "shuffle": False, **changed}


def assert_same(one, other):
    assert np.array_equal(one.network_.parameters, other.network_.parameters)
    assert one.loss_curve_ == other.loss_curve_
    assert one.t_ == other.t_


def without_time(history):
    return [{key: value for key, value in entry.items() if key != "time"} for entry in history]


# --- the bits of a fit in memory ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
def test_rows_in_order_train_to_the_bits_of_a_fit_in_memory(tmp_path, form, dtype):
    X, y = data()
    X = (4 * X).astype(dtype)
    blocks = FORMS[form](tmp_path, X, y)
    model = MLPClassifier(**settings()).fit(blocks)
    plain = MLPClassifier(**settings()).fit(X, y)
    assert_same(model, plain)
    assert without_time(model.history_) == without_time(plain.history_)
    assert model.network_.dtype == plain.network_.dtype
    assert np.array_equal(model.predict(blocks), plain.predict(X))
    assert np.array_equal(model.predict_proba(blocks), plain.predict_proba(X))
    assert model.score(blocks) == plain.score(X, y)
    assert blocks.shape == X.shape
    assert np.array_equal(np.concatenate([rows.X for rows in blocks]), X)


def targets():
    X, y = data()
    words = np.array(["a", "bb", "ccc"])[y]
    labels = (X[:, :3] > 0.2).astype(int)
    return {
        "two classes": (MLPClassifier, y > 0),
        "words": (MLPClassifier, words),
        "objects": (MLPClassifier, words.astype(object)),
        "floats": (MLPClassifier, y.astype(float)),
        "one class": (MLPClassifier, np.zeros(N, dtype=int)),
        "labels": (MLPClassifier, labels),
        "number": (MLPRegressor, X[:, 0] ** 2),
        "numbers": (MLPRegressor, np.stack([X[:, 0], X[:, 1] - X[:, 2]], axis=1)),
        "a column": (MLPRegressor, X[:, :1] ** 2),
    }


@pytest.mark.parametrize("kind", targets())
@pytest.mark.parametrize("form", rest_slow(FORMS, "npy", "parquet"))
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning", "ignore:y contains only one class")
def test_targets(tmp_path, form, kind):
    if form in ("npy", "columns") and kind == "objects":
        pytest.skip("such a file holds Python objects")
    estimator, y = targets()[kind]
    X, _ = data()
    model, plain = estimator(**settings()).fit(FORMS[form](tmp_path, X, y)), estimator(**settings()).fit(X, y)
    assert_same(model, plain)
    if hasattr(plain, "classes_"):
        assert np.array_equal(model.classes_, plain.classes_)


@pytest.mark.parametrize("kind", ["words", "labels", "number", "numbers"])
@pytest.mark.parametrize("per_output", [False, True])
def test_weights(tmp_path, kind, per_output):
    """Rows of weight 0 are left out before batches are cut; so are targets of weight 0."""
    estimator, y = targets()[kind]
    if per_output and y.ndim == 1:
        pytest.skip("one output")
    X, _ = data()
    weight = np.random.RandomState(1).randint(0, 3, y.shape if per_output else N).astype(float)
    weight[40:120] = 0  # whole units
    model = estimator(**settings()).fit(of_npy(tmp_path, X, y, weight))
    plain = estimator(**settings()).fit(X, y, weight)
    assert_same(model, plain)
    assert model.score(of_npy(tmp_path, X, y, weight)) == plain.score(X, y, weight)


@pytest.mark.parametrize("kind", ["words", "labels"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("class_weight", ["balanced", "given", "zero"])
def test_class_weights(tmp_path, kind, weighted, class_weight):
    X, y = data()[0], targets()[kind][1]
    given = {"a": 1.0, "bb": 2.5, "ccc": 0.0 if class_weight == "zero" else 1.5}
    if kind == "labels":
        given = [{0: 1.0, 1: 3.0}, {0: 0.0 if class_weight == "zero" else 2.0}, {}]
    weight = np.random.RandomState(1).randint(0, 3, N).astype(float) if weighted else None
    options = settings(class_weight="balanced" if class_weight == "balanced" else given)
    model = MLPClassifier(**options).fit(of_npy(tmp_path, X, y, weight))
    assert_same(model, MLPClassifier(**options).fit(X, y, weight))


METHODS = {
    "mixup": {"mixup": 0.3},
    "dropout": {"dropout": 0.3, "input_noise": 0.1, "input_mask": 0.1},
    "batch_norm": {"batch_norm": True},
    "clipping": {"max_grad_norm": 0.1},
    "schedule": {"learning_rate": "one_cycle"},
    "lone steps": {"batch_size": 1, "max_iter": 1},
    "whole epochs": {"batch_size": N},
    "micro-batches": {"batch_size": 600},
    "float32": {"dtype": "float32"},
    "mean": {"loss_reduction": "mean"},
    **{
        solver: {"solver": solver}
        for solver in ("sgd", "adamw", "nadam", "amsgrad", "rmsprop", "adagrad", "momentum", "adam_hat")
    },
}


@pytest.mark.parametrize(
    "method",
    rest_slow(
        METHODS, "mixup", "dropout", "batch_norm", "clipping", "lone steps", "whole epochs", "micro-batches", "float32"
    ),
)
def test_methods(method):
    X, y = data("float64")
    blocks, options = Blocks(in_parts(X, y)), settings(**METHODS[method])
    assert_same(MLPClassifier(**options).fit(blocks), MLPClassifier(**options).fit(X, y))


class InOrder:
    """Epochs over rows in memory, in given orders."""

    def __init__(self, data, orders):
        self.data, self.orders, self.epoch = data, orders, -1

    def begin_epoch(self):
        self.epoch += 1

    def parts(self):
        yield fastmlp.training.rows.Part(self.data.X, self.data.y, self.data.sample_weight, self.orders[self.epoch])


def orders_of(blocks, monkeypatch, **options):
    """The order of the rows, whose first number is their index, in each epoch of a fit."""
    orders, original = [], stream.BlockEpochs.parts

    def parts(self):
        found = []
        for part in original(self):
            found.append(part.X[part.order, 0])
            yield part
        orders.append(np.concatenate(found).astype(np.intp))

    with monkeypatch.context() as patch:
        patch.setattr(stream.BlockEpochs, "parts", parts)
        MLPClassifier(**settings(shuffle=True, **options)).fit(blocks)
    return orders


@pytest.mark.parametrize("form", rest_slow(FORMS, "npy", "parquet"))
def test_shuffled_rows_train_to_the_bits_of_the_same_order_in_memory(tmp_path, form, monkeypatch):
    X, y = data("float64")
    X[:, 0] = np.arange(N)
    blocks = FORMS[form](tmp_path, X, y)
    orders = orders_of(blocks, monkeypatch)
    assert all(sorted(order) == list(range(N)) for order in orders)
    assert not np.array_equal(orders[0], orders[1])
    model = MLPClassifier(**settings(shuffle=True)).fit(blocks)
    monkeypatch.setattr(fastmlp.training.rows.TrainingData, "epochs", lambda self, *options: InOrder(self, orders))
    assert_same(model, MLPClassifier(**settings(shuffle=True)).fit(X, y))


def test_the_order_follows_from_seed_and_epoch(tmp_path, monkeypatch):
    """Not from the batch size, nor from what holds the rows; each fit begins with the same order."""
    X, y = data("float64")
    X[:, 0] = np.arange(N)
    orders = orders_of(of_npy(tmp_path, X, y), monkeypatch)
    assert np.array_equal(orders, orders_of(Blocks(in_parts(X, y)), monkeypatch, batch_size=20))
    assert np.array_equal(orders, orders_of(Blocks(in_parts(X, y)), monkeypatch, n_jobs=1))
    assert not np.array_equal(orders, orders_of(Blocks(in_parts(X, y)), monkeypatch, random_state=1))


def test_pieces_from_all_over_are_shuffled_together():
    """Of rows sorted by class, each part of an epoch has many; no part holds neighbours only."""
    X, y = np.arange(4000.0)[:, np.newaxis], np.repeat([0, 1, 2, 3], 1000)
    units = stream.Sources([files.ArraySource("X", X)])
    windows = list(units.windows(units.units(True), True))
    assert [len(window) for window in windows] == [5] * 50
    assert {int(last - first) for _, first, last in units.units(True)} == {16}
    model = MLPClassifier(**settings(shuffle=True, max_iter=1)).fit(Blocks([(X / 4000, y)]))
    assert model.t_ == 4000


def test_batches_larger_than_what_is_read_at_once():
    X, y = data()
    model = MLPClassifier(**settings(shuffle=True, batch_size=650)).fit(Blocks(in_parts(X, y)))
    assert model.t_ == 3 * N


# --- estimators --------------------------------------------------------------------------------------------------


def test_partial_fit(tmp_path):
    X, y = data()[0], targets()["words"][1]
    model, plain = MLPClassifier(**settings()), MLPClassifier(**settings())
    for first, last in ((0, 370), (370, N)):
        model.partial_fit(Blocks([(X[first:last], y[first:last])]), classes=["a", "bb", "ccc"])
        plain.partial_fit(X[first:last], y[first:last], classes=["a", "bb", "ccc"])
    assert_same(model, plain)
    with pytest.raises(ValueError, match="classes must be passed"):
        MLPClassifier().partial_fit(Blocks([(X, y)]))
    with pytest.raises(ValueError, match=r"`y` has classes not in `self.classes_`"):
        MLPClassifier().partial_fit(Blocks([(X, y)]), classes=["a", "bb"])
    MLPClassifier().partial_fit(Blocks([(X, targets()["labels"][1])]), classes=[0, 1, 2])
    named = [
        MLPClassifier(**settings()).partial_fit(Blocks([(X, y)], classes=of), classes=given)
        for of, given in ((["a", "bb", "ccc", "d"], None), (None, ["a", "bb", "ccc", "d"]))
    ]
    assert named[0].classes_.tolist() == ["a", "bb", "ccc", "d"]
    assert_same(*named)
    MLPRegressor().partial_fit(Blocks([(X, X[:, 0])]))


def test_eval_set_of_blocks(tmp_path):
    """Scores of every kind are those of the same rows in memory; so are the parameters that stopping early returns."""
    X, y = data()
    weight = np.random.RandomState(0).uniform(0.5, 1, N)
    blocks = of_npy(tmp_path, X, y, weight)
    for metric in (None, "loss", "neg_log_loss", "f1_macro", lambda model, X, y: float((model.predict(X) == y).mean())):
        options = settings(early_stopping=True, validation_metric=metric)
        model = MLPClassifier(**options).fit(X, y, eval_set=blocks)
        plain = MLPClassifier(**options).fit(X, y, eval_set=(X, y), sample_weight_eval=weight)
        assert_same(model, plain)
        assert model.validation_scores_ == plain.validation_scores_
        assert model.validation_loss_curve_ == plain.validation_loss_curve_
    model = MLPRegressor(**settings()).fit(Blocks([(X, X[:, 0])]), eval_set=(X, X[:, 0]))
    assert (
        model.validation_scores_ == MLPRegressor(**settings()).fit(X, X[:, 0], eval_set=(X, X[:, 0])).validation_scores_
    )
    with pytest.raises(ValueError, match="sample_weight_eval must be None"):
        MLPClassifier().fit(X, y, eval_set=blocks, sample_weight_eval=weight)
    with pytest.warns(UserWarning, match="rows to score on lie far outside"):
        MLPClassifier(**settings()).fit(Blocks([(X, y)]), eval_set=Blocks([(X + 100, y)]))


def test_early_stopping_holds_out_whole_pieces(tmp_path):
    X, y = data()
    weight = (np.arange(N) % 3).astype(float)
    model = MLPClassifier(**settings(early_stopping=True, shuffle=True)).fit(of_npy(tmp_path, X, y, weight))
    assert len(model.validation_scores_) == 3
    assert model.t_ % 3 == 0
    assert 0.85 * (weight > 0).sum() < model.t_ / 3 < 0.95 * (weight > 0).sum()
    other = MLPClassifier(**settings(early_stopping=True, shuffle=True)).fit(of_npy(tmp_path, X, y, weight))
    assert_same(model, other)
    with pytest.raises(ValueError, match="give an eval_set, or write smaller row groups"):
        MLPClassifier(early_stopping=True).fit(Blocks([lambda: (X, y)]))
    with pytest.warns(UserWarning, match=r"holds out lack the classes \[7\]"):
        MLPClassifier(**settings(early_stopping=True, random_state=1)).fit(
            Blocks([(X, np.where(np.arange(N) < 16, 7, y))])
        )


@pytest.mark.parametrize("form", ["arrays", "functions", "parquet"])
def test_few_rows_with_a_weight(tmp_path, form):
    """A fit's last look at the rows finds those with a weight, wherever they are."""
    X, y = data()
    weight = np.zeros(N)
    weight[[333, 335, 336, 337, 690]] = 1
    MLPClassifier(**settings(batch_size=5)).fit(FORMS[form](tmp_path, X, y, weight))
    y = np.sort(y)
    blocks = FORMS[form](tmp_path, X, y)
    MLPClassifier(**settings(class_weight={0: 0.0, 1: 0.0, 2: 1.0})).fit(blocks)
    model = MLPRegressor(**settings(solver="sgd", max_iter=20))
    with pytest.raises(DivergenceError, match="Far from unit scale: the target"):
        model.fit(FORMS[form](tmp_path, X, np.where(np.arange(N) < 400, 0, 1e9 * X[:, 0]), (np.arange(N) > 500) * 1.0))


def test_the_sample_is_of_all_blocks(monkeypatch):
    """What begins late is seen: of arrays, of functions, and of rows that few have a weight of."""
    monkeypatch.setattr(fitting, "_SAMPLE_ROWS", 60)
    monkeypatch.setattr(fitting, "_SAMPLE_PLACES", 6)
    monkeypatch.setattr(fitting, "_FEW_ROWS", 10)
    samples, original = [], fitting.BlockData.sample
    monkeypatch.setattr(fitting.BlockData, "sample", lambda data: (samples.append(original(data)), samples[-1])[1])
    X = np.repeat(np.arange(N, dtype=np.float32)[:, np.newaxis] / N, F, axis=1)
    for parts in ([(X, X[:, 0])], [lambda i=i: (X[i : i + 100], X[i : i + 100, 0]) for i in range(0, N, 100)]):
        MLPRegressor(**settings(max_iter=1)).fit(Blocks(parts))
        found = samples[-1].X[:, 0]
        assert 50 <= len(found) <= 80
        assert found.min() < 0.05
        assert found.max() > 0.95
        assert abs(found.mean() - 0.5) < 0.1
    weight = (np.arange(N) % 40 == 0).astype(float)
    MLPRegressor(**settings(max_iter=1, batch_size=9)).fit(Blocks([(X, X[:, 0], weight)]))
    assert 10 <= len(samples[-1].X) <= weight.sum()
    assert (samples[-1].sample_weight == 1).all()


def test_rows_without_a_weight_are_not_held_out():
    X, y = data()
    weight = (np.arange(N) >= 500).astype(float)
    for seed in range(3):
        model = MLPClassifier(**settings(early_stopping=True, random_state=seed)).fit(Blocks([(X, y, weight)]))
        assert np.isfinite(model.validation_scores_).all()
        assert 0.75 * 200 <= model.t_ / 3 <= 0.95 * 200
    scored = []

    def metric(model, X, y):
        rows = np.concatenate([block for _, block in X.parts()])
        scored.append((X.shape, rows.shape, y.shape))
        assert (rows[:, 4] == 0).all()
        return (model.predict(X) == y).mean()

    marked = X.copy()
    marked[:, 4] = np.arange(N) % 3 == 0
    weight = (marked[:, 4] == 0).astype(float)
    MLPClassifier(**settings(early_stopping=True, validation_metric=metric)).fit(Blocks([(marked, y, weight)]))
    shape, read, of_y = scored[0]
    assert shape == read == (*of_y, F)
    assert 30 < shape[0] < 70
    weight = (np.arange(N) >= 500).astype(float)
    blocks = Blocks([(X, y, 0 * weight)])
    with pytest.raises(ValueError, match="rows to score on must contain at least one non-zero"):
        MLPClassifier(**settings()).fit(X, y, eval_set=blocks)


def test_warm_start_continues():
    X, y = data()
    blocks = Blocks([(X, y)])
    model = MLPClassifier(**settings(warm_start=True)).fit(blocks).fit(blocks)
    assert_same(model, MLPClassifier(**settings(warm_start=True)).fit(X, y).fit(X, y))


def test_learning_rate_range_takes_blocks():
    X, y = data()
    one, other = (
        learning_rate_range(MLPClassifier(**settings()), *rows, n_steps=60)
        for rows in ((Blocks([(X, y)]), None), (X, y))
    )
    assert np.array_equal(one.losses, other.losses)


def test_predictions(tmp_path):
    """Every method, of single networks and of ensembles, from Blocks with and without y."""
    X, y = data()
    blocks, bare = Blocks([(X, y)]), Blocks([X[:400], X[400:]])
    model = MLPClassifier(**settings()).fit(X, y)
    for method in ("predict", "predict_proba", "predict_log_proba", "transform"):
        for rows in (blocks, bare):
            assert np.array_equal(getattr(model, method)(rows), getattr(model, method)(X))
    ensemble = MLPEnsembleClassifier(MLPClassifier(**settings()), n_estimators=2, random_state=0).fit(X, y)
    assert np.array_equal(ensemble.predict_proba(bare), ensemble.predict_proba(X))
    assert ensemble.score(blocks) == ensemble.score(X, y)
    regressor = MLPRegressor(**settings()).fit(X, X[:, 0])
    assert np.array_equal(regressor.predict(bare), regressor.predict(X))


def test_names_of_features(tmp_path):
    pandas = pytest.importorskip("pandas")
    X, y = data()
    blocks = of_table("parquet", tmp_path, X, y)
    model = MLPClassifier(**settings()).fit(blocks)
    assert model.feature_names_in_.tolist() == NAMES == blocks.features
    frame = pandas.DataFrame(X, columns=NAMES)
    assert np.array_equal(model.predict(frame), model.predict(blocks))
    assert np.array_equal(model.predict(Blocks([frame])), model.predict(blocks))
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(Blocks.parquet(tmp_path / "*.parquet", NAMES[::-1]))
    with pytest.warns(UserWarning, match="do not have feature names"):
        model.predict(Blocks([X]))
    with pytest.raises(ValueError, match="X has 4 features, but MLPClassifier is expecting 5"):
        model.predict(Blocks([X[:, :4]]))


@pytest.mark.parametrize("form", rest_slow(FORMS, "npy", "parquet"))
def test_map_scales_what_is_read(tmp_path, form):
    X, y = data()
    blocks, scaler = FORMS[form](tmp_path, 5 + 2 * X, y), StandardScaler()
    for rows in blocks:
        scaler.partial_fit(rows.X)
    scaled = blocks.map(scaler.transform)
    model, plain = (
        MLPClassifier(**settings()).fit(scaled),
        MLPClassifier(**settings()).fit(scaler.transform(5 + 2 * X), y),
    )
    assert_same(model, plain)
    assert np.array_equal(model.predict(scaled), plain.predict(scaler.transform(5 + 2 * X)))
    assert scaled.features == blocks.features
    assert blocks.map(lambda X: np.hstack([X, X])).shape == (N, 2 * F)
    with pytest.raises(ValueError, match="the function of map returned"):
        blocks.map(lambda X: X[1:])
    with pytest.raises(TypeError, match="mapped: X must be numbers"):
        blocks.map(lambda X: X.astype(str))
    with pytest.raises(TypeError, match="do not become one array"):
        scaler.fit(blocks)


def test_to_npy(tmp_path):
    X, words, weight = data()[0], targets()["words"][1], np.ones(N)
    for form in ("parquet", "functions"):
        blocks = FORMS[form](tmp_path, X, words.astype(object), weight)
        copied = blocks.to_npy(tmp_path / form)
        assert np.array_equal(np.load(tmp_path / form / "X.npy"), X)
        assert np.array_equal(np.load(tmp_path / form / "y.npy"), words)
        assert copied.features == blocks.features
        assert_same(MLPClassifier(**settings()).fit(copied), MLPClassifier(**settings()).fit(X, words, weight))
    with pytest.raises(FileExistsError):
        copied.to_npy(tmp_path / form)


def test_memory_maps_are_read_without_a_map(tmp_path):
    X = data()[0]
    np.save(tmp_path / "X.npy", X)
    whole = np.load(tmp_path / "X.npy", mmap_mode="r")
    assert isinstance(files.ArraySource("X", whole).arrays[0], files.ArrayFile)
    for view in (whole, whole[5:], whole[:, ::2], whole[::-1]):
        assert np.array_equal(np.concatenate([rows.X for rows in Blocks([view])]), view)


def test_a_memory_map_that_does_not_fit_names_blocks(tmp_path, monkeypatch):
    X, y = data()
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    monkeypatch.setattr(validation, "_ALWAYS_THERE", 0)
    monkeypatch.setattr(validation, "total_memory", lambda: 1000)
    for rows in (mapped, np.asarray(mapped), mapped[:, 1:]):
        with pytest.warns(UserWarning, match=r"with shuffle=True.*fastmlp\.Blocks"):
            MLPClassifier(**settings(shuffle=True)).fit(rows, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        MLPClassifier(**settings()).fit(mapped, y)
        MLPClassifier(**settings(shuffle=True)).fit(X, y)
        MLPClassifier(**settings(shuffle=True)).fit(Blocks([(mapped, y)]))


# --- messages ----------------------------------------------------------------------------------------------------


def broken(X, y, row, column, value):
    X = X.copy()
    X[row, column] = value
    return X, y


@pytest.mark.parametrize("form", rest_slow(FORMS, "npy", "parquet", "functions"))
@pytest.mark.parametrize(("value", "words"), [(np.nan, "contains NaN"), (np.inf, "contains infinity")])
@pytest.mark.filterwarnings("ignore:.* feature names")
def test_a_number_that_is_not_finite_is_found(tmp_path, form, value, words):
    X, y = broken(*data(), 450, 3, value)
    blocks = FORMS[form](tmp_path, X, y)
    place = {
        "npy": r"X-2\.npy, rows 100 to 149", "columns": r"X-2\.npy, rows 100 to 149",
        "arrays": "part 2, rows 100 to 149", "functions": "part 2",
        "parquet": r"2\.parquet, row group 2", "arrow": r"2\.arrow, record batch 2",
    }[form]  # fmt: skip
    column = "'x3'" if form in ("parquet", "arrow") else "3"
    with pytest.raises(ValueError, match=f"(?s){place}: Input X {words}.*Column {column} holds"):
        MLPClassifier(**settings()).fit(blocks)
    model = MLPClassifier(**settings()).fit(*data())
    with pytest.raises(ValueError, match=f"{place}: "):
        model.predict(blocks)


def test_numbers_that_are_not_finite_in_one_call_only_are_found():
    X, y = data()
    calls = []

    def part():
        calls.append(0)
        return (X * np.nan if len(calls) == 6 else X), y

    with pytest.raises(ValueError, match="part 0 returned other rows when they were read again"):
        MLPClassifier(**settings(max_iter=20)).fit(Blocks([part]))
    model = MLPClassifier(**settings()).fit(X, y)
    blocks = Blocks([part])
    assert blocks.shape == (N, F)
    calls[:] = [0] * 5
    with pytest.raises(ValueError, match="part 0 returned other rows"):
        model.predict(blocks)


def test_a_failed_fit_leaves_the_estimator_and_no_thread(tmp_path):
    X, y = data()
    model = MLPClassifier(**settings()).fit(X, y)
    before, threads = model.network_.parameters.copy(), threading.active_count()
    with pytest.raises(ValueError, match="contains NaN"):
        model.fit(Blocks([broken(X, y, 600, 0, np.nan)]))
    assert np.array_equal(model.network_.parameters, before)
    assert threading.active_count() == threads


def gaps(y):
    y = y.astype(object)
    y[500] = None
    return y


X, y = data()
ERRORS = {
    "no list": (lambda folder: Blocks((X, y)), TypeError, r"Blocks takes a list of parts, Blocks\(\[\(X, y\)\]\)"),
    "no parts": (lambda folder: Blocks([]), ValueError, "must have parts"),
    "no rows": (lambda folder: Blocks([(X[:0], y[:0])]), ValueError, "0 rows"),
    "other rows": (lambda folder: Blocks([(X, y[1:])]), ValueError, "part 0: X has shape .*, y has shape"),
    "other width": (lambda folder: Blocks([(X, y), (X[:, 1:], y)]), ValueError, "part 1 has 4 features, part 0 has 5"),
    "y lacks": (lambda folder: Blocks([(X, y), X]), ValueError, "part 0 and part 1 must both have y"),
    "without y": (lambda folder: Blocks([X]), ValueError, "requires y to be passed, but the Blocks have none"),
    "pictures": (lambda folder: Blocks([(np.zeros((3, 2, 2)), y[:3])]), ValueError, r"X.reshape\(len\(X\), -1\)"),
    "words": (lambda folder: Blocks([(np.array([["a"]] * N), y)]), TypeError, "X must be numbers"),
    "gaps": (lambda folder: Blocks([(X, gaps(y))]), (ValueError, TypeError), r"part 0, rows 500 to 549: .*"),
    "numbers": (lambda folder: Blocks([(X, X[:, 0])]), ValueError, "part 0, rows 0 to 49: Unknown label type"),
    "classes of columns": (lambda folder: Blocks([(X, np.stack([y, y], axis=1))]), ValueError, "MultiOutputClassifier"),
    "weights": (lambda folder: Blocks([(X, y, -np.ones(N))]), ValueError,
        "part 0, rows 0 to 49: sample_weight must not be negative"),
    "no features": (lambda folder: Blocks([(X[:, :0], y)]), ValueError, r"part 0: X must have features"),
    "a list for a part": (lambda folder: Blocks([[X, y]]), TypeError, r"part 0 must be X, or a tuple \(X, y\)"),
    "labels of two types": (lambda folder: Blocks([(X, y), (X, y.astype(str))]), TypeError,
        "part 1, rows 0 to 49: Input y holds labels of different types: number, str"),
    "no classes": (lambda folder: Blocks([(X, y)], classes=[]), ValueError, r"classes must be a list of labels"),
    "classes in two dimensions": (lambda folder: Blocks([(X, y)], classes=[[0, 1], [1, 2]]), ValueError,
        r"classes must be a list of labels, got \[\[0, 1\], \[1, 2\]\]"),
    "classes of an indicator": (lambda folder: Blocks([(X, X[:, :2] > 0)], classes=[0, 1]), ValueError,
        r"classes must be None where y has several columns"),
    "no weight": (lambda folder: Blocks([(X, y, np.zeros(N))]), ValueError, "at least one non-zero"),
    "NaN in weights": (lambda folder: Blocks([(X, y, np.full(N, np.nan))]), ValueError,
        "part 0, rows 0 to 49: .*sample_weight"),
    "another class": (lambda folder: Blocks([(X, y)], classes=[0, 1]), ValueError,
        r"part 0, rows 0 to .*not among classes_: \[2\]"),
    "no file": (lambda folder: Blocks.npy(folder / "none-*.npy", folder / "y.npy"), FileNotFoundError,
        "X='.*none-.* matches no file"),
    "arrays": (lambda folder: Blocks.npy(folder / "X.npy", y), TypeError,
        r"y must name files, got ndarray.*Blocks\(\["),
    "fewer files": (lambda folder: Blocks.npy([folder / "X.npy"] * 2, folder / "y.npy"), ValueError,
        "X names 2 files and y 1"),
    "fewer rows": (lambda folder: Blocks.npy(folder / "X.npy", folder / "short.npy"), ValueError,
        r"X\.npy has 700 rows, .*short\.npy has 7"),
    "objects": (lambda folder: Blocks.npy(folder / "X.npy", folder / "objects.npy"), ValueError,
        r"objects\.npy .*astype\(str\)"),
    "cut": (lambda folder: Blocks.npy(folder / "cut.npy", folder / "y.npy"), ValueError, r"cut\.npy cannot be read"),
    "no npy": (lambda folder: Blocks.npy(folder / "rows.parquet", folder / "y.npy"), ValueError,
        r"rows\.parquet cannot be read"),
    "no parquet": (lambda folder: Blocks.parquet(folder / "X.npy", target="y"), ValueError, r"X\.npy cannot be read"),
    "damaged": (lambda folder: Blocks.parquet(folder / "damaged.parquet", target="y"), (OSError, ValueError),
        r"damaged\.parquet cannot be read"),
    "no arrow": (lambda folder: Blocks.arrow(folder / "X.npy", target="y"), ValueError, r"X\.npy cannot be read"),
    "no column": (lambda folder: Blocks.parquet(folder / "rows.parquet", ["x9"], "y"), ValueError,
        r"rows\.parquet: there are no columns \['x9'\]"),
    "twice": (lambda folder: Blocks.parquet(folder / "rows.parquet", ["y"], "y"), ValueError,
        r"\['y'\] are asked for twice"),
    "a word": (lambda folder: Blocks.parquet(folder / "rows.parquet", target="y"), TypeError,
        r"rows\.parquet: column 'city' must be numbers, got string"),
    "a name": (lambda folder: Blocks.parquet(folder / "rows.parquet", "x0", "y"), TypeError, "features must be a list"),
    "a gap": (lambda folder: Blocks.parquet(folder / "rows.parquet", ["x0"], "city"), ValueError,
        r"row group 0: Column 'city' has no label in row 3"),
    "a gap in X": (lambda folder: Blocks.parquet(folder / "rows.parquet", ["x0", "gap"], "y"), ValueError,
        "(?s)row group 0: Input X contains NaN.*'gap'"),
    "lbfgs": (lambda folder: Blocks([(X, y)]), ValueError, "lbfgs' takes all rows at once"),
    "changes": (lambda folder: Blocks([(lambda calls=[]: (calls.append(0), (X[len(calls) :], y[len(calls) :]))[1])]),
        ValueError, "same ones in each call"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_messages(tmp_path, case):
    make, kind, words = ERRORS[case]
    for name, array in {"X": X, "y": y, "short": y[:7]}.items():
        np.save(tmp_path / f"{name}.npy", array)
    np.save(tmp_path / "objects.npy", y.astype(object))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "X.npy").read_bytes()[:-9])
    city = np.array(["Rome", "Oslo"], dtype=object)[np.arange(N) % 2]
    city[3] = None
    rows = {"x0": X[:, 0], "y": y, "city": city, "gap": pyarrow.array([None, *range(N - 1)], pyarrow.int32())}
    parquet.write_table(pyarrow.table(rows), tmp_path / "rows.parquet")
    content = bytearray((tmp_path / "rows.parquet").read_bytes())
    content[-200:-8] = b"\xff" * 192  # its last part says what it has
    (tmp_path / "damaged.parquet").write_bytes(content)
    with pytest.raises(kind, match=words):
        MLPClassifier(**settings(solver="lbfgs" if case == "lbfgs" else "adam")).fit(make(tmp_path))


def test_functions_of_data_frames_have_names():
    frame = pandas.DataFrame(X, columns=NAMES)
    swapped = frame[NAMES[::-1]]
    model = MLPClassifier(**settings()).fit(Blocks([lambda: (frame, y)]))
    assert model.feature_names_in_.tolist() == NAMES
    assert_same(model, MLPClassifier(**settings()).fit(frame, y))
    with pytest.raises(ValueError, match=r"part 1 has the features \['x4'.*part 0 has \['x0'"):
        MLPClassifier(**settings()).fit(Blocks([lambda: (frame, y), lambda: (swapped, y)]))
    with pytest.raises(ValueError, match=r"feature names should match.*got \['x4'"):
        model.predict(Blocks([lambda: swapped]))
    with pytest.raises(ValueError, match=r"part 0 returned .*\['x4'.*other rows before"):
        model.predict(Blocks([lambda frames=[frame]: (frames.append(swapped), frames.pop(0))[1]]))


@pytest.mark.parametrize("form", ["part", "function"])
def test_columns_of_numbers_of_any_type(form):
    frame = pandas.DataFrame(X.astype(np.float64), columns=NAMES)
    frames = {
        "bool": frame.assign(x1=X[:, 1] > 0),
        "Int64": frame.round().astype("Int64"),
        "Float64": frame.astype("Float64"),
        "object": frame.astype(object),
        "float32 and bool": frame.astype("float32").assign(x1=X[:, 1] > 0),
        "text": frame.astype(str),
    }
    for kind, table in frames.items():
        blocks = Blocks([(table, y)]) if form == "part" else Blocks([lambda table=table: (table, y)])
        assert_same(MLPClassifier(**settings()).fit(blocks), MLPClassifier(**settings()).fit(table, y))
        if kind == "Float64":
            table.loc[3, "x2"] = pandas.NA
            with pytest.raises(ValueError, match=r"(?s)part 0.*contains NaN.*'x2'"):
                MLPClassifier(**settings()).fit(Blocks([(table, y)]))
    assert_same(
        MLPClassifier(**settings()).fit(Blocks([(frames["object"].to_numpy(), y)])),
        MLPClassifier(**settings()).fit(frames["object"].to_numpy(), y),
    )
    for values in (["a"] * N, pandas.date_range("2020", periods=N), [1j] * N):
        table = frame.assign(x3=values, x1=X[:, 1] > 0)
        with pytest.raises(TypeError, match="part 0: X must be numbers, and column 'x3' is not"):
            MLPClassifier(**settings()).fit(Blocks([(table, y)]))
        with pytest.raises(TypeError, match="part 0: X must be numbers, and column 'x3' is not"):
            MLPClassifier(**settings()).fit(Blocks([(table[["x3"]], y)]))


def test_a_map_that_differs_from_its_file_is_read_itself(tmp_path):
    np.save(tmp_path / "X.npy", X)
    own = np.load(tmp_path / "X.npy", mmap_mode="c")
    own[...] = X[::-1]
    kept = np.load(tmp_path / "X.npy", mmap_mode="r")
    assert_same(MLPClassifier(**settings()).fit(Blocks([(own, y)])), MLPClassifier(**settings()).fit(X[::-1], y))
    if sys.platform != "win32":  # which keeps a file that is mapped
        (tmp_path / "X.npy").unlink()
        assert_same(MLPClassifier(**settings()).fit(Blocks([(kept, y)])), MLPClassifier(**settings()).fit(X, y))


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_text_in_every_layout(tmp_path, form):
    labels = np.array(["no", "yes", "perhaps"])[y]
    plain = MLPClassifier(**settings()).fit(X, labels)
    text = pyarrow.array(labels)
    layouts = [text, text.cast(pyarrow.large_string()), text.dictionary_encode()]
    if hasattr(pyarrow, "string_view"):
        view = text.dictionary_encode()
        layouts += [
            text.cast(pyarrow.string_view()),
            pyarrow.DictionaryArray.from_arrays(
                view.indices.cast(pyarrow.uint32()), view.dictionary.cast(pyarrow.string_view())
            ),
        ]
    for i, layout in enumerate(layouts):
        path = tmp_path / f"{i}.{form}"
        rows = pyarrow.table({**dict(zip(NAMES, X.T, strict=True)), "y": layout})
        if form == "parquet":
            if "view" in str(layout.type):
                continue
            parquet.write_table(rows, path, row_group_size=100)
        else:
            with pyarrow.ipc.new_file(path, rows.schema) as file:
                file.write_table(rows, max_chunksize=100)
        model = MLPClassifier(**settings()).fit(getattr(Blocks, form)(path, target="y"))
        assert_same(model, plain)
        assert model.classes_.tolist() == plain.classes_.tolist()


def test_arguments_beside_blocks():
    blocks = Blocks([(X, y)])
    for arguments in ({"y": y}, {"sample_weight": np.ones(N)}):
        with pytest.raises(ValueError, match="must be None with Blocks"):
            MLPClassifier().fit(blocks, **arguments)
    with pytest.raises(TypeError, match="MLPEnsembleClassifier needs its rows in memory, got Blocks"):
        MLPEnsembleClassifier().fit(blocks)
    with pytest.raises(TypeError, match="do not become one array: MLPClassifier and MLPRegressor take them"):
        TabularClassifier().fit(blocks)
    with pytest.raises(ValueError, match="classes are for classifiers, and MLPRegressor has none"):
        MLPRegressor().fit(Blocks([(X, X[:, 0])], classes=[0, 1]))
    with pytest.raises(ValueError, match="requires y to be passed"):
        MLPClassifier().fit(X)
    with pytest.raises(ValueError, match="eval_set must be the Blocks themselves"):
        MLPClassifier().fit(X, y, eval_set=(blocks, y))


def test_a_file_that_shrinks_is_found(tmp_path):
    blocks = of_npy(tmp_path, X, y)
    np.save(tmp_path / "X-2.npy", X[:10])
    with pytest.raises(ValueError, match=r"X-2\.npy is shorter than its header says"):
        MLPClassifier(**settings()).fit(blocks)


def test_a_damaged_page_is_found(tmp_path):
    blocks = of_table("parquet", tmp_path, X, y)
    content = bytearray((tmp_path / "2.parquet").read_bytes())
    content[200:1500] = b"\xff" * 1300
    (tmp_path / "2.parquet").write_bytes(content)
    with pytest.raises((OSError, ValueError), match=r"2\.parquet, row group \d"):
        MLPClassifier(**settings()).fit(blocks)


def test_pyarrow_is_an_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(ImportError, match=r"pip install fastmlp\[arrow\]"):
        Blocks.parquet(tmp_path / "rows.parquet", target="y")
