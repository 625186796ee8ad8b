"""RealMLP and TabM by their authors' packages, for benchmarks.tables: models of data frames, trained as the authors
advise.

Both need PyTorch. Each is one network, with the epoch chosen on a fifth of the training rows: by RMSE, or for classes
by the log-loss and without label smoothing, as RealMLP's authors advise where probabilities or ranks count.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder, QuantileTransformer


class WithoutGaps(TransformerMixin, BaseEstimator):
    """A frame with each missing number replaced by the training rows' median, and a category beside it that says so."""

    def fit(self, X: Any, y: Any = None) -> Self:
        numbers = X.select_dtypes("number")
        self.medians_ = numbers.median()
        self.gaps_ = [name for name in numbers if numbers[name].isna().any()]
        return self

    def transform(self, X: Any) -> Any:
        marks = {f"{name} is missing": X[name].isna().map({True: "yes", False: "no"}) for name in self.gaps_}
        return X.fillna(self.medians_).assign(**marks).astype(dict.fromkeys(marks, "category"))


def real_mlp(classes: bool, seed: int, kind: str) -> Any:
    """pytabkit's RealMLP, of ``kind`` 'TD_S' or 'TD'."""
    import pytabkit

    Estimator = getattr(pytabkit, f"RealMLP_{kind}_{'Classifier' if classes else 'Regressor'}")
    advised = {"val_metric_name": "cross_entropy", "use_ls": False} if classes else {}
    return make_pipeline(WithoutGaps(), Estimator(device="cpu", n_threads=1, random_state=seed, **advised))


def tabm(classes: bool, seed: int) -> Any:
    """pytabkit's TabM: its scalings in every layer, no embeddings."""
    import pytabkit

    Estimator = pytabkit.TabM_D_Classifier if classes else pytabkit.TabM_D_Regressor
    advised = {"val_metric_name": "cross_entropy"} if classes else {}
    return make_pipeline(WithoutGaps(), Estimator(device="cpu", n_threads=1, random_state=seed, **advised))


def tabm_mini(classes: bool, seed: int, **sizes: int) -> Any:
    """TabM-mini with piecewise-linear embeddings."""
    return make_pipeline(WithoutGaps(), TabMMini(classes, seed, **sizes))


def batch_size(n_rows: int) -> int:
    """Rows per step in TabM's paper, as one of its authors put it into a rule (pytabkit's 'auto')."""
    limits = ((2_800, 32), (4_500, 64), (6_400, 128), (32_000, 256), (108_000, 512))
    return next((size for limit, size in limits if n_rows < limit), 1024)


