"""Network: an architecture and its parameters, as plain NumPy arrays; forward pass and gradient.

It needs NumPy and the compiled core only, so a service that only predicts starts fast. Input is checked for shape and
type, not for values.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

import fastmlp.core as core
from fastmlp.core.memory import ALIGNMENT, aligned_copy, aligned_empty, all_finite, check_memory, refuse_masked
from fastmlp.network.initialisers import Draw, Layer, initialiser
from fastmlp.network.names import hint
from fastmlp.network.persistence import (
    IN_PARAMETERS,
    IN_STATISTICS,
    build_network,
    parameter_shapes,
    read,
    save_network,
)

# Rows of a selection that are copied, and predicted, at a time.
_BLOCK = 4096


class LazyRows:
    """Rows of X that ``Network.forward`` gets some at a time."""

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n_features)."""
        raise NotImplementedError

    @property
    def dtype(self) -> np.dtype:
        """float32 or float64."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.shape[0]

    def parts(self) -> Iterator[tuple[slice, Any]]:
        """All rows in their order: where some of them are, and an array, CSR matrix or ``fastmlp.core.Codes`` of
        these."""
        raise NotImplementedError


class SelectedRows(LazyRows):
    """Some rows of X, for ``Network.forward``, which copies a few of them at a time.

    Parameters
    ----------
    X : ndarray, CSR matrix or fastmlp.core.Codes of shape (n, n_features)
    rows : ndarray of shape (m,), intp
        Their indices, in the order of the result.
    """

    def __init__(self, X: Any, rows: np.ndarray) -> None:
        self.X = X
        self.rows = rows

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n_features)."""
        return len(self.rows), self.X.shape[1]

    @property
    def dtype(self) -> np.dtype:
        """That of X."""
        dtype: np.dtype = self.X.dtype
        return dtype

    def __getitem__(self, rows: Any) -> Any:
        """Copies of some of the rows."""
        return self.X[self.rows[rows]]

    def parts(self) -> Iterator[tuple[slice, Any]]:
        """Copies of a few rows at a time."""
        for first in range(0, len(self), _BLOCK):
            block = slice(first, first + _BLOCK)
            yield block, self[block]


