"""One small class per contestant: how it is prepared, its training step, its inference.

Everyone gets the same weights, channels last (all of them gain by it), the same autocast and the same optimiser. Every
peer comes as its documentation sets it up, and as fast as it was found to run:

* SpikingJelly: multi-step mode. Its kernel is the one it chooses by itself (CPU: torch; CUDA: its native or Triton
  kernel; ``SJ_LIF_CUDA_IMPLEMENTATION`` forces one). Compiled: the whole network under ``torch.compile``, which is how
  its own training script compiles; what precedes the first neuron computed once. On the CPU this was faster than
  compiling its neurons alone (whose output is no longer channels last) and than leaving the layout contiguous.
* snnTorch: the loop over time over a network with hidden states. Compiled: one time step under ``torch.compile``, the
  loop outside. Compiling the whole loop was a tenth faster in float32 and level in bf16, but takes minutes to compile,
  more so with T, and was compiled anew in the middle of a run.
* two-pass: see ``two_pass``. Compiled: its neuron layers, the only part that is not a native call.
* ann: the ReLU network, one forward and backward pass: the floor's unit.

The compiled entrants of inference have their BatchNorms folded first, as ``spikestill-folded`` has.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

import spikestill as ss
from benchmarks.networks import folded
from benchmarks.peers import snntorch_network, spikingjelly_network
from benchmarks.setting import LEAK, SURROGATE_SLOPE, THRESHOLD, Setting
from benchmarks.two_pass import TwoPassNetwork, TwoPassNeuron, spike_pass

__all__ = ["INFERENCE", "TRAINING", "Contestant", "create"]

Observer = Callable[[Tensor], None]


class Contestant(ABC):
    """A network that can be trained and asked.

    Args:
        ann: the network, whose weights are copied.
        setting: the comparison's conditions.
        training: False for an entrant of inference.

    Attributes:
        compiled: whether the network is under ``torch.compile``.
        warm_ups: runs before it is measured; what is compiled may be compiled again in its second.
        folds: whether inference runs without BatchNorm.
        order: the rule of its neurons, in our names; empty for the ANN.
        twin: the contestant that has the same gradients; empty where there is none.
    """

    compiled: ClassVar[bool] = False
    warm_ups: ClassVar[int] = 1
    folds: ClassVar[bool] = False
    order: ClassVar[str] = "reset-then-leak"
    twin: ClassVar[str] = ""

    def __init__(self, ann: nn.Module, setting: Setting, *, training: bool = True) -> None:
        self.setting, self.timesteps = setting, setting.timesteps
        source = copy.deepcopy(ann) if training or not self.folds else folded(ann)
        network = self.network(source).to(setting.device).to(memory_format=torch.channels_last)
        self.net = network.train(training)
        self.run: Callable[[Tensor], Tensor] = torch.compile(self.net) if self.compiled else self.net
        self.optimiser = torch.optim.SGD(self.net.parameters(), lr=0.01, momentum=0.9)

    @abstractmethod
    def network(self, ann: nn.Module) -> nn.Module:
        """The contestant's own network, of the ANN's weights."""

    @abstractmethod
    def logits(self, images: Tensor) -> Tensor:
        """Mean logits ``[B, K]`` of images ``[B, C, H, W]``."""

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One training step: forward, cross-entropy of the mean logits, backward, optimiser; the loss."""
        self.optimiser.zero_grad()
        with self.setting.autocast():
            logits = self.logits(images)
        loss = functional.cross_entropy(logits.float(), labels)
        loss.backward()
        self.optimiser.step()
        return loss.detach()

    @torch.no_grad()
    def infer(self, images: Tensor) -> Tensor:
        """Mean logits without autograd."""
        with self.setting.autocast():
            return self.logits(images)

    def eager(self) -> None:
        """Leave the compiler out, for a look inside."""
        self.run = self.net

    def neurons(self) -> list[nn.Module]:
        """The neuron layers, in the network's order."""
        return []

    @torch.no_grad()
    def spikes(self, images: Tensor) -> list[Tensor]:
        """The spikes of every neuron layer in the network's order, ``[T, B, ...]``; nothing for the ANN."""
        seen: list[list[Tensor]] = [[] for _ in self.neurons()]
        hooks = [
            neuron.register_forward_hook(lambda module, inputs, output, kept=kept: kept.append(output.clone()))
            for neuron, kept in zip(self.neurons(), seen, strict=True)
        ]
        self.observed(images)
        for hook in hooks:
            hook.remove()
        return [torch.cat(kept).flatten().view(self.timesteps, len(images), -1) for kept in seen]

    def observed(self, images: Tensor) -> None:
        """One run through all time steps, under the hooks of :meth:`spikes`."""
        self.logits(images)


class Ann(Contestant):
    """The ReLU network itself."""

    order = ""

    def network(self, ann: nn.Module) -> nn.Module:
        return ann

    def logits(self, images: Tensor) -> Tensor:
        return self.run(images)


class AnnCompiled(Ann):
    """The ReLU network under ``torch.compile``."""

    compiled = True
    warm_ups = 2
    folds = True


