"""Whatever the form, a traced graph spells each operation in one way and computes what the module does."""

from __future__ import annotations

import copy
import functools
import io
import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from spikestill.graph import check, fold, to_spiking, trace
from spikestill.graph.operations import kind_of
from spikestill.graph.ops import DROPOUTS, LAYERS, operation_of
from spikestill.graph.trace import calls, module_of
from spikestill.nn import IF, StochasticDepth
from spikestill.types import InputError

SHAPE = (4, 6, 6)


class Net(nn.Module):
    """A convolution and ReLU, then the function in question of the modules and tensors it is given."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor], **parts: Any) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(4, 4, 1), function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, F.relu(self.conv(x)))


def assert_is_canonical(traced: fx.GraphModule) -> None:
    for node in calls(traced.graph):
        module = module_of(traced, node)
        assert not node.kwargs, node.format_node()
        if module is None:
            row = operation_of(node)
            assert row is not None, node.format_node()
            assert len(node.args) <= len(row.arguments)
        else:
            assert kind_of(module) in (*LAYERS, *DROPOUTS), node.format_node()
            assert len(node.args) == 1


def assert_is_the_same(
    ann: nn.Module, shape: tuple[int, ...] = SHAPE, modes: tuple[bool, ...] = (False, True)
) -> fx.GraphModule:
    """Canonical, of the same values and keys; and weights that are loaded count."""
    keys = list(ann.state_dict())
    traced = trace(ann, shape)
    assert_is_canonical(traced)
    assert traced.state_dict().keys() == set(keys)
    again = trace(traced, shape)
    assert [(node.target, str(node.args)) for node in again.graph.nodes] == [
        (node.target, str(node.args)) for node in traced.graph.nodes
    ]
    for training in modes:
        for batch in (1, 3) if not training else (3,):
            images = torch.randn(batch, *shape)
            twin = copy.deepcopy(ann).train(training)
            found = copy.deepcopy(traced).train(training)
            torch.testing.assert_close(found(images.clone()), twin(images.clone()), rtol=1e-5, atol=1e-6)
    other = copy.deepcopy(ann).eval()
    with torch.no_grad():
        for value in other.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.1)
    loaded = copy.deepcopy(traced).eval()
    loaded.load_state_dict(other.state_dict())
    images = torch.randn(2, *shape)
    torch.testing.assert_close(loaded(images.clone()), other(images.clone()), rtol=1e-4, atol=1e-5)
    return traced


ADDITION: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "+": lambda s, x: x + x.neg(),
    "+=": lambda s, x: operator.iadd(F.avg_pool2d(x, 1), x),
    "torch.add by name": lambda s, x: torch.add(x, other=0.5),
    "torch.add by names": lambda s, x: torch.add(input=x, other=x),
    "alpha": lambda s, x: torch.add(x, F.avg_pool2d(x, 1), alpha=2),
    "alpha of a number": lambda s, x: x.add(0.5, alpha=3),
    "method": lambda s, x: x.add(x),
    "in place": lambda s, x: F.avg_pool2d(x, 1).add_(x, alpha=2),
    "number first": lambda s, x: 0.5 + x,
    "sum of a list": lambda s, x: sum([x, x, x]),  # type: ignore[return-value]
    "sub": lambda s, x: x.sub(x * 0.25),
    "subtract by name": lambda s, x: torch.subtract(x, other=0.5, alpha=2),
    "rsub": lambda s, x: 1 - x,
    "torch.rsub": lambda s, x: torch.rsub(x, 1.0),
    "sub in place": lambda s, x: F.avg_pool2d(x, 1).sub_(0.5),
    "mul": lambda s, x: x.mul(0.5),
    "multiply by name": lambda s, x: torch.multiply(x, other=2),
    "mul in place": lambda s, x: operator.imul(F.avg_pool2d(x, 1), 0.5),
    "mul from the left": lambda s, x: torch.mul(torch.tensor(2.0), x),
    "div": lambda s, x: torch.div(x, 4),
    "divide by name": lambda s, x: torch.true_divide(x, other=2.0),
    "div in place": lambda s, x: F.avg_pool2d(x, 1).div_(3),
    "neg": lambda s, x: torch.negative(x).neg_(),
    "unary": lambda s, x: +(-x),
    "clone": lambda s, x: x.clone().contiguous(),
}
SHAPES: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "flatten by name": lambda s, x: x.flatten(start_dim=1),
    "torch.flatten": lambda s, x: torch.flatten(x, 1, -1),
    "flatten of some": lambda s, x: x.flatten(-2).mean(-1),
    "view": lambda s, x: x.view(x.size(0), -1),
    "view by shape": lambda s, x: x.view(x.shape[0], 4 * x.shape[2], x.shape[-1]).flatten(1),
    "view of a tuple": lambda s, x: x.view((x.size(0), x.size(1), -1)).mean(dim=2),
    "reshape": lambda s, x: torch.reshape(x, (-1, 144)),
    "reshape by name": lambda s, x: torch.reshape(input=x, shape=(x.shape[0], 36, 4)).flatten(1),
    "reshape of sizes": lambda s, x: x.permute(0, 2, 3, 1).reshape(x.size()).flatten(1),
    "view as": lambda s, x: (x.reshape(x.shape[0], -1).view_as(x) + x).flatten(1),
    "unflatten": lambda s, x: x.unflatten(1, (2, 2)).flatten(1),
    "unflatten module": lambda s, x: nn.Unflatten(1, (2, 2))(x).flatten(1),
    "squeeze": lambda s, x: F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(dim=-1),
    "squeeze all": lambda s, x: torch.squeeze(x.mean((2, 3), keepdim=True), (2, 3)),
    "unsqueeze": lambda s, x: x.unsqueeze(-1).squeeze(-1).flatten(1),
    "permute": lambda s, x: torch.permute(x, dims=(0, 3, 1, 2)).flatten(1),
    "permute method": lambda s, x: x.permute((0, -1, 1, 2)).flatten(1),
    "transpose": lambda s, x: x.transpose(dim0=1, dim1=-1).flatten(1),
    "swapaxes": lambda s, x: x.swapaxes(1, 2).flatten(1),
    "index": lambda s, x: F.adaptive_avg_pool2d(x, 1)[:, :, 0, 0],
    "ellipsis": lambda s, x: x.mean((2, 3), keepdim=True)[..., 0, 0],
    "slice": lambda s, x: x[:, 1:3, ::2, -3:].flatten(1),
    "narrow": lambda s, x: x.narrow(1, 1, 2).flatten(1),
    "select": lambda s, x: x.select(2, 0).flatten(1),
    "chunk": lambda s, x: torch.cat(torch.chunk(x, 2, dim=1)[::-1], dim=-3).flatten(1),
    "chunk unpacked": lambda s, x: (lambda a, b: a + b)(*x.chunk(chunks=2, dim=1)).flatten(1),
    "split": lambda s, x: torch.cat(tensors=torch.split(x, [1, 3], dim=1), dim=1).flatten(1),
    "split by size": lambda s, x: torch.concat([x, *x.split(2, dim=1)], axis=1).flatten(1),  # type: ignore[call-overload]
    "pad": lambda s, x: F.pad(x, pad=(1, 1, 0, 2)).flatten(1),
    "pad with values": lambda s, x: F.pad(x, (1, 1, 0, 2), mode="reflect").flatten(1),
    "pad module": lambda s, x: nn.ZeroPad2d((1, 0, 2, 0))(x).flatten(1),
    "sizes": lambda s, x: F.avg_pool2d(x, x.size()[2:]).flatten(1),
    "rank": lambda s, x: x.flatten(x.dim() - 3) if x.ndim == 4 else x,
}
POOLS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "mean": lambda s, x: x.mean(dim=(2, 3), keepdim=True),
    "torch.mean": lambda s, x: torch.mean(x, axis=[-2, -1]),  # type: ignore[call-overload]
    "mean twice": lambda s, x: x.mean(-1).mean(2, keepdims=True),  # type: ignore[call-overload]
    "avg_pool2d": lambda s, x: F.avg_pool2d(x, kernel_size=(2, 3), stride=1, count_include_pad=False, padding=1),
    "avg_pool2d module": lambda s, x: nn.AvgPool2d(3, 2, ceil_mode=True, divisor_override=5)(x),
    "avg_pool1d": lambda s, x: F.avg_pool1d(x.flatten(2), 2),
    "avg_pool3d": lambda s, x: F.avg_pool3d(x.unsqueeze(1), 2),
    "adaptive": lambda s, x: F.adaptive_avg_pool2d(x, output_size=(None, 2)),
    "adaptive 1d": lambda s, x: nn.AdaptiveAvgPool1d(3)(x.flatten(2)),
    "adaptive 3d": lambda s, x: nn.AdaptiveAvgPool3d((1, 2, None))(x.unsqueeze(1)),
    "max_pool2d": lambda s, x: F.max_pool2d(x, kernel_size=2, ceil_mode=True),
    "torch.max_pool2d": lambda s, x: torch.max_pool2d(x, 3, 2, 1),
    "max_pool1d": lambda s, x: F.max_pool1d(x.flatten(2), 2),
    "max_pool3d": lambda s, x: nn.MaxPool3d((1, 2, 2))(x.unsqueeze(1)),
    "adaptive maximum": lambda s, x: F.adaptive_max_pool2d(x, 3),
    "adaptive maximum 1d": lambda s, x: F.adaptive_max_pool1d(x.flatten(2), 3),
    "upsample": lambda s, x: nn.Upsample(scale_factor=2)(x),
    "interpolate": lambda s, x: F.interpolate(x, size=(3, 3), mode="bilinear", align_corners=False),
    "pixel shuffle": lambda s, x: F.pixel_shuffle(x, upscale_factor=2),
    "pixel unshuffle": lambda s, x: nn.PixelUnshuffle(2)(x),
    "channel shuffle": lambda s, x: F.channel_shuffle(x, 2),
}
ACTIVATIONS: dict[str, tuple[Callable[[Any, Tensor], Tensor], float]] = {
    "relu": (lambda s, x: torch.relu(x - 1), float("inf")),
    "relu_": (lambda s, x: (x - 1).relu_(), float("inf")),
    "F.relu in place": (lambda s, x: F.relu(x - 1, inplace=True), float("inf")),
    "F.relu_": (lambda s, x: F.relu_(x - 1), float("inf")),
    "module": (lambda s, x: s.act(x - 1), float("inf")),
    "made in forward": (lambda s, x: nn.ReLU(inplace=True)(x - 1), float("inf")),
    "partial": (lambda s, x: functools.partial(F.relu, inplace=True)(x - 1), float("inf")),
    "relu6": (lambda s, x: F.relu6(x - 1), 6.0),
    "clamp": (lambda s, x: torch.clamp(x - 0.5, 0, 1), 1.0),
    "clamp by name": (lambda s, x: (x - 0.5).clamp(min=0, max=2), 2.0),
    "clamp below": (lambda s, x: torch.clamp(x - 0.5, min=0.0), float("inf")),
    "clamp of two": (lambda s, x: (x - 0.5).clamp(min=0).clamp(max=0.75), 0.75),
    "clamp_": (lambda s, x: (x - 0.5).clamp_(0, 0.5), 0.5),
    "clamp_min": (lambda s, x: torch.clamp_min(x - 0.5, 0), float("inf")),
    "clip": (lambda s, x: (x - 0.5).clip(0, 1), 1.0),
    "hardtanh": (lambda s, x: F.hardtanh(x - 0.5, 0, 0.5), 0.5),
    "Hardtanh": (lambda s, x: nn.Hardtanh(0, 0.25)(x - 0.5), 0.25),
    "maximum": (lambda s, x: torch.maximum(x - 0.5, torch.tensor(0.0)), float("inf")),
    "maximum with zeros": (lambda s, x: torch.max(torch.zeros_like(x), x - 0.5), float("inf")),
    "threshold": (lambda s, x: F.threshold(x - 0.5, 0, 0), float("inf")),
    "Threshold": (lambda s, x: nn.Threshold(0, 0)(x - 0.5), float("inf")),
    "leaky without slope": (lambda s, x: F.leaky_relu(x - 0.5, negative_slope=0), float("inf")),
}


@pytest.mark.parametrize("name", [*ADDITION, *SHAPES, *POOLS])
def test_every_form_of_an_operation_is_one(name: str) -> None:
    function = {**ADDITION, **SHAPES, **POOLS}[name]
    ann = Net(function)
    assert_is_the_same(ann)
    assert not check(ann, SHAPE).refused


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_form_of_a_rectifier_is_an_activation(name: str) -> None:
    from spikestill.graph.operations import ceiling_of, is_activation

    function, ceiling = ACTIVATIONS[name]
    ann = Net(function, act=nn.ReLU(inplace=True))
    traced = assert_is_the_same(ann)
    found = [ceiling_of(node) for node in calls(traced.graph) if is_activation(traced, node)]
    assert found == [float("inf"), ceiling]
    assert len(list(to_spiking(ann, input_shape=SHAPE).neurons())) == 2


@pytest.mark.parametrize(
    "function",
    [
        lambda s, x: torch.max(x, 1)[0],
        lambda s, x: x.clamp(-1, 1),
        lambda s, x: torch.clamp(x - 0.5, max=1),
        lambda s, x: torch.div(x, 2, rounding_mode="floor"),
        lambda s, x: x.mean((2, 3), dtype=torch.float64),
        lambda s, x: F.max_pool2d(x, 2, return_indices=True)[0],
        lambda s, x: torch.maximum(x, x * 0.5),
        lambda s, x: torch.maximum(x, s.least),
        lambda s, x: F.leaky_relu(x),
    ],
)
def test_what_has_no_form_is_refused(function: Callable[[Any, Tensor], Tensor]) -> None:
    net = Net(function)
    net.register_buffer("least", torch.zeros(1))
    assert check(net, SHAPE).refused


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@settings(max_examples=40, deadline=None)
@given(
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.sampled_from([0, 1, "same"]),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
    bias=st.booleans(),
    dimensions=st.integers(1, 3),
    names=st.sampled_from([("weight", "bias"), ("kernel", "offset")]),
)
def test_functional_convolutions_are_layers(
    kernel: int,
    stride: int,
    padding: Any,
    dilation: int,
    groups: int,
    bias: bool,
    dimensions: int,
    names: tuple[str, str],
) -> None:
    if padding == "same" and stride > 1:
        stride = 1

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            size = (kernel,) * dimensions
            setattr(self, names[0], nn.Parameter(torch.randn(6, 4 // groups, *size)))
            self.register_parameter(names[1], nn.Parameter(torch.randn(6)) if bias else None)

        def forward(self, x: Tensor) -> Tensor:
            function = (F.conv1d, F.conv2d, F.conv3d)[dimensions - 1]
            weight, shift = getattr(self, names[0]), getattr(self, names[1])
            return function(x, weight, shift, stride=stride, padding=padding, dilation=dilation, groups=groups)

    ann = nn.Sequential(nn.ReLU(), Own(), nn.ReLU())
    traced = assert_is_the_same(ann, (4, *(6,) * dimensions))
    assert any(type(module) is (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1] for module in traced.modules())


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("training", [False, True])
def test_functional_transposed_convolutions_linear_layers_and_norms_are_layers(dimensions: int, training: bool) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(4, 3, *(2,) * dimensions))
            self.matrix, self.shift = nn.Parameter(torch.randn(5, 6)), nn.Parameter(torch.randn(5))
            self.gain = nn.Parameter(torch.rand(3))
            self.register_buffer("average", torch.randn(3))
            self.register_buffer("variance", torch.rand(3))

        def forward(self, x: Tensor) -> Tensor:
            function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[dimensions - 1]
            x = function(x, self.kernel, None, stride=2, output_padding=1, groups=1)
            x = F.batch_norm(x, self.average, self.variance, self.gain, None, self.training, momentum=0.2, eps=1e-3)
            return F.linear(F.relu(x).flatten(2)[:, :, :6], self.matrix, bias=self.shift)

    ann = nn.Sequential(nn.ReLU(), Own(), nn.ReLU()).train(training)
    traced = assert_is_the_same(ann, (4, *(3,) * dimensions))
    kinds = [type(module_of(traced, node)) for node in calls(traced.graph) if node.op == "call_module"]
    assert [kind.__name__ for kind in kinds] == [f"ConvTranspose{dimensions}d", f"BatchNorm{dimensions}d", "Linear"]


class Counted(nn.Conv2d):
    """Changes nothing."""


class Renamed(nn.BatchNorm2d):
    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-3)


class Rectifier(nn.ReLU):
    """Changes nothing."""


class Same(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride, self.padding)


class WithMore(nn.BatchNorm2d):
    """timm's way: normalisation and activation in one."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=None)  # type: ignore[arg-type]
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        norm = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return self.act(norm)


