"""Training on all rows at once by L-BFGS-B, which is SciPy's."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from fastmlp.core.memory import all_finite
from fastmlp.training.run import DivergenceError, Run, non_finite_message
from fastmlp.training.threads import one_blas_thread


def train_lbfgs(run: Run) -> Any:
    """Train ``run.network`` in place on all rows at once with L-BFGS-B (Byrd, Lu, Nocedal, Zhu 1995; scipy.optimize).

    Value and gradient are computed in float64 whatever the network's type: the line search needs the digits.
    Ctrl-C ends it with the best parameters seen; ``record.ended`` is then 'interrupted'. It is 'stopped' if the
    observer, which is told of each iteration, ended it.

    Returns
    -------
    scipy.optimize.OptimizeResult, or None if interrupted

    Raises
    ------
    DivergenceError
        If the loss never was a finite number, or the result is not. ``network`` is then unchanged.
    """
    return _Minimisation(run).train()


class _Minimisation:
    """One run: the objective, the best parameters so far, and the iteration that the observer knows of."""

    def __init__(self, run: Run) -> None:
        self.run = run
        network, self.data = run.network, run.data.sample()
        data = self.data
        self.double = network if network.dtype == np.float64 else network.copy("float64")
        self.y = data.y if data.y.dtype.kind == "i" else np.ascontiguousarray(data.y, dtype=np.float64)
        self.trainer = run.method.trainer(self.double, run.loss, "gradient", data.n_rows, run.n_threads)
        self.constants = {**run.hyperparameters, **run.method.constants()}
        self.best_loss, self.best = np.inf, self.double.parameters.copy()
        self.iterating = False  # the observer was told of an iteration that has not ended
        self.progress = run.settings.progress()
        self.last_time = time.perf_counter()

    def train(self) -> Any:
        """All iterations."""
        from scipy.optimize import minimize  # a service that only predicts does not need SciPy

        record, settings = self.run.record, self.run.settings
        result = None
        try:
            with one_blas_thread():
                result = minimize(
                    self.loss_gradient,
                    self.double.parameters.copy(),
                    method="L-BFGS-B",
                    jac=True,
                    callback=self.end_iteration,
                    options={"maxfun": settings.max_fun, "maxiter": settings.max_epochs, "gtol": settings.tol},
                )
            if np.isfinite(result.fun):  # otherwise it has seen better parameters than those it ends on
                self.best_loss, self.best = float(result.fun), result.x
            if self.iterating:  # the line search found nothing better
                self.tell_observer(self.best)
        except KeyboardInterrupt:
            record.n_epochs = len(record.epochs)
            record.ended = "interrupted"
        finally:
            if self.progress is not None:
                self.progress.close()
        if result is not None and not (np.isfinite(self.best_loss) and all_finite(self.best)):
            when = f"in the loss, after {record.n_epochs} iterations"
            raise DivergenceError(non_finite_message(when, "scale the input"))
        record.best_loss = self.best_loss
        self.run.network.parameters[:] = self.best
        return result

    def loss_gradient(self, parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """The objective and its gradient."""
        run = self.run
        if run.observer is not None and not self.iterating:
            self.iterating = True
            run.observer.epoch_begins()
        gradient = np.empty_like(parameters)
        loss = self.trainer.loss_gradient(
            parameters, self.data.X, self.y, self.data.sample_weight, gradient, **self.constants
        )
        if loss < self.best_loss:
            self.best_loss, self.best = loss, parameters.copy()
        return loss, gradient

    def end_iteration(self, intermediate_result: Any) -> None:  # SciPy looks for an argument of this name
        """Record an iteration."""
        record = self.run.record
        now = time.perf_counter()
        record.n_epochs += 1
        loss = float(intermediate_result.fun)
        entry = {"epoch": record.n_epochs, "loss": loss, "rows": self.data.n_rows, "time": now - self.last_time}
        record.epochs.append(entry)
        record.best_loss = loss
        self.last_time = now
        if self.progress is not None:
            self.progress.epoch(entry)
        if self.tell_observer(intermediate_result.x):
            record.ended = "stopped"
            raise StopIteration

    def tell_observer(self, parameters: np.ndarray) -> bool:
        """Tell the observer that the iteration has ended; whether to stop."""
        self.iterating = False
        if self.run.observer is None:
            return False
        try:
            return self.run.observer.epoch_ends(parameters, self.run.network.statistics)
        except StopIteration as error:
            raise RuntimeError("A callback raised StopIteration, which SciPy would take for a wish to stop.") from error