class Rate(Contestant):
    """spikestill under rate gradients."""

    gradient: ClassVar[Any] = "rate"
    twin = "two-pass"

    def network(self, ann: nn.Module) -> nn.Module:
        neuron = ss.LIF(LEAK, THRESHOLD, order=self.order, surrogate=ss.Sigmoid(SURROGATE_SLOPE))  # type: ignore[arg-type]
        shape = (3, self.setting.image_size, self.setting.image_size)
        return ss.to_spiking(ann, neuron=neuron, timesteps=self.timesteps, gradient=self.gradient, input_shape=shape)

    def logits(self, images: Tensor) -> Tensor:
        return self.run(images)

    def spikes(self, images: Tensor) -> list[Tensor]:
        layers: list[Tensor] = []
        with torch.no_grad():
            self.net.unroll(images, observe=lambda name, spikes: layers.append(spikes.flatten(2)))  # type: ignore[operator]
        return layers


class RateRecomputed(Rate):
    """spikestill under rate gradients, with ``recompute``: in memory that hardly grows with T."""

    def network(self, ann: nn.Module) -> nn.Module:
        net = super().network(ann)
        net.recompute = True  # type: ignore[assignment]
        return net


class Bptt(Rate):
    """spikestill through time."""

    gradient = "bptt"
    twin = "spikingjelly"


class Folded(Bptt):
    """spikestill with BatchNorm folded into the weights, for inference."""

    folds = True


class LeakThenSubtract(Bptt):
    """spikestill with snnTorch's order of reset: what the check compares snnTorch with."""

    order = "leak-then-subtract"


class SpikingJelly(Contestant):
    """SpikingJelly as documented: multi-step mode, the image repeated over all time steps."""

    head_once: ClassVar[bool] = False
    twin = "spikestill-bptt"

    def network(self, ann: nn.Module) -> nn.Module:
        return spikingjelly_network(ann, self.timesteps, head_once=self.head_once)

    def logits(self, images: Tensor) -> Tensor:
        from spikingjelly.activation_based.functional import reset_net

        sequence = images.unsqueeze(0)
        if not self.head_once:
            sequence = sequence.expand(self.timesteps, *images.shape)
        logits = self.run(sequence).mean(0)
        reset_net(self.net)
        return logits

    def neurons(self) -> list[nn.Module]:
        from spikingjelly.activation_based.neuron import LIFNode

        return [module for module in self.net.modules() if isinstance(module, LIFNode)]


class SpikingJellyCompiled(SpikingJelly):
    """SpikingJelly as fast as it runs: the whole network compiled, what does not move in time computed once."""

    compiled = True
    warm_ups = 2
    folds = True
    head_once = True


class SnnTorch(Contestant):
    """snnTorch as documented: a loop over time. Its BatchNorm sees one time step at once."""

    order = "leak-then-subtract"

    def network(self, ann: nn.Module) -> nn.Module:
        return snntorch_network(ann)

    def logits(self, images: Tensor) -> Tensor:
        for neuron in self.neurons():
            neuron.reset_mem()  # type: ignore[operator]
        return torch.stack([self.run(images) for _ in range(self.timesteps)]).mean(0)

    def neurons(self) -> list[nn.Module]:
        import snntorch

        return [module for module in self.net.modules() if isinstance(module, snntorch.Leaky)]


class SnnTorchCompiled(SnnTorch):
    """snnTorch with one time step compiled."""

    compiled = True
    warm_ups = 2
    folds = True


class TwoPass(Contestant):
    """Rate-based backpropagation in two passes."""

    twin = "spikestill-rate"

    def network(self, ann: nn.Module) -> nn.Module:
        return TwoPassNetwork(ann, self.timesteps, spike_pass)

    def logits(self, images: Tensor) -> Tensor:
        return self.run(images)

    def neurons(self) -> list[nn.Module]:
        return [module for module in self.net.modules() if isinstance(module, TwoPassNeuron)]

    def observed(self, images: Tensor) -> None:
        self.net.spike(images)  # type: ignore[operator]


class TwoPassCompiled(TwoPass):
    """The same, its neuron layers compiled."""

    warm_ups = 2

    def network(self, ann: nn.Module) -> nn.Module:
        return TwoPassNetwork(ann, self.timesteps, torch.compile(spike_pass, dynamic=False))

    def eager(self) -> None:
        for neuron in self.neurons():
            neuron.run = spike_pass  # type: ignore[assignment]


TRAINING: Mapping[str, type[Contestant]] = {
    "spikestill-rate": Rate,
    "spikestill-rate-recomputed": RateRecomputed,
    "spikestill-bptt": Bptt,
    "spikingjelly": SpikingJelly,
    "spikingjelly-compiled": SpikingJellyCompiled,
    "snntorch": SnnTorch,
    "snntorch-compiled": SnnTorchCompiled,
    "two-pass": TwoPass,
    "two-pass-compiled": TwoPassCompiled,
    "ann": Ann,
    "ann-compiled": AnnCompiled,
}
"""Entrants of training."""

INFERENCE: Mapping[str, type[Contestant]] = {
    "spikestill": Bptt,
    "spikestill-folded": Folded,
    "spikingjelly": SpikingJelly,
    "spikingjelly-compiled": SpikingJellyCompiled,
    "snntorch": SnnTorch,
    "snntorch-compiled": SnnTorchCompiled,
    "ann": Ann,
    "ann-compiled": AnnCompiled,
}
"""Entrants of inference."""


def create(task: str, name: str, ann: nn.Module, setting: Setting) -> Contestant:
    """The contestant of this name in "training" or "inference"."""
    table = TRAINING if task == "training" else INFERENCE
    return table[name](ann, setting, training=task == "training")
