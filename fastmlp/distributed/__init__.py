"""Rows that one machine's memory does not hold."""

from __future__ import annotations

from fastmlp.distributed.blocks import Blocks

__all__ = ["Blocks"]