class Blur(nn.Module):
    def __init__(self, persistent: bool) -> None:
        super().__init__()
        self.register_buffer("filt", torch.ones(4, 1, 2, 2) / 4, persistent=persistent)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, [1, 0, 1, 0], "reflect"), self.filt, stride=2, groups=self.filt.shape[0])  # type: ignore[arg-type]


def _sequence(*middle: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), *middle)


def _shared() -> nn.Module:
    block = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
    return nn.Sequential(block, nn.Identity(), nn.Sequential(nn.ReLU()), nn.Conv2d(4, 4, 1))


def _keywords() -> nn.Module:
    return nn.Sequential(
        nn.ModuleDict(
            {"lambda": nn.Conv2d(4, 4, 1), "class": nn.ReLU(), "add": nn.Conv2d(4, 4, 1), "view": nn.BatchNorm2d(4)}
        )
    )


class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.add_module("lambda", nn.Conv2d(4, 4, 1))
        self.add_module("class", nn.ReLU())
        self.add = nn.Conv2d(4, 4, 1)
        self.view, self.mean = nn.BatchNorm2d(4), nn.ReLU()
        self.blocks = nn.ModuleDict({"if": nn.ModuleList([nn.Conv2d(4, 4, 1), nn.ReLU()])})

    def forward(self, x: Tensor) -> Tensor:
        x = getattr(self, "class")(getattr(self, "lambda")(x))
        x = self.mean(self.view(self.add(x)))
        for layer in self.blocks["if"]:  # type: ignore[union-attr]
            x = layer(x)
        return x


