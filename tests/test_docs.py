"""What is written about the code is what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastmlp import MLPClassifier, MLPRegressor, _core, tables
from fastmlp.optimizers import CURVES, SCHEDULES, SOLVERS

ROOT = Path(__file__).parent.parent


def test_methods_page_is_the_codes():
    """docs/methods.md is what `python -m fastmlp methods` prints."""
    assert (ROOT / "docs" / "methods.md").read_text() == tables.methods()


@pytest.mark.parametrize("estimator", [MLPClassifier, MLPRegressor])
def test_docstring_names_every_parameter(estimator):
    """No parameter without a word on it, and none that is gone."""
    text = estimator.__doc__.split("Attributes\n")[0]
    for name in estimator().get_params():
        assert name in text, name


@pytest.mark.parametrize("names", [_core.ACTIVATIONS, SOLVERS, SCHEDULES, CURVES], ids=["activation", "solver", "schedule", "curve"])
def test_docstring_names_every_value(names):
    """Activations, solvers, learning rates: what the docstring lists is what there is."""
    for name in names:
        assert f"'{name}'" in MLPClassifier.__doc__, name


def test_regressor_lists_its_losses():
    for loss, output in _core.LOSSES.items():
        assert (f"'{loss}'" in MLPRegressor.__doc__) == (output in ("identity", "exp"))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_readme_runs(capsys):
    """README's Python from the top, in one session."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    session: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), session)
    accuracy = float(re.search(r"test accuracy (0\.\d+)", capsys.readouterr().out)[1])
    assert len(blocks) >= 5
    assert accuracy > 0.95
