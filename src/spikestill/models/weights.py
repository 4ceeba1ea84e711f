"""Weights from a file, into a model: safetensors, or a PyTorch checkpoint of which nothing is executed."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikestill.models.renaming import renamed, stem_options
from spikestill.tensors import require_finite
from spikestill.types import InputError

__all__ = ["Fitted", "fitted_weights", "is_weights_file", "load_weights", "options_of_file"]

_log = logging.getLogger("spikestill.models")

_ENDINGS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
_NESTS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
"""Under which of its entries a checkpoint keeps the weights, the likeliest first."""
_AUXILIARY = re.compile(r"(aux1|aux2|AuxLogits)\.")
_LISTED = 3


@dataclass(frozen=True)
class Fitted:
    """What of a file goes into a model.

    Attributes:
        state: the weights under the model's names.
        classifier: the path of the layer that keeps its fresh weights, because the file knows other classes; None where
            the file's classifier is taken.
        remarks: what a user must know of all that, a sentence each.
    """

    state: Mapping[str, Tensor]
    classifier: str | None
    remarks: tuple[str, ...]


def is_weights_file(name: str) -> bool:
    """Whether a name is that of a file of weights, by its ending."""
    return name.endswith(_ENDINGS)


def options_of_file(model: str, path: str | Path) -> dict[str, Any]:
    """The options of a built-in model that a file of its weights gives away: the stem of a residual network.

    Raises:
        InputError: for a file that cannot be read.
    """
    state, _ = _tensors(_read(Path(path)), Path(path))
    options = stem_options(model, state)
    if options:
        _log.info(f"{Path(path).name} begins with a kernel of 7 pixels: {model} is built with {options}")
    return options


def load_weights(model: nn.Module, path: str | Path, *, num_classes: int) -> Fitted:
    """Load a file's weights into ``model``, and say on the log what is not as the file has it.

    Args:
        model: of the architecture that the file was saved from.
        path: of a safetensors file, or of a PyTorch file (.pt, .pth, .ckpt, .bin) with a ``state_dict``, alone or in a
            checkpoint (Lightning's, timm's); read without executing anything.
        num_classes: K of the model. Where the file's classifier has other classes, the model keeps its own, fresh one.

    Returns:
        What was loaded.

    Raises:
        InputError: for a file that cannot be read or wants to execute code, and for weights that are not finite or of
            another architecture.
    """
    fitted = fitted_weights(model, path, num_classes=num_classes)
    require_finite(fitted.state, f"the file {path}")
    model.load_state_dict({**model.state_dict(), **fitted.state})
    for remark in fitted.remarks:
        _log.info(remark)
    return fitted


def fitted_weights(model: nn.Module, path: str | Path, *, num_classes: int) -> Fitted:
    """What :func:`load_weights` would load; ``model`` stays as it is and nothing is said.

    Raises:
        InputError: as :func:`load_weights`.
    """
    path = Path(path)
    content = _read(path)
    found, nest = _tensors(content, path)
    own = model.state_dict()
    of_torchvision = renamed(found, own)
    found = found if of_torchvision is None else of_torchvision
    prefix = _prefix(own, found)
    state = {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
    outside = [name for name in found if not name.startswith(prefix)]
    auxiliary = sorted({match[1] for name in state if name not in own and (match := _AUXILIARY.match(name))})
    state = {name: value for name, value in state.items() if name in own or not _AUXILIARY.match(name)}
    _refuse_other_names(path, own, state)
    summed = _summed_over_channels(model, state)
    state |= summed
    classifier = _classifier(model, path, own, state, num_classes)
    remarks = []
    if nest or prefix:
        places = [f"the entry '{nest}'"] * bool(nest) + [f"names without their prefix '{prefix}'"] * bool(prefix)
        remarks.append(f"{path.name}: weights are taken from {', '.join(places)}")
    if of_torchvision is not None:
        remarks.append(f"{path.name}: the names are those of torchvision's residual networks, and are taken as ours")
    if summed:
        remarks.append(
            f"{path.name} takes images of 3 channels, the data have 1: its first kernels are summed over the channels, "
            "as if each image were given to it three times"
        )
    if outside:
        remarks.append(f"{path.name}: {_some(outside)} belong to another network and are left out")
    if auxiliary:
        remarks.append(f"{path.name}: the auxiliary classifiers ({', '.join(auxiliary)}) are left out")
    if classifier is not None:
        known = len(state.pop(f"{classifier}.weight"))
        state.pop(f"{classifier}.bias", None)
        remarks.append(
            f"{path.name} knows {known} classes, not {num_classes}: the classifier '{classifier}' is replaced by a new "
            "one"
        )
    return Fitted(state, classifier, tuple(remarks))


def _read(path: Path) -> Any:
    """The content of a file, on the CPU."""
    if not path.is_file():
        raise InputError(f"there is no file of weights at {path}")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise InputError(f"cannot read the weights {path}: {_line(error)}") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever bytes can make the reader stumble over
        raise InputError(_why_unread(path, error)) from error


def _why_unread(path: Path, error: Exception) -> str:
    wanted = re.search(r"GLOBAL ([\w.]+)", str(error)) or re.search(r"unsupported class ([\w.]+)", str(error))
    if wanted is None:
        return f"cannot read the weights {path}: damaged, or no file of torch.save ({_line(error)})"
    return (
        f"the file {path} wants to execute {wanted[1]} when it is read, which is refused: save the weights alone, with "
        "torch.save(model.state_dict(), ...) or as safetensors"
    )


def _tensors(content: Any, path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a checkpoint by name, and the entry that holds them; "" where that is the checkpoint itself."""
    if _is_state(content):
        return _tensors_of(content), ""
    if isinstance(content, Mapping):
        nested = {key: value for key, value in content.items() if isinstance(key, str) and _is_state(value)}
        for nest in (*_NESTS, *(nested if len(nested) == 1 else ())):
            if nest in nested:
                return _tensors_of(nested[nest]), nest
        if nested:
            raise InputError(f"{path} holds several sets of weights ({', '.join(nested)}): save the one that is meant")
    raise InputError(f"{path} holds no weights: save them with torch.save(model.state_dict(), ...) or as safetensors")


