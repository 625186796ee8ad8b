"""Models as C: compiled and compared with fastmlp."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from helpers import rest_slow, tolerance
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_digits, load_iris
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, PowerTransformer, StandardScaler

import fastmlp
from fastmlp import (
    MLPClassifier,
    MLPEnsembleClassifier,
    MLPEnsembleRegressor,
    MLPRegressor,
    Network,
    TabularRegressor,
    core,
)
from fastmlp.interop import ConversionError, to_c

WARNINGS = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"]
COMPILERS = [("gcc", "c99"), ("g++", "c++17"), ("clang", "c99"), ("clang++", "c++17")]
# Beyond the narrow softmax, whole and broken vectors, a residual layer.
SHAPES = [(7, 11, 11, 3), (5, 33, 33, 21)]
VARIANTS = [  # batch_norm, residual, output
    (False, False, "softmax"), (True, True, "identity"), (False, True, "logistic"), (True, False, "log_softmax"),
    (False, False, "exp"),
    (False, False, "log_logistic"),
]  # fmt: skip
HAS_FMA = core.info()["isa"] != "base"


def compiled(folder: Path, text: str, compiler: str = "gcc", standard: str = "c99", *flags: str) -> Path:
    """The program of a C text, without a warning."""
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler}")
    source, program = folder / ("program.cc" if "+" in compiler else "program.c"), folder / "program"
    source.write_text(text)
    options = [f"-std={standard}", "-O1", *WARNINGS, *flags]
    done = subprocess.run(
        [compiler, *options, str(source), "-o", str(program), "-lm"], capture_output=True, text=True, timeout=300
    )
    if "cannot find" in done.stderr and "asan" in done.stderr:
        pytest.skip(f"{compiler} has no sanitizers")
    assert done.returncode == 0, done.stderr[:3000]
    return program


def outputs(folder: Path, calls: list[tuple[str, str, np.ndarray, str, np.dtype, int]], *how: str) -> list[np.ndarray]:
    """What functions of C texts return for rows.

    calls: of each, the text, its name, the rows, the function's name, and the element type and number of its results.
    """
    parts, blocks = ["#include <stdio.h>\n"], []
    types = {"float32": "float", "float64": "double", "int32": "int"}
    for text, name, X, function, dtype, width in calls:
        parts.append(text)
        real, result = types[X.dtype.name], types[np.dtype(dtype).name]
        call = f"{name}_{function}(x, y)" if width else f"y[0] = {name}_{function}(x)"
        blocks.append(
            f"    for (int r = 0; r < {len(X)}; r++) {{ {real} x[{X.shape[1]}]; {result} y[{max(width, 1)}]; "
            f"if (fread(x, sizeof(x), 1, stdin) != 1) return 1; {call}; fwrite(y, sizeof(y), 1, stdout); }}"
        )
    parts.append("\n".join(["int main(void) {", *blocks, "    return 0;", "}", ""]))
    program = compiled(folder, "\n".join(parts), *how)
    given = b"".join(np.ascontiguousarray(X).tobytes() for _, _, X, _, _, _ in calls)
    done = subprocess.run([str(program)], input=given, capture_output=True, timeout=100)
    assert done.returncode == 0, done.stderr.decode()[:3000]
    results, at = [], 0
    for _, _, X, _, dtype, width in calls:
        count = len(X) * max(width, 1)
        result = np.frombuffer(done.stdout, dtype, count, at)
        at += result.nbytes
        results.append(result.reshape(len(X), width) if width else result)
    assert at == len(done.stdout)
    return results


def networks(n_variants: int) -> list[tuple[Network, np.ndarray]]:
    """A network of each activation and element type, and rows for it, some of them hostile."""
    rng = np.random.default_rng(0)
    made = []
    for number, (dtype, name) in enumerate(product(("float32", "float64"), core.ACTIVATIONS)):
        for variant in range(n_variants):
            batch_norm, residual, output = VARIANTS[(number + variant) % len(VARIANTS)]
            network = Network(
                SHAPES[(number + variant) % 2], name, output, dtype, random_state=number, batch_norm=batch_norm,
                residual=residual, bias_init=("normal", 0.5),
            )  # fmt: skip
            network.statistics[:] = rng.uniform(0.5, 2, network.statistics.shape)
            X = rng.standard_normal((6, network.layer_sizes[0])).astype(dtype)
            X[1] *= 50
            X[2, 1], X[3, 0], X[4, 0] = np.nan, np.inf, -np.inf
            made.append((network, X))
    return made


def check_networks(folder: Path, fma: bool, n_variants: int, *how: str) -> None:
    cases = networks(n_variants)
    calls = [
        (to_c(network, f"m{i}", fma), f"m{i}", X, "forward", network.dtype, network.layer_sizes[-1])
        for i, (network, X) in enumerate(cases)
    ]
    for (network, X), found in zip(cases, outputs(folder, calls, *how), strict=True):
        expected = network.forward(X)
        if fma and HAS_FMA:
            np.testing.assert_array_equal(found, expected, str(network))
            continue
        rows = [0, 1]
        logits = network.forward(X, out_activation="identity")[rows]
        scale = np.abs(logits).max() * (1 + np.abs(expected[rows]).max())
        np.testing.assert_allclose(
            found[rows], expected[rows], rtol=0, atol=tolerance(network.dtype, 100, scale), err_msg=str(network)
        )


@pytest.mark.parametrize("fma", rest_slow([True, False], True))
def test_networks(tmp_path: Path, fma: bool):
    check_networks(tmp_path, fma, 1, "gcc", "c99", *(["-march=native"] if fma else []))


@pytest.mark.parametrize("fma", rest_slow([True, False], False))
def test_infinite_logits(tmp_path: Path, fma: bool):
    """Outputs are NaN and infinite where those of forward are."""
    rng = np.random.default_rng(0)
    calls, expected = [], []
    for i, output in enumerate([*core.ACTIVATIONS, *core.OUTPUTS, "log_softmax"]):
        network = Network((3, 3), (), output, ("float32", "float64")[i % 2], random_state=0)
        network.coefs[0][...] = [[1, 1, 0.5], [1, -1, 0.25], [-1, 0.5, 2]]
        rows = rng.choice([np.inf, -np.inf, np.nan, 0.0, 1.0, -30.0, 1e4], (60, 3)).astype(network.dtype)
        rows[0] = np.inf, np.inf, 0
        calls.append((to_c(network, f"m{i}", fma), f"m{i}", rows, "forward", network.dtype, 3))
        expected.append(network.forward(rows))
    for (_, name, *_), found, wanted in zip(calls, outputs(tmp_path, calls), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=tolerance(wanted.dtype, 1000), atol=1e-30, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("fma", [True, False])
@pytest.mark.parametrize(("compiler", "standard"), COMPILERS)
def test_compilers_under_sanitizers(tmp_path: Path, compiler: str, standard: str, fma: bool):
    check_networks(tmp_path, fma, 1, compiler, standard, *SANITIZERS)


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["gcc", "g++", "clang", "clang++"])
def test_bits_where_the_compiler_may_fuse(tmp_path: Path, compiler: str):
    standard = "gnu++17" if "+" in compiler else "gnu17"
    contract = [] if "clang" in compiler else ["-ffp-contract=fast"]  # clang's =fast overrides the file's pragma
    check_networks(tmp_path, True, 2, compiler, standard, "-O2", "-march=native", *contract)


IRIS = load_iris(return_X_y=True)
NAMED = ["sepal", "petal \\ \"length\"", "breite/*äöü*/", "??=trigraph"]  # fmt: skip


def fitted():
    """Estimators of each kind, with how C names their functions and what these return."""
    X, y = IRIS
    settings = {"hidden_layer_sizes": (8,), "max_iter": 5, "random_state": 0}
    words = np.array(["setosa", 'ver"si', "virgi\\nica"])[y]
    frame_like = X.astype(np.float32)
    Y = np.c_[y == 1, y == 2].astype(int)
    return {
        "classes": MLPClassifier(**settings).fit(X, y),
        "words": MLPClassifier(dtype="float64", batch_norm=True, **settings).fit(X, words),
        "two": MLPClassifier(**settings).fit(X, y == 1),
        "one": MLPClassifier(**settings).fit(X, np.zeros(len(X), int)),
        "labels": MLPClassifier(**settings).fit(X, Y),
        "number": MLPRegressor(**settings).fit(frame_like, X[:, 0]),
        "numbers": MLPRegressor(dtype="float64", residual=True, **settings).fit(X, X[:, :2]),
        "counts": MLPRegressor(loss="poisson", **settings).fit(X, y),
        "several": MLPEnsembleClassifier(MLPClassifier(**settings), n_estimators=3, random_state=0).fit(X, words),
        "pairs": MLPEnsembleClassifier(MLPClassifier(**settings), n_estimators=3, random_state=0).fit(X, y == 1),
        "mean": MLPEnsembleRegressor(MLPRegressor(**settings), n_estimators=3, random_state=0).fit(X, X[:, 0]),
        "alone": MLPClassifier(hidden_layer_sizes=(), solver="lbfgs", max_iter=20).fit(X, y),
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("compiler", "standard"), rest_slow(COMPILERS, COMPILERS[0]))
def test_estimators(tmp_path: Path, compiler: str, standard: str):
    """Labels, probabilities and values; with fma, of dense rows, the same bits."""
    models, calls, wanted = fitted(), [], []
    X = IRIS[0]
    for name, model in models.items():
        network = (model.estimators_[0] if hasattr(model, "estimators_") else model).network_
        text, rows = to_c(model, name, fma=True), X.astype(network.dtype)
        if not hasattr(model, "classes_"):
            calls.append((text, name, rows, "predict", network.dtype, model.n_outputs_))
            wanted.append(model.predict(rows).reshape(len(X), -1))
            continue
        width = model.predict_proba(rows).shape[1]
        calls.append((text, name, rows, "predict_proba", network.dtype, width))
        wanted.append(model.predict_proba(rows))
        is_multilabel = model.predict(rows).ndim == 2
        calls.append(("", name, rows, "predict", np.int32, width if is_multilabel else 0))
        labels = model.predict(rows)
        wanted.append(labels if is_multilabel else np.searchsorted(model.classes_, labels))
    how = [compiler, standard, "-march=native", *([] if compiler == "gcc" else SANITIZERS)]
    for (_, name, _, _, dtype, _), found, expected in zip(calls, outputs(tmp_path, calls, *how), wanted, strict=True):
        if HAS_FMA or dtype == np.int32:
            np.testing.assert_array_equal(found, expected, name)
        else:
            np.testing.assert_allclose(found, expected, rtol=tolerance(dtype, 100), err_msg=name)


@pytest.mark.filterwarnings("ignore")
def test_stack(tmp_path: Path):
    """What the file says of the stack holds for the frames of all functions of a prediction, and is not far off."""
    rng = np.random.default_rng(0)
    X, y, many = rng.random((600, 2)), rng.random((600, 300)), np.arange(600) % 200
    settings = {"hidden_layer_sizes": (30, 20), "max_iter": 1}
    models = [
        MLPClassifier(**settings).fit(X, many),
        MLPClassifier(**settings).fit(X, y > 0.5),
        MLPEnsembleClassifier(MLPClassifier(**settings), n_estimators=2).fit(X, many),
        MLPEnsembleRegressor(MLPRegressor(**settings), n_estimators=2).fit(X, y),
        MLPRegressor(**settings).fit(X, y),
    ]
    for number, model in enumerate(models):
        text = to_c(model, "m")
        stated = int(re.search(r"([\d,]+) bytes of the stack", text)[1].replace(",", ""))
        folder = tmp_path / str(number)
        folder.mkdir()
        compiled(folder, f"#define M_API\n{text}int main(void) {{ return 0; }}\n", "gcc", "c99", "-fstack-usage")
        frames = [line.split("\t") for line in next(folder.glob("*.su")).read_text().splitlines()]
        sizes = {place.rpartition(":")[2]: int(size) for place, size, _ in frames}
        layers = max(sizes.get(f"m_net{i}", 0) for i in range(2))
        used = sizes["m_predict"] + sizes.get("m_mean", 0) + layers
        assert used <= stated <= used + 1000, model


def test_names_that_differ_in_case(tmp_path: Path):
    """One program may have both; a keyword may begin names."""
    texts = [to_c(Network((2, 2), random_state=0), name) for name in ("a", "A", "int")]
    assert texts[1].startswith("/* A: ")
    calls = "a_forward(x, y); A_forward(x, y); int_forward(x, y);"
    compiled(tmp_path, f"{''.join(texts)}int main(void) {{ float x[2] = {{0}}, y[2]; {calls} return 0; }}\n")


@pytest.mark.filterwarnings("ignore")
def test_names_are_safe(tmp_path: Path):
    """Whatever columns and classes are called, the file compiles, and its strings hold the names."""
    pd = pytest.importorskip("pandas")
    X, y = IRIS
    classes = np.array(["*/ int x;", "a\nb", "☃"])
    settings = {"hidden_layer_sizes": (3,), "max_iter": 1, "random_state": 0}
    model = MLPClassifier(**settings).fit(pd.DataFrame(X, columns=NAMED), classes[y])
    numbers = MLPClassifier(**settings).fit(X, y - 7)
    program = compiled(
        tmp_path,
        f"#include <stdio.h>\n{to_c(model, 'm')}{to_c(numbers, 'n')}\nint main(void) {{\n"
        "for (int i = 0; i < m_n_inputs; i++) { fputs(m_feature_names[i], stdout); putchar(0); }\n"
        "for (int i = 0; i < m_n_outputs; i++) { fputs(m_class_names[i], stdout); putchar(0); }\n"
        "for (int i = 0; i < n_n_outputs; i++) printf(\"%lld\", n_classes[i]);\n"
        "return 0; }\n",
    )  # fmt: skip
    printed = subprocess.run([str(program)], capture_output=True, timeout=60).stdout.decode()
    assert printed == "".join(f"{name}\0" for name in [*NAMED, *sorted(classes)]) + "-7-6-5"


@pytest.mark.filterwarnings("ignore")
def test_pipelines(tmp_path: Path):
    """Scalers become part of the layers."""
    X, y = IRIS
    X, settings = X * 100 + 3, {"hidden_layer_sizes": (8,), "max_iter": 20, "random_state": 0, "dtype": "float64"}
    classifier = make_pipeline(MinMaxScaler(), StandardScaler(), MLPClassifier(**settings)).fit(X, y)
    regressor = TransformedTargetRegressor(
        make_pipeline(StandardScaler(), MLPRegressor(**settings)), transformer=StandardScaler()
    ).fit(X, X[:, 0] * 1000)
    plain = make_pipeline("passthrough", MLPClassifier(**settings)).fit(X, y)
    calls = [
        (to_c(classifier, "c"), "c", X, "predict_proba", np.float64, 3),
        (to_c(regressor, "r"), "r", X, "predict", np.float64, 1),
        (to_c(plain, "p"), "p", X, "predict_proba", np.float64, 3),
    ]
    found = outputs(tmp_path, calls)
    np.testing.assert_allclose(found[0], classifier.predict_proba(X), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found[1][:, 0], regressor.predict(X), rtol=1e-9)
    np.testing.assert_allclose(found[2], plain.predict_proba(X), rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore")
def test_int8(tmp_path: Path):
    """The accuracy that to_c's docstring promises of the handwritten digits, and the arithmetic: that of rounded
    weights."""
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    model = MLPClassifier((64,), max_iter=40, random_state=0).fit(X[:1200], y[:1200])
    text = to_c(model, "digits", quantize="int8")
    rounded = model.network_.copy()
    for W in rounded.coefs:
        step = np.abs(W).max(axis=0) / 127
        W[...] = np.rint(W / step) * step
    found = outputs(tmp_path, [(text, "digits", X[1200:], "predict_proba", np.float32, 10)])[0]
    expected = model.predict_proba(X[1200:])
    np.testing.assert_allclose(found, rounded.forward(X[1200:]), atol=1e-5)
    assert np.abs(found - expected).mean() < 0.01
    hits, hits_before = (found.argmax(1) == y[1200:]).mean(), (expected.argmax(1) == y[1200:]).mean()
    assert abs(hits - hits_before) <= 0.005
    assert len(text) < len(to_c(model, "digits")) / 2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("quantize", [None, "int8"])
@pytest.mark.parametrize("fma", [False, True])
def test_zero_weights_and_batch_norm_in_bytes(tmp_path: Path, fma: bool, quantize: str | None):
    """A unit whose weights are all 0 has no step; normalisation is folded first."""
    network = Network((4, 5, 2), "tanh", "identity", "float64", random_state=0, batch_norm=True)
    network.coefs[0][:, 1] = 0
    network.statistics[:] = np.linspace(0.5, 1, network.statistics.size)
    X = IRIS[0][:20]
    found = outputs(tmp_path, [(to_c(network, "m", fma, quantize), "m", X, "forward", np.float64, 2)])[0]
    np.testing.assert_allclose(found, network.forward(X), atol=0.05 if quantize else 1e-13)


@pytest.mark.filterwarnings("ignore")
def test_refusals():
    X, y = IRIS
    settings = {"hidden_layer_sizes": (3,), "max_iter": 1}
    imputed = make_pipeline(SimpleImputer(), StandardScaler(), MLPClassifier(**settings)).fit(X, y)
    with pytest.raises(ConversionError, match=r"simpleimputer.*SimpleImputer.*cannot be written as C"):
        to_c(imputed)
    with pytest.raises(ConversionError, match="SimpleImputer"):
        to_c(make_pipeline(SimpleImputer(), MLPClassifier(**settings)).fit(X, y))
    with pytest.raises(ConversionError, match="clip=True"):
        to_c(make_pipeline(MinMaxScaler(clip=True), MLPClassifier(**settings)).fit(X, y))
    power = TransformedTargetRegressor(MLPRegressor(**settings), transformer=PowerTransformer())
    with pytest.raises(ConversionError, match="PowerTransformer"):
        to_c(power.fit(X, y + 1.0))
    with pytest.raises(ConversionError, match=r"TabularRegressor.*words, dates and gaps"):
        to_c(TabularRegressor())
    with pytest.raises(ConversionError, match="embedding"):
        to_c(Network((10, 32, 1), out_activation="identity", embedding=16))
    with pytest.raises(TypeError, match="takes a Network"):
        to_c(object())
    network = Network((2, 2), random_state=0)
    for name in ("", "1m", "a b", "_m", "ä", 3):
        with pytest.raises(ValueError, match="letters, digits and underscores"):
            to_c(network, name)
    with pytest.raises(ValueError, match="quantize"):
        to_c(network, quantize="int4")
    network.coefs[0][0, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        to_c(network)


def test_functions_of_a_library(tmp_path: Path):
    """-DNAME_API= exports the functions; threads share them, since there is no state."""
    import ctypes
    from concurrent.futures import ThreadPoolExecutor

    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc")
    network = Network((6, 9, 4), random_state=0)
    (tmp_path / "m.c").write_text(to_c(network, "m"))
    flags = ["-std=c99", "-O2", *WARNINGS, "-shared", "-fPIC", "-DM_API="]
    subprocess.run(["gcc", *flags, "m.c", "-o", "m.so"], cwd=tmp_path, check=True)
    forward = ctypes.CDLL(str(tmp_path / "m.so")).m_forward
    X = np.random.default_rng(0).standard_normal((400, 6)).astype(np.float32)
    Y = np.empty((400, 4), np.float32)

    def call(row: int) -> None:
        forward(ctypes.c_void_p(X[row].ctypes.data), ctypes.c_void_p(Y[row].ctypes.data))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(400)))
    np.testing.assert_allclose(Y, network.forward(X), rtol=1e-5)


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """python -m fastmlp c FILE, of a Network's file and of an estimator's."""
    from fastmlp.__main__ import main

    network = Network((3, 4, 2), random_state=0)
    network.save(tmp_path / "my net-1.safetensors")
    network.save(tmp_path / "1.safetensors")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fastmlp", "c", *arguments])
        status = main()
        return status, *capsys.readouterr()

    assert run(str(tmp_path / "my net-1.safetensors")) == (0, to_c(network, "my_net_1"), "")
    assert run(str(tmp_path / "1.safetensors"), "--fma") == (0, to_c(network, "model_1", True), "")
    for options in ({"name": "m", "quantize": "int8"}, {"name": "m"}):
        given = [f"--{key}={value}" for key, value in options.items()]
        assert run(str(tmp_path / "1.safetensors"), *given) == (0, to_c(network, **options), "")
    data = Path(__file__).parent.parent / "data"
    assert "classifier_0_1_0_predict_proba" in run(str(data / "classifier-0.1.0.safetensors"))[1]
    status, out, err = run(str(data / "tabular-0.1.0.safetensors"))
    assert (status, out) == (2, "")
    assert "cannot be written as C" in err
    assert run(str(tmp_path / "none"))[0] == 2
    assert isinstance(fastmlp.load(tmp_path / "1.safetensors"), Network)