MODULES: dict[str, Callable[[], nn.Module]] = {
    "a subclass of Conv2d": lambda: nn.Sequential(Counted(4, 3, 3), nn.ReLU()),
    "a subclass of BatchNorm2d": lambda: nn.Sequential(nn.Conv2d(4, 4, 1), Renamed(4), Rectifier()),
    "a convolution that pads": lambda: _sequence(Same(4, 4, 2), nn.ReLU()),
    "blur": lambda: _sequence(Blur(False)),
    "persistent blur": lambda: _sequence(Blur(True)),
    "SyncBatchNorm": lambda: nn.SyncBatchNorm.convert_sync_batchnorm(_sequence()),
    "DataParallel": lambda: nn.DataParallel(_sequence()),
    "DataParallel inside": lambda: nn.Sequential(nn.DataParallel(_sequence()), nn.Conv2d(4, 2, 1)),
    "torch.compile": lambda: torch.compile(_sequence()),  # type: ignore[return-value]
    "torch.compile inside": lambda: nn.Sequential(torch.compile(_sequence()), nn.Conv2d(4, 2, 1)),  # type: ignore[arg-type]
    "weight_norm": lambda: nn.Sequential(parametrizations.weight_norm(nn.Conv2d(4, 3, 3)), nn.ReLU()),
    "keywords": Keywords,
    "shared": _shared,
    "in place dropout": lambda: _sequence(nn.Dropout(0.0, inplace=True), nn.Dropout2d(0.0)),
}