class TabMMini(BaseEstimator):
    """TabM-mini of the package tabm, with its notebook's preparation and training.

    The gradient's norm is limited to 1 and the batch size depends on the rows, as in the paper's experiments.

    Parameters
    ----------
    classes : bool
        Whether the target holds classes, from 0.
    seed : int
    k : int, default=32
        Members.
    width : int, default=512
        Units of each of two hidden layers.
    """

    def __init__(self, classes: bool, seed: int, k: int = 32, width: int = 512) -> None:
        self.classes = classes
        self.seed = seed
        self.k = k
        self.width = width

    def fit(self, X: Any, y: np.ndarray) -> Self:
        import torch

        torch.manual_seed(self.seed)
        torch.set_num_threads(1)
        rows = np.arange(len(y))
        train, held = train_test_split(
            rows, train_size=0.8, random_state=self.seed, stratify=y if self.classes else None
        )
        self._fit_columns(X.iloc[train])
        inputs, held_inputs = self._tensors(X.iloc[train]), self._tensors(X.iloc[held])
        self.mean_, self.scale_ = (0.0, 1.0) if self.classes else (y[train].mean(), y[train].std())
        target = torch.as_tensor(
            y[train] if self.classes else ((y[train] - self.mean_) / self.scale_).astype(np.float32)
        )
        self.model_ = self._network(inputs, int(y.max()) + 1 if self.classes else 1)
        self._train(inputs, target, held_inputs, y[held])
        return self

    def _fit_columns(self, X: Any) -> None:
        """Numbers to normal quantiles, without columns that are constant then; categories to their numbers."""
        numbers, words = X.select_dtypes("number"), X.select_dtypes(exclude="number")
        values = numbers.to_numpy(np.float32)
        noise = np.random.default_rng(self.seed).normal(0.0, 1e-5, values.shape).astype(np.float32)
        n_quantiles = max(min(len(X) // 30, 1000), 10)
        self.quantiles_ = QuantileTransformer(n_quantiles=n_quantiles, output_distribution="normal", subsample=10**9)
        self.names_ = list(numbers)
        if self.names_:
            self.quantiles_.fit(values + noise)
            self.vary_ = np.ptp(self.quantiles_.transform(values), axis=0) > 0
        self.words_ = list(words)
        # One category more than there are, for those that are missing or new.
        self.codes_ = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-1)
        self.counts_ = []
        if self.words_:
            self.codes_.fit(words.astype(object))
            self.counts_ = [len(known) + 1 for known in self.codes_.categories_]

    def _tensors(self, X: Any) -> tuple[Any, Any]:
        """Numbers (n, n_numbers) and categories (n, n_categories); None where there are none."""
        import torch

        numbers = words = None
        if self.names_:
            values = self.quantiles_.transform(X[self.names_].to_numpy(np.float32))[:, self.vary_]
            numbers = torch.as_tensor(values.astype(np.float32))
        if self.words_:
            codes = self.codes_.transform(X[self.words_].astype(object)).astype(np.int64)
            words = torch.as_tensor(np.where(codes < 0, np.array(self.counts_) - 1, codes))
        return numbers, words

    def _network(self, inputs: tuple[Any, Any], n_outputs: int) -> Any:
        import tabm
        from rtdl_num_embeddings import PiecewiseLinearEmbeddings, compute_bins

        numbers, embeddings = inputs[0], None
        if numbers is not None:
            bins = compute_bins(numbers, n_bins=min(48, len(numbers) - 1))
            embeddings = PiecewiseLinearEmbeddings(bins, d_embedding=16, activation=False, version="B")
        return tabm.TabM.make(
            n_num_features=0 if numbers is None else numbers.shape[1],
            cat_cardinalities=self.counts_,
            d_out=n_outputs,
            num_embeddings=embeddings,
            arch_type="tabm-mini",
            k=self.k,
            d_block=self.width,
        )

    def _train(
        self, inputs: tuple[Any, Any], target: Any, held_inputs: tuple[Any, Any], held_target: np.ndarray
    ) -> None:
        """AdamW until more than 16 epochs bring no better validation score; the best epoch's weights are kept."""
        import torch
        from torch.nn import functional

        loss_of = functional.cross_entropy if self.classes else functional.mse_loss
        optimizer = torch.optim.AdamW(self.model_.parameters(), lr=2e-3, weight_decay=3e-4)
        least, patience = np.inf, 16
        while patience >= 0:
            self.model_.train()
            for batch in torch.randperm(len(target)).split(batch_size(len(target))):
                optimizer.zero_grad()
                outputs = self.model_(*(part if part is None else part[batch] for part in inputs)).squeeze(-1)
                loss = loss_of(outputs.flatten(0, 1), target[batch].repeat_interleave(self.k))
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.model_.parameters(), 1.0)
                optimizer.step()
            prediction = self._mean(held_inputs)
            error = (
                log_loss(held_target, prediction, labels=range(prediction.shape[1]))
                if self.classes
                else np.mean((prediction - held_target) ** 2)
            )
            patience -= 1
            if error < least:
                least, patience = error, 16
                best = {name: value.clone() for name, value in self.model_.state_dict().items()}
        self.model_.load_state_dict(best)

    def _mean(self, inputs: tuple[Any, Any]) -> np.ndarray:
        """Mean of the members' probabilities (n, n_classes), or numbers (n,)."""
        import torch

        self.model_.eval()
        n_rows = len(next(part for part in inputs if part is not None))
        means = []
        with torch.inference_mode():
            for rows in torch.arange(n_rows).split(1024):
                outputs = self.model_(*(part if part is None else part[rows] for part in inputs))
                means.append((outputs.softmax(-1) if self.classes else outputs.squeeze(-1)).mean(1))
        return torch.cat(means).numpy().astype(np.float64) * self.scale_ + self.mean_

    def predict(self, X: Any) -> np.ndarray:
        """Numbers (n,)."""
        return self._mean(self._tensors(X))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (n, n_classes)."""
        return self._mean(self._tensors(X))
