"""Callbacks: a fit as scikit-learn's tree of tasks, whose leaves are epochs, and the ready-made ones. They need
scikit-learn 1.9."""

from __future__ import annotations

import copy
import csv
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
import sklearn

from fastmlp.training.progress import BAR, NotebookLine, Progress

HAS_CALLBACKS = tuple(map(int, sklearn.__version__.split(".")[:2])) >= (1, 9)

if TYPE_CHECKING or not HAS_CALLBACKS:
    Function = TypeVar("Function", bound=Callable[..., Any])

    class CallbackSupportMixin:
        """An estimator on which callbacks can be set."""

        def set_callbacks(self, *callbacks: Any) -> Self:
            """An error: scikit-learn is too old for callbacks."""
            raise ImportError(f"Callbacks need scikit-learn >= 1.9; this is scikit-learn {sklearn.__version__}.")

    def with_callbacks(method: Function) -> Function:
        """There are no callbacks to tear down."""
        return method

    class AutoPropagatedCallback:
        """The callbacks that scikit-learn passes to the estimators within an estimator."""

else:
    import sklearn.callback
    from sklearn.callback import AutoPropagatedCallback, with_callbacks  # noqa: F401

    class CallbackSupportMixin(sklearn.callback.CallbackSupportMixin):
        """An estimator on which callbacks can be set."""

        def set_callbacks(self, *callbacks: Any) -> Self:
            """Set callbacks, instead of those that were set before.

            Parameters
            ----------
            *callbacks : objects
                Each with the methods ``setup``, ``on_fit_task_begin``, ``on_fit_task_end`` and ``teardown``; see
                ``docs/callbacks.md``.

            Returns
            -------
            self

            Raises
            ------
            TypeError
                For anything else. The message names the methods that are missing.
            """
            for callback in callbacks:
                _check_callback(callback)
            return super().set_callbacks(*callbacks)


# The methods of scikit-learn's protocol.
_HOOKS = ("setup", "on_fit_task_begin", "on_fit_task_end", "teardown")
# Attribute of the context of an epoch's end: its FitTasks.
_TASKS = "_fastmlp_tasks"


def _check_callback(callback: Any) -> None:
    if isinstance(callback, (list, tuple)):
        raise TypeError("set_callbacks takes each callback as an argument of its own: set_callbacks(*callbacks).")
    if isinstance(callback, type):
        raise TypeError(
            f"A callback must be an object, got the class {callback.__name__}: {callback.__name__}(...) makes one."
        )
    missing = [hook for hook in _HOOKS if not callable(getattr(callback, hook, None))]
    if missing:
        raise TypeError(
            f"A callback must have the methods {', '.join(_HOOKS)}; {type(callback).__name__} lacks "
            f"{', '.join(missing)}."
        )


class FitTasks:
    """A running fit: makes a task of each epoch, as the training run's ``Observer``, or of each member of an ensemble.

    ``context`` is scikit-learn's context of the whole fit; ``data`` has ``X``, ``y`` and ``metadata`` for the hooks.
    """

    #: The entry of the last epoch in ``history_``.
    entry: Callable[[], dict[str, Any]]
    #: The bar that ``NotebookProgress`` draws.
    progress: Progress
    #: At the end of an epoch: ``fitted`` with its parameters and statistics.
    attributes: Callable[[], dict[str, Any]]
    #: The fitted attributes that a fit would have if it ended with these parameters and statistics; they share no
    #: memory with the run.
    fitted: Callable[[np.ndarray, np.ndarray], dict[str, Any]]

    def __init__(self, estimator: Any, context: Any, data: dict[str, Any]) -> None:
        self._estimator = estimator
        self._context = context
        self._data = data
        self._epoch: Any = None
        self.begun = time.perf_counter()
        #: Epochs of this call of ``fit`` that have ended, and the most that it will have.
        self.n_epochs, self.max_epochs = 0, context.max_subtasks

    def epoch_begins(self) -> None:
        """Call the hooks ``on_fit_task_begin`` of an epoch."""
        self._epoch = self._context.subcontext(task_name="epoch")
        self._epoch.call_on_fit_task_begin(estimator=self._estimator, **self._data)

    def epoch_ends(self, parameters: np.ndarray, statistics: np.ndarray) -> bool:
        """Call the hooks ``on_fit_task_end`` of an epoch; whether one of them asks to stop."""
        self.n_epochs += 1
        self.attributes = lambda: self.fitted(parameters, statistics)
        setattr(self._epoch, _TASKS, self)
        try:
            stop = self._epoch.call_on_fit_task_end(
                estimator=self._estimator, reconstruction_attributes=self.attributes, **self._data
            )
        finally:
            delattr(self._epoch, _TASKS)
            del self.attributes
        return bool(stop)

    def model(self) -> Any:
        """At the end of an epoch: a copy of the estimator, fitted as if the fit ended there."""
        model = copy.copy(self._estimator)
        vars(model).pop("_skl_callbacks", None)
        vars(model).update(self.attributes())
        return model

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
    estimator: Any, X: Any, y: Any, sample_weight: Any, n_tasks: int | None, *, in_order: bool = True, inner: Any = None
) -> Iterator[FitTasks | None]:
    """Around a fit: the root of its tasks, or None if no callback is set.

    At most ``n_tasks`` tasks are below the root, None: an unknown number; they run one after the other if ``in_order``.
    ``inner`` is the estimator that an ensemble clones: its callbacks see the ensemble's tasks too. This belongs within
    the fit's ``AtomicUpdate``: the tear-down reads the estimator's attributes.
    """
    if not any(vars(listening).get("_skl_callbacks") for listening in (estimator, inner) if listening is not None):
        yield None
        return
    data = {"X": X, "y": y, "metadata": None if sample_weight is None else {"sample_weight": sample_weight}}
    context = estimator._init_callback_context(max_subtasks=n_tasks, sequential_subtasks=in_order)
    context.call_on_fit_task_begin(estimator=estimator, **data)
    yield FitTasks(estimator, context, data)
    # No attributes to add: the estimator is fitted.
    context.call_on_fit_task_end(estimator=estimator, reconstruction_attributes=dict, **data)