@pytest.mark.parametrize("name", MODULES)
def test_every_variation_of_a_layer_is_the_layer(name: str) -> None:
    ann = MODULES[name]()
    modules = {path: type(module) for path, module in ann.named_modules()}
    assert_is_the_same(ann)
    assert {path: type(module) for path, module in ann.named_modules()} == modules
    assert not check(ann, SHAPE).refused


@pytest.mark.parametrize("name", MODULES)
def test_a_spiking_network_takes_the_ann_s_state(name: str) -> None:
    snn = to_spiking(MODULES[name](), input_shape=SHAPE, neuron=IF())
    other = MODULES[name]()
    missing, unexpected = snn.body.load_state_dict(other.state_dict(), strict=False)
    assert not unexpected
    assert {key.rpartition(".")[2] for key in missing} == {"leak", "threshold"}
    folded = fold(snn.body.eval(), strict=False)
    images = torch.randn(2, *SHAPE)
    torch.testing.assert_close(folded(images), snn.body(images), rtol=1e-4, atol=1e-5)


def test_a_normalisation_with_its_activation_is_both_under_its_names() -> None:
    traced = trace(nn.Sequential(nn.Conv2d(4, 4, 1), WithMore(4)), SHAPE)
    assert_is_canonical(traced)
    norm = traced.get_submodule("1")
    assert type(norm) is nn.BatchNorm2d
    assert norm.momentum is None
    assert [name for name, _ in to_spiking(nn.Sequential(WithMore(4)), input_shape=SHAPE).neurons()] == ["0.act"]


