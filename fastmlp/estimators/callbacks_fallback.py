"""scikit-learn's callback protocol for scikit-learn < 1.9, which does not have it: the same names, hooks and arguments.

What it cannot do is reach through scikit-learn's own meta-estimators, which know nothing of callbacks there: callbacks are
set on an estimator of ours, and its clones have them too, in searches as in pipelines. It refuses to be used where
scikit-learn has the protocol itself, and does not bring scikit-learn's ready-made callbacks. Imported by ``callbacks`` only.
"""

from __future__ import annotations

import copy
import inspect
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from typing import Any, Self

from sklearn.base import _clone_parametrized

_HOOKS = ("setup", "on_fit_task_begin", "on_fit_task_end", "teardown")
#: What a hook may ask for by a keyword-only parameter.
_ON_REQUEST = ("X", "y", "metadata", "fitted_estimator")


def _is_passed_on(callback: Any) -> bool:
    """Whether a callback goes to the members of an ensemble that it is set on: if it says to what depth."""
    return hasattr(callback, "max_propagation_depth")


class CallbackContext:
    """A task in the tree of a fit's tasks: what a hook is told of where it is.

    Attributes
    ----------
    task_name : str
        'fit', 'epoch' or 'member'.
    task_id : int
        Which of its parent's tasks it is, from 0.
    max_subtasks : int
        The most tasks below it; 0 for a leaf.
    sequential_subtasks : bool
        Whether these come one after another, numbered as they come.
    estimator_name : str
        Class of the estimator whose task it is.
    parent : CallbackContext or None
    root_uuid : uuid.UUID
        The same in all tasks of a tree.
    init_time : datetime
        When it began, UTC.
    source_estimator_name, source_task_name : str or None
        Of the ensemble's task that the fit of a member is.
    """

    def __init__(
        self, estimator_name: str, task_name: str, task_id: int, max_subtasks: int, sequential_subtasks: bool
    ) -> None:
        self.estimator_name = estimator_name
        self.task_name = task_name
        self.task_id = task_id
        self.max_subtasks = max_subtasks
        self.sequential_subtasks = sequential_subtasks
        self.parent: CallbackContext | None = None
        self.root_uuid = uuid.uuid4()
        self.init_time = datetime.now(UTC)
        self.source_estimator_name: str | None = None
        self.source_task_name: str | None = None
        self._children: dict[int, CallbackContext] = {}
        self._callbacks: list[Any] = []
        self._passed_on: list[Any] = []
        self._depth = 0

    def __iter__(self) -> Iterator[CallbackContext]:
        """This task and all below it, each before those below it."""
        yield self
        for child in self._children.values():
            yield from child

    def subcontext(
        self, task_name: str = "", task_id: int | None = None, max_subtasks: int = 0, sequential_subtasks: bool = True
    ) -> CallbackContext:
        """A task below this one; ``task_id`` only where tasks do not come in order."""
        if self.sequential_subtasks != (task_id is None):
            raise ValueError(f"task_id belongs to tasks that come in no order, got {task_id} below {self.task_name!r}.")
        number = len(self._children) if task_id is None else task_id
        child = CallbackContext(self.estimator_name, task_name, number, max_subtasks, sequential_subtasks)
        child.parent, child.root_uuid, child._callbacks, child._depth = (
            self,
            self.root_uuid,
            self._callbacks,
            self._depth,
        )
        self._children[number] = child
        return child

    def call_on_fit_task_begin(self, *, estimator: Any, **given: Any) -> CallbackContext:
        """Call the hooks ``on_fit_task_begin``."""
        self._call("on_fit_task_begin", estimator, given)
        return self

    def call_on_fit_task_end(self, *, estimator: Any, **given: Any) -> bool:
        """Call the hooks ``on_fit_task_end``; whether one of them returned something true."""
        return self._call("on_fit_task_end", estimator, given)

    def _call(self, name: str, estimator: Any, given: dict[str, Any]) -> bool:
        """Each callback's hook, with those of ``given`` that it asks for; functions among them are called first, once."""
        stop = False
        made: dict[str, Any] = {}
        for callback in self._callbacks:
            if callback in self._passed_on:  # the member's own root is the same task
                continue
            hook = getattr(callback, name)
            wanted = [p.name for p in inspect.signature(hook).parameters.values() if p.kind is p.KEYWORD_ONLY]
            if not set(wanted) <= set(_ON_REQUEST):
                raise TypeError(
                    f"{name} of {type(callback).__name__} may have the keyword-only parameters {list(_ON_REQUEST)}, got {wanted}."
                )
            for key in wanted:
                if key not in made:
                    value = given.get("reconstruction_attributes" if key == "fitted_estimator" else key)
                    value = value() if callable(value) else value
                    made[key] = _with_attributes(estimator, value) if key == "fitted_estimator" else value
            stop |= bool(hook(estimator, self, **{key: made[key] for key in wanted}))
        return stop

    @contextmanager
    def propagate_callback_context(self, sub_estimator: Any) -> Iterator[None]:
        """Let the fit of ``sub_estimator`` be this task, with the callbacks that are passed on."""
        own = list(vars(sub_estimator).get("_skl_callbacks", []))
        if any(map(_is_passed_on, own)):
            raise TypeError(
                f"Callbacks with max_propagation_depth belong on the {self.estimator_name}, not on its members."
            )
        self._passed_on = [
            callback
            for callback in self._callbacks
            if _is_passed_on(callback)
            and (callback.max_propagation_depth is None or self._depth < callback.max_propagation_depth)
        ]
        sub_estimator._parent_callback_ctx = self
        sub_estimator.set_callbacks(*own, *self._passed_on)
        try:
            yield
        finally:
            sub_estimator.set_callbacks(*own)
            del sub_estimator._parent_callback_ctx


