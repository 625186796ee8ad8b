"""A fitted model as one C file: weights and functions for single rows, without libraries."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import is_classifier
from sklearn.compose import TransformedTargetRegressor
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from fastmlp._version import __version__
from fastmlp.core import NORM_EPSILON
from fastmlp.estimators.base import BaseMLP
from fastmlp.estimators.ensemble import BaseMLPEnsemble
from fastmlp.interop.errors import ConversionError
from fastmlp.interop.serving import fold_scaler
from fastmlp.network.network import Network

_FUNCTIONS = (Path(__file__).parent / "c_functions.txt").read_text(encoding="utf-8")


def to_c(model: Any, name: str = "model", fma: bool = False, quantize: str | None = None) -> str:
    """A fitted model as the text of one C file that predicts single rows.

    The file needs the standard headers only. Its functions allocate nothing and keep no state, so that threads may call
    them at the same time. It compiles as C99 and as C++11 and later, without warnings, as a header or by itself.

    Parameters
    ----------
    model : Network, MLPClassifier, MLPRegressor, MLPEnsembleClassifier, MLPEnsembleRegressor, Pipeline or \
TransformedTargetRegressor
        Fitted. Scalers of a pipeline, or of the target, become part of the layers, as in :func:`fastmlp.fold_scaler`.
    name : str, default='model'
        Begins each name in the file: letters, digits and underscores, the first a letter.
    fma : bool, default=False
        Round as fastmlp does, with C's ``fma``: the outputs are then the bits of ``Network.forward`` on CPUs with fused
        multiply-add (AVX2, AVX-512, NEON), for all activations, output activations and both element types, with batch
        normalisation and residual layers. Compile with ``-march=native`` or ``-mfma``: without the instruction, ``fma``
        is a slow function. Clang's ``-ffp-contract=fast`` would change them. False: sums of products, and batch
        normalisation folded into the weights. Outputs agree to rounding.
    quantize : {'int8'}, default=None
        Store weights in a byte each, with one scale per unit: they take a quarter of the memory of float32. A weight is
        then off by up to 1/254 of its unit's largest. A 64-64-10 classifier of handwritten digits kept its accuracy to
        0.5 %, and its probabilities moved by less than 0.01 on average; measure the loss of yours. Biases and
        arithmetic keep their type. With ``fma=True`` too, outputs are not the bits of ``Network.forward``.

    Returns
    -------
    str
        With ``name="model"``, and ``real`` for the model's element type, float or double:

        - ``void model_forward(const real *x, real *y)`` of a Network: its output;
        - ``void model_predict(const real *x, real *y)`` of a regressor: its values;
        - ``int model_predict(const real *x)`` of a classifier: the class's index in ``model_class_names`` (for classes
          that are integers, also in ``model_classes``), and ``void model_predict_proba(const real *x, real *y)``;
        - ``void model_predict(const real *x, int *labels)`` of a multi-label classifier: 0 or 1 for each label;
        - ``model_n_inputs``, ``model_n_outputs`` (numbers in y), and ``model_feature_names``, where the model has them.

        ``x`` and ``y`` must not overlap. Functions are static, unless ``MODEL_API`` is defined otherwise:
        ``-DMODEL_API=`` exports them.

    Raises
    ------
    ConversionError
        For a model that C cannot hold: a pipeline with a step that cannot be folded, tables and networks of coded rows.
    NotFittedError
    TypeError
        For another kind of object.
    ValueError
        For a name of other characters, another ``quantize``, or parameters that are not finite.

    Examples
    --------
    >>> from fastmlp import Network
    >>> from fastmlp.interop import to_c
    >>> text = to_c(Network((4, 8, 3), random_state=0), "iris")
    >>> "void iris_forward(const float *x, float *y)" in text
    True
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
        raise ValueError(f"name must be letters, digits and underscores, the first a letter, got {name!r}.")
    if quantize not in (None, "int8"):
        raise ValueError(f"quantize must be None or 'int8', got {quantize!r}.")
    model = _without_scalers(model)
    if isinstance(model, Network):
        return _File(name, [model], bool(fma), quantize).text(_network_functions(model), _Labels())
    if not isinstance(model, (BaseMLP, BaseMLPEnsemble)):
        raise TypeError(
            f"to_c takes a Network, an estimator of fastmlp or a pipeline that ends with one, got {model!r:.200}."
        )
    check_is_fitted(model)
    members = model.estimators_ if isinstance(model, BaseMLPEnsemble) else [model]
    networks = [member.network_ for member in members]
    names = getattr(model, "feature_names_in_", None)
    labels = _Labels(None if names is None else names.tolist(), model.classes_ if is_classifier(model) else None)
    functions = _classifier_functions(model, members[0]) if is_classifier(model) else _regressor_functions(model)
    return _File(name, networks, bool(fma), quantize).text(functions, labels)


