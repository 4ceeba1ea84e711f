from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spikestill.graph import check, to_spiking
from spikestill.nn import LIF

SHAPE = (4, 6, 6)


class Apply(nn.Module):
    """A convolution and ReLU, then what is in question, then a read-out."""

    def __init__(self, function: Callable[[Tensor], Tensor], inner: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.relu, self.inner, self.function = nn.Conv2d(4, 4, 1), nn.ReLU(), inner, function
        self.scale = nn.Parameter(torch.rand(4, 1, 1) + 0.5)
        self.shift = nn.Parameter(torch.rand(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x))
        return self.function(x) if self.inner is None else self.inner(x)


class Parametrised(Apply):
    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.relu(self.conv(x)) + self.shift


class Sized(Apply):
    """Sizes asked for at the input, where the batch is one step's, and used behind the neurons, where it is not."""

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        x = self.relu(self.conv(x))
        _, channels, height, width = x.size()
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(x.shape)
        return x.reshape(batch, -1)


class ByName(Apply):
    def forward(self, x: Tensor) -> Tensor:
        return self.relu(input=self.conv(input=x))


LINEAR: dict[str, Callable[[], nn.Module]] = {
    "sum": lambda: Apply(lambda x: x + x),
    "difference": lambda: Apply(lambda x: torch.sub(x, functional.avg_pool2d(x, 3, 1, 1))),
    "in-place sum": lambda: Apply(lambda x: functional.avg_pool2d(x, 1).add_(x)),
    "scaled": lambda: Apply(lambda x: x * 0.5 / 3),
    "scaled from the left": lambda: Apply(lambda x: 2 * x),
    "scaled in place": lambda: Apply(lambda x: functional.avg_pool2d(x, 1).mul_(0.5)),
    "negated": lambda: Apply(lambda x: -x),
    "slice": lambda: Apply(lambda x: x[:, 1:3, ::2]),
    "chunks": lambda: Apply(lambda x: torch.cat(x.chunk(2, 1)[::-1], 1)),
    "split": lambda: Apply(lambda x: torch.cat((torch.split(x, 2, 1)[1], x), dim=1)),
    "mean": lambda: Apply(lambda x: x.mean((2, 3))),
    "padding": lambda: Apply(lambda x: functional.pad(x, (1, 1))),
    "upsampling": lambda: Apply(lambda x: functional.interpolate(x, scale_factor=2)),
    "upsampling to a size": lambda: Apply(
        lambda x: functional.interpolate(functional.avg_pool2d(x, 2), size=x.shape[2:]) + x
    ),
    "squeezing": lambda: Apply(lambda x: x.unsqueeze(1).squeeze(1)),
    "permuting": lambda: Apply(lambda x: x.permute(0, 2, 3, 1).flatten(1)),
    "transposed convolution": lambda: Apply(lambda x: x, nn.ConvTranspose2d(4, 2, 3)),
    "pixel shuffle": lambda: Apply(lambda x: x, nn.PixelShuffle(2)),
    "parameters": lambda: Parametrised(lambda x: x),
    "sizes": lambda: Sized(lambda x: x),
    "arguments by name": lambda: ByName(lambda x: x),
}


@pytest.mark.parametrize("name", LINEAR)
def test_what_is_linear_carries_spikes_and_rate_gradients(name: str) -> None:
    """Linear in the rates: the value is the unrolled network's, the gradient by one step's that of the sequence."""
    ann = LINEAR[name]()
    assert not check(ann, SHAPE).refused
    snn = to_spiking(ann, neuron=LIF(threshold=0.2), timesteps=3, input_shape=SHAPE).double()
    images = torch.randn(2, *SHAPE, dtype=torch.float64)
    rate = snn(images)
    torch.testing.assert_close(rate, snn.unroll(images).mean(0), rtol=1e-12, atol=1e-12)
    assert float(rate.detach().abs().sum()) > 0
    rate.square().sum().backward()
    for path, _ in ann.named_parameters():
        if path.startswith("conv"):
            gradient = snn.body.get_parameter(path).grad
            assert gradient is not None
            assert float(gradient.abs().sum()) > 0


REFUSED: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "LayerNorm": (lambda: Apply(lambda x: x, nn.LayerNorm([4, 6, 6])), "inner", "use BatchNorm"),
    "GroupNorm": (lambda: Apply(lambda x: x, nn.GroupNorm(2, 4)), "inner", "use BatchNorm"),
    "SiLU": (lambda: Apply(lambda x: x, nn.SiLU()), "inner", "train the ANN with ReLU"),
    "GELU": (lambda: Apply(lambda x: x, nn.GELU()), "inner", "train the ANN with ReLU"),
    "Softmax": (lambda: Apply(lambda x: x, nn.Softmax(1)), "inner", "end the network at its logits"),
    "silu": (lambda: Apply(functional.silu), "(model)", "train the ANN with ReLU"),
    "softmax": (lambda: Apply(lambda x: functional.softmax(x, 1)), "(model)", "end the network at its logits"),
    "layer_norm": (lambda: Apply(lambda x: functional.layer_norm(x, (6,))), "(model)", "use BatchNorm"),
    "mul": (lambda: Apply(lambda x: x * functional.avg_pool2d(x, 1)), "(model)", "multiplies or divides by a signal"),
    "truediv": (lambda: Apply(lambda x: 1 / (x + 1)), "(model)", "multiplies or divides by a signal"),
    "exp": (lambda: Apply(torch.exp), "(model)", "no rule says how spikes pass it"),
    "abs": (lambda: Apply(lambda x: x.abs()), "(model)", "no rule says how spikes pass it"),
    "clamp": (lambda: Apply(lambda x: x.clamp(min=-1)), "(model)", "write it as nn.ReLU or nn.ReLU6"),
    "Hardtanh": (lambda: Apply(lambda x: x, nn.Hardtanh(-1, 6)), "inner", "write it as nn.ReLU or nn.ReLU6"),
    "amax": (lambda: Apply(lambda x: x.amax((2, 3))), "(model)", "use nn.AdaptiveMaxPool2d, or the mean"),
    "sum": (lambda: Apply(lambda x: x.sum((2, 3))), "(model)", "take the mean, times a number"),
    "float": (lambda: Apply(lambda x: x.float()), "(model)", "leave it out"),
    "detach": (lambda: Apply(lambda x: x.detach()), "(model)", "leave it out"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_linear_is_refused_with_the_reason(name: str) -> None:
    make, where, reason = REFUSED[name]
    refused = check(make(), SHAPE).refused
    assert [(finding.name, finding.operation) for finding in refused] == [(where, name)]
    assert reason in refused[0].remark


def test_a_square_is_refused() -> None:
    (finding,) = check(Apply(lambda x: x * x), SHAPE).refused
    assert finding.operation == "mul"


def test_a_gate_is_refused_as_sigmoid_and_as_product() -> None:
    refused = check(Apply(lambda x: x * torch.sigmoid(x)), SHAPE).refused
    assert [finding.operation for finding in refused] == ["sigmoid", "mul"]
