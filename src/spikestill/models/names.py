"""From a model's name to the model."""

from __future__ import annotations

from typing import Any

from torch import nn

from spikestill.models import densenet, external, resnet, vgg
from spikestill.models.layers import initialise
from spikestill.models.specification import Specification, check_sizes
from spikestill.types import InputError, unknown_name

__all__ = ["create", "names"]

_FAMILIES = (
    (vgg.STAGES, vgg.TAKES, vgg.build),
    (resnet.PLANS, resnet.TAKES, resnet.build),
    (densenet.BLOCKS, densenet.TAKES, densenet.build),
)
_FORMS = ("timm:NAME", "torchvision:NAME", "python:PACKAGE.MODULE:FUNCTION")


def names() -> list[str]:
    """The built-in models' names, by family and depth."""
    return [name for table, _, _ in _FAMILIES for name in table]


def create(
    name: str,
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    width: float = 1.0,
    pretrained: bool = False,
    trust_code: bool = True,
    **options: Any,
) -> nn.Module:
    """Build a conventional network (ANN): images ``[B, C, H, W]`` to logits ``[B, K]``.

    Weights come from torch's global generator: ``torch.manual_seed`` before the call repeats them.

    Args:
        name: a built-in name (see ``names``), or

            - ``timm:NAME`` and ``torchvision:NAME``: any classification model of these libraries,
            - ``python:PACKAGE.MODULE:FUNCTION``: what your own function returns; of ``num_classes``, ``in_channels``
              and ``image_size`` it is given the keywords that it takes.
        num_classes: K.
        in_channels: C of the images.
        image_size: H = W of the images in pixels.
        width: factor on every hidden channel count of a built-in model (rounded to a multiple of 8, at least 8).
        pretrained: load the library's own weights (timm and torchvision only; needs a network or a filled cache).
        trust_code: whether your own program names a ``python:`` function. Say False for a name out of a file: the user
            must then have consented to it (``--trust-code``, or ``trust.consent``).
        options: of a built-in model: batch_norm (default True), bias (None: where no BatchNorm follows; False: none
            anywhere), pooling ("average" or "max"), dropout (default 0), and for ResNets stem ("cifar",
            "imagenet" or "three-conv"; see ``Specification``). LaSNN's students are batch_norm=False, bias=False and a
            dropout. Of another model: passed on to its builder.

    Raises:
        InputError: an unknown name or option, an impossible value, or a model that cannot be built or loaded.
    """
    check_sizes(name, num_classes=num_classes, in_channels=in_channels, image_size=image_size, width=width)
    source, colon, rest = name.partition(":")
    if colon and source in ("timm", "torchvision", "python"):
        return _external(
            source,
            rest,
            num_classes=num_classes,
            in_channels=in_channels,
            image_size=image_size,
            width=width,
            pretrained=pretrained,
            trust_code=trust_code,
            **options,
        )
    for table, takes, build in _FAMILIES:
        if name in table:
            if pretrained:
                raise InputError(
                    f"model '{name}' has no pretrained weights: train it first, or choose a timm: or torchvision: model"
                )
            sizes: dict[str, Any] = {
                "num_classes": num_classes,
                "in_channels": in_channels,
                "image_size": image_size,
                "width": width,
            }
            model = build(Specification.parse(name, takes, options, **sizes))
            initialise(model)
            return model
    raise unknown_name("model", name, [*names(), *_FORMS])


def _external(
    source: str,
    rest: str,
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    width: float,
    pretrained: bool,
    trust_code: bool,
    **options: Any,
) -> nn.Module:
    if source == "python":
        # Asked for only when they differ from the default, so that a function need not know them.
        asked: dict[str, Any] = {} if width == 1.0 else {"width": width}
        asked |= {"pretrained": True} if pretrained else {}
        sizes: dict[str, Any] = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
        return external.from_python(rest, **sizes, trust_code=trust_code, **asked, **options)
    if width != 1.0:
        raise InputError(f"model '{source}:{rest}' has a fixed width: leave out width={width:g}")
    build = external.from_timm if source == "timm" else external.from_torchvision
    return build(rest, num_classes=num_classes, in_channels=in_channels, pretrained=pretrained, **options)
