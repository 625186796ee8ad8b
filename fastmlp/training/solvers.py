"""Solvers: their names, the update rule of each, and the constants of the rules.

The arithmetic is in the compiled core (csrc/optimizers.def) and, to read, in ``reference``; names come from the core's table.
"""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Hyperparameters:
    """Constants of the update rules and of the penalty; each rule reads its own.

    Parameters
    ----------
    momentum, beta_1, beta_2, rho : float
        Decay rates: of the velocity, of adam's two moments, of rmsprop's squared gradient.
    epsilon : float
        Keeps denominators from zero.
    alpha, l1_ratio : float
        Penalty alpha (l1_ratio sum |W| + (1 - l1_ratio) / 2 sum W^2).
    weight_decay : float
        Each update of adamw also subtracts learning rate * weight_decay * W from the weights, not the biases.
    """

    momentum: float = 0.9
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    rho: float = 0.9
    alpha: float = 0.0
    l1_ratio: float = 0.0
    weight_decay: float = 0.0
