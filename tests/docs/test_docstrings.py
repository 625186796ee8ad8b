"""Docstrings of the public interface: in numpydoc's form, naming what the signatures name, with examples that run."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import matplotlib
import pytest
from numpydoc.validate import ERROR_MSGS, validate

import fastmlp
import fastmlp.interop

# All of numpydoc's checks but these.
NOT_ASKED = {
    "GL01",  # the summary stands on the line of the quotes
    "ES01", "SA01", "EX01",  # an extended summary, see also, examples: where they help
    "SS02", "SS05",  # a summary may open with a formula, and with a noun that ends in s
    "PR04",  # "X, y : As in fit" needs no types
    "PR08",  # a description may open with the name of a type
    "RT03",  # "self", or an array's shape, says all there is to say
}  # fmt: skip
CHECKS = sorted(set(ERROR_MSGS) - NOT_ASKED)


def ours(member: Any) -> bool:
    """Whether a class's attribute is a method or property that is defined in fastmlp."""
    function = (
        member.fget if isinstance(member, property) else getattr(member, "fn", getattr(member, "__func__", member))
    )
    return callable(function) and (getattr(function, "__module__", None) or "").split(".")[0] == "fastmlp"


def public() -> Iterator[str]:
    """Dotted names of all that users are told of, methods and properties included."""
    names = [f"fastmlp.{name}" for name in fastmlp.__all__ if not name.startswith("_")]
    names += [f"fastmlp.interop.{name}" for name in fastmlp.interop.__all__]
    for name in names:
        yield name
        thing: Any = fastmlp
        for part in name.split(".")[1:]:
            thing = getattr(thing, part)
        if inspect.isclass(thing):
            members = {member for cls in thing.__mro__ for member, value in vars(cls).items() if ours(value)}
            yield from (f"{name}.{member}" for member in sorted(members) if not member.startswith("_"))


NAMES = list(public())


def test_public_interface_was_found():
    """Methods of its own, inherited ones, conditional ones and properties among it."""
    assert {
        "fastmlp.MLPClassifier", "fastmlp.MLPClassifier.fit", "fastmlp.MLPClassifier.partial_fit",
        "fastmlp.MLPRegressor.coefs_",
        "fastmlp.Network.forward", "fastmlp.learning_rate_range", "fastmlp.LossCurveDisplay.from_estimator",
    } <= set(NAMES)  # fmt: skip
    assert not any(name.endswith(".get_params") for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_docstring_is_valid(name: str):
    """Sections in their order, parameters as in the signature, each of them described, and the returned values."""
    errors = [f"{code}: {words}" for code, words in validate(name)["errors"] if code in CHECKS]
    assert not errors


def runs(test: doctest.DocTest) -> bool:
    """Whether what the examples import is installed."""
    lines = [example.source.split() for example in test.examples]
    return all(find_spec(words[1]) for words in lines if words[:1] == ["import"] and "." not in words[1])


def with_examples() -> Iterator[Any]:
    finder = doctest.DocTestFinder(recurse=False)
    for name in NAMES:
        thing: Any = fastmlp
        for part in name.split(".")[1:]:
            thing = getattr(thing, part)
        for test in finder.find(thing, name, globs={}):
            if test.examples and runs(test):
                yield pytest.param(test, id=name)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("test", list(with_examples()))
def test_docstring_examples_run(test: doctest.DocTest, tmp_path, monkeypatch: pytest.MonkeyPatch):
    """They print what they say they print."""
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    told: list[str] = []
    results = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=told.append)
    assert results.attempted
    assert not results.failed, "".join(told)
