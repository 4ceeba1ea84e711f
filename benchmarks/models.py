"""Which of timm's and torchvision's models go through the package: ``python -m benchmarks.models`` prints the table.

One function a column, each from a :class:`Case` to what was measured; ``tests/benchmarks/test_models.py`` holds them to
it, so the table cannot promise more than the tests.
"""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import spikestill as ss
from spikestill.export import Replay
from spikestill.graph.network import Gradient
from spikestill.types import InputError

__all__ = [
    "CASES",
    "COLUMNS",
    "Case",
    "Step",
    "neurons",
    "relative_error",
    "replayed",
    "restored_difference",
    "training_step",
]

_CLASSES = 10


@dataclass(frozen=True)
class Case:
    """One model, and how it is asked for.

    Attributes:
        name: of the model.
        image_size: H = W, in pixels; small, so that the table takes minutes.
        options: of the model.
    """

    name: str
    image_size: int = 32
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Of one image."""
        return (3, self.image_size, self.image_size)

    def ann(self) -> nn.Module:
        """The model in evaluation mode; its normalisations are off their starting point, which for some is zero."""
        torch.manual_seed(0)
        model = ss.models.create(self.name, num_classes=_CLASSES, image_size=self.image_size, **self.options)
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean.uniform_(-0.1, 0.1)  # type: ignore[union-attr]
                    module.running_var.uniform_(0.8, 1.2)  # type: ignore[union-attr]
                    module.weight.uniform_(0.8, 1.2)
                    module.bias.uniform_(0, 0.2)
        return model.eval()

    def images(self, count: int) -> Tensor:
        """Noise ``[count, 3, H, W]``, the same every time."""
        return torch.randn(count, *self.input_shape, generator=torch.Generator().manual_seed(1))


_SMALL_HEAD = {"mlp_ratio": 1 / 32}
"""timm's VGG has 4096 hidden units after its convolutions otherwise: 100 million weights, and nothing new to see."""

CASES = (
    *(Case(f"torchvision:{name}") for name in ("resnet18", "resnet34", "resnet50", "vgg11_bn", "vgg16_bn")),
    *(Case(f"torchvision:{name}") for name in ("densenet121", "mobilenet_v2")),
    Case("torchvision:googlenet", options={"init_weights": False}),
    *(Case(f"timm:{name}") for name in ("resnet18", "resnet34", "resnet50")),
    Case("timm:vgg16_bn", options=_SMALL_HEAD),
    *(Case(f"timm:{name}") for name in ("densenet121", "mobilenetv2_100", "resnet50d")),
)


def neurons(case: Case) -> tuple[int, int]:
    """How many activations become neurons, and how many of them after a rewrite.

    Raises:
        InputError: where something is refused.
    """
    report = ss.check(case.ann(), case.input_shape)
    report.raise_if_refused()
    return len(report.activations), sum(finding.verdict == "rewritten" for finding in report.activations)


def restored_difference(case: Case) -> float:
    """The largest difference of the logits from the ANN's once every neuron is the ANN's activation again.

    Raises:
        InputError: where the model cannot become spiking.
    """
    ann, images = case.ann(), case.images(2)
    body = copy.deepcopy(ss.to_spiking(ann, input_shape=case.input_shape)).body.eval()
    layers = [node for node in body.graph.nodes if node.op == "call_module" and _is_neuron(body, node)]
    for node, activation in zip(layers, _activations(ann, case.input_shape), strict=True):
        body.set_submodule(str(node.target), activation)
    with torch.no_grad():
        return float((body(images) - ann(images)).abs().max())


@dataclass(frozen=True)
class Step:
    """One training step.

    Attributes:
        loss: the cross-entropy.
        without_gradient: names of the parameters that got none, or one that is not finite.
        unmoved: the share of the parameters whose gradient is zero.
    """

    loss: float
    without_gradient: tuple[str, ...]
    unmoved: float


