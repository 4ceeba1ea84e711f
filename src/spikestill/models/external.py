"""Models from outside: timm's, torchvision's and the user's own function, each imported only when asked for."""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import sys
import typing
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from spikestill.trust import require_consent
from spikestill.types import InputError, unknown_name

__all__ = ["from_python", "from_timm", "from_torchvision"]

_log = logging.getLogger("spikestill.models")

_OPTIONS_THAT_LOAD = frozenset(
    {
        "cache_dir",
        "checkpoint_path",
        "features_only",
        "kwargs_filter",
        "pretrained",
        "pretrained_backbone",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "pretrained_custom_load",
        "pretrained_filter_fn",
        "pretrained_strict",
        "progress",
        "quantize",
        "weights",
        "weights_backbone",
    }
)
"""Arguments of timm's and torchvision's builders that load a file or an address, or that say how."""


def from_timm(name: str, *, num_classes: int, in_channels: int, pretrained: bool, **options: Any) -> nn.Module:
    """Build timm's model ``name``; the options go to ``timm.create_model`` as they are.

    Offline, timm tries for about 47 s to reach pretrained weights before the error comes.

    Raises:
        InputError: timm is not installed, has no such model or pretrained tag, has no weights for it or cannot get
            them, or the model does not take an option.
    """
    timm = _library("timm", f"timm:{name}")
    _refuse_loading(f"timm:{name}", options)
    # A name is an architecture, or an architecture and the tag of one set of weights: resnet18.a1_in1k.
    if not timm.is_model(name) or ("." in name and name not in timm.list_models(pretrained=True)):
        raise _unknown(f"timm:{name}", timm.list_models(pretrained="." in name), "timm:")
    if pretrained and not timm.models.is_model_pretrained(name):
        raise InputError(f"model 'timm:{name}' has no pretrained weights: leave out pretrained")
    with _refusals(f"timm:{name}", options):
        model = _module(
            f"timm:{name}",
            timm.create_model(name, pretrained=pretrained, num_classes=num_classes, in_chans=in_channels, **options),
        )
    if pretrained:
        published: Any = model.pretrained_cfg
        known, classifier = published.get("num_classes") or num_classes, published.get("classifier")
        _say_replaced(f"timm:{name}", known, num_classes, classifier)
    return model


def from_torchvision(name: str, *, num_classes: int, in_channels: int, pretrained: bool, **options: Any) -> nn.Module:
    """Build torchvision's classification model ``name``; the options go to its builder as they are.

    With pretrained weights, the classifier is drawn anew, and that is said, unless ``num_classes`` is theirs.
    torchvision builds for three input channels; for another number the first convolution is replaced: drawn anew, or,
    with pretrained weights, the mean of the three channels' kernels times 3 / in_channels for each (an image whose
    channels are equal then gives the same output). The auxiliary classifiers of googlenet and inception_v3 are left
    out, so that there is one forward for training and evaluation.

    Raises:
        InputError: torchvision is not installed, has no such model, has no weights for it or cannot get them, or
            the model does not take an option.
    """
    models = _library("torchvision.models", f"torchvision:{name}")
    _refuse_loading(f"torchvision:{name}", options)
    known = models.list_models(module=models)
    if name not in known:
        raise _unknown(f"torchvision:{name}", known, "torchvision:")
    if pretrained and not len(models.get_model_weights(name)):
        raise InputError(f"model 'torchvision:{name}' has no pretrained weights: leave out pretrained")
    defaults: dict[str, Any] = {"weights": "DEFAULT"} if pretrained else {"num_classes": num_classes}
    if name in ("googlenet", "inception_v3") and not pretrained:
        # Left open, init_weights warns of a coming change of its default.
        defaults |= {"aux_logits": False, "init_weights": True}
    with _refusals(f"torchvision:{name}", options):
        model = _module(f"torchvision:{name}", models.get_model(name, **(defaults | options)))
    if pretrained:
        # Only the builder without weights can leave inception_v3's auxiliary classifier out.
        if getattr(model, "AuxLogits", None) is not None:
            model.aux_logits, model.AuxLogits = False, None  # type: ignore[assignment]
        _replace_classifier(model, num_classes, f"torchvision:{name}")
    if in_channels != 3:
        _replace_first_convolution(model, in_channels, keep=pretrained)
        if getattr(model, "transform_input", False):
            # It shifts red, green and blue one by one.
            model.transform_input = False  # type: ignore[assignment]
    return model


def from_python(
    path: str,
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    trust_code: bool,
    **options: Any,
) -> nn.Module:
    """Build the user's own model: call ``package.module:function``.

    The function is given ``num_classes``, ``in_channels`` and ``image_size`` as far as it takes these keywords; it must
    take every option. Before the call it is made sure that it can return a model: it must be a class of modules, or a
    function that is written in Python, outside the standard library, and not annotated to return something else.

    Args:
        path: of the function.
        num_classes: K.
        in_channels: C.
        image_size: in pixels.
        trust_code: whether the caller's own program names the function; if not, the user must have consented to it.
        options: further arguments of the function.

    Raises:
        InputError: no consent; the path has another form, cannot be imported or is no function that can return a
            model; the function lacks an option or wants an argument that is not given; or what it returns is no
            ``nn.Module``.
    """
    name = f"python:{path}"
    if not trust_code:
        require_consent(name)
    function = _function(path)
    offered: dict[str, Any] = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    signature = inspect.signature(function)
    parameters = signature.parameters.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        by_keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        accepted = {parameter.name for parameter in parameters if parameter.kind in by_keyword}
        for option in options:
            if option not in accepted:
                raise InputError(
                    f"model '{name}' does not take the option '{option}': add it to the function or leave it out"
                )
        offered = {keyword: value for keyword, value in offered.items() if keyword in accepted}
    try:
        signature.bind(**offered, **options)
    except TypeError as error:
        raise InputError(f"model '{name}' cannot be called: {error}; give it as an option or a default") from error
    return _module(name, function(**offered, **options))


