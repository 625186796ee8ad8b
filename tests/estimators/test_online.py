"""Online learning: a call of partial_fit costs the same however many came before, and the record can be dropped."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from helpers import classification

from fastmlp import MLPClassifier, load
from fastmlp.estimators.callbacks import HAS_CALLBACKS

LISTS = ("history_", "loss_curve_")


@pytest.fixture
def trained():
    X, y = classification(2)
    model = MLPClassifier((4,), random_state=0)
    for row in range(5):
        model.partial_fit(X[row : row + 1], y[row : row + 1], classes=[0, 1])
    return model, X, y


class Uncopied(list):
    """A list that cannot be read as a whole."""

    def __iter__(self):
        raise AssertionError("the record was copied")

    __copy__ = copy = __iter__


@pytest.mark.parametrize("call", ["partial_fit", "fit"])
def test_record_is_appended_to(trained, call):
    """By partial_fit and by fit with warm_start: the list is the same, and nobody walks through it."""
    model, X, y = trained
    model.set_params(warm_start=True, max_iter=1)
    for name in LISTS:
        setattr(model, name, Uncopied(getattr(model, name)))
    before = [getattr(model, name) for name in LISTS]
    with pytest.warns() if call == "fit" else pytest.MonkeyPatch.context():
        getattr(model, call)(X, y)
    assert all(getattr(model, name) is kept and len(kept) == 6 for name, kept in zip(LISTS, before, strict=True))


@pytest.mark.skipif(not HAS_CALLBACKS, reason="callbacks need scikit-learn 1.9")
def test_failed_call_appends_nothing(trained):
    """Whatever fails, the lists keep their old elements, and are the same lists."""
    model, X, y = trained
    before = {name: getattr(model, name) for name in LISTS}
    elements = copy.deepcopy(before)

    class Fails:
        def setup(self, estimator, context): ...
        def on_fit_task_begin(self, estimator, context): ...
        def teardown(self, estimator, context): ...
        def on_fit_task_end(self, estimator, context):
            if context.task_id == 2:
                assert len(estimator.history_) > 5
                raise RuntimeError

    with pytest.raises(RuntimeError):
        model.set_params(warm_start=True).set_callbacks(Fails()).fit(X, y)
    with pytest.raises(ValueError, match="non-finite"):
        model.set_params(solver="sgd", learning_rate_init=1e300).partial_fit(X, y)
    assert {name: getattr(model, name) for name in LISTS} == elements
    assert all(getattr(model, name) is before[name] for name in LISTS)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_copy_has_a_record_of_its_own(trained, duplicate):
    model, X, y = trained
    other = duplicate(model).partial_fit(X, y)
    assert (len(model.history_), len(model.loss_curve_)) == (5, 5)
    assert (len(other.history_), len(other.loss_curve_)) == (6, 6)


def test_record_can_be_dropped(trained, tmp_path):
    """docs/data.md: clear the lists. Training goes on to the same bits, and pickles and files no longer hold them."""
    model, X, y = trained
    dropped = copy.deepcopy(model)
    dropped.history_.clear()
    dropped.loss_curve_.clear()
    assert len(pickle.dumps(dropped)) < len(pickle.dumps(model))
    dropped.save(tmp_path / "model", optimizer_state=True)
    expected = model.partial_fit(X, y)
    for one in (dropped, load(tmp_path / "model"), pickle.loads(pickle.dumps(dropped))):
        one.partial_fit(X, y)
        np.testing.assert_array_equal(one.network_.parameters, expected.network_.parameters)
        assert one.loss_curve_ == expected.loss_curve_[-1:]
        assert (one.n_iter_, one.t_) == (expected.n_iter_, expected.t_)
