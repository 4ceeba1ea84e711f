"""Batch normalisation: what it does to a sequence, and the one whose batch is spread over several processes."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikestill.dynamics import Normalisation, batch_norm, moments_in_parts, shared_moments
from spikestill.types import InputError

__all__ = ["SynchronisedBatchNorm", "normalisation_of", "synchronise", "unsynchronise"]

_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class SynchronisedBatchNorm(_BatchNorm):
    """A BatchNorm whose statistics in training are those of the images of all processes, and so is their gradient.

    Torch's own ``SyncBatchNorm`` runs on accelerators only, and knows no statistics over time. Parameters and buffers
    are those of the module that it stands for.

    Args:
        plain: the BatchNorm that it stands for, until ``unsynchronise`` puts that back.
    """

    def __init__(self, plain: _BatchNorm) -> None:
        super().__init__(plain.num_features, plain.eps, plain.momentum, False, False)
        self.affine, self.track_running_stats, self.training = plain.affine, plain.track_running_stats, plain.training
        self._parameters, self._buffers = plain._parameters, plain._buffers
        self._stands_for = (plain,)  # in a tuple: it is no submodule

    @property
    def plain(self) -> _BatchNorm:
        """The module that it stands for, in the same mode."""
        return self._stands_for[0].train(self.training)

    def forward(self, values: Tensor) -> Tensor:
        """The normalised values ``[B, C, ...]``; in training every process has to call it, with its own images."""
        if not self.training and self.running_mean is not None:
            return super().forward(values)
        return batch_norm(values, normalisation_of(self, values.detach().unsqueeze(0))[0])

    def _check_input_dim(self, values: Tensor) -> None:
        self._stands_for[0]._check_input_dim(values)


def synchronise(network: nn.Module) -> None:
    """Put a :class:`SynchronisedBatchNorm` in the place of every BatchNorm of a network.

    Raises:
        InputError: for a BatchNorm in training of another class than torch's own, which may do more than that.
    """
    for path, module in network.named_modules():
        if isinstance(module, _BatchNorm) and module.training and type(module) not in (*_PLAIN, SynchronisedBatchNorm):
            raise InputError(
                f"'{path}' ({type(module).__name__}) cannot be synchronised between processes: train this network with "
                "one process, or one whose BatchNorm is torch's own"
            )
    made: dict[nn.Module, SynchronisedBatchNorm] = {}
    for parent in list(network.modules()):
        for name, child in parent._modules.items():
            if type(child) in _PLAIN:
                parent._modules[name] = made.setdefault(child, SynchronisedBatchNorm(child))  # type: ignore[arg-type]


def unsynchronise(network: nn.Module) -> None:
    """The inverse of :func:`synchronise`."""
    for parent in list(network.modules()):
        for name, child in parent._modules.items():
            if isinstance(child, SynchronisedBatchNorm):
                parent._modules[name] = child.plain


def normalisation_of(module: _BatchNorm, sequence: Tensor | Iterable[Tensor]) -> tuple[Normalisation, Tensor | None]:
    """What a BatchNorm does to a sequence, and that sequence's mean over time if it was gathered.

    The sequence is ``[T, B, C, ...]``, or comes in parts ``[t, B, C, ...]``, which are read where they are needed.

    In training the statistics are those over time, batch and space, gathered in one pass, and of a synchronised module
    over all processes; the running ones are updated once, as the module's own forward does.

    Raises:
        InputError: for statistics of a single value a channel.
    """
    if module.training or module.running_mean is None or module.running_var is None:
        members: int | Tensor
        mean, variance, over_time, members = moments_in_parts([sequence] if isinstance(sequence, Tensor) else sequence)
        is_shared = isinstance(module, SynchronisedBatchNorm)
        if is_shared:
            mean, variance, members = shared_moments(mean, variance, members)
        elif members == 1:
            raise InputError("BatchNorm needs more than one value a channel for its statistics: give a larger batch")
        if module.training:
            _update(module, mean, variance, members)
        inverse = torch.rsqrt(variance + module.eps)
        return Normalisation(mean, inverse, module.weight, module.bias, True, is_shared), over_time
    exact = torch.promote_types(module.running_var.dtype, torch.float32)
    inverse = torch.rsqrt(module.running_var.to(exact) + module.eps)
    return Normalisation(module.running_mean.to(exact, copy=True), inverse, module.weight, module.bias, False), None


@torch.no_grad()
def _update(module: _BatchNorm, mean: Tensor, variance: Tensor, members: int | Tensor) -> None:
    if not module.track_running_stats or module.running_mean is None or module.running_var is None:
        return
    momentum = module.momentum
    if module.num_batches_tracked is not None:
        module.num_batches_tracked.add_(1)
        if momentum is None:
            momentum = 1.0 / float(module.num_batches_tracked)
    if momentum is None or (isinstance(members, int) and members == 0):
        momentum = 0.0
    module.running_mean.lerp_(mean.to(module.running_mean.dtype), momentum)
    others = max(members - 1, 1) if isinstance(members, int) else (members - 1).clamp(min=1)
    unbiased = variance * (members / others)
    module.running_var.lerp_(unbiased.to(module.running_var.dtype), momentum)
