"""The compiled core: dispatch, prediction and training on threads. It needs NumPy only."""

from __future__ import annotations

try:
    from fastmlp.core._arrays import Bins, CodeLayout, Codes, Reserve
    from fastmlp.core._atomic import AtomicUpdate, commit
    from fastmlp.core._dispatch import (
        ACTIVATIONS,
        HYPERPARAMETERS,
        LOSSES,
        NORM_EPSILON,
        OPTIMIZERS,
        OUTPUTS,
        info,
        max_threads,
        peak_gflops,
    )
    from fastmlp.core._plan import ParameterLayout, Plan, parameter_layout
    from fastmlp.core._predict import CodedRowForward, RowForward, apply_output, bin_sums, forward, row_losses
    from fastmlp.core._shuffle import shuffle
    from fastmlp.core._trainer import Cancelled, Trainer
    from fastmlp.core._workspace import OptimizerPanels
except ModuleNotFoundError as error:
    raise ImportError(
        f"fastmlp's compiled modules are not in {__path__[0]}. If that is a checkout, Python found it before the "
        "installed package: run from another folder or with python -P, or build in place with pip install --editable ."
    ) from error

__all__ = [
    "ACTIVATIONS",
    "HYPERPARAMETERS",
    "LOSSES",
    "NORM_EPSILON",
    "OPTIMIZERS",
    "OUTPUTS",
    "AtomicUpdate",
    "Bins",
    "Cancelled",
    "CodeLayout",
    "CodedRowForward",
    "Codes",
    "OptimizerPanels",
    "ParameterLayout",
    "Plan",
    "Reserve",
    "RowForward",
    "Trainer",
    "apply_output",
    "bin_sums",
    "commit",
    "forward",
    "info",
    "max_threads",
    "parameter_layout",
    "peak_gflops",
    "row_losses",
    "shuffle",
]