def callbacks_on_epochs(estimator: Any) -> list[Any]:
    """The callbacks of an estimator that scikit-learn does not pass to the estimators within."""
    own = vars(estimator).get("_skl_callbacks", [])
    return [callback for callback in own if not isinstance(callback, AutoPropagatedCallback)]


# --- ready-made ------------------------------------------------------------------------------------------------


class EpochCallback:
    """A callback that acts at the end of each epoch, by the hooks of scikit-learn's protocol."""

    def setup(self, estimator: Any, context: Any) -> None:
        """Do nothing; scikit-learn calls it.

        Parameters
        ----------
        estimator : estimator
            The estimator that is fitted.
        context : CallbackContext
            The task: ``task_name`` is 'fit' or 'epoch'.
        """

    on_fit_task_begin = teardown = setup

    def on_fit_task_end(self, estimator: Any, context: Any) -> bool:
        """Act at the end of an epoch, or of the fit; scikit-learn calls it.

        Parameters
        ----------
        estimator : estimator
            The estimator that is fitted.
        context : CallbackContext
            The task: ``task_name`` is 'fit' or 'epoch'.

        Returns
        -------
        bool
            Whether to stop the fit.
        """
        if context.task_name == "fit":
            self._fit_ends(estimator)
        tasks = getattr(context, _TASKS, None)
        return tasks is not None and self._epoch_ends(tasks)

    def _epoch_ends(self, tasks: FitTasks) -> bool:
        """An epoch has ended; whether to stop."""
        raise NotImplementedError

    def _fit_ends(self, estimator: Any) -> None:
        """The fit has ended, without an error."""


def _require(valid: bool, words: str) -> None:
    if not valid:
        raise ValueError(words)


class Checkpoint(EpochCallback):
    """Save the model while it trains, so that ``fit(X, y, resume=True)`` can go on after a crash, to the same bits.

    The file is that of ``save(path, optimizer_state=True)``. It is replaced as a whole, so that it holds a complete
    model whenever the process ends. It is also written at the end of the fit, unless that ends with an error. Members
    of an ensemble cannot have this callback: they would all write the same file.

    Parameters
    ----------
    path : str or path-like
        The file, for :func:`fastmlp.load`.
    every : int or None, default=1
        Save after each ``every`` epochs; None: only by time.
    seconds : float or None, default=None
        Save at the end of an epoch if the fit began, or the last file was written, at least ``seconds`` ago.

    Raises
    ------
    ValueError
        For other values, or if both are None; in ``fit``, for a member of an ensemble.
    NotSerializableError
        In ``fit``, if ``save`` cannot write the model.

    Examples
    --------
    >>> import os, tempfile
    >>> import fastmlp
    >>> from sklearn.datasets import make_classification
    >>> X, y = make_classification(n_samples=100, random_state=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "checkpoint.safetensors")
    ...     model = fastmlp.MLPClassifier(max_iter=3, n_iter_no_change=5, learning_rate="cosine", random_state=0)
    ...     model = model.set_callbacks(fastmlp.Checkpoint(path)).fit(X, y)
    ...     fastmlp.load(path).n_iter_
    3
    """

    def __init__(self, path: str | os.PathLike[str], every: int | None = 1, seconds: float | None = None) -> None:
        _require(every is not None or seconds is not None, "Checkpoint needs every or seconds.")
        _require(every is None or (isinstance(every, Integral) and every >= 1), f"every must be >= 1, got {every!r}.")
        _require(
            seconds is None or (isinstance(seconds, Real) and seconds > 0), f"seconds must be > 0, got {seconds!r}."
        )
        self.path = path
        self.every = every
        self.seconds = seconds

    def setup(self, estimator: Any, context: Any) -> None:
        """Start the clock; a member of an ensemble is an error.

        Parameters
        ----------
        estimator : estimator
            The estimator that is fitted.
        context : CallbackContext
            The task of the fit.
        """
        _require(
            getattr(vars(estimator).get("_parent_callback_ctx"), "task_name", "") != "member",
            "Checkpoint cannot be set on the estimator of an ensemble: all members would write the same file.",
        )
        self._saved_at = time.perf_counter()

    def _epoch_ends(self, tasks: FitTasks) -> bool:
        """Save if it is time to."""
        late = self.seconds is not None and time.perf_counter() - self._saved_at >= self.seconds
        if late or (self.every is not None and tasks.entry()["epoch"] % self.every == 0):
            tasks.model().save(self.path, optimizer_state=True)
            self._saved_at = time.perf_counter()
        return False

    def _fit_ends(self, estimator: Any) -> None:
        """Save the fitted model."""
        estimator.save(self.path, optimizer_state=True)


