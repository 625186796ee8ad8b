"""Makes realmlp.npz: what the authors' RealMLP-S draws and finds in 20 steps, in float64. python
tests/data/make_realmlp.py

It needs pytabkit 1.7.3 (Holzmüller, Grinsztajn and Steinwart), which tests do not: tests/tabular/test_realmlp.py
compares with the numbers of the file. pytabkit computes in float32; here, its tables and parameters are made float64
before the first step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

N_EPOCHS, BATCH_SIZE, WIDTH = 5, 25, 16


def table(n: int = 133) -> dict[str, np.ndarray]:
    """Numbers, of which one has equal quartiles, and categories: two, four, and three with gaps. Numbers are exact in
    float32."""
    rng = np.random.RandomState(0)
    columns = {
        "normal": rng.standard_normal(n),
        "skewed": np.exp(rng.standard_normal(n)),
        "zeros": np.where(rng.uniform(size=n) < 0.8, 0.0, rng.standard_normal(n)),
    }
    columns = {name: numbers.astype(np.float32).astype(np.float64) for name, numbers in columns.items()}
    columns["two"] = rng.choice(["x", "y"], n)
    columns["four"] = rng.choice(list("pqrs"), n, p=[0.6, 0.2, 0.1, 0.1])
    columns["gaps"] = np.where(rng.uniform(size=n) < 0.2, "", rng.choice(["u", "v", "w"], n))
    signal = columns["normal"] + (columns["two"] == "x") - np.log(columns["skewed"]) * (columns["four"] == "p")
    columns["signal"] = (signal + 0.1 * rng.standard_normal(n)).astype(np.float32).astype(np.float64)
    return columns


def target(kind: str, signal: np.ndarray) -> np.ndarray:
    """What the models learn of the signal."""
    return {
        "binary": np.digitize(signal, [0.0]),
        "larger": np.digitize(signal, [0.0]),
        "multiclass": np.digitize(signal, [-0.5, 1.0]),
        "regression": signal,
    }[kind]


def record(kind: str, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rows of training and validation, inputs, initial parameters, the rows and the loss of each step, and predictions
    for all rows."""
    import pandas as pd
    import torch
    from pytabkit import RealMLP_TD_Classifier, RealMLP_TD_S_Classifier, RealMLP_TD_S_Regressor
    from pytabkit.models.training.lightning_modules import TabNNModule

    torch.set_default_dtype(torch.float64)
    found: dict[str, Any] = {"losses": [], "batches": []}
    compile_model, training_step = TabNNModule.compile_model, TabNNModule.training_step

    def compile_double(module: Any, ds: Any, splits: Any, resources: Any) -> None:
        for name, tensor in ds.tensors.items():
            ds.tensors[name] = tensor.double() if tensor.dtype == torch.float32 else tensor
        compile_model(module, ds, splits, resources)
        module.model.double()
        found["train"], found["validation"] = splits[0].train_idxs[0].numpy(), splits[0].val_idxs[0].numpy()
        found["inputs"] = module.train_dl.ds.tensors["x_cont"].numpy()
        for parameter in module.model.parameters():
            name = str(parameter.context.scope).rpartition("-")[2].replace("/", ".")
            found[name] = parameter.detach().numpy()[0].copy()

    def training_step_noted(module: Any, batch: Any, number: int) -> Any:
        x = batch["x_cont"].detach().numpy()[0].copy()
        loss = training_step(module, batch, number)
        found["batches"].append([np.flatnonzero((found["inputs"] == row).all(axis=1))[0] for row in x])
        found["losses"].append(float(loss))
        return loss

    TabNNModule.compile_model, TabNNModule.training_step = compile_double, training_step_noted
    try:
        X = pd.DataFrame({name: column for name, column in columns.items() if name != "signal"})
        X["gaps"] = X["gaps"].where(X["gaps"] != "", None)
        Model = RealMLP_TD_S_Regressor if kind == "regression" else RealMLP_TD_S_Classifier
        options: dict[str, Any] = {}
        if kind == "larger":  # RealMLP without embeddings, learnt activations and dropout
            Model = RealMLP_TD_Classifier
            options = {"num_emb_type": "none", "use_parametric_act": False, "p_drop": 0.0, "max_one_hot_cat_size": -1}
        model = Model(
            **options,
            n_epochs=N_EPOCHS,
            batch_size=BATCH_SIZE,
            hidden_sizes=[WIDTH] * 3,
            random_state=0,
            device="cpu",
            n_threads=1,
        )
        model.fit(X, target(kind, columns["signal"]))
        found["prediction"] = model.predict(X) if kind == "regression" else model.predict_proba(X)
    finally:
        TabNNModule.compile_model, TabNNModule.training_step = compile_model, training_step
    return {f"{kind}.{name}": np.array(array) for name, array in found.items()}


def main() -> None:
    """Write the file."""
    columns = table()
    arrays = {f"table.{name}": column for name, column in columns.items()}
    for kind in ("binary", "multiclass", "regression", "larger"):
        arrays |= record(kind, columns)
    np.savez_compressed(Path(__file__).parent / "realmlp.npz", **arrays)


if __name__ == "__main__":
    main()