def _without_scalers(model: Any) -> Any:
    """The model itself, or the estimator within a pipeline whose steps can all be folded."""
    if not isinstance(model, (Pipeline, TransformedTargetRegressor)):
        if type(model).__module__.startswith("fastmlp.tabular"):
            raise ConversionError(
                f"{type(model).__name__} cannot be written as C: its rows hold words, dates and gaps, which the file "
                "has no reader for. Fit an MLPClassifier or MLPRegressor on columns of numbers, or serve it with "
                "RowPredictor."
            )
        return model
    last = model
    while isinstance(last, (Pipeline, TransformedTargetRegressor)):
        check_is_fitted(last)
        last = last.regressor_ if isinstance(last, TransformedTargetRegressor) else last[-1]
    if isinstance(model, Pipeline) and all(step in (None, "passthrough") for _, step in model.steps[:-1]):
        return _without_scalers(model[-1])
    try:
        folded = fold_scaler(model)
    except ValueError as error:
        raise ConversionError(f"The pipeline cannot be written as C: {error}") from error
    if isinstance(folded, Pipeline):
        step = folded.steps[-2]
        raise ConversionError(
            f"{step[0]} ({type(step[1]).__name__}) cannot be written as C: only scalers directly before the estimator "
            "become part of its layers. Do this step in the program, and pass the rest, pipeline[-1] or a shorter "
            "pipeline."
        )
    if isinstance(folded, TransformedTargetRegressor):
        raise ConversionError(
            f"The target's transformer {type(folded.transformer_).__name__} cannot be written as C. Undo it in the "
            "program, and pass model.regressor_."
        )
    return folded


class _Labels(NamedTuple):
    """What the file names: a model's columns and classes."""

    features: list[str] | None = None
    classes: Any = None


class _Function(NamedTuple):
    """A function of the file: its declaration, what it does, and its body's lines, where $ begins the file's own
    names."""

    declaration: str
    does: str
    body: list[str]


def _network_functions(network: Network) -> list[_Function]:
    return [_Function("void $forward(const REAL *x, REAL *y)", "the output for a row", ["$mean(x, y);"])]


def _regressor_functions(model: Any) -> list[_Function]:
    return [_Function("void $predict(const REAL *x, REAL *y)", "the prediction of a row", ["$mean(x, y);"])]


def _classifier_functions(model: Any, member: Any) -> list[_Function]:
    """predict and predict_proba, as classifier._labels and ._probabilities compute them."""
    n_classes = len(model.classes_)
    copy = "for (i = 0; i < $n_outputs; i++)"
    proba = "void $predict_proba(const REAL *x, REAL *y)"
    about_proba = "the probability of each class"
    if member._target_type.startswith("multilabel"):
        return [
            _Function(proba, "the probability of each label", ["$mean(x, y);"]),
            _Function(
                "void $predict(const REAL *x, int *labels)",
                "0 or 1 for each label",
                ["REAL y[$n_outputs];", "size_t i;", "$mean(x, y);", copy, "    labels[i] = y[i] > <0.5f|0.5>;"],
            ),
        ]
    if n_classes == 1:
        return [
            _Function(proba, "1: there is one class", ["(void)x;", "y[0] = 1;"]),
            _Function("int $predict(const REAL *x)", "0: there is one class", ["(void)x;", "return 0;"]),
        ]
    if member.n_outputs_ == 1:
        return [
            _Function(proba, about_proba, ["$mean(x, y);"]),
            _Function(
                "int $predict(const REAL *x)",
                "the index of the more probable class",
                ["REAL y[2];", "$mean(x, y);", "return y[1] > <0.5f|0.5>;"],
            ),
        ]
    return [
        _Function(proba, about_proba, ["$mean(x, y);"]),
        _Function(
            "int $predict(const REAL *x)",
            "the index of the most probable class",
            [
                "REAL y[$n_outputs];", "size_t i;", "int top = 0;", "$mean(x, y);", copy, "    if (y[i] > y[top])",
                "        top = (int)i;", "return top;",
            ],
        ),
    ]  # fmt: skip