def _function(path: str) -> Callable[..., object]:
    name = f"python:{path}"
    module_name, colon, attribute = path.partition(":")
    if not (module_name and colon and attribute):
        raise InputError(f"model '{name}' must have the form python:package.module:function")
    if _is_standard(module_name):
        raise InputError(f"model '{name}': '{module_name}' belongs to Python's standard library, which has no models")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError, TypeError) as error:
        # ValueError and TypeError: a name with empty parts, as in "package..module" or ".module".
        raise InputError(
            f"model '{name}': cannot import '{module_name}' ({_line(error)}): is its folder on PYTHONPATH?"
        ) from error
    if not hasattr(module, attribute):
        public = [entry for entry in vars(module) if not entry.startswith("_") and callable(getattr(module, entry))]
        raise _unknown(attribute, public, "", kind=f"function of module '{module_name}'")
    function = getattr(module, attribute)
    _require_model_function(function, name)
    return function


def _require_model_function(function: Any, name: str) -> None:
    """Refuse what cannot return a model, before it is called: a call may do anything."""
    if isinstance(function, type):
        if not issubclass(function, nn.Module):
            raise InputError(f"model '{name}' is a class, but no subclass of nn.Module")
        return
    if not callable(function):
        attribute = name.rpartition(":")[2]
        raise InputError(f"model '{name}': '{attribute}' is not callable: name a function that returns an nn.Module")
    plain = inspect.unwrap(function)
    while isinstance(plain, functools.partial):
        plain = inspect.unwrap(plain.func)
    if not inspect.isfunction(plain) and not inspect.ismethod(plain):
        raise InputError(f"model '{name}' is neither a Python function nor a subclass of nn.Module")
    if _is_standard(plain.__module__):
        raise InputError(f"model '{name}' is a function of Python's standard library, which returns no nn.Module")
    try:
        returned = typing.get_type_hints(plain).get("return", object)
    except Exception:  # an annotation may name anything, also what is imported for type checkers alone
        return
    if isinstance(returned, type) and not (issubclass(returned, nn.Module) or issubclass(nn.Module, returned)):
        raise InputError(f"model '{name}' must return an nn.Module, but is annotated to return {returned.__name__}")


def _is_standard(module: str | None) -> bool:
    return (module or "builtins").partition(".")[0] in sys.stdlib_module_names


def _library(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise InputError(f"model '{name}' needs {package} ({_line(error)}): pip install {package}") from error


def _unknown(name: str, known: Iterable[str], prefix: str, kind: str = "model") -> InputError:
    return unknown_name(kind, name, [prefix + entry for entry in known])


def _refuse_loading(name: str, options: dict[str, Any]) -> None:
    """An option may shape the model; its weights come from fields that are checked."""
    if loading := sorted(options.keys() & _OPTIONS_THAT_LOAD):
        raise InputError(
            f"model '{name}': the option{'s' * (len(loading) > 1)} {', '.join(loading)} would load files past every "
            "check: leave them out, and name weights by pretrained, --start FILE or --teacher-weights FILE"
        )


@contextmanager
def _refusals(name: str, options: dict[str, Any]) -> Iterator[None]:
    try:
        yield
    except TypeError as error:
        if not options:
            raise
        given = ", ".join(options)
        raise InputError(f"model '{name}' does not take these options ({given}): {_line(error)}") from error
    except OSError as error:
        raise InputError(
            f"the pretrained weights of model '{name}' cannot be had ({_line(error)}): connect, or leave out pretrained"
        ) from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _module(name: str, model: object) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise InputError(f"model '{name}' must be an nn.Module, but a {type(model).__name__} came back")
    return model


def _replace(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _replace_classifier(model: nn.Module, num_classes: int, name: str) -> None:
    # The classifier is registered last; squeezenet's is a convolution.
    path, layer = [(p, m) for p, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))][-1]
    known = len(layer.weight)
    if known == num_classes:
        return
    if isinstance(layer, nn.Linear):
        _replace(model, path, nn.Linear(layer.in_features, num_classes, bias=layer.bias is not None))
    else:
        _replace(model, path, _like(layer, layer.in_channels, num_classes))
    _say_replaced(name, known, num_classes, path)


def _say_replaced(name: str, known: int, num_classes: int, classifier: object) -> None:
    if known != num_classes:
        _log.info(
            f"the published weights of {name} know {known} classes, not {num_classes}: the classifier '{classifier}' "
            "is replaced by a new one"
        )


def _replace_first_convolution(model: nn.Module, in_channels: int, *, keep: bool) -> None:
    path, first = next((p, m) for p, m in model.named_modules() if isinstance(m, nn.Conv2d))
    replacement = _like(first, in_channels, first.out_channels)
    with torch.no_grad():
        if keep:
            kernel = first.weight.mean(dim=1, keepdim=True) * (3 / in_channels)
            replacement.weight.copy_(kernel.expand_as(replacement.weight))
        else:
            nn.init.kaiming_normal_(replacement.weight, nonlinearity="relu")
        if first.bias is not None and replacement.bias is not None:
            replacement.bias.copy_(first.bias)
    _replace(model, path, replacement)


def _like(layer: nn.Conv2d, inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(
        inputs,
        outputs,
        layer.kernel_size,  # type: ignore[arg-type]
        stride=layer.stride,  # type: ignore[arg-type]
        padding=layer.padding,  # type: ignore[arg-type]
        dilation=layer.dilation,  # type: ignore[arg-type]
        bias=layer.bias is not None,
    )
