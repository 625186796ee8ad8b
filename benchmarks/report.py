"""What peers.py found, as tables in Markdown and a bar chart; and beside them the targets that are to be reached.

Times are medians over the turns. A ratio is the median of the turns' own ratios, since what slows a machine down for a
while slows down both of one turn.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.workloads import BY_NAME, OTHER_SHAPES

Results = dict[str, Any]

FASTMLP, ESTIMATOR = "fastmlp_trainer", "fastmlp_estimator"
SINGLE = f"{FASTMLP}@1"
OURS = (FASTMLP, SINGLE, ESTIMATOR)


class Target(NamedTuple):
    """`ours` may take at most `limit` of the time of the fastest of `rivals` (None: of all that are not fastmlp)."""

    what: str
    task: str
    workload: str
    limit: float
    rivals: tuple[str, ...] | None = None
    rows: int = 0
    ours: str = FASTMLP


SKLEARN, TORCH, ONNX = "scikit_learn", ("torch_eager", "torch_compile"), "onnx_runtime"
# The least share of the FMA peak.
PEAK_SHARES = {"seed": 0.65, "wide": 0.75}


def targets() -> Iterator[Target]:
    """What is to be reached: the four workloads, every other shape, prediction."""
    for name, limit in {"seed": 0.5, "tab": 0.25, "sk": 0.25, "wide": 0.75}.items():
        yield Target("time, of the best contender's", "train", name, limit)
    for name, limit in {"seed": 1 / 7, "tab": 1 / 15, "sk": 1 / 8, "wide": 1 / 3.5}.items():
        yield Target("time, of scikit-learn's", "train", name, limit, (SKLEARN,))
    for name, limit in {"seed": 1 / 1.8, "wide": 1 / 1.9}.items():
        yield Target("time, of that on one thread", "train", name, limit, (SINGLE,))
    for workload in OTHER_SHAPES:
        yield Target("time, of the best contender's", "train", workload.name, 1.0)
    yield Target("10,000 rows, of the best of three", "predict", "seed", 0.6, (SKLEARN, *TORCH, ONNX), 10_000)
    for name, limit in {"seed": 0.7, "tab": 0.35}.items():
        yield Target("one row, of ONNX Runtime's", "predict", name, limit, (ONNX,), 1)
        yield Target("one row by predict_proba, of scikit-learn's", "predict", name, 0.5, (SKLEARN,), 1, ESTIMATOR)


# ---- Figures ---------------------------------------------------------------------------------------------------------


def turns_of(results: Results, task: str, workload: str, rows: int = 0) -> dict[str, list[float]]:
    """Seconds per turn of each contender that took part; empty if the task was not run."""
    for entry in results["measurements"]:
        if (entry["task"], entry["workload"], entry["rows"]) == (task, workload, rows):
            return {name: found["seconds"] for name, found in entry["contenders"].items()}
    return {}


def ratio(seconds: list[float], base: list[float]) -> float:
    """Median over the turns."""
    return statistics.median(a / b for a, b in zip(seconds, base, strict=True))


def fastest(turns: dict[str, list[float]], names: tuple[str, ...] | None) -> str | None:
    """The contender with the least median among `names`; None means all that are not fastmlp."""
    among = [name for name in turns if (name in names if names is not None else name not in OURS)]
    return min(among, key=lambda name: statistics.median(turns[name]), default=None)


def peak_share(results: Results, workload: str) -> float | None:
    """Of fastmlp's training step, of the median peak that was probed in the same run."""
    w, turns = BY_NAME[workload], turns_of(results, "train", workload)
    if FASTMLP not in turns:
        return None
    peak = statistics.median(results["peak_gflops"][w.dtype])
    return float(w.step_flops / statistics.median(turns[FASTMLP]) * 1e-9 / peak)


def display_name(results: Results, contender: str) -> str:
    """Its own name, and its threads if they are its own."""
    name, threads = results["contenders"][contender].get("name", contender), contender.partition("@")[2]
    return f"{name}, {threads} thread{'s' * (threads != '1')}" if threads else name


def microseconds(seconds: float) -> str:
    """Three digits, or all before the point."""
    value = seconds * 1e6
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


# ---- Markdown --------------------------------------------------------------------------------------------------------


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """The first column to the left, all others to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def times_table(results: Results, columns: list[tuple[str, str, int]]) -> str:
    """A line per contender, a column per (task, workload, rows): microseconds, and in brackets the ratio to
    fastmlp's."""
    found = [turns_of(results, *column) for column in columns]
    lines = []
    for name in results["contenders"]:
        if any(name in turns for turns in found):
            cells = [
                f"{microseconds(statistics.median(turns[name]))} ({ratio(turns[name], turns[FASTMLP]):.2f})"
                if name in turns
                else ""
                for turns in found
            ]
            lines.append([display_name(results, name), *cells])
    head = [workload + (f", {rows:,} row{'s' * (rows != 1)}" if rows else "") for _, workload, rows in columns]
    return markdown_table(["microseconds (ratio to fastmlp)", *head], lines)


