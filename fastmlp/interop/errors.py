"""The error of every conversion."""

from __future__ import annotations


class ConversionError(ValueError):
    """A model that the other form cannot hold exactly; the message names the part, and the way out."""
