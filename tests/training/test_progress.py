"""verbose: silence when nothing was asked, a line per epoch, a bar on a terminal; times by a clock that the tests
set."""

from __future__ import annotations

import io
import pickle
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import classification, regression
from sklearn.model_selection import GridSearchCV

from fastmlp import MLPClassifier, MLPEnsembleClassifier, MLPRegressor, NotebookProgress
from fastmlp.training import progress
from fastmlp.training.progress import Progress, duration

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL = {"hidden_layer_sizes": (11,), "random_state": 3, "max_iter": 4}
LINE = re.compile(
    r"Iteration (?P<epoch>\d+), loss = [\d.]+(?P<score>, validation score = -?[\d.]+)?, [\d.]+ s(?P<left>, at most "
    r"[\d.]+ s left)?, "
    r"[\d,]+ rows/s"
)
ENTRY = {"loss": 0.25, "rows": 300, "time": 2.0}


class Terminal(io.StringIO):
    """A terminal of 200 columns: what stands on its lines, and how often it was written to and flushed."""

    def __init__(self, monkeypatch, columns=200):
        super().__init__()
        self.writes = self.unflushed = 0
        monkeypatch.setattr(sys, "stdout", self)
        monkeypatch.setenv("COLUMNS", str(columns))

    def isatty(self):
        return True

    def write(self, text):
        self.writes += 1
        self.unflushed += 1
        return super().write(text)

    def flush(self):
        self.unflushed = 0

    def lines(self):
        """A carriage return goes back to the beginning, and what follows overwrites."""
        shown = []
        for line in self.getvalue().split("\n"):
            cells: list[str] = []
            for part in line.split("\r"):
                cells[: len(part)] = part
            shown.append("".join(cells).rstrip())
        return shown


@pytest.fixture
def clock(monkeypatch):
    """Seconds that stand still until a test adds to them."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(progress.time, "perf_counter", lambda: Clock.now)
    return Clock


# --- the estimators --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{}, {"solver": "sgd", "early_stopping": True}, {"solver": "lbfgs"}], ids=["adam", "sgd", "lbfgs"]
)
@pytest.mark.parametrize("cls", [MLPClassifier, MLPRegressor])
def test_silent_unless_asked(cls, settings, capfd):
    """Not a character, on either stream, from Python or from below."""
    data = classification(3) if cls is MLPClassifier else regression()
    for verbose in (False, 0):
        model = cls(**SMALL, **settings, verbose=verbose).fit(*data)
        if settings == {}:
            model.partial_fit(*data)
    if cls is MLPClassifier:
        MLPEnsembleClassifier(cls(**SMALL), 2).fit(*data)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("verbose", [True, 1, 2, 3])
@pytest.mark.parametrize(
    "settings", [{}, {"early_stopping": True}, {"solver": "lbfgs"}], ids=["adam", "early_stopping", "lbfgs"]
)
@pytest.mark.parametrize("cls", [MLPClassifier, MLPRegressor])
def test_a_line_for_each_epoch(cls, settings, verbose, capsys):
    """A line has the epoch, loss, score, time and, but for the last, the time left; without a terminal there is no
    bar."""
    model = cls(**SMALL, **settings, verbose=verbose).fit(
        *(classification(3) if cls is MLPClassifier else regression())
    )
    found = [LINE.fullmatch(line) for line in capsys.readouterr().out.splitlines()]
    assert [int(line["epoch"]) for line in found] == list(range(1, model.n_iter_ + 1))
    assert [bool(line["left"]) for line in found] == [True] * (SMALL["max_iter"] - 1) + [False]
    assert {bool(line["score"]) for line in found} == {"early_stopping" in settings}


def test_partial_fit_says_one_line(capsys):
    X, y = classification(2)
    model = MLPClassifier(**SMALL, verbose=1).partial_fit(X, y, classes=[0, 1]).partial_fit(X, y)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(model.history_) == 2
    assert all(LINE.fullmatch(line) and "left" not in line for line in lines)


def test_members_of_an_ensemble_say_who_they_are(capsys, monkeypatch):
    """Each line whole and with its member's number, whatever the threads do; lines where one network would draw a
    bar."""
    members = MLPEnsembleClassifier(MLPClassifier(**SMALL, verbose=2), 3, n_jobs=2, random_state=0)
    members.fit(*classification(2))
    lines = capsys.readouterr().out.splitlines()
    terminal = Terminal(monkeypatch)
    members.fit(*classification(2))
    for got in (lines, terminal.getvalue().splitlines()):
        assert "\r" not in "".join(got)
        named = sorted(re.fullmatch(rf"Member (\d): {LINE.pattern}", line)[1] for line in got)
        assert named == sorted("012" * SMALL["max_iter"])


@pytest.mark.parametrize(
    "settings", [{}, {"early_stopping": True}, {"solver": "lbfgs"}], ids=["adam", "early_stopping", "lbfgs"]
)
def test_bar_on_a_terminal(settings, monkeypatch):
    """One line that is written over, which ends full, with the last epoch's numbers, and a line's end."""
    monkeypatch.setattr(progress, "_PAUSE", 0)
    terminal = Terminal(monkeypatch)
    model = MLPClassifier(**SMALL, **settings, verbose=2).fit(*classification(3))
    assert terminal.getvalue().count("\r") == model.n_iter_
    line, nothing = terminal.lines()
    assert nothing == ""
    assert line.startswith(f"[{'#' * 24}] 4/4, loss = {model.history_[-1]['loss']:.6f}")
    assert ("validation score" in line) == ("early_stopping" in settings)
    assert terminal.unflushed == 0


def test_no_bar_in_a_worker_process(clock, monkeypatch):
    """Several would share the terminal of the process that started them."""
    terminal = Terminal(monkeypatch)
    monkeypatch.setattr(progress.multiprocessing, "parent_process", lambda: object())
    Progress(2, 10).epoch(ENTRY)
    assert LINE.fullmatch(terminal.getvalue().rstrip("\n"))


def test_bar_is_ended_by_a_plateau_and_by_an_error(monkeypatch):
    """What is said at the end stands on a line of its own; an error's traceback begins on one."""
    monkeypatch.setattr(progress, "_PAUSE", 0)
    X, y = regression()
    terminal = Terminal(monkeypatch)
    MLPRegressor(**{**SMALL, "max_iter": 50}, tol=10.0, n_iter_no_change=2, verbose=2).fit(X, y)
    bar, words, nothing = terminal.lines()
    assert (bar[0], nothing) == ("[", "")
    assert words.startswith("Training loss did not improve more than tol=10")

    class Raises:
        def setup(self, estimator, context): ...
        def on_fit_task_begin(self, estimator, context): ...
        def teardown(self, estimator, context): ...
        def on_fit_task_end(self, estimator, context):
            raise RuntimeError

    for solver in ("adam", "lbfgs"):
        terminal = Terminal(monkeypatch)
        with pytest.raises(RuntimeError):
            MLPRegressor(**SMALL, solver=solver, verbose=2).set_callbacks(Raises()).fit(X, y)
        assert re.fullmatch(r"\r\[#+-+\] 1/4, .*\n", terminal.getvalue())


