"""The mathematics of fastmlp in plain NumPy float64: an executable specification.

Read it to know what the compiled code must compute. It is written to be read, not to be fast, and shares no code with
what it checks: it imports NumPy only.

Letters: B batch rows, I fan-in, O fan-out; x, W (I, O), b (O,), z = x W + b, a = f(z); dz, dW, db are
derivatives of the batch's loss. Layer l = 0 .. L-1; ``coefs[l]`` is W of layer l, ``intercepts[l]`` its b.
A formula that follows scikit-learn rather than the textbook says so.

    functions   activations, losses
    updates     update rules, learning rates
    codes       the first layer on coded rows
    members     several networks on one's weights
    training    networks, gradients, random numbers by position, epochs
"""

# ruff: noqa: F403
from fastmlp.reference.codes import *
from fastmlp.reference.functions import *
from fastmlp.reference.members import *
from fastmlp.reference.training import *
from fastmlp.reference.updates import *
