"""Functions of the user: whether they take the arguments that they will get."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def check_takes(
    argument: str, function: Callable[..., Any], names: tuple[str, ...], result: str, keywords: tuple[str, ...] = ()
) -> None:
    """Raise a TypeError if a user's function cannot be called with arguments of these names, by position.

    Parameters
    ----------
    argument : str
        The parameter that holds the function, for the message.
    function : callable
    names : tuple of str
    result : str
        What it returns, in a word.
    keywords : tuple of str, default=()
        Names of further arguments, which it may have, and then gets by name.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some of those in C have none
        return
    try:
        signature.bind(*names, **{name: None for name in keywords if name in signature.parameters})
    except TypeError as error:
        name = getattr(function, "__name__", type(function).__name__)
        raise TypeError(
            f"{argument} must be a function ({', '.join(names)}) -> {result}, got {name}{signature}: {error}."
        ) from None