def test_speaking_changes_no_number(capsys, monkeypatch):
    plain = MLPClassifier(**SMALL).fit(*classification(3))
    Terminal(monkeypatch)
    for verbose in (1, 2):
        spoken = MLPClassifier(**SMALL, verbose=verbose).fit(*classification(3))
        np.testing.assert_array_equal(spoken.network_.parameters, plain.network_.parameters)


# --- times -----------------------------------------------------------------------------------------------------


def test_time_left_goes_by_the_epochs_so_far(clock, capsys):
    """Elapsed time, and the mean epoch times those that are left."""
    told = Progress(1, 5)
    for seconds in (2.0, 4.0, 6.0, 0.0, 60.0):
        clock.now += seconds
        told.epoch(ENTRY)
    times = [line.split(", ")[2:-1] for line in capsys.readouterr().out.splitlines()]
    assert times == [
        ["2.00 s", "at most 8.00 s left"],
        ["6.00 s", "at most 9.00 s left"],
        ["12.0 s", "at most 8.00 s left"],
        ["12.0 s", "at most 3.00 s left"],
        ["1 min 12 s"],
    ]


def test_each_line_is_flushed(clock, monkeypatch):
    """A pipe would hold them back until the fit is over; and in one piece, or another thread's line comes between."""
    terminal = Terminal(monkeypatch)
    told = Progress(1, 9)
    for n in range(1, 4):
        clock.now += 1
        told.epoch(ENTRY)
        assert (terminal.writes, terminal.unflushed) == (n, 0)


