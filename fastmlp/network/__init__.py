"""Networks: architecture and parameters, initial values, growing, files."""

from __future__ import annotations

from fastmlp.network.network import Network

__all__ = ["Network"]
