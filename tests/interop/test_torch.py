"""PyTorch both ways."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from networks import NETWORKS, assert_agrees, network, rows, same_bits

import fastmlp.core as core
from fastmlp import MLPClassifier, MLPEnsembleClassifier, MLPRegressor, TabularClassifier
from fastmlp.interop import ConversionError, from_torch, to_torch

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning"),
]


def output(module, X):
    with torch.no_grad():
        return copy.deepcopy(module).eval()(torch.from_numpy(X)).numpy()


def check(module, X=None, **options):
    """The converted network computes what the module does."""
    X = rows() if X is None else X
    converted = from_torch(module, **options)
    assert_agrees(output(module, X), converted.network, X.reshape(len(X), -1))
    return converted


@pytest.mark.parametrize("options", NETWORKS)
def test_round_trip(options):
    """The module agrees, and comes back with the same bits."""
    net = network(**options)
    module = to_torch(net)
    X = rows(net.dtype)
    assert_agrees(output(module, X), net, X)
    converted = from_torch(module)
    assert same_bits(converted.network, net)
    assert not [note for note in converted.notes if "no longer" in note]


def norm(n, affine=True, epsilon=1e-5):
    part = nn.BatchNorm1d(n, eps=epsilon, affine=affine)
    part.running_mean.normal_()
    part.running_var.uniform_(0.3, 2)
    if affine:
        nn.init.normal_(part.weight)
        nn.init.normal_(part.bias)
    return part


@pytest.mark.parametrize("epsilon", [1e-5, 1e-3])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("where", ["before", "after", "input", "output", "twice"])
def test_batch_norm_anywhere(where, affine, epsilon):
    torch.manual_seed(0)
    parts = [nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)]
    place = {"before": 1, "after": 2, "input": 0, "output": 3, "twice": 1}[where]
    parts.insert(place, norm(5 if where == "input" else 3 if where == "output" else 6, affine, epsilon))
    if where == "twice":
        parts.insert(1, norm(6, affine, epsilon))
    converted = check(nn.Sequential(*parts))
    kept = where in ("before", "twice")
    assert converted.network.batch_norm == kept
    assert any("folded" in note for note in converted.notes) == (where != "before")
    assert not check(nn.Sequential(*parts), batch_norm="fold").network.batch_norm


def test_kept_batch_norm_trains_as_before():
    """Outputs with a batch's own averages agree too: the epsilon is in the scales."""
    module = nn.Sequential(nn.Linear(5, 6), norm(6, epsilon=1e-5), nn.Tanh(), nn.Linear(6, 3))
    net = from_torch(module).network
    X, y = rows(), np.arange(40) % 3
    out = module.train()(torch.from_numpy(X))
    loss = F.mse_loss(out, torch.eye(3)[torch.from_numpy(y)]) / 2
    value, _ = net.loss_gradient(X, np.eye(3, dtype=np.float32)[y])
    assert value == pytest.approx(loss.item(), rel=1e-5)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 2)
        self.drop = nn.Dropout(0.25)

    def forward(self, x):
        x = x + F.gelu(self.first(x))
        x = self.drop(self.second(x).tanh() + x)
        return torch.softmax(self.last(x), dim=-1)


