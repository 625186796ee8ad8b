"""Makes the files of this folder with other frameworks: python tests/data/interop/make.py keras (onnx, keras-onnx,
safetensors).

They are read by the tests without the framework that wrote them. Each has the rows that it was given and its outputs in
answers.npz.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import onnx

HERE = Path(__file__).parent


def without_places(path: Path) -> None:
    """Remove where a file's nodes come from: PyTorch writes lines and paths of the machine."""
    model = onnx.load(path)
    for node in model.graph.node:
        del node.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    onnx.save(model, path)


def keep(answers: dict[str, np.ndarray]) -> None:
    """Add rows and outputs to the answers."""
    path = HERE / "answers.npz"
    old = dict(np.load(path)) if path.exists() else {}
    np.savez_compressed(path, **{**old, **answers})


def make_keras() -> None:
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    rng = np.random.RandomState(0)
    images = rng.uniform(0, 255, (8, 4, 3)).astype("float32")
    normalise = layers.Normalization()
    normalise.adapt(rng.normal(2, 3, (50, 12)))
    logits = keras.Sequential(
        [
            keras.Input((4, 3)), layers.Rescaling(1 / 255), layers.Flatten(), normalise,
            layers.Dense(7, activation="relu"), layers.Dropout(0.2),
            keras.Sequential([layers.Dense(6), layers.BatchNormalization(), layers.Activation("gelu")]),
            layers.Dense(3),
        ]
    )  # fmt: skip
    logits.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    logits.build((None, 4, 3))
    for layer in logits.layers[5].layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 2, 6) for _ in range(4)])
    source = keras.Input((5,), name="features")
    value = source
    for name in ("first", "second"):
        value = layers.Add()([value, layers.Dense(5, "tanh", name=name)(value)])
    functional = keras.Model(source, layers.Dense(1, "sigmoid", use_bias=False)(value))
    rows = rng.normal(size=(8, 5)).astype("float32")
    half = keras.Sequential([keras.Input((5,)), layers.Dense(4, "selu"), layers.Dense(2, "softmax")])
    for model, name, given in ((logits, "logits", images), (functional, "functional", rows), (half, "small", rows)):
        model.save(HERE / f"{name}.keras")
        keep({f"{name}.X": given, f"{name}.y": np.asarray(model.predict(given, verbose=0))})


def make_onnx() -> None:
    import torch
    from skl2onnx import to_onnx
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from torch import nn

    torch.manual_seed(0)
    rng = np.random.RandomState(0)
    rows = rng.normal(size=(8, 5)).astype("float32")
    for dynamo, name in ((False, "torchscript"), (True, "dynamo")):
        module = nn.Sequential(
            nn.Linear(5, 6), nn.BatchNorm1d(6), nn.GELU(), nn.Linear(6, 4), nn.SiLU(), nn.Linear(4, 3), nn.Softmax(1)
        )
        module[1].running_var.uniform_(0.5, 2)
        module[1].running_mean.normal_()
        module.eval()
        torch.onnx.export(module, (torch.from_numpy(rows),), HERE / f"{name}.onnx", dynamo=dynamo, external_data=False)
        without_places(HERE / f"{name}.onnx")
        keep({f"{name}.X": rows, f"{name}.y": module(torch.from_numpy(rows)).detach().numpy()})
    labels = np.array(["no", "yes"])[(rows[:, 0] > 0).astype(int)]
    pipeline = make_pipeline(StandardScaler(), MLPClassifier((4,), "tanh", max_iter=50, random_state=0)).fit(
        rows, labels
    )
    for zipmap, name in ((False, "sklearn"), (True, "sklearn-zipmap")):
        (HERE / f"{name}.onnx").write_bytes(to_onnx(pipeline, rows[:1], options={"zipmap": zipmap}).SerializeToString())
        keep({f"{name}.X": rows, f"{name}.y": pipeline.predict_proba(rows)[:, 1:].astype("float32")})


def make_keras_onnx() -> None:
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    model = keras.saving.load_model(HERE / "small.keras")
    model(np.load(HERE / "answers.npz")["small.X"])
    model.export(HERE / "keras.onnx", format="onnx", verbose=False)
    answers = np.load(HERE / "answers.npz")
    keep({"keras.X": answers["small.X"], "keras.y": answers["small.y"]})


def make_safetensors() -> None:
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    rows = torch.randn(8, 5)
    for kind in (torch.float32, torch.float16, torch.bfloat16):
        name = str(kind).removeprefix("torch.")
        save_file(module.to(kind).state_dict(), HERE / f"{name}.safetensors")
        keep({f"{name}.X": rows.numpy(), f"{name}.y": module.float()(rows).detach().numpy()})


if __name__ == "__main__":
    {"keras": make_keras, "onnx": make_onnx, "keras-onnx": make_keras_onnx, "safetensors": make_safetensors}[
        sys.argv[1]
    ]()
