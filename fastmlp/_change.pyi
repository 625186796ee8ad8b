"""Stub of _change.pyx: one change at a time, all or nothing."""

from types import TracebackType
from typing import Any

class Change:
    def __init__(self, subject: Any) -> None: ...
    def __enter__(self) -> Any: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