def _with_attributes(estimator: Any, attributes: dict[str, Any] | None) -> Any:
    """A copy of the estimator with fitted attributes; None without such."""
    if attributes is None:
        return None
    fitted = copy.copy(estimator)
    vars(fitted).update(attributes)
    return fitted


class CallbackSupportMixin:
    """An estimator on which callbacks can be set."""

    def set_callbacks(self, *callbacks: Any) -> Self:
        """Set callbacks for the estimator, in place of those it has.

        Parameters
        ----------
        *callbacks : objects with ``setup``, ``on_fit_task_begin``, ``on_fit_task_end`` and ``teardown``

        Returns
        -------
        self
        """
        if any(isinstance(one, type) or not all(hasattr(one, hook) for hook in _HOOKS) for one in callbacks):
            raise TypeError(f"callbacks must be instances following the FitCallback protocol: {', '.join(_HOOKS)}.")
        if callbacks:
            self._skl_callbacks = list(callbacks)
        else:
            self.__dict__.pop("_skl_callbacks", None)
        return self

    def __sklearn_clone__(self) -> Any:
        """A clone has the same callbacks, not copies of them."""
        clone = _clone_parametrized(self)
        if hasattr(self, "_skl_callbacks"):
            clone._skl_callbacks = self._skl_callbacks
        return clone

    def _init_callback_context(
        self, task_name: str = "fit", task_id: int = 0, max_subtasks: int = 0, sequential_subtasks: bool = True
    ) -> CallbackContext:
        """The root of a fit's tasks; the estimator's own callbacks are set up."""
        context = CallbackContext(type(self).__name__, task_name, task_id, max_subtasks, sequential_subtasks)
        context._callbacks = getattr(self, "_skl_callbacks", [])
        above: CallbackContext | None = getattr(self, "_parent_callback_ctx", None)
        if (
            above is not None and above.parent is not None
        ):  # the same task, seen from above and from here: it takes its place
            context.parent, context.task_id, context.root_uuid = above.parent, above.task_id, above.root_uuid
            context.source_estimator_name, context.source_task_name = above.estimator_name, above.task_name
            context._depth = above._depth + 1
            above.parent._children[above.task_id] = context
        self._callback_fit_ctx = context
        self._callbacks_set_up: list[Any] = []
        for callback in context._callbacks:
            if above is None or not _is_passed_on(callback):
                self._callbacks_set_up.append(callback)
                callback.setup(estimator=self, context=context)
        return context


@contextmanager
def torn_down(estimator: Any) -> Iterator[None]:
    """Around a fit: the callbacks that were set up are torn down, however it ends."""
    try:
        yield
    finally:
        context = vars(estimator).pop("_callback_fit_ctx", None)
        errors = []
        for callback in vars(estimator).pop("_callbacks_set_up", []):
            try:
                callback.teardown(estimator=estimator, context=context)
            except Exception as error:  # the others are torn down first
                errors.append(error)
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise ExceptionGroup("Callbacks failed at teardown", errors)


def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
    """``torn_down`` around each call of a method."""

    @wraps(method)
    def managed(estimator: Any, *args: Any, **kwargs: Any) -> Any:
        with torn_down(estimator):
            return method(estimator, *args, **kwargs)

    return managed