class _File:
    """The C file of one or several networks, whose outputs are averaged."""

    def __init__(self, name: str, networks: Sequence[Network], fma: bool, quantize: str | None) -> None:
        self.name, self.fma, self.quantize = name, fma, quantize
        for network in networks:
            network.adopt()
            if network.embedding:
                raise ConversionError(
                    "The network embeds coded rows (embedding > 0), which cannot be written as C: the file takes rows "
                    "of numbers."
                )
            if not (np.isfinite(network.parameters).all() and np.isfinite(network.statistics).all()):
                raise ValueError("The network's parameters and statistics must be finite.")
        self.dtype = networks[0].dtype
        # With fma, the normalisation stays the core's own step after the product; otherwise it is folded into the
        # weights.
        self.networks = [network if fma and quantize is None else network.folded() for network in networks]
        self.bits = 8 * self.dtype.itemsize

    def text(self, functions: list[_Function], labels: _Labels) -> str:
        """The whole file."""
        first = self.networks[0]
        one_class = labels.classes is not None and len(labels.classes) == 1
        # Two classes have one output, of which both probabilities are computed.
        is_pair = labels.classes is not None and first.layer_sizes[-1] == 1 and not one_class
        n_outputs = 2 if is_pair else first.layer_sizes[-1]
        bodies = []
        arrays: list[str] = []
        if not one_class:
            for number, network in enumerate(self.networks):
                arrays += self._arrays(number, network)
                bodies += self._network(number, network, is_pair)
            bodies += self._mean(n_outputs)
        for function in functions:
            bodies += [f"/* {function.does} */", f"$API {function.declaration} {{"]
            bodies += [*(f"    {line}" for line in function.body), "}", ""]
        code = self._filled("\n".join(bodies))
        parts = [
            self._head(functions, n_outputs, 0 if one_class else self._stack(n_outputs, labels.classes is not None)),
            f"enum {{ {self.name}_n_inputs = {first.layer_sizes[0]}, {self.name}_n_outputs = {n_outputs} }};\n",
            *self._names(labels),
            *arrays,
            self._exactly(f"{self._helpers(code)}\n{code}"),
            f"#endif /* {self._guard} */\n",
        ]
        return "\n".join(parts)

    @property
    def _guard(self) -> str:
        return f"{self.name}_H"

    def _filled(self, text: str) -> str:
        """C from a template: $x and $XX are names of the file's own, <a|b> the spelling for float and for double."""
        text = re.sub(r"<([^<>|]*)\|([^<>|]*)>", lambda match: match[1 if self.bits == 32 else 2], text)
        text = re.sub(r"\$(?=[A-Z]{2})", f"{self.name.upper()}_", text).replace("$", f"{self.name}_")
        return re.sub(r"\bREAL\b", "float" if self.bits == 32 else "double", text)

    def _stack(self, n_outputs: int, is_classifier: bool) -> int:
        """Bytes of the local arrays: hidden layers, one network's output of several, and the output before a class."""
        n_outputs *= is_classifier + (len(self.networks) > 1)
        return self.dtype.itemsize * (sum(_widths(self.networks[0])) + n_outputs)

    def _head(self, functions: list[_Function], n_outputs: int, stack: int) -> str:
        """Comment, headers, and the marks that functions and arrays bear."""
        first, upper = self.networks[0], self.name.upper()
        sizes = "-".join(map(str, first.layer_sizes))
        count = f"{len(self.networks)} networks {sizes}" if len(self.networks) > 1 else f"a network {sizes}"
        hidden = ", ".join(dict.fromkeys(first.activations)) or "none"
        traits = ["residual layers"] * first.residual + ["weights of one byte"] * (self.quantize == "int8")
        described = f"{count}, hidden activation {hidden}, output {first.out_activation}, {self.dtype.name}"
        lines = [
            f"{self.name}: written by fastmlp {__version__}. {', '.join([described, *traits])}.",
            "",
            *(f"    {self._filled(function.declaration)};  {function.does}" for function in functions),
            "",
            f"x has {first.layer_sizes[0]} numbers, y has {n_outputs}; they must not overlap. The functions allocate "
            f"nothing, keep no state, and",
            f"use up to about {stack + 512:,} bytes of the stack. They are static unless {upper}_API is defined "
            f"otherwise. Not for -ffast-math.",
        ]
        if self.fma:
            lines += [
                "Compile with -march=native or -mfma, and link with -lm: fma is a slow function without the "
                "instruction."
            ]
        comment = "\n".join(["/* " + lines[0], *((" * " + line).rstrip() for line in lines[1:])]) + "\n */"
        return f"""{comment}
#ifndef {self._guard}
#define {self._guard}

#include <float.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
{"#include <math.h>" if self.fma else ""}
#if defined(__FAST_MATH__)
#error "the functions of this file need IEEE arithmetic: compile without -ffast-math"
#endif
#if defined(__GNUC__)
#define {upper}_UNUSED __attribute__((unused))
#define {upper}_RESTRICT __restrict__
#else
#define {upper}_UNUSED
#define {upper}_RESTRICT
#endif
#ifndef {upper}_API
#define {upper}_API static {upper}_UNUSED
#endif
"""

    def _names(self, labels: _Labels) -> list[str]:
        """Arrays with the names of columns and classes."""
        parts = []
        if labels.features is not None:
            parts.append(self._strings("feature_names", labels.features))
        if labels.classes is not None:
            classes = labels.classes.tolist()
            parts.append(self._strings("class_names", map(str, classes)))
            if labels.classes.dtype.kind in "iu" and max(map(abs, classes)) < 2**63:
                parts.append(self._array("classes", "long long", [f"{value}" for value in classes]))
        return parts

    def _strings(self, what: str, values: Iterable[str]) -> str:
        quoted = [f'"{_escaped(value)}"' for value in values]
        return self._array(what, "char *const", quoted, per_line=1)

    def _array(self, what: str, kind: str, values: Sequence[str], per_line: int = 8) -> str:
        lines = [", ".join(values[at : at + per_line]) for at in range(0, len(values), per_line)]
        body = ",\n    ".join(lines)
        declared = f"static const {kind} {self.name}_{what}[{len(values)}]"
        return f"{declared} {self.name.upper()}_UNUSED = {{\n    {body},\n}};\n"

    def _reals(self, what: str, values: np.ndarray) -> str:
        form, kind = ("%.8ef", "float") if self.bits == 32 else ("%.16e", "double")
        return self._array(what, kind, [form % value for value in values.ravel().tolist()])

    def _arrays(self, number: int, network: Network) -> list[str]:
        """The numbers of a network."""
        arrays = []
        for layer, (W, b) in enumerate(zip(network.coefs, network.intercepts, strict=True)):
            place = f"{number}_{layer}"
            if self.quantize is None:
                arrays.append(self._reals(f"W{place}", W))
            else:
                steps, bytes_ = _quantized(W)
                arrays.append(
                    self._array(f"W{place}", "signed char", [f"{value}" for value in bytes_.ravel().tolist()], 20)
                )
                arrays.append(self._reals(f"step{place}", steps))
            if layer < len(network.scales):
                scale = network.scales[layer] / np.sqrt(network.variances[layer] + self.dtype.type(NORM_EPSILON))
                arrays.append(self._reals(f"scale{place}", scale))
                arrays.append(self._reals(f"shift{place}", b - network.means[layer] * scale))
            else:
                arrays.append(self._reals(f"b{place}", b))
        return arrays

    def _network(self, number: int, network: Network, is_pair: bool) -> list[str]:
        """The function that computes a network's output."""
        sizes, last = network.layer_sizes, len(network.layer_sizes) - 2
        widths = _widths(network)
        lines = [f"static void $net{number}(const REAL *$RESTRICT x, REAL *$RESTRICT y) {{"]
        lines += [f"    REAL h{i}[{width}];" for i, width in enumerate(widths) if width]
        source = "x"
        for layer in range(last + 1):
            fan_in, fan_out, place = sizes[layer], sizes[layer + 1], f"{number}_{layer}"
            target = "y" if layer == last else f"h{layer % 2}"
            normalised = layer < len(network.scales)
            bias = "NULL" if normalised else f"$b{place}"
            if self.quantize is None:
                lines.append(f"    $dense({source}, $W{place}, {bias}, {target}, {fan_in}, {fan_out});")
            else:
                lines.append(
                    f"    $dense_int8({source}, $W{place}, $step{place}, {bias}, {target}, {fan_in}, {fan_out});"
                )
            if normalised:
                lines.append(f"    $normalise({target}, $scale{place}, $shift{place}, {fan_out});")
            activation = network.out_activation if layer == last else network.activations[layer]
            if layer == last and is_pair:
                lines += ["    y[1] = $logistic(y[0]);", "    y[0] = $logistic(-y[0]);"]
            elif activation in ("softmax", "log_softmax"):
                lines.append(f"    ${activation}_row({target}, {fan_out});")
            elif activation != "identity":
                lines += [
                    f"    for (size_t i = 0; i < {fan_out}; i++)",
                    f"        {target}[i] = ${activation}({target}[i]);",
                ]
            if network.residual and layer < last and fan_in == fan_out:
                lines += [f"    for (size_t i = 0; i < {fan_out}; i++)", f"        {target}[i] += {source}[i];"]
            source = target
        return [*lines, "}", ""]

    def _mean(self, n_outputs: int) -> list[str]:
        """The function that averages the networks' outputs, in their order."""
        lines = ["static void $mean(const REAL *x, REAL *y) {"]
        if len(self.networks) > 1:
            lines += [f"    REAL own[{n_outputs}];"]
        lines += ["    $net0(x, y);"]
        for number in range(1, len(self.networks)):
            lines += [
                f"    $net{number}(x, own);",
                f"    for (size_t i = 0; i < {n_outputs}; i++)",
                "        y[i] += own[i];",
            ]
        if len(self.networks) > 1:
            lines += [f"    for (size_t i = 0; i < {n_outputs}; i++)", f"        y[i] /= {len(self.networks)};"]
        return [*lines, "}", ""]

    def _helpers(self, code: str) -> str:
        """The functions that the code calls, and those that they call, in the order of c_functions.txt."""
        blocks: dict[str, str] = {}
        fused = "fused" if self.fma else "plain"
        for block in re.split(r"(?m)^### ", _FUNCTIONS)[1:]:
            title, _, body = block.partition("\n")
            name, *only = title.split()
            if not only or only[0] == fused:
                blocks[name] = self._filled(body.strip("\n"))
        called: set[str] = set()
        waiting = [code]
        while waiting:
            names = {name for name in re.findall(rf"\b{self.name}_(\w+)\(", waiting.pop()) if name in blocks}
            waiting += [blocks[name] for name in names - called]
            called |= names
        return "\n\n".join(text for name, text in blocks.items() if name in called) + "\n"

    def _exactly(self, code: str) -> str:
        """With fma, products and sums are fused where it is written and nowhere else, though compilers may do more
        unless they are told."""
        if not self.fma:
            return code
        return f"""#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
#endif

{code}
#if defined(__clang__)
#pragma STDC FP_CONTRACT DEFAULT
#elif defined(__GNUC__)
#pragma GCC pop_options
#endif
"""


def _widths(network: Network) -> list[int]:
    """Widths of the two arrays that hold the hidden layers in turn."""
    return [max([0, *network.layer_sizes[1 + i : -1 : 2]]) for i in (0, 1)]


def _quantized(W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A step for each column, and the weights as multiples of it, from -127 to 127."""
    steps = np.abs(W).max(axis=0) / np.asarray(127, W.dtype)
    with np.errstate(divide="ignore", invalid="ignore"):
        multiples = np.where(steps > 0, W / steps, 0)
    return steps, np.clip(np.rint(multiples), -127, 127).astype(np.int8)


def _escaped(text: str) -> str:
    """The inside of a C string: UTF-8, without trigraphs."""
    plain = set(range(32, 127)) - set(b'"\\?')
    return "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode("utf-8", "surrogatepass"))