def test_what_is_computed_of_buffers_stays_computed() -> None:
    net = Net(lambda s, x: (x - s.mean.view(1, -1, 1, 1)) / s.std.view(1, -1, 1, 1) + s.plain)
    net.register_buffer("mean", torch.rand(4))
    net.register_buffer("std", torch.rand(4) + 0.5, persistent=False)
    net.plain = torch.ones(1)
    traced = trace(net, SHAPE)
    assert traced.state_dict().keys() == net.state_dict().keys()
    images = torch.randn(2, *SHAPE)
    assert torch.equal(traced(images), net(images))
    net.mean.add_(1)
    assert torch.equal(traced(images), net(images))


def test_in_place_forms_change_what_is_read_later() -> None:
    def twice(s: Any, x: Tensor) -> Tensor:
        y = F.avg_pool2d(x, 1)
        z = y.sub_(0.5)
        y.relu_()
        return torch.cat([y, z, x], 1)

    assert_is_the_same(Net(twice))

    def part(s: Any, x: Tensor) -> Tensor:
        y = F.avg_pool2d(x, 1)
        y[:, :2].mul_(2)
        return y

    with pytest.raises(InputError, match="'the model' writes into a part of a value .*mul_.* read again later"):
        trace(Net(part), SHAPE)


@pytest.mark.parametrize("kind", ["timm", "torchvision", "own", "function", "in forward"])
@pytest.mark.parametrize("training", [False, True])
def test_drop_path_and_dropout_follow_the_mode(kind: str, training: bool) -> None:
    class DropPath(nn.Module):
        def __init__(self, drop_prob: float) -> None:
            super().__init__()
            self.drop_prob = drop_prob

        def forward(self, x: Tensor) -> Tensor:
            if not self.training:
                return x
            return x * torch.rand(x.shape[0], 1, 1, 1).ge(self.drop_prob) / (1 - self.drop_prob)

    from timm.layers import DropPath as Timms
    from torchvision.ops import StochasticDepth as Torchvisions

    net = {
        "timm": lambda: Net(lambda s, x: s.drop(x), drop=Timms(0.5)),
        "torchvision": lambda: Net(lambda s, x: s.drop(x), drop=Torchvisions(0.5, "row")),
        "own": lambda: Net(lambda s, x: s.drop(x), drop=DropPath(0.5)),
        "function": lambda: Net(lambda s, x: F.dropout(x, 0.5, s.training)),
        "in forward": lambda: Net(lambda s, x: F.dropout2d(x, p=0.5, training=s.training)),
    }[kind]().train(training)
    traced = trace(net, SHAPE)
    assert net.training is traced.training is training
    (dropping,) = (module for module in traced.modules() if isinstance(module, DROPOUTS))
    assert dropping.training is training
    assert isinstance(dropping, StochasticDepth) is (kind in ("timm", "torchvision", "own"))
    images = torch.randn(64, *SHAPE)
    assert torch.equal(traced.eval()(images), net.eval()(images))
    dropped = traced.train()(images)
    whole = net.eval()(images)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], 2 * whole[kept])
    assert 0.3 < float(kept.sum() / (whole != 0).sum()) < 0.7
    snn = to_spiking(net, input_shape=SHAPE, neuron=IF(threshold=0.1), timesteps=3).train()
    assert snn(images).shape == whole.shape


