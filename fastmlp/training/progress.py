"""Progress of a training run on ``sys.stdout``: a line per epoch, or a bar, which a notebook shows in an output of its
own.

Each line is flushed: a pipe would otherwise hold lines back until the run is over.
"""

from __future__ import annotations

import multiprocessing
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

#: Least ``verbose`` for a bar.
BAR = 2
# Characters of the bar, of a short one for narrow terminals, and the least time between two drawings of it, in seconds.
_WIDTH = 24
_SHORT_WIDTH = 10
_PAUSE = 0.1


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook. IPython is not imported for it: a kernel has done so."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_ipython is not None and getattr(get_ipython(), "kernel", None) is not None


class NotebookLine:
    """A line of a notebook's output, whose text each call replaces. It needs IPython."""

    def __init__(self) -> None:
        self._handle: Any = None

    def __call__(self, text: str) -> None:
        if self._handle is None:
            from IPython.display import display

            self._handle = display({"text/plain": text}, raw=True, display_id=True)
        else:
            self._handle.update({"text/plain": text}, raw=True)


class Progress:
    """Prints epochs as they end.

    ``verbose=1`` prints a line per epoch; 2 and more draw a bar, in a notebook or on a terminal. ``n_epochs`` is the
    most epochs of the run, from which the time left is estimated; ``done`` of them belong to the run that this one
    resumes. A ``name`` begins each line of runs that print at the same time; these draw no bar, since bars would
    overwrite each other. ``show`` replaces the bar's text; None: on a ``NotebookLine`` in a notebook, else on the
    terminal.
    """

    def __init__(
        self, verbose: int, n_epochs: int, name: str = "", done: int = 0, show: Callable[[str], None] | None = None
    ) -> None:
        self._n_epochs = n_epochs
        self._prefix = f"{name}: " if name else ""
        # A search's worker processes share its terminal: their bars would overwrite each other.
        wants_bar = verbose >= BAR and not name and multiprocessing.parent_process() is None
        self._show = NotebookLine() if show is None and wants_bar and in_notebook() else show
        self._bar = wants_bar and (self._show is not None or getattr(sys.stdout, "isatty", bool)())
        self._begun = time.perf_counter()
        self._done = self._done_before = done
        self._drawn_at = -float("inf")
        self._drawn = 0  # characters of the bar on the terminal's last line
        self._text = ""  # a bar that was not drawn yet

    def epoch(self, entry: dict[str, Any]) -> None:
        """An epoch has ended; ``entry`` is its entry in ``history_``."""
        self._done += 1
        now = time.perf_counter()
        elapsed = now - self._begun
        score = f", validation score = {entry['validation_score']:.6f}" if "validation_score" in entry else ""
        left = self._n_epochs - self._done
        times = duration(elapsed) + (
            f", at most {duration(elapsed / (self._done - self._done_before) * left)} left" if left else ""
        )
        if not self._bar:
            speed = f"{entry['rows'] / entry['time']:,.0f} rows/s"
            self._write(f"{self._prefix}Iteration {self._done}, loss = {entry['loss']:.8f}{score}, {times}, {speed}\n")
            return
        self._text = self._fitting_bar(entry, f", loss = {entry['loss']:.6f}{score}", duration(elapsed), times)
        if now - self._drawn_at >= _PAUSE:
            self._draw(now)

    def message(self, text: str) -> None:
        """Print a line; a bar stays above it, and continues below."""
        self._end_bar()
        self._write(f"{self._prefix}{text}\n")

    def close(self) -> None:
        """The run has ended, for whatever reason."""
        self._end_bar()

    def _fitting_bar(self, entry: dict[str, Any], numbers: str, elapsed: str, times: str) -> str:
        """The longest of several forms of the bar that fits on the line; each shows the time left.

        A line as wide as the terminal would wrap, and a carriage return would not reach its beginning.
        """
        count = f"{self._done}/{self._n_epochs}"
        short = f", loss {entry['loss']:.4g}"
        if "validation_score" in entry:
            short += f", score {entry['validation_score']:.4f}"
        short_times = times.replace("at most ", "")
        left = short_times.removeprefix(elapsed)
        forms = [
            f"{self._bar_of(_WIDTH)} {count}{numbers}, {times}",
            f"{self._bar_of(_SHORT_WIDTH)} {count}{numbers}, {times}",
            f"{self._bar_of(_SHORT_WIDTH)} {count}{short}, {short_times}",
            f"{count}{short}{left or ', ' + elapsed}",
            f"{count}{left or ', ' + elapsed}",
        ]
        if self._show is not None:
            return forms[0]
        most = shutil.get_terminal_size().columns - 1
        return next((form for form in forms if len(form) <= most), forms[-1][:most])

    def _bar_of(self, width: int) -> str:
        filled = width * self._done // self._n_epochs
        return f"[{'#' * filled}{'-' * (width - filled)}]"

    def _draw(self, now: float) -> None:
        text = self._text
        if self._show is not None:
            self._show(text)
            self._drawn_at, self._text = now, ""
            return
        self._write("\r" + text.ljust(self._drawn))
        self._drawn, self._drawn_at, self._text = len(text), now, ""

    def _end_bar(self) -> None:
        if self._text:
            self._draw(time.perf_counter())
        if self._drawn:
            self._write("\n")
            self._drawn = 0

    @staticmethod
    def _write(text: str) -> None:
        # In one call: print writes the end of the line separately, and another thread's line may come between.
        if sys.stdout is None:  # a program without a console
            return
        sys.stdout.write(text)
        if hasattr(sys.stdout, "flush"):
            sys.stdout.flush()


def duration(seconds: float) -> str:
    """A duration for people: '0.31 s', '12.3 s', '4 min 05 s', '2 h 07 min'."""
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"