class Functions(nn.Module):
    """Methods, functions, constants, gates written out."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 7), nn.Linear(7, 6), nn.Linear(6, 2)
        self.register_buffer("mean", torch.randn(5))
        self.scale = nn.Parameter(torch.rand(5) + 0.5)

    def forward(self, x):
        x = (x.view(x.size(0), -1) - self.mean) / self.scale
        h = self.a(x)
        h = h * torch.sigmoid(h)
        h = F.linear(h, self.b.weight, self.b.bias)
        h = 0.5 * h * (1 + torch.erf(h / 2**0.5))
        return 3 - 2 * self.c(F.dropout(h, 0.2, self.training)).squeeze()


@pytest.mark.parametrize("module", [Residual, Functions])
def test_forward_of_ones_own(module):
    torch.manual_seed(0)
    converted = check(module().train())
    if module is Residual:
        assert converted.network.residual
        assert converted.parameters["dropout"] == (0.0, 0.0, 0.25)
    else:
        assert converted.network.activations == ("silu", "gelu")
        assert converted.parameters["dropout"] == (0.0, 0.0, 0.2)


def wrapped(*parts):
    return nn.Sequential(nn.Linear(5, 6), *parts)


@pytest.mark.parametrize(
    "parts",
    [
        (nn.CELU(2.0), nn.Linear(6, 2)),
        (nn.Softplus(beta=2.0), nn.Linear(6, 2)),
        (nn.LogSigmoid(), nn.Linear(6, 2)),
        (nn.Linear(6, 2), nn.LogSigmoid()),
        (nn.Linear(6, 2), nn.LogSoftmax(1)),
        (nn.LeakyReLU(0.0), nn.Linear(6, 2)),
        (nn.Linear(6, 6), nn.Linear(6, 2, bias=False)),
        (nn.ReLU(), nn.ReLU(), nn.Identity(), nn.Linear(6, 2)),
        (nn.Sequential(nn.ReLU(inplace=True), nn.Sequential()), nn.Dropout(0.1), nn.Flatten(), nn.Linear(6, 2),
            nn.Sigmoid()),
        (nn.RReLU(0.01, 0.01), nn.Linear(6, 2)),
        (nn.AlphaDropout(0.1), nn.SELU(), nn.Linear(6, 1), nn.Softplus()),
    ],
    ids=str,
)  # fmt: skip
def test_converted_as_it_is(parts):
    torch.manual_seed(0)
    check(wrapped(*parts))
    check(wrapped(*parts).double(), X=rows("float64"))


@pytest.mark.parametrize(
    "gate",
    [lambda h: h * torch.tanh(F.softplus(h)), lambda h: torch.sigmoid(1.702 * h) * h,
        lambda h: h * 0.5 * (torch.erf(h / 2**0.5) + 1)]
)  # fmt: skip
def test_gates_written_out(gate):
    check(Forward(lambda s, x: s.c(gate(s.a(x)))))


def test_softplus_beyond_its_threshold():
    """Said in float64, where the difference shows."""
    module = wrapped(nn.Softplus(), nn.Linear(6, 2))
    assert not from_torch(module).notes
    assert "2.1e-9" in from_torch(module.double()).notes[0]
    assert not from_torch(wrapped(nn.Softplus(threshold=40), nn.Linear(6, 2)).double()).notes


def test_slopes_of_float32():
    """The nearest number to 0.01 is leaky_relu's in float32, and another one in float64."""
    module = wrapped(nn.PReLU(init=0.01), nn.Linear(6, 2))
    assert check(module).network.activations == ("leaky_relu",)
    with pytest.raises(ConversionError, match=r"slope 0\.01"):
        from_torch(module.double())


@pytest.mark.parametrize("with_norm", [False, True])
@pytest.mark.parametrize(
    "parts",
    [
        (nn.LeakyReLU(0.2), nn.Linear(6, 2)),
        (nn.LeakyReLU(-0.5), nn.Tanh(), nn.Linear(6, 2)),
        (nn.PReLU(), nn.Linear(6, 2)),
        (nn.PReLU(6), nn.Linear(6, 2)),
        (nn.ReLU6(), nn.Linear(6, 2)),
        (nn.Hardtanh(-0.3, 0.4), nn.Linear(6, 2)),
        (nn.Hardsigmoid(),),
        (nn.Tanh(), nn.Sigmoid(), nn.Linear(6, 2)),
        (nn.Tanh(), nn.BatchNorm1d(6)),
        (nn.CELU(3.0),),
        (nn.RReLU(), nn.Linear(6, 2)),
    ],
    ids=str,
)
def test_rewritten(parts, with_norm):
    """Only when asked; then with more units or layers, and a note."""
    torch.manual_seed(0)
    module = wrapped(*([norm(6)] if with_norm else []), *parts)
    with pytest.raises(ConversionError, match="rewrite=True"):
        from_torch(module)
    assert check(module, rewrite=True).notes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_types(dtype):
    module = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2)).to(dtype)
    converted = from_torch(module)
    assert converted.network.dtype == np.float32
    assert "float32" in converted.notes[0]
    assert_agrees(output(module.float(), rows()), converted.network, rows())


