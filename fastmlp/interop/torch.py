"""PyTorch: networks from modules, and modules from networks."""

from __future__ import annotations

import copy
import math
import operator
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from fastmlp.interop.layers import (
    Activation,
    Affine,
    Chain,
    Converted,
    Dropout,
    Layer,
    Noise,
    Norm,
    Remark,
    Residual,
    added,
    assemble,
    celu,
    check_outputs,
    clipped,
    elu,
    hard_sigmoid,
    leaky_relu,
    missing,
    multiplied,
    named,
    refuse,
    scaled,
    softplus,
    unknown,
    width_of,
)
from fastmlp.interop.models import exported

# Beyond it, PyTorch's softplus is the identity; the difference is below float32's rounding.
_SOFTPLUS_THRESHOLD = 20.0
_EXACT_THRESHOLD = 37.0  # in float64
_SOFTPLUS_NOTE = "beyond its threshold, PyTorch's softplus is x itself; fastmlp's is larger by up to 2.1e-9 there."


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise missing("PyTorch", "torch", "A conversion from or to a module") from error
    return torch


# --- from PyTorch --------------------------------------------------------------------------------------------------


def from_torch(
    module: Any,
    output: str | None = None,
    *,
    batch_norm: str = "keep",
    rewrite: bool = False,
    dtype: Any = None,
) -> Converted:
    """The network that a PyTorch module computes in prediction.

    Parameters
    ----------
    module : torch.nn.Module
        Layers of ``torch.nn``, ``nn.Sequential``, or a module of your own, whose ``forward`` is traced by ``torch.fx``:
        linear layers, the activations of ``fastmlp.core.ACTIVATIONS``, batch normalisation, dropout, ``x + f(x)``,
        scales and shifts. It is read as after ``eval()``, and not changed. Input of several dimensions is flattened in
        C order. A copy of it runs on a few rows, and its outputs must be those of the network.
    output : str, default=None
        What stands behind logits: 'softmax', 'logistic', 'exp', since a loss such as ``CrossEntropyLoss`` contains it.
        None: nothing.
    batch_norm : {'keep', 'fold'}, default='keep'
        'keep': where every hidden layer has batch normalisation between weights and activation, it is kept and trains.
        Elsewhere, and with 'fold', it is folded into weights, which notes say.
    rewrite : bool, default=False
        Allow more units or layers for functions that fastmlp lacks: a slope of leaky_relu other than 0.01, PReLU,
        relu6, hardtanh, a scale behind the last activation.
    dtype : {'float32', 'float64'}, default=None
        Element type of the network; None: that of the weights, float32 for float16 and bfloat16.

    Returns
    -------
    Converted
        ``network``, ``parameters`` of the training, ``notes``; ``classifier(classes)`` and ``regressor()`` make
        estimators.

    Raises
    ------
    ConversionError
        A ValueError: where the network cannot be converted exactly. It names the layer and the way out.
    ImportError
        Without PyTorch.
    TypeError
        For another object than a module.

    Examples
    --------
    >>> import torch
    >>> from fastmlp.interop import from_torch
    >>> body = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> from_torch(body, output="softmax").network
    Network((4, 8, 3), activation='relu', out_activation='softmax', dtype='float32')
    """
    torch = _torch()
    module = getattr(module, "_orig_mod", module)  # of torch.compile
    if isinstance(module, torch.nn.DataParallel):
        module = module.module
    if not isinstance(module, torch.nn.Module):
        raise TypeError(
            f"from_torch takes a torch.nn.Module, got {type(module).__qualname__}; of a state_dict, from_state_dict."
        )
    if isinstance(module, torch.jit.ScriptModule):
        raise refuse(
            type(module).__name__,
            "a compiled module, whose layers cannot be read. Take the module that it was made of.",
        )
    _check_hooks(module, torch)
    devices = {tensor.device for tensor in (*module.parameters(), *module.buffers())}
    with (
        torch.no_grad(),
        torch.random.fork_rng([device for device in devices if device.type == "cuda"]),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # what the module's forward warns of
        chain = _Reader(_copied(module, torch), torch).read()
    kinds = {tensor.dtype for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point()}
    narrow = sorted(str(kind).removeprefix("torch.") for kind in kinds if kind.itemsize < 4)
    notes = [f"Weights of {', '.join(narrow)} are float32 here, and so is the arithmetic."] if narrow else []
    converted = assemble(chain, output=output, batch_norm=batch_norm, rewrite=rewrite, dtype=dtype, notes=notes)
    _check_run(module, chain, rewrite, torch)
    if torch.float64 not in kinds:  # below float32's rounding
        converted.notes = [note for note in converted.notes if not note.endswith(_SOFTPLUS_NOTE)]
    return converted


def _copied(module: Any, torch: Any) -> Any:
    """A copy in eval mode, which a trace or a run may change."""
    computed = [value for part in module.modules() for value in vars(part).values() if isinstance(value, torch.Tensor)]
    memo = {id(tensor): tensor.detach().clone() for tensor in computed if not tensor.is_leaf}  # of weight_norm
    try:
        return copy.deepcopy(module, memo).eval()
    except Exception as error:
        raise refuse(
            type(module).__name__, f"copy.deepcopy fails ({error}). Give its layers to an nn.Sequential."
        ) from error


def _check_run(module: Any, chain: Chain, rewrite: bool, torch: Any) -> None:
    """Compare the network with the module's own outputs, which show what a trace cannot see."""
    tensors = [tensor for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point()]
    device = tensors[0].device if tensors else torch.device("cpu")
    kinds = list(dict.fromkeys(tensor.dtype for tensor in tensors)) or [torch.float32]
    where = type(module).__name__

    def outputs(values: np.ndarray) -> list[np.ndarray]:
        problem: Exception | None = None
        for widened in (True, False):  # float16 as float32, if forward lets that be done
            work = _copied(module, torch)
            if widened:
                for tensor in (*work.parameters(), *work.buffers()):
                    if tensor.is_floating_point() and tensor.dtype.itemsize < 4:
                        tensor.data = tensor.data.float()
            for kind in kinds:
                kind = torch.float32 if widened and kind.itemsize < 4 else kind
                source = torch.from_numpy(values).to(device, kind)
                try:
                    results = [work(source.clone()) for _ in range(2)]
                    return [result.detach().cpu().double().numpy() for result in results]
                except Exception as error:
                    problem = problem or error
        raise refuse(where, f"its forward fails on rows of {values.shape[1]} numbers ({problem}).") from problem

    cuda = [device] if device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(cuda), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_outputs(where, chain, outputs, rewrite)


def _check_hooks(module: Any, torch: Any) -> None:
    """Refuse hooks, which may change what a layer computes; those of weight_norm and spectral_norm are known."""
    for name, part in module.named_modules():
        if isinstance(part, torch.nn.modules.lazy.LazyModuleMixin) and part.has_uninitialized_params():
            raise refuse(_place(name, part), "it has no weights yet. Call the module once.")
        hooks = [*part._forward_hooks.values()]
        hooks += [hook for hook in part._forward_pre_hooks.values() if not _makes_weight(hook)]
        if hooks:
            raise refuse(
                _place(name, part), "it has forward hooks, which may change its output. Remove them: handle.remove()."
            )
    everywhere = torch.nn.modules.module
    if everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks:
        raise refuse("torch.nn", "global forward hooks, which may change every layer's output. Remove them.")


def _makes_weight(hook: Any) -> bool:
    return type(hook).__module__ in ("torch.nn.utils.weight_norm", "torch.nn.utils.spectral_norm")


def _place(name: str, module: Any) -> str:
    """A layer's name and class, for messages."""
    kind = type(module).__name__
    return f"{name} ({kind})" if name else kind


class _Value:
    """A tensor of the traced graph. Views share a cell, which counts changes in place. ``flat``: it has one dimension,
    that of rows."""

    def __init__(self, chain: Chain, cell: list[int] | None = None, flat: bool = False) -> None:
        self.chain, self.flat = chain, flat
        self.cell = [0] if cell is None else cell
        self.version = self.cell[0]


def _tracer(fx: Any) -> Any:
    """A tracer that tells ``h += 1`` from ``h = h + 1``."""

    def in_place(function: Any) -> Callable[[Any, Any], Any]:
        return lambda self, other: self.tracer.create_proxy("call_function", function, (self, other), {})

    names = ("iadd", "isub", "imul", "itruediv")
    proxy = type("Proxy", (fx.Proxy,), {f"__{name}__": in_place(getattr(operator, name)) for name in names})
    return type("Tracer", (fx.Tracer,), {"proxy": lambda self, node: proxy(node, self)})()


class _Reader:
    """An interpreter of a module's graph."""

    def __init__(self, module: Any, torch: Any) -> None:
        self.torch, self.module = torch, module
        self.leaves = _leaves(torch)
        self.functions = _functions(torch)

    def read(self) -> Chain:
        fx, torch = self.torch.fx, self.torch
        root = self.module
        if type(root) in self.leaves or self._is_parametrized(root):
            root = torch.nn.Sequential(root)
        elif type(root).__module__.startswith("torch.nn.") and not isinstance(root, torch.nn.Sequential):
            raise unknown("The module", type(root).__name__)
        try:
            graph = _tracer(fx).trace(root)
        except Exception as error:
            raise refuse(
                type(root).__name__,
                f"its forward cannot be traced by torch.fx ({str(error).rstrip('.')}). Give its layers to an "
                f"nn.Sequential.",
            ) from error
        values: dict[Any, Any] = {}
        inputs = [node for node in graph.nodes if node.op == "placeholder"]
        if len(inputs) != 1:
            raise refuse(type(root).__name__, f"its forward takes {len(inputs)} arguments; a network has one input.")
        for node in graph.nodes:
            if node.op == "placeholder":
                values[node] = _Value(())
            elif node.op == "get_attr":
                values[node] = _array(operator.attrgetter(node.target)(root))
            elif node.op == "output":
                result = self._lookup(node.args[0], values, "output")
                if not isinstance(result, _Value):
                    raise refuse(
                        type(root).__name__, "its forward does not return one tensor that depends on the input."
                    )
                return result.chain
            else:
                values[node] = self._call(node, root, values)
        raise refuse(type(root).__name__, "its forward returns nothing.")

    def _is_parametrized(self, module: Any) -> bool:
        return bool(self.torch.nn.utils.parametrize.is_parametrized(module))

    def _lookup(self, argument: Any, values: dict[Any, Any], where: str) -> Any:
        """An argument's value: a _Value, an array, a number, or the like in a list."""
        if isinstance(argument, self.torch.fx.Node):
            value = values[argument]
            if isinstance(value, _Value) and value.version != value.cell[0]:
                raise refuse(
                    where,
                    f"it reads {argument.name}, which was changed in place after it was computed. Use inplace=False.",
                )
            return value
        if isinstance(argument, (list, tuple)):
            return [self._lookup(part, values, where) for part in argument]
        return argument

    def _call(self, node: Any, root: Any, values: dict[Any, Any]) -> Any:
        """The value of a node that calls a module, a function or a method."""
        if node.op == "call_module":
            part = root.get_submodule(node.target)
            where = _place(node.target if root is self.module else "", part)
        else:
            part, where = node.target, f"{node.name} ({getattr(node.target, '__name__', node.target)})"
            home = getattr(part, "__module__", None) or "torch"
            if node.op == "call_function" and home.split(".")[0] not in ("torch", "_operator", "builtins"):
                raise refuse(
                    where,
                    "a function of your own, which torch.fx does not look into. Write it out in the module's forward.",
                )
        args = [self._lookup(argument, values, where) for argument in node.args]
        kwargs = {name: self._lookup(argument, values, where) for name, argument in node.kwargs.items()}
        if node.op == "call_module":
            if len(args) != 1 or kwargs or not isinstance(args[0], _Value):
                raise refuse(where, "it is called with several inputs, or with a constant.")
            return self._call_module(where, part, args[0])
        name = part if node.op == "call_method" else self.functions.get(part, getattr(part, "__name__", str(part)))
        return _call_function(where, str(name), args, kwargs)

    def _call_module(self, where: str, part: Any, value: _Value) -> _Value:
        kind: Any = next((kind for kind in type(part).__mro__ if kind in self.leaves), None)
        if kind is None or type(part).forward is not kind.forward or "forward" in vars(part):
            raise unknown(where, type(part).__name__)
        layers = self.leaves[kind](where, part)
        _check_dimensions(where, value, layers)
        chain = (*value.chain, *layers)
        if getattr(part, "inplace", False):
            value.cell[0] += 1
            return _Value(chain, value.cell, value.flat)
        return _Value(chain, value.cell if not any(map(_computes, layers)) else None, value.flat)


def _check_dimensions(where: str, value: _Value, layers: Chain) -> None:
    """Refuse a layer that acts on several units, behind a tensor without a dimension for them."""
    if value.flat and not all(isinstance(layer, Activation) and "softmax" not in layer.name for layer in layers):
        raise refuse(where, "it stands behind squeeze(), which took away the dimension of units.")


def _computes(layer: Layer) -> bool:
    """Whether a layer's output is another tensor than its input, in prediction."""
    return not isinstance(layer, (Dropout, Noise, Remark))


def _array(tensor: Any) -> np.ndarray:
    """A tensor's numbers."""
    if tensor.is_complex() or tensor.is_quantized or tensor.is_meta:
        raise refuse("A tensor", f"of type {tensor.dtype} on {tensor.device}; weights must be real numbers in memory.")
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point() and tensor.dtype.itemsize < 4:
        tensor = tensor.float()
    array: np.ndarray = tensor.to_dense().numpy() if tensor.layout is not _torch().strided else tensor.numpy()
    return array.copy()


def _weight(part: Any) -> np.ndarray:
    """The weight of a layer, as weight_norm and spectral_norm make it."""
    for hook in part._forward_pre_hooks.values():
        if type(hook).__module__ == "torch.nn.utils.weight_norm":
            return _array(hook.compute_weight(part))
        if type(hook).__module__ == "torch.nn.utils.spectral_norm":
            return _array(hook.compute_weight(part, do_power_iteration=False))
    return _array(part.weight)


def _linear(where: str, part: Any) -> Chain:
    return (Affine(where, _weight(part).T, None if part.bias is None else _array(part.bias)),)


def _batch_norm(where: str, part: Any) -> Chain:
    if part.running_mean is None:
        raise refuse(
            where,
            "it has no running averages (track_running_stats=False): its output depends on the other rows of a batch.",
        )
    mean, variance = _array(part.running_mean), _array(part.running_var)
    scale = np.ones_like(mean) if part.weight is None else _array(part.weight)
    shift = np.zeros_like(mean) if part.bias is None else _array(part.bias)
    return (Norm(where, mean, variance, scale, shift, float(part.eps)),)


def _gelu(where: str, form: Any) -> Chain:
    if form != "none":
        raise unknown(where, "gelu_tanh")
    return named(where, "gelu")


def _softplus(where: str, beta: float, threshold: float) -> Chain:
    if threshold < _SOFTPLUS_THRESHOLD:
        raise refuse(where, f"threshold {threshold:g}; fastmlp's softplus is exact, as this one is with threshold=20.")
    note = (Remark(where, _SOFTPLUS_NOTE),) if threshold < _EXACT_THRESHOLD else ()
    return (*softplus(where, float(beta)), *note)


def _softmax(where: str, name: str, dim: Any) -> Chain:
    if dim not in (1, -1, None):
        raise refuse(where, f"dim={dim}; fastmlp's {name} is over each row's outputs, dim=1.")
    return named(where, name)


def _flatten(where: str, start: Any, end: Any) -> Chain:
    if start != 1 or end != -1:
        raise refuse(where, f"start_dim={start}, end_dim={end}; rows are flattened with 1 and -1.")
    return ()


def _dropout(where: str, rate: float) -> Chain:
    return (Dropout(where, float(rate)),)


def _alpha_dropout(where: str, part: Any) -> Chain:
    return (Remark(where, f"alpha dropout of {part.p:g} is left out: fastmlp has plain dropout."),)


def _rrelu(where: str, part: Any) -> Chain:
    mean = leaky_relu(where, (float(part.lower) + float(part.upper)) / 2)
    return (*mean, Remark(where, "the random slope of training is its mean here."))


def _leaves(torch: Any) -> dict[Any, Callable[[str, Any], Chain]]:
    """Layers of torch.nn: the chain of each."""
    nn = torch.nn
    names = {
        nn.Sigmoid: "logistic", nn.Tanh: "tanh", nn.ReLU: "relu", nn.SELU: "selu", nn.SiLU: "silu", nn.Mish: "mish",
        nn.LogSigmoid: "log_logistic",
    }  # fmt: skip

    def activation(name: str) -> Callable[[str, Any], Chain]:
        return lambda where, part: named(where, name)

    leaves = {kind: activation(name) for kind, name in names.items()}
    return leaves | {
        nn.Linear: _linear,
        nn.BatchNorm1d: _batch_norm,
        nn.Identity: lambda where, part: (),
        nn.Flatten: lambda where, part: _flatten(where, part.start_dim, part.end_dim),
        nn.Dropout: lambda where, part: _dropout(where, part.p),
        nn.AlphaDropout: _alpha_dropout,
        nn.FeatureAlphaDropout: _alpha_dropout,
        nn.LeakyReLU: lambda where, part: leaky_relu(where, part.negative_slope),
        nn.PReLU: lambda where, part: leaky_relu(where, _weight(part)),
        nn.RReLU: _rrelu,
        nn.ReLU6: lambda where, part: clipped(where, 0.0, 6.0),
        nn.Hardtanh: lambda where, part: clipped(where, float(part.min_val), float(part.max_val)),
        nn.Hardsigmoid: lambda where, part: hard_sigmoid(where),
        nn.ELU: lambda where, part: elu(where, float(part.alpha)),
        nn.CELU: lambda where, part: celu(where, float(part.alpha)),
        nn.GELU: lambda where, part: _gelu(where, part.approximate),
        nn.Softplus: lambda where, part: _softplus(where, float(part.beta), float(part.threshold)),
        nn.Softmax: lambda where, part: _softmax(where, "softmax", part.dim),
        nn.LogSoftmax: lambda where, part: _softmax(where, "log_softmax", part.dim),
    }


# --- functions and methods -------------------------------------------------------------------------------------------

# Activations without arguments, by the names of functions and methods; those that end in _ change their input.
_SIMPLE = {
    "relu": "relu", "sigmoid": "logistic", "tanh": "tanh", "selu": "selu", "silu": "silu", "mish": "mish", "exp": "exp",
    "erf": "erf",
    "logsigmoid": "log_logistic", "log_sigmoid": "log_logistic",
}  # fmt: skip
_ALIASES = {
    "__add__": "add", "__mul__": "mul", "iadd": "add_", "imul": "mul_", "isub": "sub_", "itruediv": "div_",
    "truediv": "div",
    "multiply": "mul", "subtract": "sub", "divide": "div", "negative": "neg", "expit": "sigmoid", "true_divide": "div",
    "clip": "clamp", "reshape": "view",
}  # fmt: skip


def _functions(torch: Any) -> dict[Any, str]:
    """Names of functions whose __name__ is not the one above."""
    return {
        torch.batch_norm: "torch.batch_norm",  # another order of arguments
        torch.nn.functional.logsigmoid: "logsigmoid", torch.nn.functional.linear: "linear",
        torch.nn.functional.softplus: "softplus",
        torch.nn.functional.gelu: "gelu", torch.nn.functional.prelu: "prelu",
    }  # fmt: skip


_TRANSPOSED = "a transpose; rows are the first dimension of a network's values."


class _Arguments:
    """The arguments of a function, by position or name."""

    def __init__(self, where: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        self.where, self.args, self.kwargs = where, list(args), dict(kwargs)
        self.in_place = bool(self.kwargs.pop("inplace", False))

    def take(self, name: str, default: Any = ...) -> Any:
        if self.args:
            return self.args.pop(0)
        value = self.kwargs.pop(name, default)
        if value is ...:
            raise refuse(self.where, f"it is called without {name}.")
        return value

    def end(self) -> None:
        if len(self.args) == 1 and isinstance(self.args[0], bool):  # inplace, by position
            self.in_place = self.args.pop() or self.in_place
        if self.args or any(value is not None for value in self.kwargs.values()):
            raise refuse(
                self.where,
                f"it is called with the arguments {[*self.args, *self.kwargs]}, which fastmlp has no counterpart of.",
            )


def _call_function(where: str, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """The value of a call of a function or of a tensor's method."""
    name = _ALIASES.get(name, name)
    in_place = name.endswith("_") and not name.startswith("_")
    name = name.rstrip("_") if in_place else name
    given = _Arguments(where, args, kwargs)
    if name in ("add", "sub", "mul", "div", "matmul", "neg", "rsub"):
        result = _arithmetic(where, name, given)
        first = args[0] if args else None
    else:
        first = given.take("input")
        if name in ("size", "dim") or (name == "getattr" and isinstance(first, _Value)):
            if name == "getattr" and args[1] in ("T", "mT", "H", "mH"):
                raise refuse(where, _TRANSPOSED)
            return _Size() if isinstance(first, _Value) else None
        if name == "getitem" and isinstance(first, _Size):
            return first
        if (
            name in ("t", "T", "getattr")
            and isinstance(first, np.ndarray)
            and (name != "getattr" or args[1] in ("T", "mT"))
        ):
            return first.T
        if name == "getitem" and isinstance(first, np.ndarray) and _is_plain(args[1]):
            return first[tuple(args[1]) if isinstance(args[1], list) else args[1]]
        if name in ("t", "T", "mT", "transpose", "permute"):
            raise refuse(where, _TRANSPOSED)
        if name == "addmm":
            raise refuse(where, "fastmlp has no counterpart of addmm. Write x @ weight + bias, or F.linear.")
        if not isinstance(first, _Value):
            raise refuse(
                where, f"{name} of a constant. Compute it once, in the module's __init__, and keep it as a buffer."
            )
        layers = _function(where, name, first, given)
        given.end()
        if layers is None:
            cell = None if name == "clone" else first.cell
            return _Value(first.chain, cell, (first.flat or name == "squeeze") and name != "view")
        _check_dimensions(where, first, layers)
        result = (*first.chain, *layers)
        in_place = in_place or given.in_place
    if not isinstance(result, tuple):
        return result
    if in_place and isinstance(first, _Value):
        first.cell[0] += 1
        return _Value(result, first.cell, first.flat)
    if not isinstance(first, _Value):
        return _Value(result)
    same = "dropout" in name  # which gives its input back in prediction
    return _Value(result, first.cell if same else None, first.flat)


def _is_plain(index: Any) -> bool:
    """Whether an index is of numbers, slices and None."""
    if isinstance(index, list):
        return all(map(_is_plain, index))
    if isinstance(index, slice):
        return all(part is None or isinstance(part, int) for part in (index.start, index.stop, index.step))
    return index is None or index is ... or isinstance(index, int)


class _Size:
    """The number of rows, or a part of a tensor's shape."""


def _function(where: str, name: str, value: _Value, given: _Arguments) -> Chain | None:
    """The layers of a function; None if its output is its input."""
    if name in _SIMPLE:
        layers: Chain = named(where, _SIMPLE[name])
    elif name == "leaky_relu":
        layers = leaky_relu(where, given.take("negative_slope", 0.01))
    elif name in ("elu", "celu"):
        layers = (elu if name == "elu" else celu)(where, float(given.take("alpha", 1.0)))
    elif name == "prelu":
        layers = leaky_relu(where, given.take("weight"))
    elif name == "relu6":
        layers = clipped(where, 0.0, 6.0)
    elif name == "hardtanh":
        layers = clipped(where, float(given.take("min_val", -1.0)), float(given.take("max_val", 1.0)))
    elif name in ("clamp", "clamp_min", "clamp_max"):
        low = given.take("min", None) if name != "clamp_max" else None
        high = given.take("max", None) if name != "clamp_min" else None
        if not all(bound is None or isinstance(bound, (int, float)) for bound in (low, high)):
            raise refuse(where, "bounds that are not numbers.")
        layers = clipped(where, -math.inf if low is None else float(low), math.inf if high is None else float(high))
    elif name == "hardsigmoid":
        layers = hard_sigmoid(where)
    elif name == "gelu":
        layers = _gelu(where, given.take("approximate", "none"))
    elif name == "softplus":
        layers = _softplus(where, float(given.take("beta", 1.0)), float(given.take("threshold", 20.0)))
    elif name in ("softmax", "log_softmax"):
        dim = given.take("dim", None)
        given.kwargs.pop("_stacklevel", None)
        if given.args and isinstance(given.args[0], int):
            given.args.pop(0)  # _stacklevel
        layers = _softmax(where, name, dim)
    elif name == "linear":
        weight, bias = given.take("weight"), given.take("bias", None)
        if not isinstance(weight, np.ndarray) or not (bias is None or isinstance(bias, np.ndarray)):
            raise refuse(where, "its weights depend on the input.")
        layers = (Affine(where, weight.T, bias),)
    elif name == "batch_norm":
        layers = _functional_norm(where, given)
    elif name == "torch.batch_norm":
        order = ("weight", "bias", "running_mean", "running_var", "training", "momentum", "eps", "cudnn_enabled")
        given.kwargs |= {key: given.take(key) for key in order}
        given.kwargs.pop("cudnn_enabled")
        layers = _functional_norm(where, given)
    elif name in ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout"):
        rate, training = given.take("p", 0.5), given.take("training", True)
        if training:
            raise refuse(where, "dropout in prediction (training=True). Pass training=self.training.")
        note = Remark(where, "its dropout in training is left out: fastmlp has plain dropout.")
        layers = _dropout(where, rate) if name == "dropout" else (note,)
        return layers
    elif name == "flatten":
        _flatten(where, given.take("start_dim", 0), given.take("end_dim", -1))
        return None
    elif name == "view":
        _check_view(where, value, given)
        return None
    elif name in ("contiguous", "detach", "clone", "float", "double"):
        return None
    elif name == "squeeze":
        dim = given.take("dim", None)
        if dim not in (None, 1, -1):
            raise refuse(where, f"dim={dim}; it may take away the dimension of units, 1.")
        return None
    else:
        raise unknown(where, name)
    return layers


def _check_view(where: str, value: _Value, given: _Arguments) -> None:
    """A reshape that keeps each row's numbers together."""
    shape = given.kwargs.pop("shape", None) or given.args
    given.args = []
    shape = list(shape[0]) if len(shape) == 1 and isinstance(shape[0], (list, tuple)) else list(shape)
    rows, units = shape if len(shape) == 2 else (None, None)
    width = width_of(value.chain)
    fits = isinstance(units, int) and units > 0 and width in (None, units)
    if not (isinstance(rows, _Size) and (units == -1 or fits)) and not (rows == -1 and fits):
        raise refuse(where, f"a reshape to {shape}; rows are flattened with flatten(1).")


def _functional_norm(where: str, given: _Arguments) -> Chain:
    mean, variance = given.take("running_mean"), given.take("running_var")
    scale, shift = given.take("weight", None), given.take("bias", None)
    training, _, epsilon = given.take("training", False), given.take("momentum", 0.1), given.take("eps", 1e-5)
    if training or not isinstance(mean, np.ndarray) or not isinstance(variance, np.ndarray):
        raise refuse(where, "its output depends on the other rows of a batch.")
    scale = np.ones_like(mean) if scale is None else scale
    shift = np.zeros_like(mean) if shift is None else shift
    return (Norm(where, mean, variance, scale, shift, float(epsilon)),)


def _arithmetic(where: str, name: str, given: _Arguments) -> Any:
    """The chain of a sum, a product, a product with a matrix; an array where both are constants."""
    a = given.take("input")
    if name == "neg":
        given.end()
        return (*a.chain, *scaled(where, -1.0)) if isinstance(a, _Value) else -a
    b = given.take("other")
    alpha = given.take("alpha", 1) if name in ("add", "sub") else 1
    given.end()
    if name == "rsub":
        a, b, name = b, a, "sub"
    for operand in (a, b):
        if not isinstance(operand, (_Value, np.ndarray, int, float)):
            raise refuse(where, f"arithmetic with {operand!r}.")
        other = b if operand is a else a
        if isinstance(other, _Value) and isinstance(operand, np.ndarray) and operand.ndim > 2:
            raise refuse(where, f"a constant of shape {operand.shape}; rows have two dimensions.")
        if isinstance(operand, _Value) and operand.flat and (isinstance(other, _Value) or np.size(other) > 1):
            raise refuse(where, "it stands behind squeeze(), which took away the dimension of units.")
    if not isinstance(a, _Value) and not isinstance(b, _Value):
        operation = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "matmul": np.matmul}[name]
        return operation(a, b if alpha == 1 else alpha * b)
    if name == "matmul":
        if not isinstance(a, _Value) or not isinstance(b, np.ndarray):
            raise refuse(where, "a product of a constant, or of two values, with the input.")
        return (*a.chain, Affine(where, b, np.zeros(b.shape[-1])))
    sign = -1 if name == "sub" else 1
    if isinstance(a, _Value) and isinstance(b, _Value):
        if name == "div" or (name == "sub" or alpha != 1):
            if name == "div":
                raise refuse(where, "a quotient of two values.")
            return added(where, a.chain, (*b.chain, *scaled(where, sign * float(alpha))))
        return added(where, a.chain, b.chain) if name == "add" else multiplied(where, a.chain, b.chain)
    if name in ("add", "sub"):
        if isinstance(a, _Value):
            return (*a.chain, *scaled(where, 1.0, sign * alpha * np.asarray(b, np.float64)))
        return (*b.chain, *scaled(where, sign * float(alpha), a))
    if name == "mul":
        value, constant = (a, b) if isinstance(a, _Value) else (b, a)
        return (*value.chain, *scaled(where, constant))
    if not isinstance(a, _Value):
        raise refuse(where, "a quotient with the input below.")
    return (*a.chain, *scaled(where, 1 / np.asarray(b, np.float64)))


# --- to PyTorch ------------------------------------------------------------------------------------------------------


def to_torch(model: Any, *, logits: bool = False) -> Any:
    """A PyTorch module that computes what the networks of a model do.

    Parameters
    ----------
    model : Network, MLPClassifier, MLPRegressor, MLPEnsembleClassifier or MLPEnsembleRegressor
        Fitted. The module shares no memory with it. Of an estimator, dropout is a layer of the module too.
    logits : bool, default=False
        Leave out the output activation, as PyTorch's losses want it. Not for an ensemble, which averages outputs.

    Returns
    -------
    torch.nn.Sequential or torch.fx.GraphModule
        In ``eval()`` mode, of the network's element type; a GraphModule, which needs no fastmlp to be loaded, where
        there are residual layers, an exponential or several networks. Its output has shape (n_rows, n_outputs):
        probabilities, for two classes that of the second, or predictions.

    Raises
    ------
    ConversionError
        For estimators of tables, whose networks take coded columns.
    ImportError
        Without PyTorch.

    Examples
    --------
    >>> import torch
    >>> from fastmlp import Network
    >>> from fastmlp.interop import to_torch
    >>> to_torch(Network((4, 8, 3), random_state=0))
    Sequential(
      (0): Linear(in_features=4, out_features=8, bias=True)
      (1): ReLU()
      (2): Linear(in_features=8, out_features=3, bias=True)
      (3): Softmax(dim=1)
    )
    """
    torch = _torch()
    described = exported(model)
    chains = described.chains(logits)
    flat = [layer for chain in chains for layer in chain]
    plain = len(chains) == 1 and not any(isinstance(layer, Residual) or _is_exp(layer) for layer in flat)
    if plain:
        return torch.nn.Sequential(
            *(_module(layer, torch) for layer in chains[0] if not isinstance(layer, Noise))
        ).eval()
    graph, root = torch.fx.Graph(), torch.nn.Module()
    source = graph.placeholder("x")
    results = []
    for number, chain in enumerate(chains):
        holder, prefix = root, ""
        if len(chains) > 1:
            holder, prefix = torch.nn.Module(), f"{number}."
            root.add_module(str(number), holder)
        results.append(_write(graph, source, chain, holder, prefix, torch))
    total = results[0]
    for result in results[1:]:
        total = graph.call_function(operator.add, (total, result))
    graph.output(graph.call_function(operator.truediv, (total, len(results))) if len(results) > 1 else total)
    return torch.fx.GraphModule(root, graph, described.name).eval()


def _is_exp(layer: Layer) -> bool:
    return isinstance(layer, Activation) and layer.name == "exp"


def _write(graph: Any, node: Any, chain: Chain, holder: Any, prefix: str, torch: Any) -> Any:
    """Append a chain to a graph. Its modules have the numbers that they would have in an nn.Sequential."""
    for layer in chain:
        if isinstance(layer, Residual):
            node = graph.call_function(operator.add, (node, _write(graph, node, layer.body, holder, prefix, torch)))
        elif _is_exp(layer):
            node = graph.call_function(torch.exp, (node,))
        elif not isinstance(layer, Noise) and not (isinstance(layer, Activation) and layer.name == "identity"):
            name = str(len(list(holder.children())))
            holder.add_module(name, _module(layer, torch))
            node = graph.call_module(prefix + name, (node,))
    return node


def _module(layer: Layer, torch: Any) -> Any:
    """The module of a layer."""
    nn = torch.nn

    def tensor(array: np.ndarray) -> Any:
        return torch.from_numpy(np.array(array, order="C"))

    if isinstance(layer, Affine):
        fan_in, fan_out = layer.weight.shape
        linear = nn.Linear(fan_in, fan_out, bias=layer.bias is not None, device="meta")
        linear.weight = nn.Parameter(tensor(layer.weight.T))
        if layer.bias is not None:
            linear.bias = nn.Parameter(tensor(layer.bias))
        return linear
    if isinstance(layer, Norm):
        norm = nn.BatchNorm1d(len(layer.mean), eps=layer.epsilon, momentum=0.1, dtype=tensor(layer.mean).dtype)
        norm.weight, norm.bias = nn.Parameter(tensor(layer.scale)), nn.Parameter(tensor(layer.shift))
        norm.running_mean, norm.running_var = tensor(layer.mean), tensor(layer.variance)
        return norm
    if isinstance(layer, Dropout):
        return nn.Dropout(layer.rate)
    assert isinstance(layer, Activation)
    return {
        "logistic": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU, "leaky_relu": lambda: nn.LeakyReLU(0.01),
        "elu": nn.ELU, "selu": nn.SELU,
        "gelu": nn.GELU, "silu": nn.SiLU, "mish": nn.Mish, "softplus": lambda: nn.Softplus(threshold=40.0),
        "softmax": lambda: nn.Softmax(dim=1), "log_softmax": lambda: nn.LogSoftmax(dim=1),
        "log_logistic": nn.LogSigmoid,
    }[layer.name]()  # fmt: skip
