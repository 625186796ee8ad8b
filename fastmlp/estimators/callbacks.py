"""Callbacks: a fit as scikit-learn's callbacks see it, a tree of tasks whose leaves are epochs.

scikit-learn has had the protocol (``sklearn.callback``) since 1.9; below that, ``callbacks_fallback`` calls the same hooks.
Which of the two it is goes by scikit-learn's version. It refuses to know what an epoch does. Imported by ``base`` and
``ensemble``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import sklearn

#: Whether scikit-learn itself has the protocol.
IN_SKLEARN = tuple(map(int, sklearn.__version__.split(".")[:2])) >= (1, 9)

if TYPE_CHECKING or not IN_SKLEARN:
    from fastmlp.estimators.callbacks_fallback import CallbackSupportMixin, torn_down, with_callbacks
else:
    from sklearn.callback import CallbackSupportMixin, with_callbacks

    def torn_down(estimator: Any) -> AbstractContextManager[None]:
        """Nothing to do: scikit-learn's own ``_fit_context``, which is around every ``fit``, tears down."""
        return nullcontext()


__all__ = ["IN_SKLEARN", "CallbackSupportMixin", "FitTasks", "fit_tasks", "with_callbacks"]


class FitTasks:
    """A running fit: an ``Observer`` of ``training`` that makes a task of each epoch, or of each member of an ensemble.

    Parameters
    ----------
    estimator : estimator
        Whose fit it is, and what the hooks are called with.
    context : CallbackContext
        The root of the fit's tasks.
    data : dict
        ``X``, ``y`` and ``metadata``, as the hooks get them.
    """

    #: Fitted attributes as if the fit ended with these parameters and statistics: arrays and lists of their own.
    fitted: Callable[[np.ndarray, np.ndarray], dict[str, Any]]

    def __init__(self, estimator: Any, context: Any, data: dict[str, Any]) -> None:
        self._estimator = estimator
        self._context = context
        self._data = data
        self._epoch: Any = None

    def epoch_begins(self) -> None:
        """The hooks ``on_fit_task_begin`` of an epoch."""
        self._epoch = self._context.subcontext(task_name="epoch")
        self._epoch.call_on_fit_task_begin(estimator=self._estimator, **self._data)

    def epoch_ends(self, parameters: np.ndarray, statistics: np.ndarray) -> bool:
        """The hooks ``on_fit_task_end`` of an epoch; whether one of them asks to stop."""
        stop = self._epoch.call_on_fit_task_end(
            estimator=self._estimator,
            reconstruction_attributes=lambda: self.fitted(parameters, statistics),
            **self._data,
        )
        return bool(stop)

    @contextmanager
    def member(self, number: int, member: Any) -> Iterator[None]:
        """The fit of one of several members, which gets the callbacks that are passed on."""
        task_id = None if self._context.sequential_subtasks else number
        context = self._context.subcontext(task_name="member", task_id=task_id)
        with context.propagate_callback_context(member):
            context.call_on_fit_task_begin(estimator=self._estimator, **self._data)
            yield
        context.call_on_fit_task_end(estimator=self._estimator, **self._data)


@contextmanager
def fit_tasks(
    estimator: Any, X: Any, y: Any, sample_weight: Any, n_tasks: int, *, in_order: bool = True, inner: Any = None
) -> Iterator[FitTasks | None]:
    """Around all that a fit does: the root of its tasks; None if nobody listens, which then costs nothing.

    Within the fit's ``AtomicUpdate``, not around it: callbacks are torn down by what stands in the estimator's attributes.

    Parameters
    ----------
    estimator : estimator
    X, y, sample_weight
        As the user gave them.
    n_tasks : int
        The most tasks below the root.
    in_order : bool, default=True
        Whether they come one after another.
    inner : estimator, default=None
        What is fitted in them, in an ensemble: its own callbacks see the ensemble's tasks too.
    """
    if not any(vars(listening).get("_skl_callbacks") for listening in (estimator, inner) if listening is not None):
        yield None
        return
    data = {"X": X, "y": y, "metadata": None if sample_weight is None else {"sample_weight": sample_weight}}
    with torn_down(estimator):
        context = estimator._init_callback_context(max_subtasks=n_tasks, sequential_subtasks=in_order)
        context.call_on_fit_task_begin(estimator=estimator, **data)
        yield FitTasks(estimator, context, data)
        # Without attributes to add: the estimator is fitted.
        context.call_on_fit_task_end(estimator=estimator, reconstruction_attributes=dict, **data)
