"""Residual networks whose weights have the names that torchvision and timm give them, as built-in ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from spikestill.models import resnet

__all__ = ["renamed", "stem_options"]

_RULES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"conv1\.", "stem.conv."),
        (r"bn1\.", "stem.norm."),
        (r"(layer\d+)\.(\d+)\.conv([12])\.", r"\1.block\2.branch.conv\3."),
        (r"(layer\d+)\.(\d+)\.bn([12])\.", r"\1.block\2.branch.norm\3."),
        (r"(layer\d+)\.(\d+)\.(?:downsample|shortcut)\.0\.", r"\1.block\2.shortcut.conv."),
        (r"(layer\d+)\.(\d+)\.(?:downsample|shortcut)\.1\.", r"\1.block\2.shortcut.norm."),
        (r"(?:fc|linear|classifier)\.", "head.classifier."),
    )
)
"""From the beginning of a name in torchvision's residual networks of basic blocks, and their many copies, to ours."""


def renamed(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Weights under a built-in residual network's names; None where they are no such network's, or have them already.

    Args:
        state: the weights under the names of torchvision.
        own: those of the model that takes them.
    """
    if "stem.conv.weight" not in own or "conv1.weight" not in state:
        return None
    found = {_ours(name): value for name, value in state.items()}
    return found if found.keys() <= own.keys() else None


def stem_options(model: str, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The options of a built-in residual network that the shape of its first convolution gives away.

    A kernel of 7 pixels is the stem for large images; under torchvision's names, a maximum pooling follows.

    Args:
        model: its name; any other gives no options.
        state: the weights, under either names.
    """
    if model not in resnet.PLANS:
        return {}
    for name, options in (("conv1.weight", {"pooling": "max"}), ("stem.conv.weight", {})):
        if name in state and state[name].ndim == 4 and state[name].shape[-1] == 7:
            return {"stem": "imagenet"} | options
    return {}


def _ours(name: str) -> str:
    for pattern, ours in _RULES:
        if pattern.match(name):
            name = pattern.sub(ours, name, count=1)
            break
    # Their blocks count from 0, ours from 1.
    return re.sub(r"\.block(\d+)\.", lambda match: f".block{int(match[1]) + 1}.", name)