@pytest.mark.parametrize(
    "wrap",
    [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm, nn.utils.weight_norm,
        nn.utils.spectral_norm],
    ids=lambda wrap: f"{wrap.__module__}.{wrap.__name__}",
)  # fmt: skip
def test_weights_that_are_computed(wrap):
    torch.manual_seed(0)
    module = nn.Sequential(wrap(nn.Linear(5, 6)), nn.ReLU(), wrap(nn.Linear(6, 2)))
    optimizer = torch.optim.SGD(module.parameters(), 0.5)
    module(torch.from_numpy(rows())).square().sum().backward()
    optimizer.step()  # the weight of the last forward is not that of the next one
    X = rows()
    converted = from_torch(module)
    module.eval()
    with torch.no_grad():
        assert_agrees(module(torch.from_numpy(X)), converted.network, X)


def test_single_layers():
    check(nn.Linear(5, 2))
    check(nn.Linear(5, 1, bias=False).double(), X=rows("float64"))
    check(nn.utils.parametrizations.weight_norm(nn.Linear(5, 2)))
    check(torch.nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), X=rows(n_features=12).reshape(-1, 3, 4))


def test_the_module_is_not_changed():
    module = nn.Sequential(nn.Linear(5, 6), nn.Dropout(0.5), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
    module[2].eval()
    before = copy.deepcopy(module.state_dict())
    from_torch(module)
    assert [part.training for part in module] == [True, True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_output_behind_logits():
    module = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    for name, layer in [("softmax", nn.Softmax(1)), ("logistic", nn.Sigmoid()), ("sigmoid", nn.Sigmoid())]:
        net = from_torch(module, name).network
        assert_agrees(output(nn.Sequential(module, layer), rows()), net, rows())
    with pytest.raises(ConversionError, match="Leave it out"):
        from_torch(nn.Sequential(module, nn.Tanh()), "softmax")
    with pytest.raises(ValueError, match="Did you mean 'softmax'"):
        from_torch(module, "sofmax")


def test_estimators_of_a_module():
    module = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3))
    classifier = from_torch(module, "softmax").classifier(["a", "b", "c"], alpha=0.1)
    assert classifier.dropout == (0.0, 0.3)
    assert classifier.alpha == 0.1
    y = np.array(list("abc"))[np.arange(40) % 3]
    classifier.set_params(max_iter=2).fit(rows(), y)
    logs = from_torch(nn.Sequential(module, nn.LogSoftmax(1)))
    assert logs.network.out_activation == "log_softmax"
    np.testing.assert_allclose(
        logs.classifier(list("abc")).predict_log_proba(rows()),
        logs.network.forward(rows()),
        rtol=1e-6,
    )
    with pytest.raises(ValueError, match="output='softmax'"):
        from_torch(module).classifier(range(3))
    assert from_torch(module).regressor().predict(rows()).shape == (40, 3)


# --- refusals ---------------------------------------------------------------------------------------------------------


class Forward(nn.Module):
    """A module whose forward is a function of its layers and x."""

    def __init__(self, function):
        super().__init__()
        self.a, self.b, self.c, self.wide = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 2), nn.Linear(5, 7)
        self.norm = nn.BatchNorm1d(5)
        self.function = function

    def forward(self, x):
        return self.function(self, x)


def hooked():
    layer = nn.Linear(5, 2)
    layer.register_forward_hook(lambda module, args, output: output + 1)
    return nn.Sequential(layer)


def patched():
    layer = nn.Linear(5, 2)
    layer.forward = lambda x: x
    return nn.Sequential(layer)


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


