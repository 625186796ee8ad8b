"""Solvers: their names and the update rule of each.

The arithmetic is in the compiled core (csrc/optimizers.def) and, to read, in ``reference``; names come from the core's
table.
"""

from __future__ import annotations

import fastmlp.core as core

# 'sgd' has a rule for each form of momentum, sgd_<form> in the core. 'gradient' trains nothing: it stores the gradient.
# Every other rule is a solver.
SGD = "sgd"
_GRADIENT = "gradient"

STOCHASTIC_SOLVERS: tuple[str, ...] = tuple(
    rule for rule in core.OPTIMIZERS if rule != _GRADIENT and not rule.startswith(SGD + "_")
)
SOLVERS: tuple[str, ...] = ("lbfgs", *STOCHASTIC_SOLVERS)


def update_rule(solver: str, momentum: float, nesterov: bool) -> str:
    """The core's update rule for a stochastic solver: the solver's own name, except for sgd with momentum."""
    if solver != SGD or momentum == 0:
        return str(solver)  # the core does not take NumPy's subclass of str
    return "sgd_nesterov" if nesterov else "sgd_momentum"
