"""Writes docs/methods.md: names from the tables of the C and Python code, formulas from the reference's docstrings.

Run ``python -P docs/_ext/methods_page.py`` after adding a method; tests/docs/test_docs.py compares the page with the
code.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from sklearn.neural_network import MLPClassifier as SklearnClassifier

from fastmlp import MLPClassifier, MLPRegressor, core, reference
from fastmlp.network.initialisers import PAIRS, WEIGHT_INITIALISERS
from fastmlp.training.schedules import CURVES, SCHEDULES
from fastmlp.training.solvers import STOCHASTIC_SOLVERS

# The solver 'sgd' uses one of these rules, depending on its parameters.
_SGD_VARIANTS = {"sgd": "sgd, momentum=0", "sgd_momentum": "sgd, nesterovs_momentum=False", "sgd_nesterov": "sgd"}


def _doc(thing: Any) -> str:
    text = inspect.getdoc(thing)
    assert text is not None, f"{thing} has no docstring"
    return text


def _words(function: Any) -> str:
    """A docstring in one line, all its paragraphs included."""
    return " ".join(_doc(function).split())


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """The lines of a Markdown table; bars inside formulas are escaped."""
    head = list(head)
    yield "| " + " | ".join(head) + " |"
    yield "| " + " | ".join("---" for _ in head) + " |"
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
    yield ""


def _curve(name: str) -> list[str]:
    """A schedule's row: name, object with its defaults, formula."""
    curve: Any = CURVES[name]()
    defaults = ", ".join(f"{field.name}={getattr(curve, field.name)!r}" for field in fields(curve))
    formula = _doc(type(curve)).split("\n\n")[0]
    return [f"`{name}`", f"`{type(curve).__name__}({defaults})`", " ".join(formula.split())]


def methods() -> str:
    """The text of the page."""
    lines = [
        "# Methods",
        "",
        "Every activation, loss, solver, schedule and initializer with its formula. The formulas come from "
        "[`fastmlp/reference`](../fastmlp/reference),",
        "the NumPy implementation against which every compiled kernel is tested; the papers are cited there.",
        "",
        "## Activations (`activation`)",
        "",
        *_table(
            ("name", "formula", "derivative"),
            ([f"`{name}`", *map(_words, reference.ACTIVATIONS[name])] for name in core.ACTIVATIONS),
        ),
        "## Losses",
        "",
        "`log_loss` and `binary_log_loss` are the classifier's, the others the regressor's `loss`; k is `huber_delta` "
        "or `quantile`.",
        "",
        *_table(
            ("name", "output activation", "value of a row", "its derivative"),
            (
                [f"`{name}`", f"`{output}`", *map(_words, reference.LOSSES[name][1:])]
                for name, output in core.LOSSES.items()
            ),
        ),
        "## Solvers (`solver`)",
        "",
        "g is the gradient, penalty included. `lbfgs` is SciPy's L-BFGS-B on all rows at once.",
        "",
        *_table(
            ("name", "rule"),
            (
                [f"`{_SGD_VARIANTS.get(rule, rule)}`", _words(reference.OPTIMIZERS[rule][1])]
                for rule in core.OPTIMIZERS
                if rule in STOCHASTIC_SOLVERS or rule in _SGD_VARIANTS
            ),
        ),
        "## Learning rates (`learning_rate`)",
        "",
        "By name with these defaults, as an object with others, or any function (step, n_steps) -> factor:",
        "",
        *_table(("name", "object", "factor on learning_rate_init"), map(_curve, CURVES)),
        "scikit-learn's, for sgd only:",
        "",
        *_table(("name", "rule"), ([f"`{name}`", _words(schedule)] for name, schedule in SCHEDULES.items())),
        "## Initial values (`weight_init`, `bias_init`)",
        "",
        *_table(("name", "in a layer of 256 x 128"), map(_initial, WEIGHT_INITIALISERS)),
        "Or a pair: "
        + ", ".join(f"`({name!r}, {number})`" for name, (number, _, _) in PAIRS.items())
        + "; or a function",
        "(fan_in, fan_out, rng) that returns an array.",
        "",
        "## Parameters that scikit-learn does not have",
        "",
        *_table(("parameter", "values", "what it does"), _parameters()),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _parameters() -> Iterator[list[str]]:
    """Rows from the estimators' docstrings: each parameter that scikit-learn's estimators lack."""
    upstream = set(SklearnClassifier().get_params()) | {"loss"}
    seen: set[str] = set()
    for estimator in (MLPClassifier, MLPRegressor):
        text = _doc(estimator).split("Attributes\n")[0]
        own = set(estimator().get_params()) - upstream - seen
        for names, values, words in re.findall(
            r"^(\w[\w, ]*) : ((?:.|\n(?! ))*)\n((?: {4}.*\n)+)", text, flags=re.MULTILINE
        ):
            if own & set(names.split(", ")):
                yield [f"`{names}`", " ".join(values.replace("\\", "").split()), " ".join(words.split())]
        seen |= own


def _initial(name: str) -> list[str]:
    """An initializer's row: its distribution, with the numbers of a layer of 256 x 128."""
    if name not in reference.INITIALISERS:
        words = {
            "auto": "as scikit-learn: glorot_uniform, with a smaller bound for logistic",
            "orthogonal": _words(reference.orthogonal),
        }
        return [f"`{name}`", words[name]]
    kind, size = reference.INITIALISERS[name]
    number = float(size(256, 128))
    return [
        f"`{name}`",
        f"uniform(-r, r), r = {number:.4f}" if kind == "uniform" else f"normal, standard deviation {number:.4f}",
    ]


if __name__ == "__main__":
    (Path(__file__).parents[1] / "methods.md").write_text(methods())
