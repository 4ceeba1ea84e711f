"""Which modules are one call of a canonical graph, and the plain module of torch that a variation of it stands for."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import nn
from torch.nn.utils import parametrize

from spikestill.graph.ops import DROPOUTS, LAYERS
from spikestill.nn import StochasticDepth
from spikestill.types import InputError

__all__ = ["is_leaf", "is_stateless", "plain_module", "resembles", "with_plain_weights", "wrapped", "written_as"]

_TRANSPARENT: tuple[type[nn.Module], ...] = (
    *(nn.Identity, nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle),
    *(nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Threshold, nn.LeakyReLU),
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
    *(nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d),
    *(nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d),
    *(nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d, nn.CircularPad1d, nn.CircularPad2d),
    *(nn.CircularPad3d, nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d),
)
"""Modules of torch without weights, whose forward is one function: that function stands in the graph."""

_DROP_PATHS = {"DropPath": "drop_prob", "StochasticDepth": "p"}
"""What timm, torchvision and many a repository call drop path, and the attribute that is its probability."""

_HARMLESS = frozenset(
    "__init__ __repr__ extra_repr reset_parameters _get_name train _apply "
    "__doc__ __module__ __annotations__ __constants__ __parameters__ __static_attributes__ __firstlineno__ __qualname__ "
    "__dict__ __weakref__ __init_subclass__ __class_getitem__ __orig_bases__ __deepcopy__ __getstate__".split()
)
"""What a subclass may define and still compute what its base does."""


def resembles(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> type[nn.Module] | None:
    """The one of ``kinds`` that a module is, or that it is a subclass of which changes nothing; None for neither."""
    if "forward" in vars(module):
        return None
    own: set[str] = set()
    for kind in type(module).__mro__:
        if kind in kinds:
            return kind if not {name for name in own if hasattr(kind, name)} else None
        own |= vars(kind).keys() - _HARMLESS
    return None


def is_leaf(module: nn.Module, path: str) -> bool:
    """Whether a module is one call of the graph; another is followed into its forward.

    Raises:
        InputError: for a layer whose weights a hook computes, or that has none yet.
    """
    kind = resembles(module, (*LAYERS, *DROPOUTS, nn.SyncBatchNorm))
    if kind is not None or _is_parametrised(module):
        _require_own_weights(module, path)
        return True
    if _is_drop_path(module) or isinstance(module, nn.SyncBatchNorm):
        return True
    if isinstance(module, torch.jit.ScriptModule):
        raise InputError(f"'{path}' is compiled by torch.jit, which cannot be traced: give the module before scripting")
    is_torchs_own = type(module).__module__.startswith(("torch.nn", "torch.ao.nn"))
    return is_torchs_own and not isinstance(module, (nn.Sequential, *_TRANSPARENT))


def is_stateless(module: nn.Module) -> bool:
    """Whether a module has neither parameters nor buffers."""
    return not any(True for _ in module.parameters()) and not any(True for _ in module.buffers())


def wrapped(module: nn.Module) -> nn.Module | None:
    """The module that a wrapper (DataParallel, torch.compile, averaged weights) runs; None for any other module."""
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return cast("nn.Module", module.module)
    if type(module).__name__ == "OptimizedModule" and type(module).__module__.startswith("torch._dynamo"):
        return cast("nn.Module", module._orig_mod)
    if isinstance(module, torch.optim.swa_utils.AveragedModel):
        return module.module
    return None


def written_as(kind: type) -> str | None:
    """The name of the module whose forward is one function; None for another kind of module."""
    base = next((base for base in kind.__mro__ if base in _TRANSPARENT), None)
    return kind.__name__ if base is not None and kind.forward is base.forward else None  # type: ignore[attr-defined]


def plain_module(module: nn.Module, rank: int) -> nn.Module:
    """A leaf as a module of exactly torch's type (or ours), which shares its parameters and buffers.

    A layer with a parametrised weight stays as it is: its weight is to be computed anew whenever it is used.

    Args:
        module: a leaf (see :func:`is_leaf`).
        rank: of its output, the batch included.
    """
    if _is_drop_path(module):
        name = next(name for name in _DROP_PATHS if name in type(module).__name__)
        given: Any = module
        probability, scales = getattr(given, _DROP_PATHS[name]), bool(getattr(given, "scale_by_keep", True))
        mode: Any = getattr(given, "mode", "row")
        return StochasticDepth(float(probability or 0.0), mode, scale_by_keep=scales).train(module.training)
    if isinstance(module, nn.SyncBatchNorm):
        return _alike(module, (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[rank - 2])
    kind = resembles(module, (*LAYERS, *DROPOUTS))
    overwrites = bool(getattr(module, "inplace", False))
    if kind is None or _is_parametrised(module) or (kind is type(module) and not overwrites):
        return module
    made = _alike(module, kind)
    if overwrites:
        made.inplace = False  # type: ignore[assignment]
    return made


def with_plain_weights(module: nn.Module) -> nn.Module:
    """A layer whose weights are parameters of the values that its parametrisations give now."""
    made = _alike(module, type(module).__mro__[1])
    computed: Any = made._modules.pop("parametrizations")
    for name in computed:
        value = getattr(module, name).detach().clone()
        made.register_parameter(
            name, nn.Parameter(value, requires_grad=any(p.requires_grad for p in computed.parameters()))
        )
    return made


def _alike(module: nn.Module, kind: type[nn.Module]) -> nn.Module:
    """A module of another class with the same attributes, parameters and buffers, but containers of its own."""
    made = kind.__new__(kind)
    made.__dict__ = {
        name: copy.copy(value) if isinstance(value, dict) else value for name, value in vars(module).items()
    }
    return made


def _is_parametrised(module: nn.Module) -> bool:
    return parametrize.is_parametrized(module) and type(module).__mro__[1] in LAYERS


def _is_drop_path(module: nn.Module) -> bool:
    name = type(module).__name__
    if isinstance(module, StochasticDepth) or name not in _DROP_PATHS:
        return False
    return hasattr(module, _DROP_PATHS[name]) and is_stateless(module)


def _require_own_weights(module: nn.Module, path: str) -> None:
    if any(isinstance(value, nn.UninitializedParameter) for value in module.parameters()):
        raise InputError(f"'{path}' has no weights yet: run the model once on images before it is traced")
    hooked = next((name for name in ("weight", "bias") if isinstance(vars(module).get(name), torch.Tensor)), None)
    if hooked is not None:
        raise InputError(
            f"the {hooked} of '{path}' is computed by a hook (weight_norm, spectral_norm or prune of torch.nn.utils): "
            "use torch.nn.utils.parametrizations in its place, or make it final by remove_weight_norm, "
            "remove_spectral_norm or prune.remove"
        )
