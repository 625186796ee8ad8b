"""Docstrings, README and docs/ agree with the code, and their blocks run."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from fastmlp import MLPClassifier, MLPRegressor, core
from fastmlp.training.schedules import CURVES, SCHEDULES
from fastmlp.training.solvers import SOLVERS

ROOT = Path(__file__).parents[2]


def test_methods_page_is_the_codes():
    """docs/methods.md is what docs/_ext/methods_page.py writes."""
    page = runpy.run_path(str(ROOT / "docs" / "_ext" / "methods_page.py"))
    assert (ROOT / "docs" / "methods.md").read_text() == page["methods"]()


@pytest.mark.parametrize("estimator", [MLPClassifier, MLPRegressor])
def test_docstring_names_every_parameter(estimator):
    """No parameter without a word on it, and none that is gone."""
    text = estimator.__doc__.split("Attributes\n")[0]
    for name in estimator().get_params():
        assert name in text, name


@pytest.mark.parametrize(
    "names", [core.ACTIVATIONS, SOLVERS, SCHEDULES, CURVES], ids=["activation", "solver", "schedule", "curve"]
)
def test_docstring_names_every_value(names):
    """Activations, solvers, learning rates: what the docstring lists is what there is."""
    for name in names:
        assert f"'{name}'" in MLPClassifier.__doc__, name


def test_regressor_lists_its_losses():
    for loss, output in core.LOSSES.items():
        assert (f"'{loss}'" in MLPRegressor.__doc__) == (output in ("identity", "exp"))


# --- code in README and docs/ ----------------------------------------------------------------------------------

PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "developers").glob("*.md")),
]
# What no extra of ours for users or tests brings: its blocks run where it is installed.
PEERS = ("jax", "keras", "skl2onnx", "tensorflow", "torch")


def fenced(page: Path, *languages: str) -> list[tuple[int, str]]:
    """Line and text of a page's blocks of code in one of these languages."""
    text = page.read_text()
    blocks = re.finditer(r"^```(\w+)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return [(text.count("\n", 0, block.start(2)) + 1, block[2]) for block in blocks if block[1] in languages]


def shown_outputs(page: Path) -> dict[str, str]:
    """A block of Python -> the output that the page shows below it, in a block without a language."""
    return dict(
        re.findall(r"^```python\n(.*?)^```\n\n```\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    )


def peers_of(code: str) -> set[str]:
    """The packages of ``PEERS`` that a block imports."""
    return set(re.findall(rf"^\s*(?:import|from) ({'|'.join(PEERS)})\b", code, flags=re.MULTILINE))


# Pages that take seconds.
SLOW_PAGES = ("callbacks", "guide", "imbalance", "scikit-learn", "tables")
RUNS = [
    pytest.param(
        page, peer, id=page.stem + f"-{peer}" * bool(peer), marks=[pytest.mark.slow] * (page.stem in SLOW_PAGES)
    )
    for page in PAGES
    for peer in [None, *sorted(set().union(*(peers_of(code) for _, code in fenced(page, "python"))))]
    if fenced(page, "python")
]


@pytest.mark.filterwarnings("error::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("page", "peer"), RUNS)
def test_page_runs(page: Path, peer: str | None, tmp_path: Path, monkeypatch, capsys):
    """A page's Python from the top, in one session and an empty folder, without a ConvergenceWarning, prints what the
    page shows.

    README's blocks each stand alone. A peer's blocks take part where it is installed.
    """
    if peer:
        pytest.importorskip(peer, reason=f"{page.name} has blocks of {peer}, which is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    session: dict = {"__name__": "__main__"}
    outputs = shown_outputs(page)
    ran = 0
    for line, code in fenced(page, "python"):
        if page.name == "README.md":
            session = {"__name__": "__main__"}
        if peers_of(code) <= {peer}:
            # Lines before it, so that a traceback has the page's own numbers.
            exec(compile("\n" * (line - 1) + code, str(page), "exec"), session)
            printed = capsys.readouterr().out
            assert printed == outputs.get(code, printed), f"{page.name}, line {line}"
            ran += 1
    assert ran
    for name in re.findall(r"\]\(pictures/([\w.-]+)\)", page.read_text()):
        assert (tmp_path / name).exists(), f"{page.name}: no block saves {name}"


def test_readme_learns():
    """README's first network is as good as one is on these digits; that it prints what is shown is tested above."""
    shown = next(iter(shown_outputs(ROOT / "README.md").values()))
    assert float(re.search(r"test accuracy (0\.\d+)", shown)[1]) > 0.95


def test_python_is_marked_as_python():
    """Blocks that are not marked ``python`` are not run: none of them may be Python under another name."""
    for page in PAGES:
        assert not fenced(page, "py", "python3", "Python", "pycon", "ipython"), page.name


def test_shell_blocks_call_what_exists():
    """What a shell block asks make or ``python -m fastmlp`` for is there."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    commands = set(
        re.findall(r"^def (\w+)\(arguments", (ROOT / "fastmlp" / "__main__.py").read_text(), flags=re.MULTILINE)
    )
    shell = "\n".join(code for page in PAGES for _, code in fenced(page, "sh", "bash", "console"))
    prose = "\n".join(page.read_text() for page in PAGES)
    made = re.findall(r"^(?:\$ )?make ([a-z0-9-]+)", shell, flags=re.MULTILINE) + re.findall(
        r"`make ([a-z0-9-]+)", prose
    )
    asked = re.findall(r"python (?:-P )?-m fastmlp (\w+)", prose)
    assert made
    assert set(made) <= targets
    assert asked
    assert set(asked) <= commands


def test_links_lead_somewhere():
    """A relative link in README or docs/ goes to a file or folder of the repository."""
    found = 0
    for page in PAGES:
        for goal in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", page.read_text()):
            assert (page.parent / goal).exists(), f"{page.name}: {goal}"
            found += 1
    assert found


def test_pages_are_plain_markdown():
    """Directives and roles of Sphinx would show as they are on GitHub; docs/_ext adds them in the site's build."""
    for page in PAGES:
        assert not re.search(r"```\{|:::|\{[a-z:]+\}`", page.read_text()), page.name
