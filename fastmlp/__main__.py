"""The command line, ``python -m fastmlp``: version and build, a check of every kernel, a demonstration, a model as
C."""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import fastmlp


def info(arguments: argparse.Namespace) -> int:
    """Show the version, the compiler, the instruction sets and the number of threads."""
    fastmlp.show_config()
    return 0


def check(arguments: argparse.Namespace) -> int:
    """Compare every kernel that this CPU can run with the NumPy reference."""
    import fastmlp.core as core
    from fastmlp.check import Outcome, run_all

    def row(operation: str, isa: str, dtype: str, outcome: Outcome) -> str:
        verdict = "" if outcome.passed else "  FAILED"
        columns = f"{operation:<36} {isa:<13} {dtype:<8} {outcome.error:>13.3g} {outcome.bound:>9.4g}"
        return f"{columns}  {outcome.unit}{verdict}"

    title = f"{'operation':<36} {'instructions':<13} {'type':<8} {'largest error':>13} {'bound':>9}  unit"
    if arguments.verbose:
        print(title)
    failures: list[str] = []
    ratios: dict[tuple[str, str], list[float]] = defaultdict(list)
    for operation, isa, dtype, outcome in run_all():
        line = row(operation, isa, dtype, outcome)
        if arguments.verbose:
            print(line)
        if not outcome.passed:
            failures.append(line)
        exact = 0.0 if outcome.passed else math.inf  # the bound of an exact operation is 0
        ratios[isa, dtype].append(outcome.error / outcome.bound if outcome.bound else exact)
    if not arguments.verbose:
        print(f"{'instructions':<13} {'type':<8} {'checks':>7}  {'largest error / bound':>21}")
        for (isa, dtype), found in ratios.items():
            print(f"{isa:<13} {dtype:<8} {len(found):>7}  {max(found):>21.3g}")
        if failures:
            print("\n".join(["", title, *failures, ""]))
    missing = [isa for isa in core.info()["built"] if isa not in core.info()["available"]]
    if missing:
        print(f"not checked, because this CPU cannot run it: {', '.join(missing)}")
    print(f"{sum(map(len, ratios.values())) - len(failures)} passed, {len(failures)} failed")
    return 1 if failures else 0


def demo(arguments: argparse.Namespace) -> int:
    """Train on handwritten digits and compare time and accuracy with scikit-learn."""
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.metrics import confusion_matrix
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier as SklearnMLP

    if arguments.plot:
        try:
            from matplotlib.figure import Figure
        except ImportError:
            print('--plot needs matplotlib: pip install "fastmlp[plot]"', file=sys.stderr)
            return 2
    digits = load_digits()
    X = (digits.data / 16).astype(np.float32)
    X_train, X_test, y_train, y_test = train_test_split(
        X, digits.target, test_size=0.25, random_state=42, stratify=digits.target
    )
    settings: dict[str, Any] = {
        "hidden_layer_sizes": (256, 128),
        "batch_size": 128,
        "early_stopping": True,
        "max_iter": 60,
        "n_iter_no_change": 15,
        "random_state": 1,
    }
    print(f"Handwritten digits: {len(X_train)} images to train on, {len(X_test)} to test, 8 x 8 pixels, 10 classes.")
    print(
        "The same network (64-256-128-10, Adam, batches of 128, float32) from both libraries, with the same settings.\n"
    )
    results = {}
    for name, estimator in (("fastmlp", fastmlp.MLPClassifier), ("scikit-learn", SklearnMLP)):
        print(f"Training with {name} ...", flush=True)
        started = time.perf_counter()
        model = estimator(**settings).fit(X_train, y_train)
        results[name] = model, time.perf_counter() - started

    ours = results["fastmlp"][0]
    print("\nConfusion matrix of fastmlp on the test images (rows: true digit, columns: predicted digit)")
    for digit, counts in enumerate(confusion_matrix(y_test, ours.predict(X_test))):
        print(f"  {digit}  " + " ".join(f"{count:3d}" for count in counts))
    print(f"\n{'':<14}{'fit':>8}{'epochs':>8}{'per epoch':>12}{'test accuracy':>15}")
    for name, (model, seconds) in results.items():
        print(
            f"{name:<14}{seconds:>6.2f} s{model.n_iter_:>8}{1e3 * seconds / model.n_iter_:>9.2f} ms"
            f"{model.score(X_test, y_test):>15.4f}"
        )
    if arguments.plot:
        figure = Figure(figsize=(7, 4), layout="constrained")
        fastmlp.LossCurveDisplay.from_estimator(ours, ax=figure.add_subplot())
        figure.savefig(arguments.plot, dpi=120)
        print(f"\nLoss curve of fastmlp: {arguments.plot.resolve()}")
    return 0


def c(arguments: argparse.Namespace) -> int:
    """Print a saved model as one C file that predicts single rows."""
    from fastmlp.interop import to_c

    # A file's name becomes an identifier: letters, digits and underscores, a letter first.
    name = arguments.name or re.sub(r"\W+", "_", arguments.file.stem, flags=re.ASCII).strip("_")
    name = name if arguments.name or re.match(r"[A-Za-z]", name) else f"model_{name}".strip("_")
    try:
        text = to_c(fastmlp.load(arguments.file), name, arguments.fma, arguments.quantize)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(text, end="")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fastmlp", description="Multilayer perceptrons on CPUs.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"fastmlp {fastmlp.__version__}")
    commands = parser.add_subparsers(metavar="command")
    for command in (info, check, demo, c):
        description = command.__doc__ or ""
        sub = commands.add_parser(command.__name__, help=description, description=description, allow_abbrev=False)
        sub.set_defaults(run=command)
        if command is check:
            sub.add_argument("--verbose", action="store_true", help="print the error and the bound of each kernel")
        elif command is demo:
            sub.add_argument(
                "--plot", type=Path, metavar="FILE", help="write the loss curve to FILE (needs matplotlib)"
            )
        elif command is c:
            sub.add_argument("file", type=Path, help="a file that save wrote")
            sub.add_argument("--name", metavar="NAME", help="begins every name in the C file; default: the file's name")
            sub.add_argument("--fma", action="store_true", help="the bits of fastmlp, with fused multiply-add")
            sub.add_argument("--quantize", choices=["int8"], help="weights of one byte")
    arguments = parser.parse_args()
    if "run" not in arguments:
        parser.print_help()
        return 0
    status: int = arguments.run(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())
