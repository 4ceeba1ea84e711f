"""The networks: each is built once, as an ANN, and every contestant is made of its weights.

Both have 10 classes, BatchNorm behind every convolution, average pooling and about as many operations for an image of
32 x 32 at width 1: ``vgg`` 1.2 GFLOP, ``resnet18`` (CIFAR stem) 1.1 GFLOP.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

import spikestill as ss
from benchmarks.setting import LEAK, THRESHOLD, Setting

__all__ = ["NETWORKS", "create", "exact", "folded", "replaced"]

NETWORKS = ("vgg", "resnet18")
_VGG_CHANNELS = (128, 256, 512)


def create(setting: Setting) -> nn.Module:
    """The ANN of a setting, channels last, its running statistics those of its spiking twin."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        if setting.network == "vgg":
            ann: nn.Module = _vgg(setting.width, setting.image_size)
        else:
            ann = ss.models.create(setting.network, width=setting.width, image_size=setting.image_size, stem="cifar")
        _settle(ann, setting)
    return ann.to(setting.device).to(memory_format=torch.channels_last)


@torch.no_grad()
def exact(ann: nn.Module) -> nn.Module:
    """A copy whose numbers are so short that float32 computes its spiking twins without rounding, for T up to 8.

    Weights and biases are multiples of 1/64, BatchNorm scales by a power of two. Whatever the order of summation, every
    potential comes out the same, so that not a single spike may differ.
    """
    network = copy.deepcopy(ann)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.eps = 0.0
            module.running_var.copy_(4 ** module.running_var.clamp(0.05, 4).log2().div(2).round())
            module.running_mean.copy_(_short(module.running_mean))
    for parameter in network.parameters():
        parameter.copy_(_short(parameter))
    return network


def folded(ann: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose BatchNorms are folded into the convolutions before them, by torch's own pass.

    Its activations and poolings stay modules, which the peers replace by theirs.
    """
    return fuse(copy.deepcopy(ann).eval())


def replaced(ann: nn.Module, replacement: Callable[[str, nn.Module], nn.Module | None]) -> nn.Module:
    """A copy of a network with other modules in it: ``replacement`` of path and module, or the module where None."""
    network = copy.deepcopy(ann)
    for path, module in list(network.named_modules()):
        new = replacement(path, module)
        if new is not None:
            parent, _, name = path.rpartition(".")
            setattr(network.get_submodule(parent), name, new.train(module.training))
    return network


def _vgg(width: float, image_size: int) -> nn.Sequential:
    """conv - conv - pool, three times, and a linear layer; BatchNorm and ReLU behind each convolution."""
    layers: list[nn.Module] = []
    inputs, size = 3, image_size
    for base in _VGG_CHANNELS:
        outputs = max(8, round(base * width))
        for _ in range(2):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
        layers.append(nn.AvgPool2d(2))
        size //= 2
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs * size * size, 10))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network


def _short(values: torch.Tensor) -> torch.Tensor:
    return (values * 64).round() / 64


def _settle(ann: nn.Module, setting: Setting, batches: int = 4, timesteps: int = 4) -> None:
    """Running statistics as training leaves them, so that a network in evaluation mode spikes as in training."""
    size = setting.image_size
    snn = ss.to_spiking(ann, neuron=ss.LIF(LEAK, THRESHOLD), timesteps=timesteps, input_shape=(3, size, size))
    norms = [module for module in snn.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the plain mean over all batches
    with torch.no_grad():
        for _ in range(batches):
            snn.train()(torch.randn(8, 3, size, size))
    ann.load_state_dict(snn.body.state_dict(), strict=False)
