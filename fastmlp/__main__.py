"""python -m fastmlp info | check | demo: what was built, whether it is right on this machine, what it can do.

Prints and plots; refuses to be imported by anything.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import fastmlp


def info(arguments: argparse.Namespace) -> int:
    """Version, compiler, instruction sets, threads."""
    fastmlp.show_config()
    return 0


def check(arguments: argparse.Namespace) -> int:
    """Every kernel of this machine against the reference, as a table."""
    import fastmlp.core as core
    from fastmlp.check import run_all

    print(f"{'operation':<36} {'instructions':<13} {'type':<8} {'largest error':>13} {'bound':>9}  unit")
    failed = passed = 0
    for operation, isa, dtype, outcome in run_all():
        passed, failed = passed + outcome.passed, failed + (not outcome.passed)
        verdict = "" if outcome.passed else "  FAILED"
        print(
            f"{operation:<36} {isa:<13} {dtype:<8} {outcome.error:>13.3g} {outcome.bound:>9.4g}  {outcome.unit}{verdict}"
        )
    missing = [isa for isa in core.info()["built"] if isa not in core.info()["available"]]
    if missing:
        print(f"not on this CPU, so not checked: {', '.join(missing)}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def demo(arguments: argparse.Namespace) -> int:
    """Train on scikit-learn's handwritten digits, beside scikit-learn itself."""
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.metrics import confusion_matrix
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier as SklearnMLP

    digits = load_digits()
    X = (digits.data / 16).astype(np.float32)
    X_train, X_test, y_train, y_test = train_test_split(
        X, digits.target, test_size=0.25, random_state=42, stratify=digits.target
    )
    settings: dict[str, Any] = {
        "hidden_layer_sizes": (256, 128),
        "batch_size": 128,
        "alpha": 1e-4,
        "early_stopping": True,
        "max_iter": 60,
        "n_iter_no_change": 15,
        "random_state": 1,
    }
    print(
        f"handwritten digits: {len(X_train)} training rows, {len(X_test)} test rows, {X.shape[1]} features, 10 classes"
    )
    started = time.perf_counter()
    model = fastmlp.MLPClassifier(**settings, verbose=True).fit(X_train, y_train)
    seconds = time.perf_counter() - started
    accuracy = model.score(X_test, y_test)
    print(
        f"\ntest accuracy {accuracy:.4f} after {model.n_iter_} epochs\n\nconfusion matrix (rows: true digit, columns: predicted)"
    )
    for digit, row in enumerate(confusion_matrix(y_test, model.predict(X_test))):
        print(f"  {digit}  " + " ".join(f"{count:3d}" for count in row))

    started = time.perf_counter()
    peer = SklearnMLP(**settings).fit(X_train, y_train)
    peer_seconds = time.perf_counter() - started
    print(
        f"\nfastmlp       {seconds:6.2f} s  {1e3 * seconds / model.n_iter_:6.2f} ms per epoch  test accuracy {accuracy:.4f}\n"
        f"scikit-learn  {peer_seconds:6.2f} s  {1e3 * peer_seconds / peer.n_iter_:6.2f} ms per epoch  "
        f"test accuracy {peer.score(X_test, y_test):.4f}"
    )
    draw_curves(model, Path(arguments.plot))
    return 0 if accuracy >= arguments.require else 1


def draw_curves(model: fastmlp.MLPClassifier, path: Path) -> None:
    """The training loss and the validation score by epoch, as a PNG."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print('no picture: matplotlib is not installed (pip install "fastmlp[plot]")')
        return
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    epochs = range(1, len(model.loss_curve_) + 1)
    axes.plot(epochs, model.loss_curve_, label="training loss")
    axes.set(xlabel="epoch", ylabel="training loss", yscale="log", title="fastmlp on handwritten digits")
    scores = axes.twinx()
    scores.plot(epochs, model.validation_scores_ or [], color="tab:orange", label="validation accuracy")
    scores.set_ylabel("validation accuracy")
    figure.legend(loc="outside upper right")
    figure.savefig(path, dpi=120)
    print(f"loss curve written to {path.resolve()}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fastmlp", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="command")
    for command in (info, check, demo):
        sub = commands.add_parser(command.__name__, help=(command.__doc__ or "").splitlines()[0])
        sub.set_defaults(run=command)
        if command is demo:
            sub.add_argument("--plot", default="loss_curve.png", help="where to write the loss curve")
            sub.add_argument(
                "--require", type=float, default=0.975, help="test accuracy below which the exit status is 1"
            )
    arguments = parser.parse_args()
    status: int = arguments.run(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())
