"""Training on all rows at once by L-BFGS-B, which is SciPy's; it refuses to know of scikit-learn. Imported by ``base``."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from fastmlp.core.memory import all_finite
from fastmlp.network.network import Network
from fastmlp.training.loop import PLAIN, DivergenceError, Method, Observer, Record, TrainingData, non_finite_message
from fastmlp.training.progress import Progress
from fastmlp.training.schedules import Hyperparameters


def run_lbfgs(
    network: Network,
    loss: str,
    data: TrainingData,
    hyperparameters: Hyperparameters,
    *,
    max_iter: int,
    max_fun: int,
    tol: float,
    record: Record,
    n_threads: int = 1,
    method: Method = PLAIN,
    progress: Progress | None = None,
    observer: Observer | None = None,
) -> Any:
    """Train ``network`` in place on all rows at once with L-BFGS-B (Byrd, Lu, Nocedal, Zhu 1995; scipy.optimize).

    Value and gradient are computed in float64 whatever the network's type: the line search needs the digits.
    Ctrl-C ends it with the best parameters seen; ``record.ended`` is then 'interrupted'. It is 'stopped' if the ``observer``
    ended it, who is told of each iteration.

    Returns
    -------
    scipy.optimize.OptimizeResult, or None if interrupted

    Raises
    ------
    DivergenceError
        If the loss never was a finite number, or the result is not. ``network`` is then unchanged.
    """
    from scipy.optimize import minimize  # a service that only predicts does not need SciPy

    double = network if network.dtype == np.float64 else network.copy("float64")
    y = data.y if data.y.dtype.kind == "i" else np.ascontiguousarray(data.y, dtype=np.float64)
    trainer = method.trainer(double, loss, "gradient", data.n_rows, n_threads)
    constants = {"alpha": hyperparameters.alpha, "l1_ratio": hyperparameters.l1_ratio, **method.constants()}
    best_loss, best = np.inf, double.parameters.copy()
    last = time.perf_counter()

    begun = False  # whether the observer knows of an iteration that has not ended

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best_loss, best, begun
        if observer is not None and not begun:
            begun = True
            observer.epoch_begins()
        gradient = np.empty_like(parameters)
        value = trainer.loss_gradient(
            parameters,
            data.X,
            y,
            data.sample_weight,
            gradient,
            **constants,
        )
        if value < best_loss:
            best_loss, best = value, parameters.copy()
        return value, gradient

    def observed(parameters: np.ndarray) -> bool:
        nonlocal begun
        begun = False
        if observer is None:
            return False
        try:
            return observer.epoch_ends(parameters, network.statistics)
        except StopIteration as error:
            raise RuntimeError("A callback raised StopIteration, which SciPy would take for a wish to stop.") from error

    def note(intermediate_result: Any) -> None:  # SciPy goes by this argument's name
        nonlocal last
        now = time.perf_counter()
        record.n_epochs += 1
        value = float(intermediate_result.fun)
        record.epochs.append({"epoch": record.n_epochs, "loss": value, "rows": data.n_rows, "time": now - last})
        record.best_loss = value
        last = now
        if progress is not None:
            progress.epoch(record.epochs[-1])
        if observed(intermediate_result.x):
            record.ended = "stopped"
            raise StopIteration

    result = None
    try:
        result = minimize(
            objective,
            double.parameters.copy(),
            method="L-BFGS-B",
            jac=True,
            callback=note,
            options={"maxfun": max_fun, "maxiter": max_iter, "gtol": tol},
        )
        if np.isfinite(result.fun):  # else what it ends on is worse than what it has passed
            best_loss, best = float(result.fun), result.x
        if begun:  # the line search found nothing better
            observed(best)
    except KeyboardInterrupt:
        record.n_epochs = len(record.epochs)
        record.ended = "interrupted"
    finally:
        if progress is not None:
            progress.close()
    if result is not None and not (np.isfinite(best_loss) and all_finite(best)):
        raise DivergenceError(non_finite_message(f"in the loss, after {record.n_epochs} iterations", "scale the input"))
    record.best_loss = best_loss
    network.parameters[:] = best
    return result