class CSVLogger(EpochCallback):
    """Write a line per epoch to a CSV file: the entries of ``history_``, below a line with their names.

    The file is closed after each line, so that other programs can read it during the fit. Do not set it on members of
    an ensemble that are trained at the same time.

    Parameters
    ----------
    path : str or path-like
        The file.
    append : bool, default=False
        Keep the lines of an existing file up to the epoch from which a resumed fit goes on. Otherwise each fit begins a
        new file.

    Raises
    ------
    OSError
        In ``fit``, if the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], append: bool = False) -> None:
        self.path = path
        self.append = append

    def _epoch_ends(self, tasks: FitTasks) -> bool:
        """Append a line; begin the file at a fit's first epoch."""
        entry = tasks.entry()
        if tasks.n_epochs == 1:
            kept = []
            if self.append and os.path.exists(self.path):
                with open(self.path, newline="", encoding="utf-8") as file:
                    kept = [row for row in csv.DictReader(file) if int(row["epoch"]) < entry["epoch"]]
            with open(self.path, "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, entry.keys(), restval="", extrasaction="ignore")
                writer.writeheader()
                writer.writerows(kept)
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, entry.keys()).writerow(entry)
        return False


class TimeLimit(EpochCallback):
    """Stop a fit at the end of the epoch in which its time is up. ``fit(X, y, resume=True)`` goes on.

    Parameters
    ----------
    seconds : float
        Limit of one call of ``fit``, from the beginning of its first epoch; in an ensemble, of each member.

    Raises
    ------
    ValueError
        If it is not a number > 0.
    """

    def __init__(self, seconds: float) -> None:
        _require(isinstance(seconds, Real) and seconds > 0, f"seconds must be a number > 0, got {seconds!r}.")
        self.seconds = seconds

    def _epoch_ends(self, tasks: FitTasks) -> bool:
        return time.perf_counter() - tasks.begun >= self.seconds


class StopAtTarget(EpochCallback):
    """Stop a fit at the end of the first epoch whose score, or loss, is good enough.

    Parameters
    ----------
    target : float
        A score stops the fit if it is at least this, a loss if it is at most this.
    of : {'validation_score', 'validation_loss', 'loss'}, default='validation_score'
        The entry of ``history_``. Those of validation need ``early_stopping=True`` or an ``eval_set``.

    Raises
    ------
    ValueError
        For another name; in ``fit``, if there are no validation rows.
    """

    def __init__(self, target: float, of: str = "validation_score") -> None:
        names = ("validation_score", "validation_loss", "loss")
        _require(of in names, f"of must be one of {list(names)}, got {of!r}.")
        self.target = target
        self.of = of

    def _epoch_ends(self, tasks: FitTasks) -> bool:
        entry = tasks.entry()
        _require(self.of in entry, f"StopAtTarget of {self.of!r} needs early_stopping=True or an eval_set.")
        value = float(entry[self.of])
        return value >= self.target if self.of == "validation_score" else value <= self.target


class NotebookProgress(EpochCallback):
    """Show a progress bar in a notebook, on one line that all fits of the callback share, such as those of a search.

    For a single fit ``verbose=2`` does the same. It needs IPython. Fits in other processes (``n_jobs``) are not shown.

    Raises
    ------
    ImportError
        In ``fit``, without IPython.
    """

    def __init__(self) -> None:
        self._show = NotebookLine()
        self._progress: Progress | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        NotebookProgress.__init__(self)

    def _epoch_ends(self, tasks: FitTasks) -> bool:
        if tasks.n_epochs == 1:
            done = tasks.entry()["epoch"] - 1
            tasks.progress = Progress(BAR, done + tasks.max_epochs, done=done, show=self._show)
        self._progress = tasks.progress
        tasks.progress.epoch(tasks.entry())
        return False

    def _fit_ends(self, estimator: Any) -> None:
        if self._progress is not None:
            self._progress.close()
