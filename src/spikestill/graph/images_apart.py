"""Which calls of a graph let one image of a batch reach another: found by running them, not by their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn.modules.batchnorm import _BatchNorm

from spikestill.graph.arguments import found_in, mapped
from spikestill.graph.operations import is_activation, is_dropout
from spikestill.graph.trace import module_of
from spikestill.graph.tracers import evaluating

__all__ = ["calls_that_mix_images"]

_IMAGES = 3
"""Another number than tracing has run, so that a batch size that is written into the model shows."""

_WAY_OUT = "flatten from axis 1, average over the other axes, and let sizes follow from the input's, as x.size(0)"
_MIXES = f"reaches across the images of a batch, and so across the time steps of a spiking network: {_WAY_OUT}"
_LOSES = f"does not keep one entry an image on the first axis, which time steps share with images: {_WAY_OUT}"
_FIXED = f"works for one size of the batch alone: {_WAY_OUT}"


def calls_that_mix_images(traced: fx.GraphModule) -> dict[fx.Node, str]:
    """The calls after which the first axis is no longer that of independent images, and why; of a chain, its first.

    Every call is made twice in evaluation mode: with a batch of noise, and with other images beside the same first one,
    for which it must give the same. A BatchNorm without running statistics is left out: it is meant to look at all.

    Args:
        traced: from ``trace``.
    """
    image = next(node for node in traced.graph.nodes if node.op == "placeholder")
    parameter = next(traced.parameters(), torch.empty(0))
    run = _TwoBatches(traced)
    images = run.noise(torch.empty((_IMAGES, *image.meta["shape"][1:]), dtype=parameter.dtype, device=parameter.device))
    with evaluating(traced), torch.no_grad():
        try:
            run.run(images)
        except _OneBatchSizeError as found:
            if found.node in run.tried or not run.found:  # else it fails for what was found before it
                run.found[found.node] = _FIXED
    return run.found


class _OneBatchSizeError(Exception):
    def __init__(self, node: fx.Node) -> None:
        super().__init__()
        self.node = node


class _TwoBatches(fx.Interpreter):
    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.traced = traced
        self.found: dict[fx.Node, str] = {}
        self.apart: set[fx.Node] = set()  # whose value has an entry an image, each of which depends on that image alone
        self.tried: set[fx.Node] = set()  # which read such a value
        self._generator = torch.Generator().manual_seed(0)

    def noise(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self._generator).to(like)

    def run_node(self, n: fx.Node) -> Any:
        images = [item for item in found_in((n.args, n.kwargs), fx.Node) if item in self.apart]
        if n.op == "placeholder" or (images and self._is_apart_by_its_kind(n)):
            self.apart.add(n)
            return super().run_node(n)
        if n.op not in ("call_module", "call_function", "call_method") or not images:
            try:
                return super().run_node(n)
            except Exception as error:
                raise _OneBatchSizeError(n) from error
        self.tried.add(n)
        try:
            result = self._call(n, torch.clone)
        except Exception as error:
            raise _OneBatchSizeError(n) from error
        tensors = found_in(result, Tensor)
        if any(value.dim() == 0 or len(value) != _IMAGES for value in tensors):
            self.found[n] = _LOSES
        elif tensors:
            others = found_in(self._call(n, self._with_other_images), Tensor)
            if all(_have_the_same_first(*pair) for pair in zip(tensors, others, strict=True)):
                self.apart.add(n)
            else:
                self.found[n] = _MIXES
        return result

    def _is_apart_by_its_kind(self, node: fx.Node) -> bool:
        module = module_of(self.traced, node)
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            return True
        return is_activation(self.traced, node) or is_dropout(self.traced, node)

    def _call(self, node: fx.Node, change: Callable[[Tensor], Tensor]) -> Any:
        """The node's call on copies of its arguments, with ``change`` applied to the batches of images among them."""

        def value(leaf: Any) -> Any:
            if not isinstance(leaf, fx.Node):
                return leaf
            function = change if leaf in self.apart else torch.clone
            return mapped(self.env[leaf], lambda item: function(item) if isinstance(item, Tensor) else item)

        return getattr(self, node.op)(node.target, mapped(node.args, value), mapped(node.kwargs, value))

    def _with_other_images(self, value: Tensor) -> Tensor:
        other = value.clone()
        if other.is_floating_point():
            other[1:] = self.noise(other[1:]) * (other.std() + 1)
        return other


def _have_the_same_first(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one[0], other[0], rtol=1e-4, atol=1e-5, equal_nan=True)
