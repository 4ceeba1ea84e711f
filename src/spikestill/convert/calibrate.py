"""``calibrate``: thresholds that quantise the activations best, then corrections, layer by layer, of what is left."""

from __future__ import annotations

import operator
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from spikestill.convert.fitting import fit_weights
from spikestill.convert.preparing import Conversion, neuron_nodes, require_soft_reset
from spikestill.convert.scaling import is_weighted
from spikestill.convert.shift import set_thresholds
from spikestill.convert.values import activation_percentiles, checked_steps, for_each_activation, mean_in_time
from spikestill.graph.trace import module_of
from spikestill.progress import tracked
from spikestill.types import InputError

__all__ = ["calibrate"]

_ADDITIONS: tuple[Any, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")
_TRANSPARENT = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def calibrate(
    work: Conversion,
    timesteps: int | None = None,
    grid: int = 100,
    correct: Literal["light", "potential", "weights", "none"] = "light",
    iterations: int = 1000,
    learning_rate: float = 1e-5,
) -> None:
    """Layer-wise calibration (Li et al. 2021; methods 8).

    Each threshold ``V`` is the one of ``grid`` evenly spaced values up to the largest activation that minimises the
    squared error of ``floor(clip(a T / V, 0, T)) V / T`` against the activations ``a``. Currents are in the ANN's unit,
    as in ``shift``. Then, front to back, the mean error of a layer over the calibration images (ANN minus ``V`` times
    rate) is corrected: "light" adds each channel's to the bias before it, "potential" starts each neuron at T times its
    own. "weights" is "light", and then a fit of each layer's weights and bias (see ``fitting.py``).

    Args:
        work: the conversion; its graph is changed.
        timesteps: T, at which the network will be run; by default its own.
        grid: how many thresholds are tried.
        correct: "light", "potential" (images must keep their size), "weights", or "none".
        iterations: of the fit of "weights", a layer; each takes one of the calibration batches in turn.
        learning_rate: of the fit of "weights", at its start.

    Raises:
        InputError: for an option out of its range, a hard reset, and a layer that no calibration image drives.
    """
    require_soft_reset(work, "calibrate")
    steps = checked_steps(work.timesteps if timesteps is None else timesteps)
    if grid < 1:
        raise InputError(f"grid must be at least 1, not {grid}")
    if correct not in ("light", "potential", "weights", "none"):
        raise InputError(f"correct must be 'light', 'potential', 'weights' or 'none', not {correct!r}")
    if iterations < 1:
        raise InputError(f"iterations must be at least 1, not {iterations}")
    if not 0 < learning_rate < float("inf"):
        raise InputError(f"learning_rate must be positive and finite, not {learning_rate}")
    set_thresholds(work, _best_thresholds(work, steps, grid))
    if correct == "none":
        return
    activations = _mean_activations(work)
    for node in tracked(list(neuron_nodes(work.body)), "correcting the layers", unit="layers"):
        name = str(node.target)
        error = activations[name] - _mean_rate(work, node, steps) * work.neuron(name).threshold
        if correct == "potential":
            work.neuron(name).set_initial(steps * error)
        else:
            _add_to_current(work.body, node, error.reshape(len(error), -1).mean(1))
    if correct == "weights":
        fit_weights(work, steps, iterations, learning_rate)


def shown_in_time(activation: Tensor, threshold: float, timesteps: int) -> Tensor:
    """What T time steps can show of an activation: ``floor(clip(a T / V, 0, T)) V / T``."""
    return (activation * (timesteps / threshold)).clamp(0, timesteps).floor() * (threshold / timesteps)


def _best_thresholds(work: Conversion, timesteps: int, grid: int) -> dict[str, float]:
    largest = activation_percentiles(work, 100)
    errors = {name: [0.0] * grid for name in largest}

    def add_errors(name: str, activation: Tensor) -> None:
        for index in range(grid):
            shown = shown_in_time(activation, largest[name] * (index + 1) / grid, timesteps)
            errors[name][index] += (activation - shown).square().sum(dtype=torch.float64).item()

    for_each_activation(work, add_errors)
    return {name: largest[name] * (found.index(min(found)) + 1) / grid for name, found in errors.items()}


def _mean_activations(work: Conversion) -> dict[str, Tensor]:
    """By neuron layer, the mean over all images ``[C, ...]``."""
    sums: dict[str, Tensor] = {}

    def add(name: str, activation: Tensor) -> None:
        total = activation.sum(0)
        sums[name] = sums[name] + total if name in sums else total

    for_each_activation(work, add)
    return {name: total / sum(map(len, work.images)) for name, total in sums.items()}


def _mean_rate(work: Conversion, node: fx.Node, timesteps: int) -> Tensor:
    """The firing rate of a neuron layer, the mean over all images ``[C, ...]``."""
    rates = [mean_in_time(work, node, images, timesteps).sum(0) for images in work.images]
    return torch.stack(rates).sum(0) / sum(map(len, work.images))


def _add_to_current(body: fx.GraphModule, neuron: fx.Node, correction: Tensor) -> None:
    """Add ``[C]`` to a neuron layer's current: in the bias of a layer that it alone reads, else as a new constant."""
    source = neuron.args[0]
    assert isinstance(source, fx.Node)
    layer = _layer_before(body, source)
    if layer is not None:
        weight = layer.weight if layer.weight is not None else layer.running_mean
        old = torch.zeros_like(correction) if layer.bias is None else layer.bias.detach()
        layer.bias = nn.Parameter((old + correction).to(weight.dtype), requires_grad=weight.requires_grad)
        return
    name = str(neuron.target).replace(".", "_") + "_correction"
    shape = [-1] + [1] * (len(source.meta["shape"]) - 2)
    body.register_buffer(name, correction.reshape(shape))
    with body.graph.inserting_before(neuron):
        constant = body.graph.create_node("get_attr", name)
        total = body.graph.call_function(operator.add, (source, constant))
    total.meta = {**source.meta, "nn_module_stack": neuron.meta.get("nn_module_stack", {})}
    neuron.replace_input_with(source, total)


def _layer_before(body: fx.GraphModule, node: fx.Node) -> Any:
    """The layer whose bias goes into this value and nowhere else, channel by channel."""
    module = module_of(body, node)
    if len(node.users) > 1 or len(node.meta["shape"]) < 2:
        return None
    if is_weighted(module):
        is_by_channel = not isinstance(module, nn.Linear) or len(node.meta["shape"]) == 2
        return module if is_by_channel else None
    if isinstance(module, _TRANSPARENT):
        return _layer_before(body, node.args[0])  # type: ignore[arg-type]
    if node.target in _ADDITIONS and not node.kwargs:
        same = [
            item for item in node.args if isinstance(item, fx.Node) and item.meta.get("shape") == node.meta["shape"]
        ]
        found = (_layer_before(body, item) for item in same if item.op != "get_attr")
        return next((layer for layer in found if layer is not None), None)
    return None
