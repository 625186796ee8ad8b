"""scikit-learn's callbacks: a fit as a tree of tasks, whose leaves are epochs. They need scikit-learn 1.9."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
import sklearn

HAS_CALLBACKS = tuple(map(int, sklearn.__version__.split(".")[:2])) >= (1, 9)

if TYPE_CHECKING or not HAS_CALLBACKS:
    Function = TypeVar("Function", bound=Callable[..., Any])

    class CallbackSupportMixin:
        """An estimator on which callbacks can be set."""

        def set_callbacks(self, *callbacks: Any) -> Self:
            """Set callbacks; an error, since scikit-learn is too old for them."""
            raise ImportError(f"Callbacks need scikit-learn >= 1.9; this is scikit-learn {sklearn.__version__}.")

    def with_callbacks(method: Function) -> Function:
        """There are no callbacks to tear down."""
        return method

else:
    from sklearn.callback import CallbackSupportMixin, with_callbacks

__all__ = ["HAS_CALLBACKS", "CallbackSupportMixin", "FitTasks", "fit_tasks", "with_callbacks"]


class FitTasks:
    """A running fit: an ``Observer`` of the training run that makes a task of each epoch, or of each member of an ensemble.

    Parameters
    ----------
    estimator : estimator
        The estimator that is fitted; the hooks get it.
    context : CallbackContext
        The root of the fit's tasks.
    data : dict
        ``X``, ``y`` and ``metadata``, for the hooks.
    """

    #: The fitted attributes as if the fit ended with these parameters and statistics; none of them shares memory with the run.
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
        """Around the fit of a member, to which callbacks are propagated."""
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
    """Around a fit: the root of its tasks; None if no callback is set, which then costs nothing.

    Within the fit's ``AtomicUpdate``, not around it: the tear-down reads the estimator's attributes.

    Parameters
    ----------
    estimator : estimator
    X, y, sample_weight
        As the user gave them.
    n_tasks : int
        Most tasks below the root.
    in_order : bool, default=True
        Whether they follow one another.
    inner : estimator, default=None
        The estimator that an ensemble clones: its own callbacks see the ensemble's tasks too.
    """
    if not any(vars(listening).get("_skl_callbacks") for listening in (estimator, inner) if listening is not None):
        yield None
        return
    data = {"X": X, "y": y, "metadata": None if sample_weight is None else {"sample_weight": sample_weight}}
    context = estimator._init_callback_context(max_subtasks=n_tasks, sequential_subtasks=in_order)
    context.call_on_fit_task_begin(estimator=estimator, **data)
    yield FitTasks(estimator, context, data)
    # There are no attributes to add: the estimator is fitted.
    context.call_on_fit_task_end(estimator=estimator, reconstruction_attributes=dict, **data)