@pytest.mark.parametrize("normalised", [nn.utils.weight_norm, nn.utils.spectral_norm])
@pytest.mark.filterwarnings("ignore")
def test_weights_that_hooks_compute_are_refused_by_name(normalised: Any) -> None:
    ann = nn.Sequential(nn.ReLU(), normalised(nn.Conv2d(4, 3, 3)))
    for call in (trace, lambda model, shape: to_spiking(model, input_shape=shape)):
        with pytest.raises(
            InputError, match="the weight of '1' is computed by a hook .* use torch.nn.utils.parametrizations"
        ):
            call(ann, SHAPE)


def test_whatever_a_forward_raises_is_one_error_with_its_place() -> None:
    class Raising(nn.Module):
        def __init__(self, error: BaseException) -> None:
            super().__init__()
            self.error = error

        def forward(self, x: Tensor) -> Tensor:
            raise self.error

    for error in (
        KeyError("a"),
        IndexError("b"),
        NotImplementedError("c"),
        ZeroDivisionError("d"),
        AttributeError("e"),
    ):
        with pytest.raises(InputError, match="cannot trace '1.0' of Sequential") as refusal:
            trace(nn.Sequential(nn.ReLU(), nn.Sequential(Raising(error))), SHAPE)
        assert "\n" not in str(refusal.value)