REFUSED = {
    "slope": (lambda: wrapped(nn.LeakyReLU(0.2), nn.Linear(6, 2)),
        r"1 \(LeakyReLU\): slope 0.2; fastmlp has 0.01. rewrite=True"),
    "alpha": (lambda: wrapped(nn.ELU(0.5), nn.Linear(6, 2)), r"1 \(ELU\): alpha 0.5; fastmlp's elu has 1"),
    "gelu": (lambda: wrapped(nn.GELU(approximate="tanh"), nn.Linear(6, 2)), "tanh form of gelu"),
    "threshold": (lambda: wrapped(nn.Softplus(threshold=5), nn.Linear(6, 2)), "threshold 5"),
    "layer norm": (lambda: wrapped(nn.LayerNorm(6), nn.Linear(6, 2)), "no counterpart of LayerNorm"),
    "convolution": (lambda: nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(6, 2)), "Conv1d"),
    "batch_norm 2d": (lambda: nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(6, 2)), "BatchNorm2d"),
    "recurrent": (lambda: nn.Sequential(nn.GRU(5, 2)), "GRU"),
    "embedding": (lambda: nn.Sequential(nn.Embedding(5, 2)), "Embedding"),
    "softsign": (lambda: wrapped(nn.Softsign(), nn.Linear(6, 2)), "softsign"),
    "hardswish": (lambda: wrapped(nn.Hardswish(), nn.Linear(6, 2)), "silu comes near"),
    "hidden softmax": (lambda: wrapped(nn.Softmax(1), nn.Linear(6, 2)), "as the last one only"),
    "softmax of a column": (lambda: wrapped(nn.Softmax(0)), "dim=0"),
    "no averages": (lambda: wrapped(nn.BatchNorm1d(6, track_running_stats=False), nn.Linear(6, 2)), "running averages"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(3)), "no weights yet"),
    "hook": (hooked, "hooks"),
    "patched": (patched, "no counterpart"),
    "subclass": (lambda: nn.Sequential(Doubled(5, 2)), None),
    "no weights": (lambda: nn.Sequential(nn.ReLU()), "linear layer"),
    "empty": (lambda: nn.Sequential(), "no layer with weights"),
    "not finite": (lambda: nn.Sequential(filled(np.nan)), "not finite"),
    "too large": (lambda: nn.Sequential(filled(1e300).double(), nn.ReLU()), None),
    "two branches": (lambda: Forward(lambda s, x: s.c(F.relu(s.a(x)) + F.relu(s.b(x)))), "sum of two branches"),
    "deep branch": (lambda: Forward(lambda s, x: s.c(x + s.b(F.relu(s.a(x))))), "several layers"),
    "scaled branch": (lambda: Forward(lambda s, x: s.c(x + 0.1 * F.relu(s.a(x)))), "scale behind its activation"),
    "some residual": (lambda: Forward(lambda s, x: s.c(F.relu(s.b(x + F.relu(s.a(x)))))), "all such layers"),
    "residual at the end": (lambda: Forward(lambda s, x: x + F.relu(s.a(x))), "rewrite=True"),
    "scaled skip": (lambda: Forward(lambda s, x: s.c(s.norm(x) + F.relu(s.a(s.norm(x))))), None),
    "scaled input of a sum": (lambda: Forward(lambda s, x: (lambda h: s.c(h + F.relu(s.a(h))))(s.norm(x))),
        "both the input"),
    "product": (lambda: Forward(lambda s, x: s.c(s.a(x) * s.b(x))), "product of two values"),
    "gate": (lambda: Forward(lambda s, x: s.c(x * torch.tanh(x))), "product of two values"),
    "quotient": (lambda: Forward(lambda s, x: s.c(x / s.a(x))), "quotient"),
    "control flow": (lambda: Forward(lambda s, x: s.c(x) if x.sum() > 0 else -s.c(x)), "cannot be traced"),
    "mean": (lambda: Forward(lambda s, x: s.c(x - x.mean(0))), "mean"),
    "two outputs": (lambda: Forward(lambda s, x: (s.c(x), s.a(x))), "one tensor"),
    "cat": (lambda: Forward(lambda s, x: s.c(torch.cat([x, x], 1))), None),
    "dropout in prediction": (lambda: Forward(lambda s, x: s.c(F.dropout(x, 0.5, True))), "training"),
    "batch statistics": (lambda: Forward(lambda s,
        x: s.c(F.batch_norm(x, s.norm.running_mean, s.norm.running_var, training=True))), "batch"),
    "changed in place": (lambda: Forward(lambda s, x: (lambda h: s.c(h + F.relu(h, inplace=True)))(s.a(x))),
        "in place"),
    "changed by position": (lambda: Forward(lambda s, x: (lambda h: s.c(F.relu(h, True) + h))(s.a(x))), "in place"),
    "changed by a method": (lambda: Forward(lambda s, x: (lambda h: s.c(h.relu_() + h))(s.a(x))), "in place"),
    "changed through a view": (lambda: Forward(lambda s, x: (lambda h: s.c(h.flatten(1).relu_() + h))(s.a(x))),
        "in place"),
    "reshaped": (lambda: Forward(lambda s, x: s.c(s.a(x).view(-1, 1))), "reshape"),
    "clipped": (lambda: Forward(lambda s, x: s.c(s.a(x).clamp(-1, 1))), "rewrite=True"),
    "sum behind squeeze": (lambda: Forward(lambda s, x: (lambda h: h + torch.tanh(h).squeeze())(s.c(x)[:, :1])), None),
    "softmax behind squeeze": (lambda: Forward(lambda s, x: torch.softmax(s.a(x).squeeze(), -1)), "squeeze"),
    "columns of rows": (lambda: Forward(lambda s, x: s.c(x[:, :2])), None),
}  # fmt: skip