def test_bar_is_drawn_ten_times_a_second(clock, monkeypatch):
    """However many epochs there are; the last is drawn at the end."""
    terminal = Terminal(monkeypatch)
    told = Progress(2, 1000)
    for _ in range(250):
        clock.now += 1 / 64  # exact in binary
        told.epoch(ENTRY)
    drawn = terminal.getvalue().count("\r")
    told.close()
    assert drawn == -(-250 // 7)  # 7/64 is the least multiple that is not below 0.1
    assert terminal.getvalue().count("\r") == drawn + (249 % 7 != 0)
    assert terminal.lines()[0].startswith(f"[{'#' * 6}{'-' * 18}] 250/1000, ")


def test_bar_leaves_no_rest_of_a_longer_one(clock, monkeypatch):
    terminal = Terminal(monkeypatch)
    told = Progress(2, 2)
    clock.now += 60
    told.epoch({**ENTRY, "validation_score": 0.5})
    clock.now += 1
    told.epoch(ENTRY)
    told.close()
    assert terminal.lines() == [f"[{'#' * 24}] 2/2, loss = 0.250000, 1 min 01 s", ""]


def test_bar_is_no_wider_than_the_terminal(clock, monkeypatch):
    """A line that breaks cannot be written over."""
    terminal = Terminal(monkeypatch, columns=40)
    told = Progress(2, 2)
    for _ in range(2):
        clock.now += 60
        told.epoch(ENTRY)
    told.close()
    assert all(len(part) <= 39 for part in terminal.getvalue().rstrip("\n").split("\r"))


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 100, 120])
def test_bar_has_the_time_left_whatever_the_width(columns, clock, monkeypatch):
    """Numbers get shorter, then are left out, before the time left is cut off."""
    terminal = Terminal(monkeypatch, columns=columns)
    told = Progress(2, 2000)
    for _ in range(123):
        clock.now += 6.1
        told.epoch({**ENTRY, "validation_score": 0.987654})
    told.close()
    line = terminal.lines()[0]
    assert len(line) < columns
    assert line.endswith("3 h 10 min left"[: columns - 1 - len("123/2000, ")])
    assert ("[" in line) == (columns >= 80)
    assert ("score" in line) == (columns >= 60)
    assert ("at most" in line) == (columns >= 120)


@pytest.fixture
def notebook(monkeypatch):
    """The outputs of a notebook's cell, as a kernel's IPython shows them."""
    shown: list[list[str]] = []

    class Handle:
        def __init__(self, texts):
            self.texts = texts

        def update(self, data, raw):
            assert raw
            self.texts.append(data["text/plain"])

    def display(data, raw, display_id):
        assert raw
        assert display_id
        shown.append([data["text/plain"]])
        return Handle(shown[-1])

    ipython = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    return shown


def test_bar_in_a_notebook_is_one_output(notebook, capsys, monkeypatch):
    """verbose=2 overwrites its output; verbose=1 prints lines as elsewhere."""
    monkeypatch.setattr(progress, "_PAUSE", 0)
    X, y = classification(3)
    model = MLPClassifier(**SMALL, verbose=2).fit(X, y)
    assert capsys.readouterr().out == ""
    (texts,) = notebook
    assert len(texts) == model.n_iter_
    assert texts[-1].startswith(f"[{'#' * 24}] 4/4, loss = {model.loss_:.6f}")
    MLPClassifier(**SMALL, verbose=1).fit(X, y)
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert len(notebook) == 1


def test_callback_for_notebooks_is_one_output_for_all_fits(notebook, capsys):
    """A search shows one line, not one for each of its fits."""
    X, y = classification(3)
    callback = NotebookProgress()
    model = MLPClassifier(**SMALL).set_callbacks(callback)
    GridSearchCV(model, {"alpha": [0.1, 1.0]}, cv=2).fit(X, y)
    (texts,) = notebook
    assert texts[-1].startswith(f"[{'#' * 24}] 4/4")
    assert len(texts) >= 5
    pickle.loads(pickle.dumps(callback))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.00 s"), (0.314, "0.31 s"), (9.994, "9.99 s"), (9.996, "10.0 s"), (59.94, "59.9 s"), (59.96, "1 min 00 s"),
     (245, "4 min 05 s"), (3599.4, "59 min 59 s"), (3599.6, "1 h 00 min"), (7629, "2 h 07 min"),
     (90000, "25 h 00 min")],
)  # fmt: skip
def test_duration_in_words(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize("verbose", [1, 2])
def test_program_without_a_console(verbose, monkeypatch):
    """sys.stdout is None there, or an object that can write and no more."""
    X, y = classification(2)
    monkeypatch.setattr(sys, "stdout", None)
    MLPClassifier((4,), max_iter=2, verbose=verbose).fit(X, y)
    written = []
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(write=written.append))
    MLPClassifier((4,), max_iter=2, verbose=verbose).fit(X, y)
    assert len(written) >= 2