def _is_state(content: Any) -> bool:
    """Whether it is a ``state_dict``: at least half of its entries, and one at all, are tensors."""
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        return False
    return 2 * len(_tensors_of(content)) >= max(len(content), 1)


def _tensors_of(content: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def _prefix(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """What stands before the model's names in the file, as ``module.`` does; the shortest that makes most names fit."""
    fitting: Counter[str] = Counter({"": 0})
    for name in found:
        parts = name.split(".")
        for count in range(len(parts)):
            if ".".join(parts[count:]) in own:
                fitting[".".join([*parts[:count], ""])] += 1
    return max(fitting, key=lambda prefix: (fitting[prefix], -len(prefix)))


def _refuse_other_names(path: Path, own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    # Older files do not count the batches of a BatchNorm; the count plays no part in what it computes.
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    complaints = [f"it lacks {_some(missing)}"] * bool(missing)
    complaints += [f"the model has no {_some(unexpected)}"] * bool(unexpected)
    if complaints:
        raise InputError(
            f"the weights {path} are of another architecture: {'; '.join(complaints)}: name the model that they were "
            "saved from, with its options"
        )


def _summed_over_channels(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The first convolution for grey images, of a network that was shown them three times; empty of any other.

    It is the same, to the last detail of padding, where all three channels were normalised alike.
    """
    first = next(((path, layer) for path, layer in model.named_modules() if isinstance(layer, nn.Conv2d)), None)
    if first is None:
        return {}
    path, layer = first
    name = f"{path}.weight"
    wanted = (layer.out_channels, 3, *layer.kernel_size)
    if layer.in_channels != 1 or layer.groups != 1 or tuple(state[name].shape) != wanted:
        return {}
    return {name: state[name].sum(1, keepdim=True)}


def _classifier(
    model: nn.Module, path: Path, own: Mapping[str, Tensor], state: Mapping[str, Tensor], num_classes: int
) -> str | None:
    """The layer whose classes are others in the file; None for none."""
    other = [name for name, value in state.items() if value.shape != own[name].shape]
    layers = {name.rpartition(".")[0] for name in other}
    if len(layers) == 1:
        (layer,) = layers
        ours, theirs = own[f"{layer}.weight"], state[f"{layer}.weight"]
        kind = isinstance(model.get_submodule(layer), nn.Linear | nn.Conv2d)
        if kind and len(ours) == num_classes and ours.shape[1:] == theirs.shape[1:]:
            return layer
    if other:
        name = other[0]
        raise InputError(
            f"the weights {path} are of another size: {_some(other)} differ ('{name}' is {_size(state[name])} in the "
            f"file, {_size(own[name])} in the model): give the model the options that it was trained with"
        )
    return None


def _some(names: Sequence[str]) -> str:
    listed = ", ".join(f"'{name}'" for name in names[:_LISTED])
    return listed + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def _size(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "a number"


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
