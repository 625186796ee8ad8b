"""Several members on one network's weights: a dense network for each of them, on the dense encoding of coded rows.

All members share the embedding W (I, d) of the F features and its b (F d,), and the hidden layers. Member m multiplies
the embedding of feature f by scalings[m, f], and has its own output layer (Gorishniy, Kotelnikov and Babenko, ICLR
2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastmlp.reference.codes import Counts, dense_embedding, embedding_gradient, scale_features
from fastmlp.reference.functions import ACTIVATIONS, Array
from fastmlp.reference.training import (
    PLAIN,
    Layers,
    Method,
    gradients,
    new_model,
    output_function,
    penalty,
    penalty_gradient,
    predict,
)


class Members(NamedTuple):
    """``coefs[0]`` (I, d) and ``intercepts[0]`` (F d,) are the embedding's, ``coefs[-1]`` (k, H, O) and
    ``intercepts[-1]`` (k, O) the output layers'. ``scalings`` (k, F) are given, not learnt."""

    coefs: Layers
    intercepts: Layers
    scalings: Array
    bin_counts: Counts
    category_counts: Counts

    def dense(self, m: int) -> tuple[Layers, Layers]:
        """Weights and intercepts of member m. The embedding has no activation, so that its scalings go into its
        weights."""
        W = scale_features(dense_embedding(self.coefs[0], self.bin_counts, self.category_counts), self.scalings[m])
        b = scale_features(self.intercepts[0][np.newaxis], self.scalings[m])[0]
        return [W, *self.coefs[1:-1], self.coefs[-1][m]], [b, *self.intercepts[1:-1], self.intercepts[-1][m]]


def patterns(scalings: Array) -> Array:
    """Of each feature, the number of its column of scalings (k, F) among the different ones, in the order of their
    first features."""
    _, first, of = np.unique(scalings, axis=1, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[of.ravel()]


def member_products(x: Array, W: Array, b: Array, scalings: Array) -> Array:
    """(k, B, O): each member's scalings times the embedding x (B, F d), times W, plus b."""
    return np.stack([scale_features(x, s) @ W + b for s in scalings])


def sum_members(dz: Array, scalings: Array) -> Array:
    """(F, B, O): for each feature, the sum of the members' dz (k, B, O) times their scalings of it."""
    return np.einsum("mf,mbo->fbo", scalings, dz)


def predict_members(members: Members, activations: Sequence[str], output: str, X: Array) -> Array:
    """The output activation (B, O) of the mean of the members' logits, for encoded rows X (B, I). The first of the
    activations is the embedding's, identity."""
    logits = [
        predict(new_model(*members.dense(m), "gradient"), activations, "identity", X)
        for m in range(len(members.scalings))
    ]
    return output_function(output)(np.mean(logits, axis=0))


def member_gradients(
    members: Members,
    activations: Sequence[str],
    loss: str,
    X: Array,
    y: Array,
    sample_weight: Array | None = None,
    method: Method = PLAIN,
    step: int = 1,
) -> tuple[float, Layers]:
    """J = the mean over the members of sum_i s_i loss_i / S, plus the penalty of all weights / S; and the gradient by
    ``coefs`` and ``intercepts``. Member m's rows are numbers m B .. (m + 1) B in the draws of dropout; that of the
    embedding is the same for all.
    """
    assert ACTIVATIONS[activations[0]] is ACTIVATIONS["identity"]
    k, n_layers, d = len(members.scalings), len(members.coefs), members.coefs[0].shape[1]
    S = len(X) if sample_weight is None or method.loss_reduction == "mean" else np.sum(sample_weight)
    bare = method._replace(alpha=0.0)
    J = penalty(members.coefs, method) / S
    dW = [penalty_gradient(W, method) / S for W in members.coefs]
    db = [np.zeros_like(b) for b in members.intercepts]
    for m, s in enumerate(members.scalings):
        model = new_model(*members.dense(m), "gradient")
        found = gradients(model, activations, loss, X, y, sample_weight, bare._replace(first_row=m * len(X)), step)
        own = [part / k for part in found.parameters]
        J += found.loss / k
        own[0] = embedding_gradient(scale_features(own[0], s), d, members.bin_counts, members.category_counts)
        own[n_layers] = scale_features(own[n_layers][np.newaxis], s)[0]
        for sums, parts in ((dW, own[:n_layers]), (db, own[n_layers:])):
            for layer, part in enumerate(parts[:-1]):
                sums[layer] = sums[layer] + part
            sums[-1][m] += parts[-1]
    return float(J), dW + db