class Network:
    """A multilayer perceptron: a(l) = f(a(l-1) W(l) + b(l)), with a(l-1) added where it is residual.

    Parameters
    ----------
    layer_sizes : sequence of int
        Units per layer, from input to output; at least two.
    activation : str or sequence of str, default='relu'
        Activation of the hidden layers: one name for all, or one name each. Names: ``fastmlp.core.ACTIVATIONS``.
    out_activation : str, default='softmax'
        Activation of the last layer: a name of ``fastmlp.core.OUTPUTS`` or of a hidden activation.
    dtype : {'float32', 'float64'}, default='float32'
        Element type of parameters, arithmetic and output.
    parameters : array-like of shape (n_parameters,), default=None
        Values to copy: all weights, layer by layer, each (fan_in, fan_out) in C order, then all biases, then, with
        batch normalisation, the scale of each hidden layer, and with several members their scalings.
        None draws them: layer by layer, first the weights, then the biases.
    random_state : None, int, numpy.random.RandomState or numpy.random.Generator, default=None
        Source of the initial parameters.
    weight_init : str, (str, float) or callable, default='auto'
        'auto': uniform(-r, r), r = sqrt(6 / (fan_in + fan_out)), or with 2 instead of 6 for a layer with a logistic
        activation (Glorot and Bengio, AISTATS 2010, as scikit-learn applies it). 'glorot_uniform' (always 6),
        'glorot_normal', 'he_uniform', 'he_normal', 'lecun_normal', 'orthogonal': ``fastmlp.network.initialisers`` has
        formulas and sources. ('normal', std), ('uniform', bound), ('constant', value): the same for all layers. A
        callable (fan_in, fan_out, rng) returns an array (fan_in, fan_out), drawn with ``rng``.
    bias_init : str, (str, float) or callable, default='auto'
        The same but for 'orthogonal', with the layer's fan_in and fan_out; a callable returns an array (fan_out,).
        With batch normalisation, 'auto' sets the biases of hidden layers to 0.
    batch_norm : bool, default=False
        Normalise the product of each hidden layer over the batch before its activation: z = scale (x W - mean) /
        sqrt(variance + 1e-5) + b (Ioffe and Szegedy, ICML 2015). b is the shift; the product has no bias of its own,
        since the mean would cancel it. ``loss_gradient`` uses the batch's averages, ``forward`` those in
        ``statistics``.
    residual : bool, default=False
        A hidden layer that is as wide as its input adds the input to its output (He, Zhang, Ren and Sun, CVPR 2016).
    statistics : array-like of shape (n_statistics,), default=None
        Running averages to copy: the means of all hidden layers, then their variances. None: zeros and ones.
    embedding : int, default=0
        Units of the first layer for each feature of coded rows (``fastmlp.core.Codes``), a multiple of 16: the first
        layer's units ``f * embedding`` to ``(f + 1) * embedding`` are connected to feature f only, and
        ``layer_sizes[1]`` is the number of features times ``embedding`` (Gorishniy, Rubachev and Babenko, NeurIPS
        2022). 0: a dense layer.
    n_members : int, default=1
        Networks that share all layers but the last. Each multiplies the embeddings of the features by scalings of its
        own, and has an output layer of its own. The first member's scalings are 1, the others' are drawn as 1 or -1;
        they stay as they are. The loss is the mean of the members'; the output activation is applied to the mean of
        their logits (Gorishniy, Kotelnikov and Babenko, ICLR 2025, who learn the scalings and average probabilities).
        Several need an embedding and a hidden layer behind it, which multiplies features of equal scalings together: 2
        or 4 members cost little more than one there.

    Attributes
    ----------
    parameters : ndarray of shape (n_parameters,)
        All parameters, in one array that starts on a cache line. Writing into it changes the network.
    coefs, intercepts : list of ndarray
        Views of ``parameters``, shapes (fan_in, fan_out) and (fan_out,). Of an embedding, the weights are (fan_in,
        embedding); of several members' output layers, the shapes are (n_members, fan_in, fan_out) and (n_members,
        fan_out).
    scales, means, variances : list of ndarray
        Of each hidden layer (fan_out,), empty without batch normalisation; views of ``parameters`` and ``statistics``.
    scalings : list of ndarray
        One view of ``parameters``, of shape (n_members, n_features), and none with one member.
    statistics : ndarray of shape (n_statistics,)
        Running averages; empty without batch normalisation.
    layer_sizes, activations : tuple
        Units per layer; activation per hidden layer.
    out_activation : str
    dtype : numpy.dtype

    Raises
    ------
    ValueError
        For an unknown name, a size below 1, parameters of another length, or a ``weight_init`` or ``bias_init`` whose
        array has another shape or numbers that are not finite in ``dtype``.
    MemoryError
        If there is not enough memory for the parameters.

    Examples
    --------
    >>> import numpy as np
    >>> from fastmlp import Network
    >>> net = Network((4, 8, 3), random_state=0)
    >>> net.forward(np.zeros((2, 4), dtype=np.float32)).shape
    (2, 3)
    """

    layer_sizes: tuple[int, ...]
    activations: tuple[str, ...]
    out_activation: str
    dtype: np.dtype
    batch_norm: bool
    residual: bool
    coefs: list[np.ndarray]
    intercepts: list[np.ndarray]
    scales: list[np.ndarray]
    scalings: list[np.ndarray]
    embedding: int
    n_members: int
    means: list[np.ndarray]
    variances: list[np.ndarray]
    statistics: np.ndarray

    def __init__(
        self,
        layer_sizes: Sequence[int],
        activation: str | Sequence[str] = "relu",
        out_activation: str = "softmax",
        dtype: str | np.dtype | type = "float32",
        parameters: ArrayLike | None = None,
        random_state: Any = None,
        *,
        weight_init: Any = "auto",
        bias_init: Any = "auto",
        batch_norm: bool = False,
        residual: bool = False,
        statistics: ArrayLike | None = None,
        embedding: int = 0,
        n_members: int = 1,
    ) -> None:
        self.batch_norm, self.residual = bool(batch_norm), bool(residual)
        self.embedding, self.n_members = operator.index(embedding), operator.index(n_members)
        self.layer_sizes = _check_sizes(layer_sizes)
        self.activations = _check_activations(activation, len(self.layer_sizes) - 2)
        # scikit-learn's rule: the output layer is drawn like the last hidden layer; without one, ``activation``
        # decides.
        drawn_as = self.activations[-1] if self.activations else activation
        self.out_activation = _check_name(
            "out_activation", out_activation, dict.fromkeys(core.OUTPUTS + core.ACTIVATIONS)
        )
        self.dtype = np.dtype(dtype).newbyteorder("=")
        _check_name("dtype", self.dtype.name, ("float32", "float64"))
        if self.embedding or self.n_members != 1:
            if max(self.embedding, self.n_members) >= 2**62:
                raise ValueError(f"embedding and n_members must be below 2**62, got {embedding} and {n_members}.")
            self._new_plan(self.out_activation)  # raises for what cannot be
        draws = {
            "weight_init": initialiser("weight_init", weight_init),
            "bias_init": initialiser("bias_init", bias_init),
        }
        self._bind_statistics(np.repeat(np.array([0, 1], self.dtype), self.n_statistics // 2))
        if statistics is not None:
            self.statistics[:] = _check_flat("statistics", statistics, self.n_statistics, self.layer_sizes)
        if parameters is None:
            n_bytes = self.n_parameters * self.dtype.itemsize
            check_memory(f"A network of layers {self.layer_sizes} has {self.n_parameters:,} parameters. It", n_bytes)
            self._bind(aligned_empty(self.n_parameters, self.dtype))
            self._draw(random_state, (*self.activations, drawn_as), draws)
            for scale, shift in zip(self.scales, self.intercepts[:-1], strict=bool(self.scales)):
                scale[:] = 1
                if isinstance(bias_init, str) and bias_init == "auto":
                    shift[:] = 0
        else:
            values = _check_flat("parameters", parameters, self.n_parameters, self.layer_sizes)
            self._bind(aligned_copy(values, self.dtype))

    # --- state: the architecture and the arrays ----------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        self.adopt()
        return {
            "layer_sizes": self.layer_sizes,
            "activations": self.activations,
            "out_activation": self.out_activation,
            "dtype": self.dtype.name,
            "parameters": self._parameters,
            "batch_norm": self.batch_norm,
            "residual": self.residual,
            "statistics": self.statistics,
            "embedding": self.embedding,
            "n_members": self.n_members,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.layer_sizes = state["layer_sizes"]
        self.activations = state["activations"]
        self.out_activation = state["out_activation"]
        self.dtype = np.dtype(state["dtype"])
        self.batch_norm, self.residual = state["batch_norm"], state["residual"]
        self.embedding, self.n_members = state.get("embedding", 0), state.get("n_members", 1)
        self._bind_statistics(state["statistics"])
        parameters = state["parameters"]
        # A memory map (joblib) stays one: it is shared between processes, a copy would not be.
        if parameters.ctypes.data % ALIGNMENT and not isinstance(parameters, np.memmap):
            parameters = aligned_copy(parameters)
        self._bind(parameters)

    def _bind(self, parameters: np.ndarray) -> None:
        """Use ``parameters`` as the network's own array, and make the views of it."""
        self._parameters = parameters
        self._plan: core.Plan | None = None
        self._plans: dict[str, core.Plan] = {}
        layout = self._layout()
        shapes = parameter_shapes(self.layer_sizes, self.embedding, self.n_members)
        for name, places in zip(
            IN_PARAMETERS, (layout.coefs, layout.intercepts, layout.scales, layout.scalings), strict=True
        ):
            own = shapes.get(name, [(-1,)] * len(places))
            setattr(self, name, [parameters[at].reshape(shape) for at, shape in zip(places, own, strict=True)])
        self._remember_views()

    def _bind_statistics(self, statistics: np.ndarray) -> None:
        self.statistics = statistics
        layout = self._layout()
        self.means = [statistics[at] for at in layout.means]
        self.variances = [statistics[at] for at in layout.variances]
        self._remember_views()

    def _remember_views(self) -> None:
        """Remember the views, so that ``adopt`` sees which of them were replaced."""
        self._views = {name: tuple(getattr(self, name, ())) for name in (*IN_PARAMETERS, *IN_STATISTICS)}
        self._all_views = [view for views in self._views.values() for view in views]

    def _layout(self) -> core.ParameterLayout:
        """Where the arrays of each layer lie in ``parameters`` and ``statistics``."""
        return core.parameter_layout(self.layer_sizes, self.batch_norm, self.embedding, self.n_members)

    def _draw(self, random_state: Any, names: Sequence[Any], draws: dict[str, Draw]) -> None:
        """Draw the parameters, in the order of ``reference.initialise``."""
        rng = random_state if hasattr(random_state, "uniform") else np.random.RandomState(random_state)
        arrays = [*zip(names[:-1], self.coefs[:-1], self.intercepts[:-1], strict=True)]
        W, b = self.coefs[-1], self.intercepts[-1]
        arrays += [(names[-1], W, b)] if self.n_members == 1 else [(names[-1], *own) for own in zip(W, b, strict=True)]
        for scalings in self.scalings:
            # The first member's are 1: only where members differ counts, and features on which all agree share work.
            scalings[0] = 1
            scalings[1:] = np.where(rng.uniform(size=scalings[1:].shape) < 0.5, -1, 1)
        for name, W, b in arrays:
            fan_in, fan_out = W.shape
            layer = Layer(fan_in, fan_out, name)
            # Of an embedding, each feature's biases are drawn as a layer's.
            drawn = [("weight_init", W), *(("bias_init", own) for own in b.reshape(-1, fan_out))]
            for argument, array in drawn:
                values = draws[argument](rng, layer, array.shape)
                with np.errstate(over="ignore"):  # checked below
                    array[...] = values
                if not all_finite(array):
                    raise ValueError(
                        f"{argument} must return numbers that are finite in {self.dtype.name}, got "
                        f"{array[~np.isfinite(array)][0]} for fan_in={fan_in}, fan_out={fan_out}."
                    )

    @property
    def parameters(self) -> np.ndarray:
        """All parameters, flat. Assigning copies the values in."""
        return self._parameters

    @parameters.setter
    def parameters(self, values: ArrayLike) -> None:
        self._parameters[...] = values

    @property
    def n_parameters(self) -> int:
        """Number of weights, biases and scales."""
        return self._layout().n_parameters

    @property
    def n_statistics(self) -> int:
        """Number of running averages."""
        return self._layout().n_statistics

    @property
    def plan(self) -> core.Plan:
        """The architecture in the compiled core's form; made at first use, never pickled."""
        if self._plan is None:
            self._plan = self.plan_with(self.out_activation)
        return self._plan

    def plan_with(self, out_activation: str) -> core.Plan:
        """The same as ``plan``, with another output activation.

        Parameters
        ----------
        out_activation : str
            A name of ``fastmlp.core.OUTPUTS`` or of a hidden activation.

        Returns
        -------
        fastmlp.core.Plan
        """
        if out_activation not in self._plans:
            self._plans[out_activation] = self._new_plan(out_activation)
        return self._plans[out_activation]

    def _new_plan(self, out_activation: str) -> core.Plan:
        return core.Plan(
            self.layer_sizes, self.activations, out_activation, self.dtype.name, self.batch_norm, self.residual,
            self.embedding,
            self.n_members,
        )  # fmt: skip

    def check_dense(self) -> None:
        """Raise a ValueError if the first layer is an embedding, whose weights are not those of a dense layer."""
        if self.embedding:
            raise ValueError(
                f"The network embeds coded features (embedding={self.embedding}), and has no dense first layer: this "
                "is for networks whose layers are all dense."
            )

    def copy(self, dtype: str | np.dtype | None = None) -> Network:
        """The same network with its own parameters.

        Parameters
        ----------
        dtype : {'float32', 'float64'}, default=None
            Element type of the copy; None: that of this network.

        Returns
        -------
        Network
        """
        self.adopt()
        return self._like(dtype or self.dtype, self._parameters, self.statistics, self.batch_norm)

    def _like(self, dtype: Any, parameters: np.ndarray, statistics: np.ndarray | None, batch_norm: bool) -> Network:
        return Network(
            self.layer_sizes,
            self.activations,
            self.out_activation,
            dtype,
            parameters,
            batch_norm=batch_norm,
            residual=self.residual,
            statistics=statistics,
            embedding=self.embedding,
            n_members=self.n_members,
        )

    def folded(self) -> Network:
        """The same function without batch normalisation, which is folded into weights and biases: for export.

        Returns
        -------
        Network
            Its outputs agree with this one's to rounding. It is not faster by much: in ``forward``, normalisation costs
            one multiply-add per unit.
        """
        self.adopt()
        if not self.batch_norm:
            return self.copy()
        weights, shifts = [], []
        for layer, (W, b) in enumerate(zip(self.coefs, self.intercepts, strict=True)):
            factor, shift = np.ones(b.shape), b.astype(np.float64)
            if layer < len(self.scales):
                factor = self.scales[layer] / np.sqrt(self.variances[layer].astype(np.float64) + core.NORM_EPSILON)
                shift -= factor * self.means[layer]
            weights.append((W * factor).ravel())
            shifts.append(shift)
        return self._like(self.dtype, np.concatenate([*weights, *shifts]), None, False)

    def adopt(self) -> None:
        """Copy arrays that have replaced views, such as those of ``coefs``, into ``parameters`` or ``statistics``.

        After ``net.coefs[0] = other``, ``net.coefs[0]`` is no longer a view; ``adopt`` makes it one, with the values of
        ``other``. The same holds for ``intercepts``, ``scales``, ``means`` and ``variances``. It costs nothing if
        nothing was replaced.

        Raises
        ------
        ValueError
            If an array has another shape than the one that it replaces, or if the number of arrays has changed.
        """
        arrays = [*self.coefs, *self.intercepts, *self.scales, *self.scalings, *self.means, *self.variances]
        if len(arrays) == len(self._all_views) and all(map(operator.is_, arrays, self._all_views)):
            return
        parameters, statistics = self._gathered(IN_PARAMETERS), self._gathered(IN_STATISTICS)
        self._bind(parameters)
        self._bind_statistics(statistics)

    def _gathered(self, names: Sequence[str]) -> np.ndarray:
        """The arrays of these lists in one array; each must have the shape of the view that it replaces."""
        values = []
        for name in names:
            arrays, views = getattr(self, name), self._views[name]
            if len(arrays) != len(views):
                raise ValueError(f"{name} must hold {len(views)} arrays, got {len(arrays)}.")
            for place, (new, view) in enumerate(zip(arrays, views, strict=True)):
                array = np.asarray(new)
                if array.shape != view.shape or array.dtype.kind not in "fiub":
                    raise ValueError(
                        f"{name}[{place}] must have shape {view.shape} and hold real numbers, got {array.shape} of "
                        f"{array.dtype}."
                    )
                values.append(array.ravel())
        return aligned_copy(np.concatenate([np.empty(0, self.dtype), *values]), self.dtype)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a safetensors file.

        Parameters
        ----------
        path : str or path-like
            An existing file is replaced at once: a reader finds the old file or the new one, whatever happens.

        Raises
        ------
        ImportError
            Without the package safetensors.
        FileFormatError
            If parameters or statistics are not finite. An existing file stays as it was, as after an OSError.
        OSError
            If the file cannot be written.
        """
        save_network(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a network that ``save`` wrote. Nothing in the file is executed.

        Parameters
        ----------
        path : str or path-like
            The file.

        Returns
        -------
        Network

        Raises
        ------
        FileFormatError
            If the file does not hold a Network; :func:`fastmlp.load` reads estimators.
        OSError
            If the file cannot be read.
        """
        return read(path, partial(build_network, cls))

    # --- forward pass, loss and gradient -----------------------------------------------------------------------

    def forward(
        self, X: Any, out: np.ndarray | None = None, n_threads: int = 1, out_activation: str | None = None
    ) -> np.ndarray:
        """The output for the rows of X.

        Parameters
        ----------
        X : array-like, CSR matrix, fastmlp.core.Codes or LazyRows of shape (n, layer_sizes[0])
            An array must be float32 or float64, with any strides; it is converted to ``dtype`` in parts, without a copy
            of the whole. Anything else, such as a list of rows, becomes an array of ``dtype`` first. Codes need a first
            layer that is not residual.
        out : ndarray of shape (n, layer_sizes[-1]), default=None
            Array for the result, of ``dtype`` and C-contiguous; None makes a new one.
        n_threads : int, default=1
            The result does not depend on it.
        out_activation : str, default=None
            Output activation instead of the network's own: 'identity' gives logits, 'log_softmax' and 'log_logistic'
            the logarithms of probabilities, also where these round to 0.

        Returns
        -------
        ndarray of shape (n, layer_sizes[-1])
            ``out`` if it was given.

        Raises
        ------
        ValueError, TypeError
            For another shape or type. Values are not checked.
        """
        plan = self._plan if out_activation is None else self.plan_with(out_activation)
        if plan is None:
            plan = self.plan
        if not isinstance(X, LazyRows):
            return core.forward(plan, self._parameters, self._rows(X), out, n_threads, self.statistics)
        if out is None:
            out = np.empty((len(X), self.layer_sizes[-1]), dtype=self.dtype)
        elif out.shape != (len(X), self.layer_sizes[-1]):
            raise ValueError(f"out must have shape {(len(X), self.layer_sizes[-1])}, got {out.shape}")
        for block, rows in X.parts():
            core.forward(plan, self._parameters, rows, out[block], n_threads, self.statistics)
        return out

    def predictor(self) -> core.RowForward:
        """A function of one row, for services: it prepares the layers once, and takes half of ``forward``'s time.

        Returns
        -------
        fastmlp.core.RowForward
            ``predictor(row, out=None)`` returns the output, an ndarray of shape (layer_sizes[-1],) with the bits of
            ``forward``. A row is an array of float32 or float64 of shape (n_features,) or (1, n_features), or a list or
            tuple of numbers; values are not checked. ``out``, of that shape and ``dtype``, receives the result. Of
            small networks it holds the interpreter's lock, since letting go of it takes longer beside a busy thread.
            Threads may share it, and it can be pickled. It keeps a copy of the parameters: later changes of the network
            do not reach it.

        Raises
        ------
        ValueError
            For a network that embeds coded rows.

        Examples
        --------
        >>> import numpy as np
        >>> from fastmlp import Network
        >>> net = Network((4, 8, 3), random_state=0)
        >>> predict = net.predictor()
        >>> predict([0.1, 0.2, 0.3, 0.4]).shape
        (3,)
        """
        own = self.copy()
        return core.RowForward(own.plan, [(own.parameters, own.statistics)])

    def _rows(self, X: Any) -> Any:
        """X, as an array unless it is one, sparse or coded."""
        refuse_masked("X", X)
        as_it_is = isinstance(X, (np.ndarray, core.Codes)) or hasattr(X, "indptr")
        return X if as_it_is else np.asarray(X, dtype=self.dtype)

    def loss_gradient(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        loss: str | None = None,
        *,
        alpha: float = 0.0,
        l1_ratio: float = 0.0,
        loss_parameter: float = 1.0,
        label_smoothing: float = 0.0,
        loss_reduction: str = "weighted_mean",
        out: np.ndarray | None = None,
        n_threads: int = 1,
    ) -> tuple[float, np.ndarray]:
        """Loss averaged over the rows of X plus penalty, and its gradient.

        Parameters
        ----------
        X : array-like, CSR matrix or fastmlp.core.Codes of shape (n, layer_sizes[0])
            As in ``forward``.
        y : array-like
            (n,) class indices for ``log_loss``; else (n, layer_sizes[-1]) targets, or (n,) with one output.
        sample_weight : array-like of shape (n,) or (n, layer_sizes[-1]), default=None
            Of rows or, but for ``log_loss``, of their outputs: a target of weight 0 is left out, and may be NaN. None:
            1 for each row.
        loss : str, default=None
            A name of ``fastmlp.core.LOSSES`` that belongs to ``out_activation``; None takes the first of them.
        alpha, l1_ratio : float, default=0.0
            Penalty ``alpha (l1_ratio sum |W| + (1 - l1_ratio) / 2 sum W^2)``, divided as the loss is.
        loss_parameter : float, default=1.0
            The delta of ``huber``, the quantile of ``quantile``.
        label_smoothing : float, default=0.0
            Share of the target that is spread evenly over all classes (Szegedy et al., CVPR 2016).
        loss_reduction : {'weighted_mean', 'mean'}, default='weighted_mean'
            What divides the sum of weighted losses, and the penalty: the sum of weights, or the number of rows. The
            weight of a row whose outputs have weights is their mean.
        out : ndarray of shape (n_parameters,), default=None
            Array for the gradient, of ``dtype``; None makes a new one.
        n_threads : int, default=1
            The result does not depend on it.

        Returns
        -------
        loss : float
        gradient : ndarray of shape (n_parameters,)
            In the order of ``parameters``.

        Raises
        ------
        ValueError
            For a loss that does not belong to the output activation, for targets or weights of another shape, and for
            no rows.
        """
        self.adopt()
        X = self._rows(X)
        losses = [name for name, output in core.LOSSES.items() if output == self.out_activation]
        if not losses:
            raise ValueError(
                f"No loss belongs to out_activation={self.out_activation!r}, only to "
                f"{sorted(set(core.LOSSES.values()))}."
            )
        loss = losses[0] if loss is None else _check_name("loss", loss, losses)
        n_rows = X.shape[0]
        if n_rows == 0:
            raise ValueError("X must have at least one row: the loss is a mean over rows.")
        targets = self.check_targets(y, loss, n_rows)
        weights = None
        if sample_weight is not None:
            refuse_masked("sample_weight", sample_weight)
            weights = np.ascontiguousarray(sample_weight, dtype=np.float64)
            shapes = [(n_rows,)] if targets.ndim == 1 else [(n_rows,), targets.shape]
            if weights.shape not in shapes:
                raise ValueError(f"sample_weight must have shape {' or '.join(map(str, shapes))}, got {weights.shape}.")
        gradient = np.empty(self.n_parameters, dtype=self.dtype) if out is None else out
        trainer = core.Trainer(self.plan, loss, "gradient", n_rows, n_threads)
        value = trainer.loss_gradient(
            self._parameters,
            X,
            targets,
            weights,
            gradient,
            statistics=self.statistics,
            alpha=float(alpha),
            l1_ratio=float(l1_ratio),
            loss_parameter=float(loss_parameter),
            label_smoothing=float(label_smoothing),
            loss_reduction=loss_reduction,
        )
        return value, gradient

    def check_targets(self, y: ArrayLike, loss: str, n_rows: int) -> np.ndarray:
        """Targets in the core's form.

        Parameters
        ----------
        y : array-like of shape (n_rows,) or (n_rows, layer_sizes[-1])
            Class indices for a softmax, values otherwise.
        loss : str
            A name of ``fastmlp.core.LOSSES`` that belongs to ``out_activation``.
        n_rows : int
            The required number of rows.

        Returns
        -------
        ndarray
            Of type intp and shape (n_rows,) for a softmax, else of ``dtype``, or uint8 if y is, and shape (n_rows,
            layer_sizes[-1]).

        Raises
        ------
        ValueError
            For another shape or type, or indices outside the classes.
        """
        refuse_masked("y", y)
        n_out = self.layer_sizes[-1]
        if core.LOSSES[loss] == "softmax":
            labels = np.asarray(y)
            if labels.shape != (n_rows,) or labels.dtype.kind not in "iu":
                raise ValueError(
                    f"y must be {n_rows} class indices, shape ({n_rows},) and of integer type, for loss={loss!r}; "
                    f"got shape {labels.shape}, type {labels.dtype}."
                )
            labels = np.ascontiguousarray(labels, dtype=np.intp)
            if n_rows and (labels.min() < 0 or labels.max() >= n_out):
                raise ValueError(f"y must lie in [0, {n_out}), got {labels.min()} to {labels.max()}.")
            return labels
        targets = np.ascontiguousarray(y, dtype=np.uint8 if getattr(y, "dtype", None) == np.uint8 else self.dtype)
        if targets.ndim == 1 and n_out == 1:
            targets = targets.reshape(-1, 1)
        if targets.shape != (n_rows, n_out):
            raise ValueError(f"y must have shape ({n_rows}, {n_out}) for loss={loss!r}, got {targets.shape}.")
        return targets

    def __repr__(self) -> str:
        names = self.activations[0] if len(set(self.activations)) == 1 else self.activations
        return (
            f"Network({self.layer_sizes}, activation={names!r}, out_activation={self.out_activation!r}, "
            f"dtype={self.dtype.name!r}{', batch_norm=True' * self.batch_norm}{', residual=True' * self.residual}"
            f"{f', embedding={self.embedding}' * bool(self.embedding)}"
            f"{f', n_members={self.n_members}' * (self.n_members > 1)})"
        )


def _check_sizes(layer_sizes: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(operator.index(size) for size in layer_sizes)
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"layer_sizes must be at least two integers, each at least 1, got {tuple(layer_sizes)}.")
    return sizes


def _check_flat(argument: str, values: ArrayLike, n: int, layer_sizes: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(values)
    if array.shape != (n,):
        raise ValueError(f"{argument} must have shape ({n},) for layer_sizes={layer_sizes}, got {array.shape}.")
    return array


def _check_activations(activation: str | Sequence[str], n_hidden: int) -> tuple[str, ...]:
    names = (activation,) * n_hidden if isinstance(activation, str) else tuple(activation)
    if len(names) != n_hidden:
        raise ValueError(f"activation must name one activation for each of {n_hidden} hidden layers, got {names}.")
    # A single name is checked even where there is no hidden layer to use it.
    for name in (activation,) if isinstance(activation, str) else names:
        _check_name("activation", name, core.ACTIVATIONS)
    return names


def _check_name(argument: str, name: str, valid: Any) -> str:
    if name not in valid:
        raise ValueError(f"{argument} must be one of {list(valid)}, got {name!r}.{hint(name, valid)}")
    return str(name)  # the core takes no subclass, such as NumPy's, which parameter grids are made of