def test_weights_made_in_forward_are_refused() -> None:
    with pytest.raises(InputError, match="'the model' makes a new Conv2d at every call, .*make it in __init__"):
        trace(Net(lambda s, x: nn.Conv2d(4, 4, 1)(x)), SHAPE)


def test_a_module_named_as_the_graph_s_own_is_refused() -> None:
    net = Net(lambda s, x: s.code(x), code=nn.Conv2d(4, 4, 1))
    with pytest.raises(InputError, match="named 'code', which a traced graph needs for itself: rename it"):
        trace(net, SHAPE)


@pytest.mark.parametrize("name", ["keywords", "blur", "a convolution that pads", "DataParallel"])
def test_a_pickled_network_knows_what_it_knew(name: str) -> None:
    snn = to_spiking(MODULES[name](), input_shape=SHAPE, timesteps=2).eval()
    snn.body.meta["converted"] = {"method": "shift"}
    file = io.BytesIO()
    torch.save(snn, file)
    file.seek(0)
    for again in (torch.load(file, weights_only=False), copy.deepcopy(snn)):
        assert again.body.meta == snn.body.meta
        assert again.body.state_dict().keys() == snn.body.state_dict().keys()
        for old, new in zip(snn.body.graph.nodes, again.body.graph.nodes, strict=True):
            assert (old.name, old.op, old.target, str(old.args)) == (new.name, new.op, new.target, str(new.args))
            assert {key: old.meta[key] for key in old.meta if key in new.meta} == new.meta
            assert old.meta.get("shape") == new.meta.get("shape")
        images = torch.randn(2, *SHAPE)
        assert torch.equal(again(images), snn(images))


def test_a_norm_over_another_axis_is_not_folded() -> None:
    ann = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(4), nn.ReLU())
    traced = trace(ann, (4, 6)).eval()
    with pytest.raises(InputError, match="cannot fold '1': it normalises another axis"):
        fold(traced)
    assert any(isinstance(module, nn.BatchNorm1d) for module in fold(traced, strict=False).modules())
