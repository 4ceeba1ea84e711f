"""Residual networks whose weights have the names that torchvision and timm give them, as built-in ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from spikestill.models import resnet

__all__ = ["renamed", "stem_options"]

_FIRST_BLOCK = "layer1.0.conv1.weight"
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


def renamed(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Weights under a built-in residual network's names; None where they are no such network's, or have them already.

    Args:
        found: the weights under torchvision's names, which may all have the same prefix; it is kept.
        own: those of the model that takes them.
    """
    prefix = _prefix(found)
    if prefix is None or "stem.conv.weight" not in own:
        return None
    names = {name: prefix + _ours(name.removeprefix(prefix)) for name in found if name.startswith(prefix)}
    fits = all(name.removeprefix(prefix) in own for name in names.values())
    return {names.get(name, name): value for name, value in found.items()} if fits else None


def stem_options(model: str, found: Mapping[str, Tensor]) -> dict[str, Any]:
    """The options of a built-in residual network that the shape of its first convolution gives away.

    A kernel of 7 pixels is the stem for large images; under torchvision's names, a maximum pooling follows.

    Args:
        model: its name; any other gives no options.
        found: the weights, under either names.
    """
    if model not in resnet.PLANS:
        return {}
    prefix = _prefix(found)
    stems = [value for name, value in found.items() if name.endswith("stem.conv.weight")]
    first = stems[0] if prefix is None and stems else found.get(f"{prefix}conv1.weight")
    if first is None or first.shape[-1] != 7:
        return {}
    return {"stem": "imagenet"} | ({} if prefix is None else {"pooling": "max"})


def _prefix(found: Mapping[str, Tensor]) -> str | None:
    """What stands before torchvision's names; None where they are others."""
    blocks = (name.removesuffix(_FIRST_BLOCK) for name in found if name.endswith(_FIRST_BLOCK))
    return next((prefix for prefix in blocks if f"{prefix}conv1.weight" in found), None)


def _ours(name: str) -> str:
    for pattern, ours in _RULES:
        if pattern.match(name):
            name = pattern.sub(ours, name, count=1)
            break
    # Their blocks count from 0, ours from 1.
    return re.sub(r"\.block(\d+)\.", lambda match: f".block{int(match[1]) + 1}.", name)
