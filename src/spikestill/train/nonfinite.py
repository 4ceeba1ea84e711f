"""Where numbers stopped being finite."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["first_nonfinite"]


@torch.no_grad()
def first_nonfinite(network: nn.Module, images: Tensor) -> str | None:
    """The layer whose weights are not finite, or else the first whose output is not, in words; None where all are.

    Args:
        network: is run once more on the images, in the mode that it is in.
        images: of the step at which the loss was not finite.
    """
    for name, parameter in network.named_parameters():
        if not parameter.isfinite().all():
            return f"the weights {name.removeprefix('body.')} are not finite"
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not found and isinstance(output, Tensor) and not output.isfinite().all():
                found.append(name.removeprefix("body."))

        return hook

    leaves = [(name, module) for name, module in network.named_modules() if not list(module.children())]
    hooks = [module.register_forward_hook(look(name)) for name, module in leaves]
    try:
        network(images)
    finally:
        for handle in hooks:
            handle.remove()
    return f"the output of {found[0]} is the first that is not finite" if found else None
