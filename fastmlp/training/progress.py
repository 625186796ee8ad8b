"""What a training run says of itself while it works: a line per epoch, or a bar that is drawn anew in its place.

It refuses to know what is trained and when to stop, and imports the standard library only. It writes to ``sys.stdout`` and
flushes, since a pipe would otherwise hold lines back until the run is over. Imported by ``training`` only.
"""

from __future__ import annotations

import shutil
import sys
import time
from typing import Any

#: ``verbose`` from here on asks for the bar.
BAR = 2
# Characters of the bar itself, and the least time between two drawings of it, in seconds.
_WIDTH = 24
_PAUSE = 0.1


class Progress:
    """Tell of epochs as they end.

    Parameters
    ----------
    verbose : int
        1: a line per epoch. 2 and more: a bar if ``sys.stdout`` is a terminal, else lines. (0 needs no Progress.)
    n_epochs : int
        The most epochs there will be: what is left is reckoned from it, at the mean time of those so far.
    name : str, default=''
        Who is speaking, where several runs do at once: it begins each line, and there is no bar, since several would
        overwrite each other.
    """

    def __init__(self, verbose: int, n_epochs: int, name: str = "") -> None:
        self._n_epochs = n_epochs
        self._prefix = f"{name}: " if name else ""
        self._bar = verbose >= BAR and not name and getattr(sys.stdout, "isatty", bool)()
        self._begun = time.perf_counter()
        self._done = 0
        self._drawn_at = -float("inf")
        self._drawn = 0  # characters of the bar that stand on the terminal's last line
        self._text = ""

    def epoch(self, entry: dict[str, Any]) -> None:
        """An epoch has ended; ``entry`` is its row of ``history_``."""
        self._done += 1
        now = time.perf_counter()
        elapsed = now - self._begun
        score = f", validation score = {entry['validation_score']:.6f}" if "validation_score" in entry else ""
        left = self._n_epochs - self._done
        times = duration(elapsed) + (f", at most {duration(elapsed / self._done * left)} left" if left else "")
        if not self._bar:
            speed = f"{entry['rows'] / entry['time']:,.0f} rows/s"
            self._write(f"{self._prefix}Iteration {self._done}, loss = {entry['loss']:.8f}{score}, {times}, {speed}\n")
            return
        filled = _WIDTH * self._done // self._n_epochs
        bar = "#" * filled + "-" * (_WIDTH - filled)
        self._text = f"[{bar}] {self._done}/{self._n_epochs}, loss = {entry['loss']:.6f}{score}, {times}"
        if now - self._drawn_at >= _PAUSE:
            self._draw(now)

    def say(self, words: str) -> None:
        """A line of its own; a bar stays above it as it is, and goes on below."""
        self._end_bar()
        self._write(f"{self._prefix}{words}\n")

    def close(self) -> None:
        """The run is over, however it ended."""
        self._end_bar()

    def _draw(self, now: float) -> None:
        # A line that is as wide as the terminal would be broken, and a carriage return not get back to its beginning.
        text = self._text[: shutil.get_terminal_size().columns - 1]
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
        # In one call: print would write the end of the line apart, where another thread's line may come between.
        if sys.stdout is None:  # a program without a console
            return
        sys.stdout.write(text)
        if hasattr(sys.stdout, "flush"):
            sys.stdout.flush()


def duration(seconds: float) -> str:
    """Seconds in words of a length that one can read: '0.31 s', '12.3 s', '4 min 05 s', '2 h 07 min'."""
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"
