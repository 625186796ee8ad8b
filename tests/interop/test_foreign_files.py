"""Files that other frameworks wrote, read without these."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import ENVIRONMENT

from fastmlp.interop import ConversionError, from_keras, from_onnx, from_state_dict

pytest.importorskip("h5py")
FILES = Path(__file__).parent.parent / "data" / "interop"
ANSWERS = np.load(FILES / "answers.npz")


def check(converted, name):
    X, expected = ANSWERS[f"{name}.X"], ANSWERS[f"{name}.y"]
    output = converted.network.forward(X.reshape(len(X), -1))
    np.testing.assert_allclose(output, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["functional", "small", "logits"])
def test_keras(name):
    converted = from_keras(FILES / f"{name}.keras", "identity" if name == "logits" else None)
    check(converted, name)
    if name == "logits":
        assert from_keras(str(FILES / "logits.keras")).network.out_activation == "softmax"
        assert converted.parameters == {"dropout": (0.0, 0.2, 0.0)}
        assert not converted.network.batch_norm  # one of two hidden layers has it
    if name == "functional":
        assert converted.network.residual
        assert any("no bias" in note for note in converted.notes)


@pytest.mark.parametrize("name", ["torchscript", "dynamo", "sklearn", "sklearn-zipmap", "keras"])
def test_onnx(name):
    """Of PyTorch's two exporters, skl2onnx, and Keras's."""
    pytest.importorskip("onnx")
    converted = from_onnx(FILES / f"{name}.onnx")
    check(converted, name)
    if name in ("torchscript", "dynamo"):
        assert converted.network.activations == ("gelu", "silu")
    if name.startswith("sklearn"):
        assert converted.classifier(["no", "yes"]).n_outputs_ == 1


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_safetensors_of_pytorch(name):
    converted = from_state_dict(FILES / f"{name}.safetensors", "tanh")
    check(converted, name)
    assert bool(converted.notes) == (name != "float32")


def test_keras_files_need_h5py_alone():
    code = (
        "import sys\n"
        "for name in ('keras', 'tensorflow', 'torch', 'jax'): sys.modules[name] = None\n"
        "from fastmlp.interop import from_keras, to_keras\n"
        f"print(from_keras({str(FILES / 'small.keras')!r}).network)\n"
        "try: to_keras(from_keras(sys.argv[1]).network)\nexcept ImportError as error: print(error)"
    )
    arguments = [sys.executable, "-P", "-c", code, str(FILES / "small.keras")]
    run = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[0].startswith("Network((5, 4, 2)")
    assert "pip install 'fastmlp[keras]'" in run.stdout


def test_mutated_keras_files(tmp_path):
    """A file with changed bytes is a network, or a ConversionError."""
    rng = np.random.RandomState(0)
    with zipfile.ZipFile(FILES / "small.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for _ in range(60):
        name = ["config.json", "model.weights.h5"][rng.randint(2)]
        changed = bytearray(parts[name])
        for place in rng.randint(0, len(changed), rng.randint(1, 6)):
            changed[place] = rng.randint(256)
        changed = changed[: rng.choice([len(changed), rng.randint(len(changed))])]
        with zipfile.ZipFile(tmp_path / "x.keras", "w") as archive:
            for part, content in {**parts, name: bytes(changed)}.items():
                archive.writestr(part, content)
        with contextlib.suppress(ConversionError):
            from_keras(tmp_path / "x.keras")


def test_weights_outside_of_the_file(tmp_path):
    """A link to another file, or data that is not there, is refused."""
    import h5py

    shutil.copy(FILES / "small.keras", tmp_path / "x.keras")
    with zipfile.ZipFile(FILES / "small.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for kind in ("external", "empty", "link"):
        (tmp_path / "w.h5").write_bytes(parts["model.weights.h5"])
        with h5py.File(tmp_path / "w.h5", "a") as store:
            group = store["layers/dense/vars"]
            del group["0"]
            if kind == "external":
                group.create_dataset("0", (5, 4), "f4", external=[(str(tmp_path / "secret"), 0, 80)])
            elif kind == "empty":
                group.create_dataset("0", (10**6, 10**6), "f4")
            else:
                group["0"] = h5py.ExternalLink(str(tmp_path / "w2.h5"), "/x")
        with h5py.File(tmp_path / "w2.h5", "w") as other:
            other["x"] = np.ones((5, 4), "f4")
        with zipfile.ZipFile(tmp_path / "x.keras", "w") as archive:
            for part, content in {**parts, "model.weights.h5": (tmp_path / "w.h5").read_bytes()}.items():
                archive.writestr(part, content)
        with pytest.raises(ConversionError, match="not in the file"):
            from_keras(tmp_path / "x.keras")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"])
def test_other_files(content, tmp_path):
    (tmp_path / "x.h5").write_bytes(content)
    with pytest.raises(ConversionError, match="cannot be read"):
        from_keras(tmp_path / "x.h5")
    with pytest.raises(FileNotFoundError):
        from_keras(tmp_path / "none.keras")