def peak_table(results: Results, workloads: list[str]) -> str:
    """A line of shares."""
    shares = {name: peak_share(results, name) for name in workloads}
    return markdown_table(
        ["", *shares], [["fastmlp's share of the FMA peak", *(f"{share:.0%}" for share in shares.values() if share)]]
    )


def target_lines(results: Results) -> list[list[str]]:
    """What, where, found, limit, met: each target whose contenders took part."""
    lines = []
    for target in targets():
        turns = turns_of(results, target.task, target.workload, target.rows)
        rival = fastest(turns, target.rivals)
        if rival is not None and target.ours in turns:
            found = ratio(turns[target.ours], turns[rival])
            rivals = f" ({display_name(results, rival)})" if target.rivals is None or len(target.rivals) > 1 else ""
            met = "yes" if found <= target.limit else "no"
            lines.append([target.what + rivals, target.workload, f"{found:.3f}", f"<= {target.limit:.3f}", met])
    for name, limit in PEAK_SHARES.items():
        if share := peak_share(results, name):
            lines.append(
                ["share of the FMA peak", name, f"{share:.3f}", f">= {limit:.3f}", "yes" if share >= limit else "no"]
            )
    return lines


def loss_table(results: Results, workloads: list[str]) -> str:
    """The loss that each knew after five epochs: all do the work. Some know the last batch's, some the epoch's mean."""
    entries = {entry["workload"]: entry["contenders"] for entry in results["measurements"] if entry["task"] == "train"}
    lines = []
    for name in results["contenders"]:
        losses = [f"{entries[w][name]['loss']:.3f}" if name in entries[w] else "" for w in workloads]
        if any(losses):
            lines.append([display_name(results, name), *losses])
    return markdown_table(["loss after 5 epochs", *workloads], lines)


def render_markdown(results: Results) -> str:
    """The whole report."""
    trained = [entry["workload"] for entry in results["measurements"] if entry["task"] == "train"]
    predicted = [(e["task"], e["workload"], e["rows"]) for e in results["measurements"] if e["task"] == "predict"]
    parts = ["# fastmlp beside its peers", "Written by `python -m benchmarks.peers`; do not edit."]
    peaks = {dtype: f"{statistics.median(found):.0f} GFLOP/s" for dtype, found in results["peak_gflops"].items()}
    facts = {**results["machine"], **{f"FMA peak, {dtype}": peak for dtype, peak in peaks.items()}}
    parts.append("\n".join(f"- {name}: {value}" for name, value in facts.items()))
    parts += ["## One training step", "Gather by shuffled index, forward, backward, Adam 1e-3."]
    parts += ["\n".join(f"- {name}: {BY_NAME[name].describe()}" for name in trained)]
    parts += [times_table(results, [("train", name, 0) for name in trained]), peak_table(results, trained)]
    if predicted:
        parts += ["## Prediction", times_table(results, predicted)]
    if lines := target_lines(results):
        parts += ["## Targets", markdown_table(["", "workload", "found", "target", "met"], lines)]
    parts += ["## Evidence", loss_table(results, trained), "\n".join(contender_lines(results))]
    return "\n\n".join(parts) + "\n"


def contender_lines(results: Results) -> list[str]:
    """Versions of those that ran, reasons of those that did not."""
    lines = []
    for name, known in results["contenders"].items():
        versions = ", ".join(f"{package} {found}" for package, found in known.get("versions", {}).items())
        said = f"skipped: {known['skip']}" if "skip" in known else versions or "this tree"
        lines.append(f"- {display_name(results, name)}: {said}")
    return lines


# ---- Chart -----------------------------------------------------------------------------------------------------------


def draw_chart(results: Results, path: Path) -> str | None:
    """Bars of the time per training step in multiples of fastmlp's, a panel per workload; None, or why there is no
    chart."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return "matplotlib is not installed"
    panels = [
        (e["workload"], turns_of(results, "train", e["workload"]))
        for e in results["measurements"]
        if e["task"] == "train"
    ]
    n_columns = min(len(panels), 4)
    n_rows = -(-len(panels) // n_columns)
    figure = Figure(figsize=(3.6 * n_columns, 0.6 + 3 * n_rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes, (workload, turns) in zip(grid, panels, strict=False):
        draw_panel(axes, results, workload, turns)
    for axes in grid[len(panels) :]:
        axes.axis("off")
    figure.suptitle(
        f"Time of a training step, in multiples of fastmlp's. {results['machine']['processor']}", fontsize=9
    )
    figure.savefig(path, dpi=144)
    return None


def draw_panel(axes: Any, results: Results, workload: str, turns: dict[str, list[float]]) -> None:
    """One workload's bars, in the order of the tables."""
    names = list(turns)[::-1]
    ratios = [ratio(turns[name], turns[FASTMLP]) for name in names]
    colours = ["tab:orange" if name in OURS else "tab:gray" for name in names]
    bars = axes.barh([display_name(results, name) for name in names], ratios, color=colours)
    axes.bar_label(bars, [f" {found:.2g}" for found in ratios], fontsize=7)
    axes.margins(x=0.15)
    axes.tick_params(labelsize=7)
    axes.set_title(f"{workload}: {microseconds(statistics.median(turns[FASTMLP]))} µs", fontsize=8)
