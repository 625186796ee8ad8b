"""Networks: architecture and parameters, initial values, growing, files. NumPy and the compiled core only: it imports fast."""

from __future__ import annotations

from fastmlp.network.network import Network

__all__ = ["Network"]
