"""python -m fastmlp."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import rest_slow

import fastmlp
from fastmlp import __main__ as command_line
from fastmlp import core
from fastmlp.check import Outcome


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """A function that calls the command with arguments; it returns the exit status and what was printed."""

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["fastmlp", *arguments])
        status = command_line.main()
        return status, capsys.readouterr().out

    return call


def outcomes(*errors: float):
    """A run_all with an outcome for each error, all with bound 1, and an exact operation."""

    def run_all():
        for i, error in enumerate(errors):
            yield f"operation {i}", "avx2", "float32", Outcome(error, 1.0, "ulp")
        yield "gather", "base", "float64", Outcome(0.0, 0.0, "exact")

    return run_all


def test_module_runs_from_any_folder(tmp_path: Path):
    done = subprocess.run([sys.executable, "-P", "-m", "fastmlp", "--version"], cwd=tmp_path, capture_output=True)
    assert done.stdout.decode().split() == ["fastmlp", fastmlp.__version__]
    assert done.returncode == 0


def test_help_without_arguments(run):
    status, text = run()
    assert status == 0
    assert all(re.search(rf"^    {name} ", text, re.MULTILINE) for name in ("info", "check", "demo"))


def test_unknown_command_is_an_error(run, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        run("chekc")
    assert left.value.code == 2
    assert "chekc" in capsys.readouterr().err


def test_info_is_show_config(run, capsys: pytest.CaptureFixture[str]):
    status, text = run("info")
    fastmlp.show_config()
    assert (status, text) == (0, capsys.readouterr().out)


@pytest.mark.parametrize("small", rest_slow([True, False], True))
def test_check_summary(run, small, monkeypatch: pytest.MonkeyPatch):
    """One line per instruction set and type of this CPU; the last line counts."""
    if small:
        monkeypatch.setattr("fastmlp.check.CHECK_SHAPE", (9, 7, 5))
    status, text = run("check")
    assert status == 0
    _, *rows, last = text.splitlines()
    pairs = [tuple(row.split()[:2]) for row in rows if not row.startswith("not checked")]
    assert pairs == [(isa, dtype) for isa in core.info()["available"] for dtype in core.info()["dtypes"]]
    checks = sum(int(row.split()[2]) for row in rows if not row.startswith("not checked"))
    assert last == f"{checks} passed, 0 failed"


def test_check_verbose_has_a_row_per_check(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fastmlp.check.run_all", outcomes(0.25, 0.5))
    status, text = run("check", "--verbose")
    assert status == 0
    assert text.splitlines()[-1] == "3 passed, 0 failed"
    assert len(re.findall(r" (?:ulp|n eps|exact)$", text, re.MULTILINE)) == 3


@pytest.mark.parametrize("arguments", [(), ("--verbose",)])
def test_check_shows_each_failure(run, monkeypatch: pytest.MonkeyPatch, arguments):
    monkeypatch.setattr("fastmlp.check.run_all", outcomes(0.5, 3.0, 7.0))
    status, text = run("check", *arguments)
    assert status == 1
    failed = [line for line in text.splitlines() if line.endswith("FAILED")]
    assert [line.split()[:5] for line in failed] == [
        ["operation", "1", "avx2", "float32", "3"],
        ["operation", "2", "avx2", "float32", "7"],
    ]
    assert text.splitlines()[-1] == "2 passed, 2 failed"


def test_check_summary_of_errors(run, monkeypatch: pytest.MonkeyPatch):
    """The largest error of each group, as a fraction of its bound."""
    monkeypatch.setattr("fastmlp.check.run_all", outcomes(0.25, 0.5))
    _, text = run("check")
    assert [line.split() for line in text.splitlines()[1:3]] == [
        ["avx2", "float32", "2", "0.5"],
        ["base", "float64", "1", "0"],
    ]


def test_demo_compares_and_writes_nothing(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    status, text = run("demo")
    assert status == 0
    assert not list(tmp_path.iterdir())
    accuracy = {row[0]: float(row[-1]) for row in map(str.split, text.splitlines()[-2:])}
    assert set(accuracy) == {"fastmlp", "scikit-learn"}
    assert accuracy["fastmlp"] > 0.95


def test_demo_plot(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("sklearn.neural_network.MLPClassifier", fastmlp.MLPClassifier)  # its own takes longer
    picture = tmp_path / "loss.png"
    status, text = run("demo", "--plot", str(picture))
    assert status == 0
    assert str(picture) in text
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_demo_plot_without_matplotlib(monkeypatch: pytest.MonkeyPatch, run):
    """An error before anything is trained."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    status, text = run("demo", "--plot", "loss.png")
    assert (status, text) == (2, "")