def in_place(function):
    """A forward that changes a hidden value in place, and then reads it by its other name."""

    def forward(s, x):
        h = s.a(x)
        return s.c(function(h, s))

    return Forward(forward)


def added_to_alias(h, s):
    skip = h
    h += 1.0
    return skip


def scaled_view(h, s):
    view = h.flatten(1)
    view *= 2
    return h


def rectified_after_dropout(h, s):
    same = F.dropout(h, 0.5, s.training)
    torch.relu_(same)
    return h


def forward_of_instance():
    module = nn.Sequential(nn.Linear(5, 2))
    module.forward = lambda x: 2 * nn.Sequential.forward(module, x)
    return module


class Called(nn.Sequential):
    def __call__(self, x):
        return 2 * super().__call__(x)


def counted(s, x):
    s.count = getattr(s, "count", 0) + 1
    return s.c(x) * s.count


def narrowed(s, x):
    with torch.autocast("cpu", torch.bfloat16):
        return s.c(F.relu(s.a(x)))


UNSEEN = {
    "alias": lambda: in_place(added_to_alias),
    "view": lambda: in_place(scaled_view),
    "dropout": lambda: in_place(rectified_after_dropout),
    "instance": forward_of_instance,
    "call": lambda: Called(nn.Linear(5, 2)),
    "torch.randn": lambda: Forward(lambda s, x: s.c(x + torch.randn(5))),
    "np.random": lambda: Forward(lambda s, x: s.c(x * np.random.rand())),
    "kind of tensor": lambda: Forward(lambda s, x: s.c(F.relu(s.a(x)) if isinstance(x, torch.Tensor) else s.a(x))),
    "state": lambda: Forward(counted),
    "autocast": lambda: Forward(narrowed),
    "rows as units": lambda: Forward(lambda s, x: s.c(x.view(x.size(1), -1))),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_what_a_trace_does_not_see(name):
    """Refused, and neither the module nor the random state is changed."""
    module = UNSEEN[name]()
    before, state = set(vars(module)), torch.get_rng_state()
    with pytest.raises(ConversionError, match=r"in place|did not see|fails on rows"):
        from_torch(module)
    assert set(vars(module)) == before
    assert torch.equal(torch.get_rng_state(), state)


def test_in_place_without_an_alias():
    def forward(s, x):
        h = x.clone()
        h += torch.tanh(s.a(h))
        kept = h.clone()
        h *= 2
        return s.c(kept)

    check(Forward(forward))


def test_order_of_torch_batch_norm():
    module = Forward(
        lambda s, x: s.c(
            torch.batch_norm(
                s.a(x), s.norm.weight, s.norm.bias, s.norm.running_mean, s.norm.running_var, False, 0.1, 1e-5, False
            )
        )
    )
    module.norm = norm(5)
    check(module)


def test_constants_of_a_trace_stay_out_of_the_module():
    module = Forward(lambda s, x: s.c(x + torch.ones(5)))
    before = set(vars(module))
    check(module)
    assert set(vars(module)) == before


def test_parts_of_constants():
    check(Forward(lambda s, x: torch.sigmoid((x @ s.a.weight[:, :1]).squeeze(-1))))


CONSTANTS = {
    "bounds": (lambda s, x: s.c(s.a(x).clamp(1, -1)), "output is a constant"),
    "three dimensions": (lambda s, x: torch.softmax(s.a(x) + torch.ones(1, 1, 5), 1), r"\(1, 1, 5\)"),
    "one number": (lambda s, x: torch.softmax(s.a(x) * torch.ones(1, 1, 1), 1), r"\(1, 1, 1\)"),
    "gate of 0": (lambda s, x: (lambda h: s.c(h * torch.sigmoid(0 * h)))(s.a(x)), "product of two values"),
    "transposed": (lambda s, x: s.c(x.t()), "transpose"),
    "transposed attribute": (lambda s, x: s.c(x.T), "transpose"),
    "addmm": (lambda s, x: torch.addmm(s.c.bias, x, s.c.weight.T), "x @ weight"),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_refused_constants(name):
    function, words = CONSTANTS[name]
    with pytest.raises(ConversionError, match=words):
        from_torch(Forward(function), rewrite=True)


def filled(value):
    layer = nn.Linear(5, 2)
    nn.init.constant_(layer.weight, value if abs(value) < 1e30 or value != value else 1.0)
    if value > 1e30:
        layer = layer.double()
        nn.init.constant_(layer.weight, value)
    return layer


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    make, words = REFUSED[name]
    if words is not None:
        with pytest.raises(ConversionError, match=words):
            from_torch(make())
        return
    try:  # accepted or refused, but never wrong
        converted = from_torch(make())
    except ConversionError:
        return
    X = rows(converted.network.dtype)
    assert_agrees(
        output(make(), X) if name not in ("subclass",) else converted.network.forward(X), converted.network, X
    )


def test_residual_without_activation_is_folded():
    torch.manual_seed(0)
    converted = check(Forward(lambda s, x: s.c(torch.relu(x + s.a(x)))))
    assert not converted.network.residual
    assert any("folded" in note for note in converted.notes)
    check(Forward(lambda s, x: x - s.a(x)))
    check(Forward(lambda s, x: s.c(x + x * 0.5 + 1)))
    check(Forward(lambda s, x: s.c(F.relu(s.norm(s.a(x)) + x))))
    check(Forward(lambda s, x: x + F.tanh(s.a(x))), rewrite=True)


def test_other_objects():
    with pytest.raises(TypeError, match="from_state_dict"):
        from_torch({})
    with pytest.raises(ConversionError, match="compiled"):
        from_torch(torch.jit.trace(nn.Linear(5, 2), torch.zeros(1, 5)))
    with pytest.raises(TypeError, match="Network"):
        to_torch(nn.Linear(5, 2))


# --- random modules ---------------------------------------------------------------------------------------------------

PARTS = [
    lambda n, rng: nn.Linear(n, int(rng.randint(1, 8)), bias=bool(rng.randint(4))),
    lambda n, rng: nn.Linear(n, n),
    lambda n, rng: norm(n, bool(rng.randint(2)), float(rng.choice([1e-5, 1e-2]))),
    lambda n,
    rng: [nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.Mish, nn.SELU, nn.Sigmoid, nn.LogSigmoid,
        nn.Identity][rng.randint(9)](),
    lambda n, rng: nn.LeakyReLU(float(rng.choice([0.01, 0.3, 0, 1]))),
    lambda n, rng: nn.PReLU(int(rng.choice([1, n]))),
    lambda n,
    rng: [nn.Softplus(2.0), nn.CELU(0.7), nn.ELU(), nn.Hardtanh(), nn.ReLU6(), nn.Hardsigmoid()][rng.randint(6)],
    lambda n, rng: [nn.Dropout(0.2), nn.Flatten(), nn.Softmax(1), nn.LogSoftmax(1)][rng.randint(4)],
    lambda n,
    rng: Sum(nn.Sequential(nn.Linear(n, n), *([norm(n)] if rng.randint(2) else []),
        [nn.ReLU(), nn.Identity(), nn.GELU()][rng.randint(3)])),
]  # fmt: skip


class Sum(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return x + self.body(x)


@pytest.mark.parametrize("seed", [*range(60), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(60, 600))])
def test_random_modules_convert_right_or_not_at_all(seed):
    rng = np.random.RandomState(seed)
    torch.manual_seed(seed)
    parts, n = [], 5
    for _ in range(rng.randint(2, 9)):
        part = PARTS[rng.randint(len(PARTS))](n, rng)
        n = part.out_features if isinstance(part, nn.Linear) else n
        parts.append(part)
    module = nn.Sequential(*parts).double()
    X = rows("float64")
    for rewrite in (False, True):
        try:
            net = from_torch(module, rewrite=rewrite).network
        except ConversionError:
            continue
        expected = output(module, X)
        np.testing.assert_allclose(net.forward(X), expected, rtol=1e-9, atol=1e-11 * (1 + np.abs(expected).max()))


# --- to PyTorch -------------------------------------------------------------------------------------------------------

X, Y = rows(), np.array(list("abc"))[np.arange(40) % 3]
SMALL = {"hidden_layer_sizes": (6,), "max_iter": 3, "random_state": 0}


def test_estimators_become_modules():
    classifier = MLPClassifier(**SMALL, dropout=0.2, input_noise=0.1).fit(X, Y)
    module = to_torch(classifier)
    assert [type(part).__name__ for part in module] == ["Linear", "ReLU", "Dropout", "Linear", "Softmax"]
    assert not module.training
    assert_agrees(output(module, X), classifier.network_, X)
    assert [type(part).__name__ for part in to_torch(classifier, logits=True)][-1] == "Linear"
    assert from_torch(module).classifier(classifier.classes_).dropout == (0.0, 0.2)
    two = MLPClassifier(**SMALL).fit(X, Y == "a")
    np.testing.assert_allclose(output(to_torch(two), X)[:, 0], two.predict_proba(X)[:, 1], rtol=1e-5)
    counts = MLPRegressor("poisson", **SMALL).fit(X, np.arange(40.0))
    np.testing.assert_allclose(output(to_torch(counts), X)[:, 0], counts.predict(X), rtol=1e-5)


def test_ensembles_become_modules(tmp_path):
    ensemble = MLPEnsembleClassifier(MLPClassifier(**SMALL, batch_norm=True, batch_size=20), n_estimators=3).fit(X, Y)
    module = to_torch(ensemble)
    np.testing.assert_allclose(output(module, X), ensemble.predict_proba(X), rtol=1e-5, atol=1e-7)
    torch.save(module, tmp_path / "module.pt")
    again = torch.load(tmp_path / "module.pt", weights_only=False)
    assert np.array_equal(output(again, X), output(module, X))
    with pytest.raises(ConversionError, match="no logits"):
        to_torch(ensemble, logits=True)


def test_the_module_shares_no_memory():
    net = network()
    module = to_torch(net)
    with torch.no_grad():
        module[0].weight.zero_()
    assert net.coefs[0].any()


def test_the_module_trains():
    module = to_torch(network(batch_norm=True, residual=True, sizes=(5, 5))).train()
    module(torch.from_numpy(X)).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_tables_are_refused():
    with pytest.raises(ConversionError, match="coded columns"):
        to_torch(TabularClassifier(max_iter=1).fit(X, Y))


def test_every_activation_has_a_module():
    assert set(core.ACTIVATIONS) == {option.values[0]["activation"] for option in NETWORKS[: 2 * len(core.ACTIVATIONS)]}
