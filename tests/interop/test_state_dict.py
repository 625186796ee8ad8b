"""Tensors by name, as a dict and as a safetensors file, without PyTorch."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import ENVIRONMENT
from networks import NETWORKS, assert_agrees, network, rows, same_bits
from safetensors.numpy import save_file

from fastmlp import MLPClassifier, MLPEnsembleClassifier
from fastmlp.interop import ConversionError, from_state_dict, to_state_dict

DATA = Path(__file__).parent.parent / "data"


@pytest.mark.parametrize("options", NETWORKS)
def test_round_trip(options, tmp_path):
    """A file says the order itself; the bits come back."""
    net = network(**options)
    tensors = to_state_dict(net, tmp_path / "net.safetensors", prefix="body.")
    assert all(name.startswith("body.") for name in tensors)
    assert same_bits(from_state_dict(tmp_path / "net.safetensors").network, net)


def plain(dtype="float32"):
    net = network(["tanh", "relu"], (7, 4), "identity", dtype)
    state = {}
    for i, (W, b) in enumerate(zip(net.coefs, net.intercepts, strict=True)):
        state |= {f"{2 * i}.weight": np.ascontiguousarray(W.T), f"{2 * i}.bias": b}
    return net, state


def test_names_with_numbers(tmp_path):
    net, state = plain()
    turned = dict(reversed(state.items()))
    assert same_bits(from_state_dict(turned, ["tanh", "relu"]).network, net)
    save_file(state, tmp_path / "state.safetensors")
    converted = from_state_dict(tmp_path / "state.safetensors", ["tanh", "relu"], "softmax")
    assert converted.network.out_activation == "softmax"
    assert np.array_equal(converted.network.parameters, net.parameters)
    assert converted.classifier(range(3)).predict(rows()).shape == (40,)


def test_names_without_numbers(tmp_path):
    net, state = plain()
    names = {"0": "fc_in", "2": "fc_mid", "4": "head"}
    state = {f"{names[name.split('.')[0]]}.{name.split('.')[1]}": array for name, array in state.items()}
    assert same_bits(from_state_dict(state, ["tanh", "relu"]).network, net)
    save_file(state, tmp_path / "state.safetensors")
    with pytest.raises(ConversionError, match=r"do not tell the order.*Pass layers"):
        from_state_dict(tmp_path / "state.safetensors", "relu")
    layers = ["fc_in", "tanh", "fc_mid", "relu", "head"]
    assert same_bits(from_state_dict(tmp_path / "state.safetensors", layers=layers).network, net)


def normalised():
    net = network("relu", (6, 6), batch_norm=True, residual=True)
    return net, to_state_dict(net)


def test_batch_norm_and_residual():
    net, state = normalised()
    assert same_bits(from_state_dict(state, "relu", residual=True).network, net)
    layers = ["0", "1", "relu", "3", "4", "relu", "+", "6"]
    assert same_bits(from_state_dict(state, layers=layers).network, net)
    after = {name.replace("1.", "2.", 1) if name.startswith("1.") else name: array for name, array in state.items()}
    with pytest.raises(ConversionError, match="does not follow a linear layer directly"):
        from_state_dict(after, "relu")
    behind = from_state_dict(after, layers=["0", "relu", "2", "3", "4", "relu", "6"])
    assert not behind.network.batch_norm
    assert any("2 is folded" in note for note in behind.notes)
    other = from_state_dict(state, "relu", epsilon=1e-3).network
    assert not np.array_equal(other.scales[0], net.scales[0])


@pytest.mark.parametrize("old", [True, False])
def test_weight_norm(old):
    rng = np.random.RandomState(0)
    v, g, b = rng.normal(size=(3, 5)), rng.normal(size=(3, 1)), rng.normal(size=3)
    names = (
        ["weight_g", "weight_v"] if old else ["parametrizations.weight.original0", "parametrizations.weight.original1"]
    )
    net = from_state_dict({f"0.{names[0]}": g, f"0.{names[1]}": v, "0.bias": b}).network
    expected = rows("float64") @ (g * v / np.linalg.norm(v, axis=1, keepdims=True)).T + b
    np.testing.assert_allclose(net.forward(rows("float64")), expected, rtol=1e-12)


def write_raw(path, tensors):
    """A safetensors file of any type: name -> (type, shape, bytes)."""
    header, offset = {}, 0
    for name, (kind, shape, data) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data for _, _, data in tensors.values()))


@pytest.mark.parametrize("kind", ["BF16", "F16", "F32", "F64"])
def test_types_of_files(kind, tmp_path):
    net, state = plain("float64" if kind == "F64" else "float32")
    raw, expected = {}, {}
    for name, array in state.items():
        if kind == "BF16":  # the upper half of a float32
            data = (array.view(np.uint32) >> 16).astype("<u2")
            expected[name] = (data.astype(np.uint32) << 16).view(np.float32)
        else:
            data = array.astype({"F16": "<f2", "F32": "<f4", "F64": "<f8"}[kind])
            expected[name] = data.astype(net.dtype)
        raw[name] = (kind, list(array.shape), data.tobytes())
    write_raw(tmp_path / "x.safetensors", raw)
    converted = from_state_dict(tmp_path / "x.safetensors", ["tanh", "relu"])
    assert same_bits(converted.network, from_state_dict(expected, ["tanh", "relu"]).network)
    assert bool(converted.notes) == (kind in ("BF16", "F16"))
    assert converted.network.dtype == net.dtype


def with_(changes, without=()):
    _, state = plain()
    return {name: array for name, array in {**state, **changes}.items() if name not in without}


@pytest.mark.parametrize(
    ("state", "options", "error", "words"),
    [
        (with_({}), {}, ConversionError, "do not tell the activations"),
        (with_({"1.weight": np.ones(7), "1.bias": np.ones(7)}), {"activation": "relu"}, (ConversionError, ValueError),
            "layer or instance norm|activation must"),
        (with_({"1.weight": np.ones((7, 7, 3))}), {"layers": ["0", "1", "relu", "2", "relu", "4"]}, ConversionError,
            "shape"),
        (with_({"lstm.weight_ih_l0": np.ones((4, 4))}), {"activation": "relu"}, ConversionError, "weight_ih_l0"),
        (with_({"0.weight": np.ones((7, 5), np.int8)}), {"activation": "relu"}, ConversionError, "quantized"),
        (with_({"0.weight": np.ones((7, 5), complex)}), {"activation": "relu"}, ConversionError, "real"),
        (with_({"0.bias": np.ones(3)}), {"activation": "relu"}, ConversionError, "bias"),
        (with_({"2.weight": np.ones((4, 9))}), {"activation": "relu"}, ConversionError, "9 inputs behind 7 units"),
        (with_({"0.weight": np.full((7, 5), np.nan)}), {"activation": "relu"}, ConversionError, "not finite"),
        (with_({"1.running_mean": np.ones(7)}), {"activation": "relu"}, ConversionError, "running_var"),
        (with_({"1.running_mean": np.ones(7), "1.running_var": -np.ones(7)}), {"activation": "relu"}, ConversionError,
            "negative variances"),
        (with_({}, ["0.weight"]), {"activation": "relu"}, ConversionError, "no weight"),
        (with_({}), {"layers": ["0", "relu", "2"]}, ConversionError, "layers lacks"),
        (with_({}), {"layers": ["0", "rleu", "2", "4"]}, ValueError, "Did you mean 'relu'"),
        (with_({}), {"layers": ["+", "0"]}, ValueError, "needs a linear layer"),
        (with_({}), {"activation": ["relu"]}, ValueError, "2 hidden layers"),
        (with_({}), {"activation": "gelu_new"}, ValueError, "activation must"),
        (with_({}), {"activation": "relu", "layers": ["0"]}, ValueError, "not both"),
        ({}, {}, ConversionError, "no tensors"),
        ({0: np.ones((2, 2))}, {}, TypeError, "strings"),
    ],
)  # fmt: skip
def test_refused(state, options, error, words):
    with pytest.raises(error, match=words):
        from_state_dict(state, **options)


def test_other_files(tmp_path):
    path = tmp_path / "x.safetensors"
    for content in (b"", b"nothing", b"\x80\x04pickle"):
        path.write_bytes(content)
        with pytest.raises(ConversionError, match="not a safetensors file"):
            from_state_dict(path, "relu")
    with pytest.raises(FileNotFoundError):
        from_state_dict(tmp_path / "none", "relu")
    write_raw(path, {"0.weight": ("F8_E4M3", [2, 2], bytes(4))})
    with pytest.raises(ConversionError, match="F8_E4M3"):
        from_state_dict(path, "relu")


def test_mutated_files(tmp_path):
    """A file with changed bytes is a network, or an error of this package."""
    net, _ = normalised()
    to_state_dict(net, tmp_path / "x")
    content, rng = (tmp_path / "x").read_bytes(), np.random.RandomState(0)
    for _ in range(80):
        changed = bytearray(content)
        for place in rng.randint(0, 1200, rng.randint(1, 4)):
            changed[place] = rng.randint(256)
        (tmp_path / "y").write_bytes(changed[: rng.choice([len(changed), rng.randint(len(changed))])])
        with contextlib.suppress(ValueError):
            from_state_dict(tmp_path / "y", *([] if rng.randint(2) else ["relu"]))


def test_read_without_pytorch(tmp_path):
    """In a process that cannot import it."""
    net, _ = normalised()
    to_state_dict(net, tmp_path / "x")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from fastmlp.interop import from_state_dict, from_torch\n"
        f"print(from_state_dict({str(tmp_path / 'x')!r}).network)\n"
        "try: from_torch(None)\nexcept ImportError as error: print(error)"
    )
    run = subprocess.run(
        [sys.executable, "-P", "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert repr(net) in run.stdout
    assert "pip install 'fastmlp[torch]'" in run.stdout


def test_estimators():
    X, y = rows(), np.arange(40) % 3
    small = MLPClassifier((6,), max_iter=2, dropout=0.1)
    with pytest.warns(UserWarning, match="Maximum iterations"):
        small.fit(X, y)
    state = to_state_dict(small)
    assert list(state) == ["0.weight", "0.bias", "3.weight", "3.bias"]  # behind relu and dropout
    assert_agrees(small.predict_proba(X), from_state_dict(state, "relu", "softmax").network, X)
    with pytest.raises(ConversionError, match="estimators_"):
        to_state_dict(MLPEnsembleClassifier(MLPClassifier((6,), solver="lbfgs", alpha=1), n_estimators=2).fit(X, y))


def test_against_pytorch():
    torch = pytest.importorskip("torch")
    from fastmlp.interop import to_torch

    net, state = normalised()
    module = to_torch(net)
    assert list(module.state_dict()) == list(state)
    assert all(np.array_equal(value.numpy(), state[name]) for name, value in module.state_dict().items())
    assert same_bits(from_state_dict(module.state_dict(), "relu", residual=True).network, net)
    half = from_state_dict(module.to(torch.bfloat16).state_dict(), "relu", residual=True)
    assert "bfloat16" in half.notes[0]
