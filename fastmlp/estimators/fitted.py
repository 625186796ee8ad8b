"""What a run's record is on a fitted estimator, and how a further run goes on from that.

It refuses to train and to warn. Imported by ``base`` only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastmlp.training.loop import Record


def published(record: Record, scored: bool, by_score: bool) -> dict[str, Any]:
    """Fitted attributes of a stochastic solver's run, as things stand: the lists are copies.

    scored: whether there were rows to score on; by_score: whether the score steered.
    """
    return {
        "history_": list(record.epochs),
        "loss_curve_": list(record.loss_curve),
        "n_iter_": record.n_epochs,
        "t_": record.samples_seen,
        "_no_improvement_count": record.no_improvement,
        "best_loss_": None if by_score else record.best_loss,
        "validation_scores_": list(record.validation_scores) if scored else None,
        "validation_loss_curve_": list(record.validation_loss_curve) if scored else None,
        "best_validation_score_": record.best_score if scored else None,
        "loss_": record.loss_curve[-1] if record.loss_curve else np.nan,  # interrupted in the first epoch
    }


def published_lbfgs(record: Record) -> dict[str, Any]:
    """Fitted attributes of a run of L-BFGS."""
    return {"history_": list(record.epochs), "loss_": record.best_loss, "n_iter_": record.n_epochs, "t_": 0}


def continued(fitted: Any, scored: bool, terms: dict[str, dict[str, Any]]) -> Record:
    """The record of a fitted estimator, to append to. What was best by other terms is no measure for this run."""
    if not hasattr(fitted, "loss_curve_"):  # L-BFGS leaves nothing to append to
        return Record()
    same = {group: fitted._run_terms[group] == terms[group] for group in terms}
    record = Record(
        epochs=list(fitted.history_),
        loss_curve=list(fitted.loss_curve_),
        samples_seen=fitted.t_,
    )
    if same["loss"] and same["score"]:
        record.no_improvement = fitted._no_improvement_count
    if scored and fitted.validation_scores_ is not None:
        record.validation_scores = list(fitted.validation_scores_)
        record.validation_loss_curve = list(fitted.validation_loss_curve_ or ())
        if same["score"] and fitted.best_validation_score_ is not None:
            record.best_score = fitted.best_validation_score_
    if not fitted.early_stopping and fitted.best_loss_ is not None and same["loss"]:
        record.best_loss = fitted.best_loss_
    return record
