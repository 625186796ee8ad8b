"""docs/scikit-learn.md has every parameter, attribute and method of the scikit-learn that is installed, and what it
says is so."""

from __future__ import annotations

import inspect
import re
from numbers import Real
from pathlib import Path

import pytest
from helpers import classification, regression
from sklearn import __version__ as sklearn_version
from sklearn import neural_network as sklearn_mlp
from sklearn.utils.fixes import parse_version

import fastmlp

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

PAGE = (Path(__file__).parents[2] / "docs" / "scikit-learn.md").read_text()
NAMES = ("MLPClassifier", "MLPRegressor")
# The page is about this release; an older one has less.
IS_OLD = parse_version(sklearn_version) < parse_version("1.9")


def rows(head):
    """The table under a heading: name -> verdict."""
    section = PAGE.split(f"## {head}\n")[1].split("\n## ")[0]
    found = re.findall(r"^\| `(\w+)` \| (same|more|different) \|(.*)\|$", section, flags=re.MULTILINE)
    assert len(found) == section.count("\n| `")
    assert all(why.strip() for _, verdict, why in found if verdict != "same")
    return {name: verdict for name, verdict, _ in found}


def fitted(module, name):
    """Estimators fitted in each way that leaves attributes of its own."""
    pandas = pytest.importorskip("pandas")
    X, y = classification(3) if name == "MLPClassifier" else regression()
    frame = pandas.DataFrame(X).add_prefix("x")
    for settings in ({}, {"solver": "lbfgs"}, {"early_stopping": True}):
        yield getattr(module, name)(hidden_layer_sizes=(5,), max_iter=3, random_state=0, **settings).fit(frame, y)


def kind(value):
    """The type; one for all numbers."""
    return Real if isinstance(value, Real) else type(value)


def public(thing, trailing):
    """Public names, those with an underscore at the end or the others."""
    return {name for name in dir(thing) if not name.startswith("_") and name.endswith("_") == trailing}


def assert_complete(listed, expected):
    """All of what scikit-learn has, and nothing else, unless the page is about a newer one."""
    assert expected <= set(listed)
    assert IS_OLD or expected == set(listed)


def test_page_has_every_parameter():
    """With the same default here, whatever the verdict."""
    signatures = {
        name: [inspect.signature(getattr(module, name)).parameters for module in (sklearn_mlp, fastmlp)]
        for name in NAMES
    }
    assert_complete(rows("Parameters"), set().union(*(theirs for theirs, _ in signatures.values())))
    for theirs, ours in signatures.values():
        for name, parameter in theirs.items():
            assert (ours[name].default, ours[name].kind) == (parameter.default, parameter.kind)


def test_page_has_every_attribute():
    """Each of them is there after the same fit, and of the same type."""
    expected = set()
    for name in NAMES:
        for theirs, ours in zip(fitted(sklearn_mlp, name), fitted(fastmlp, name), strict=True):
            attributes = public(theirs, trailing=True)
            expected |= attributes
            for attribute in attributes:
                assert kind(getattr(ours, attribute)) is kind(getattr(theirs, attribute)), attribute
    assert_complete(rows("Attributes"), expected)


def test_page_has_every_method():
    expected = set()
    for name in NAMES:
        theirs = getattr(sklearn_mlp, name)
        expected |= {method for method in public(theirs, trailing=False) if callable(getattr(theirs, method))}
    assert_complete(rows("Methods"), expected)
    assert all(hasattr(fastmlp.MLPClassifier, method) for method in rows("Methods"))


@pytest.mark.parametrize("name", NAMES)
def test_page_knows_what_takes_more(name):
    """'same' parameters take the very values that scikit-learn's take; 'more' ones take others too."""
    theirs, ours = (getattr(module, name)._parameter_constraints for module in (sklearn_mlp, fastmlp))
    verdicts = rows("Parameters")
    for parameter in set(theirs) & set(ours):
        same = sorted(map(str, theirs[parameter])) == sorted(map(str, ours[parameter]))
        if verdicts[parameter] == "same":
            assert options(theirs[parameter]) == options(ours[parameter]), parameter
        if verdicts[parameter] == "more":
            assert not same, parameter


def options(constraints):
    """The words that a parameter may be."""
    return set().union(*(getattr(constraint, "options", set()) for constraint in constraints))
