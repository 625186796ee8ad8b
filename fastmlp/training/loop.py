"""The loop of epochs of the stochastic solvers. Each epoch is one call of the compiled core."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np

from fastmlp.core import Reserve
from fastmlp.core.memory import aligned_copy
from fastmlp.training.run import (
    DEADLINE,
    DivergenceError,
    Position,
    StochasticRun,
    non_finite_layers,
    non_finite_message,
)


def train_epochs(run: StochasticRun) -> None:
    """Train ``run.network`` in place, until there is a reason to stop.

    The data give the rows of each epoch, in one part or in several (``training.rows``). With a validation that controls
    stopping, the run is judged by its score instead of its loss, and returns the parameters with the best score, if any
    score was a number. ``record.ended`` says why it ended; Ctrl-C ends it with the parameters after the last whole
    step, or the best ones. Whenever the observer is called, ``record``, ``schedule``, ``optimizer`` and ``position``
    are as if the run ended there. A run that resumes another draws the orders of its epochs again, and goes on from
    ``position``.

    Raises
    ------
    DivergenceError
        If parameters or running averages are not finite after an epoch and there is no best score to fall back on.
        ``network`` is then of no use.
    """
    _EpochLoop(run).train()


class _EpochLoop:
    """One run: its trainer, its rows, and the best parameters so far."""

    def __init__(self, run: StochasticRun) -> None:
        self.run = run
        network, data, settings = run.network, run.data, run.settings
        self.n_steps = settings.n_steps(data.n_rows)
        self.n_rows = min(self.n_steps * settings.batch_size, data.n_rows)
        self.constants = {**run.hyperparameters, **run.method.constants()}
        reserve = run.optimizer.reserve or Reserve() if settings.keeps_memory else None
        self.trainer = run.method.trainer(
            network, run.loss, run.optimizer.rule, settings.batch_size, run.n_threads, reserve
        )
        self.trainer.load(network.parameters, run.optimizer.arrays, network.statistics)
        self.epochs = data.epochs(settings.batch_size, run.rng if settings.shuffle else None, settings.owns_generator)
        self.rates = np.array([run.schedule.rate])
        self.controls_stopping = run.validation is not None and run.validation.controls_stopping
        self.current = network.parameters, network.statistics
        self.best: tuple[np.ndarray, np.ndarray] | None = None
        self.saved_epoch = -1  # the epoch that ``best`` is of
        self.can_fall_back = False  # there is a best score, and this run did not diverge at once
        self.to_resume: Position | None = None  # in the middle of the next epoch
        self.is_finite = True  # the network's parameters and running averages are
        self.progress = settings.progress(run.record.n_epochs if run.resumes else 0)
        if run.resumes and run.position is not None:
            self.load_position(run.position)

    def train(self) -> None:
        """All epochs."""
        record = self.run.record
        record.ended = ""
        if not self.run.resumes:
            record.n_epochs = record.best_epoch = 0
        self.complete_epoch()
        try:
            if self.run.resumes and record.n_epochs > 0:
                self.repeat_epochs()
            while not record.ended:
                self.train_epoch()
        except KeyboardInterrupt:
            if record.ended != "diverged":
                self.return_to_complete_epoch()
                record.ended = "interrupted"
        finally:
            if self.progress is not None:
                self.progress.close()
        self.finish()

    def complete_epoch(self) -> None:
        """Note the state after a whole epoch: Ctrl-C may come between any two lines."""
        run = self.run
        self.complete = run.record.snapshot(), run.schedule.rate, run.optimizer.n_updates

    def return_to_complete_epoch(self) -> None:
        """Remove from the record what came after the last whole epoch; the trainer keeps the steps that it has made."""
        run = self.run
        snapshot, run.schedule.rate, run.optimizer.n_updates = self.complete
        run.record.restore(snapshot)

    def load_position(self, position: Position) -> None:
        """Take over the best parameters, and the steps of an interrupted epoch."""
        if position.parameters is not None and position.statistics is not None:
            self.best = position.parameters, position.statistics
            self.saved_epoch = position.best_epoch
        if position.penalties is not None:
            n_updates = self.run.optimizer.n_updates
            self.trainer.resume(n_updates, position.n_steps, position.loss, position.penalties)
            self.to_resume = position

    def repeat_epochs(self) -> None:
        """Draw the orders of the epochs so far again, and decide again whether to stop after the last one."""
        run, record = self.run, self.run.record
        self.can_fall_back = run.validation is not None and record.best_score > -np.inf
        for _ in range(record.n_epochs):
            self.epochs.begin_epoch()
        run.schedule.epoch_ends(record.samples_seen)
        record.ended = self.reason_to_stop()
        self.complete_epoch()

    def position(self) -> Position | None:
        """Where the run is after the last whole epoch, or in the one after it. The arrays are not copied."""
        run, record = self.run, self.run.record
        if run.position is None or record.ended == "diverged":
            return None
        n_updates, loss, penalties = self.trainer.position()
        n_steps = max(n_updates - run.optimizer.n_updates, 0)
        returned = self.result()
        other = self.best if record.best_epoch == self.saved_epoch else None
        if n_steps == 0 and record.best_epoch == record.n_epochs:  # the last parameters are the best
            other = None
        elif returned is not self.current:
            other = self.current
        return replace(
            run.position,
            best_epoch=record.best_epoch,
            unfinished=record.ended in ("", "stopped", "interrupted"),
            returns_best=returned is not self.current,
            parameters=None if other is None else other[0],
            statistics=None if other is None else other[1],
            n_steps=n_steps,
            loss=loss if n_steps else 0.0,
            penalties=penalties if n_steps else None,
        )

    def train_epoch(self) -> None:
        """One epoch: updates, their record, and a verdict."""
        run, record = self.run, self.run.record
        if run.observer is not None:
            run.observer.epoch_begins()
        entry = self.update_parameters()
        # Running averages alone may overflow: a square does, and leaves a normalised layer silent and its parameters
        # unchanged.
        if self.is_finite:
            self.judge(entry)
        else:
            self.fall_back(record.n_epochs)
        if run.observer is not None:
            run.position = self.position()
            if run.observer.epoch_ends(*self.result()) and not record.ended:
                record.ended = "stopped"

    def update_parameters(self) -> dict[str, Any]:
        """All steps of an epoch; returns its entry in the record."""
        run, record, optimizer = self.run, self.run.record, self.run.optimizer
        started = time.perf_counter()
        self.epochs.begin_epoch()
        rate, self.rates = run.schedule.rate, run.schedule.rates(optimizer.n_updates, self.n_steps)
        loss = self.train_parts()
        optimizer.n_updates += self.n_steps
        self.save_best()
        self.is_finite = self.trainer.store(run.network.parameters, None, run.network.statistics)
        if run.observer is not None:
            optimizer.arrays = self.trainer.optimizer_state()
        record.n_epochs += 1
        record.samples_seen += self.n_rows
        record.loss_curve.append(loss)
        entry = {
            "epoch": len(record.loss_curve),
            "loss": loss,
            "learning_rate": rate,
            "rows": self.n_rows,
            "time": time.perf_counter() - started,
        }
        record.epochs.append(entry)
        return entry

    def train_parts(self) -> float:
        """The steps of an epoch, part by part; returns its loss."""
        run, t, first, loss = self.run, self.run.optimizer.n_updates, 0, 0.0
        of_steps = {"mix": run.method.mix(t, self.n_steps), **run.method.schedules(t, self.n_steps)}
        with closing(self.epochs.parts()) as parts:
            for part in parts:
                before, first, order = first, min(first + part.n_rows, self.n_rows), part.order
                if first - before < part.n_rows:  # the last batch is dropped
                    order = (np.arange(part.n_rows, dtype=np.intp) if order is None else order)[: first - before]
                begin = before // run.settings.batch_size
                steps = slice(begin, -(-first // run.settings.batch_size))
                if (resumed := self.to_resume) is not None and resumed.penalties is not None:
                    if resumed.n_steps >= steps.stop < self.n_steps:
                        continue  # made before the interruption
                    self.trainer.resume(t + begin, resumed.n_steps - begin, resumed.loss, resumed.penalties)
                    self.to_resume = None
                arguments: dict[str, Any] = {
                    name: array[steps] for name, array in of_steps.items() if array is not None
                }
                loss = self.trainer.epoch(
                    part.X,
                    part.y,
                    part.sample_weight,
                    order,
                    self.rates[steps],
                    t + begin,
                    before=before,
                    **arguments,
                    **self.constants,
                )
        return loss

    def judge(self, entry: dict[str, Any]) -> None:
        """Score the epoch, report it, and decide whether to stop."""
        run, record = self.run, self.run.record
        if run.validation is not None:
            entry["validation_score"], entry["validation_loss"] = run.validation.score(run.network)
            self.judge_score(entry)
            self.can_fall_back = record.best_score > -np.inf
        if not self.controls_stopping:
            self.judge_loss()
        self.complete_epoch()
        if self.progress is not None:
            self.progress.epoch(entry)
        run.schedule.epoch_ends(record.samples_seen)
        record.ended = self.reason_to_stop()
        self.complete_epoch()

    def judge_score(self, entry: dict[str, Any]) -> None:
        """Count the epoch as one without improvement if it scores below best + tol; note it if it is the best one."""
        record, score = self.run.record, entry["validation_score"]
        record.validation_scores.append(score)
        record.validation_loss_curve.append(entry["validation_loss"])
        if self.controls_stopping:
            stalled = score < record.best_score + self.run.settings.tol
            record.no_improvement = record.no_improvement + 1 if stalled else 0
        prefers = self.run.settings.prefers_last and score == record.best_score
        if score > record.best_score or prefers:
            record.best_score, record.best_epoch = score, record.n_epochs

    def judge_loss(self) -> None:
        """Count the epoch as one without improvement unless its loss is below best - tol."""
        record, loss = self.run.record, self.run.record.loss_curve[-1]
        record.no_improvement = record.no_improvement + 1 if loss > record.best_loss - self.run.settings.tol else 0
        if loss < record.best_loss:
            record.best_loss = loss

    def reason_to_stop(self) -> str:
        """Why to stop after this epoch, '' to continue."""
        record, settings, schedule = self.run.record, self.run.settings, self.run.schedule
        if record.no_improvement > settings.patience:
            stop, consequence = schedule.on_plateau()
            if self.progress is not None:
                measure = "Validation score" if self.controls_stopping else "Training loss"
                self.progress.message(
                    f"{measure} did not improve more than tol={settings.tol:f} for {settings.patience} "
                    f"consecutive epochs. {consequence}"
                )
            if stop:
                return "single_epoch" if settings.single_epoch else "plateau"
            record.no_improvement = 0
        if settings.single_epoch:
            return "single_epoch"
        if record.n_epochs >= settings.max_epochs:
            return "planned" if schedule.planned else "max_iter"
        return "stopped" if time.perf_counter() >= DEADLINE.get() else ""

    def save_best(self) -> None:
        """Copy the parameters, which are about to be overwritten, if they are the best ones. The copy is made no
        earlier."""
        record = self.run.record
        if self.run.validation is None or not record.best_epoch == record.n_epochs != self.saved_epoch:
            return
        if self.best is None:
            self.best = aligned_copy(self.current[0]), self.current[1].copy()
        else:
            self.best[0][:], self.best[1][:] = self.current
        self.saved_epoch = record.best_epoch

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Parameters and running averages that the run returns if it ends now."""
        record = self.run.record
        if self.best is None or record.best_score == -np.inf or record.best_epoch != self.saved_epoch:
            return self.current
        return self.best if self.controls_stopping or record.ended == "diverged" else self.current

    def fall_back(self, epoch: int, remark: str = "") -> None:
        """End a run that diverged with the best parameters; without such, an error."""
        network, record = self.run.network, self.run.record
        low, high = self.rates.min(), self.rates.max()
        rate = f"{high:g}" if low == high else f"{low:g} to {high:g}"
        layers = non_finite_layers(network)
        record.divergence = f"learning rate {rate}, layers {layers} of {len(network.coefs)}"
        if not self.can_fall_back:
            raise DivergenceError(non_finite_message(f"in epoch {epoch} ({record.divergence}){remark}"))
        self.run.optimizer.reset(network)  # its memory is not finite either
        record.ended = "diverged"

    def finish(self) -> None:
        """Copy the result, and the optimizer's memory, out of the trainer."""
        run, network = self.run, self.run.network
        record, optimizer = run.record, run.optimizer
        self.save_best()
        position = self.position()
        if record.ended == "interrupted":  # perhaps before the parameters were stored
            self.is_finite = self.trainer.store(network.parameters, None, network.statistics)
        if record.ended != "diverged":
            optimizer.arrays = self.trainer.finish()
        if record.ended == "interrupted" and not self.is_finite:  # it was diverging
            self.fall_back(record.n_epochs + 1, ", which was interrupted")
        record.optimizer_overflowed = not optimizer.is_finite()
        parameters, statistics = self.result()
        if parameters is not network.parameters:
            if position is not None and position.parameters is network.parameters:
                position.parameters, position.statistics = network.parameters.copy(), network.statistics.copy()
            network.parameters[:], network.statistics[:] = parameters, statistics
        run.position = None if record.ended == "diverged" else position