def training_step(case: Case, gradient: Gradient) -> Step:
    """A forward and a backward pass of the spiking network over two time steps.

    Raises:
        InputError: where the model cannot become spiking.
    """
    neuron = ss.LIF(leak=0.5, threshold=0.3)
    snn = ss.to_spiking(case.ann(), neuron=neuron, timesteps=2, gradient=gradient, input_shape=case.input_shape)
    loss = nn.functional.cross_entropy(snn.train()(case.images(4)), torch.arange(4))
    loss.backward()
    given = {name: parameter.grad for name, parameter in snn.named_parameters() if parameter.requires_grad}
    wrong = tuple(name for name, value in given.items() if value is None or not torch.isfinite(value).all())
    zero = [name for name, value in given.items() if value is not None and not value.any()]
    return Step(loss.item(), wrong, len(zero) / len(given))


def relative_error(case: Case) -> float:
    """How far the logits of the converted network are from the ANN's after 64 steps, relative to the ANN's norm.

    Raises:
        InputError: where the conversion is refused.
    """
    ann, images = case.ann(), case.images(4)
    snn = ss.to_spiking(ann, neuron=ss.IF(), timesteps=64, input_shape=case.input_shape)
    as_published: dict[str, Any] = {"by": "layer", "start": "rest", "max_pool": "keep"}
    ss.convert(snn, ann, [images], method="normalise", **as_published)
    with torch.no_grad():
        wanted = ann(images[:1])
        return float((snn.eval()(images[:1]) - wanted).norm() / wanted.norm())


def replayed(case: Case) -> Replay:
    """The folded network beside its NIR file, read back, on one image over two time steps; max pooling is averaged.

    Raises:
        InputError: where the export is refused.
    """
    neuron = ss.LIF(leak=0.5, threshold=0.3, reset="hard")
    options: dict[str, Any] = {"timesteps": 2, "input_shape": case.input_shape, "max_pool": "average"}
    snn = ss.to_spiking(case.ann(), neuron=neuron, **options).eval()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.nir"
        ss.export.to_nir(snn).write(file)
        return ss.export.replay(ss.export.folded(snn), ss.export.from_nir(file).eval(), case.images(1))


def _activations(ann: nn.Module, input_shape: tuple[int, int, int]) -> Iterator[nn.Module]:
    """The ANN's activations in the order in which its graph calls them."""
    for finding in ss.check(ann, input_shape).activations:
        yield nn.ReLU6() if finding.operation.lower() == "relu6" else nn.ReLU()


def _is_neuron(body: Any, node: Any) -> bool:
    return isinstance(body.get_submodule(str(node.target)), ss.LIF)


def _step_cell(gradient: Gradient, case: Case) -> str:
    step = training_step(case, gradient)
    return "finite" if not step.without_gradient else f"{len(step.without_gradient)} without"


COLUMNS: dict[str, Callable[[Case], str]] = {
    "neurons (rewritten)": lambda case: "{} ({})".format(*neurons(case)),
    "with ReLU again": lambda case: "equal" if (found := restored_difference(case)) == 0 else f"{found:.0e} apart",
    "gradients, rate": functools.partial(_step_cell, "rate"),
    "gradients, bptt": functools.partial(_step_cell, "bptt"),
    "in NIR, spikes that differ": lambda case: f"{(found := replayed(case)).differing:,} of {found.places:,}",
    "converted, T = 64": lambda case: f"{relative_error(case):.0%} apart",
}
"""What the table shows of a model, a function a column."""


def _cell(column: Callable[[Case], str], case: Case) -> str:
    try:
        return column(case)
    except InputError as error:
        return f"refused: {error}"


def main() -> None:
    """Print the table, in Markdown, a line as soon as it is measured."""
    print(f"| model | {' | '.join(COLUMNS)} |")
    print(f"|---|{'---|' * len(COLUMNS)}")
    for case in CASES:
        print(f"| `{case.name}` | {' | '.join(_cell(column, case) for column in COLUMNS.values())} |", flush=True)


if __name__ == "__main__":
    main()
