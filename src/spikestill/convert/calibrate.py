"""``calibrate``: thresholds that quantise the activations best, then corrections, layer by layer, of what is left."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from spikestill.convert.fitting import fit_weights
from spikestill.convert.preparing import Conversion, neuron_nodes, require_soft_reset
from spikestill.convert.scales import Scale, by_channel
from spikestill.convert.scaling import is_weighted
from spikestill.convert.thresholds import Start, checked_by, checked_start, set_thresholds, start_neurons
from spikestill.convert.values import (
    By,
    activation_percentiles,
    alive,
    checked_steps,
    for_each_activation,
    mean_in_time,
)
from spikestill.dynamics import Term, normalise
from spikestill.graph.sequence import SequenceRun, Signal
from spikestill.graph.trace import module_of
from spikestill.nn import LIF
from spikestill.progress import tracked
from spikestill.types import InputError

__all__ = ["best_thresholds", "calibrate", "correct_biases"]

_ADDITIONS: tuple[Any, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")
_TRANSPARENT = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_VALUES_A_CHANNEL = 4096
"""How many values of a channel decide its threshold, evenly spaced over images and positions."""
_VALUES_AT_ONCE = 2**27
"""How many values a layer may have over all images and time steps for all of them to be held in memory."""


def calibrate(
    work: Conversion,
    timesteps: int | None = None,
    grid: int = 100,
    correct: Literal["light", "potential", "weights", "none"] = "light",
    iterations: int = 1000,
    learning_rate: float = 1e-5,
    by: By = "channel",
    start: Start = "half",
) -> None:
    """Layer-wise calibration (Li et al. 2021; methods 8).

    Each threshold ``V`` is the one of ``grid`` evenly spaced values up to the largest activation that minimises the
    squared error of ``floor(clip(a T / V, 0, T)) V / T`` against the activations ``a``; from half a threshold, with
    rounding in the place of the floor. Then, front to back, the mean error of a layer over the calibration images (ANN
    minus what its rate stands for) is corrected: "light" adds each channel's to the bias before it, "potential" lets
    each neuron start T times its own higher. "weights" is "light", and then a fit of each layer's weights and bias (see
    ``fitting.py``).

    Args:
        work: the conversion; its graph is changed.
        timesteps: T, at which the network will be run; by default its own.
        grid: how many thresholds are tried.
        correct: "light", "potential" (images must keep their size), "weights", or "none".
        iterations: of the fit of "weights", a layer; each takes one of the calibration batches in turn.
        learning_rate: of the fit of "weights", at its start.
        by: one threshold a "channel" (found from at most 4096 of its values, evenly spaced) or a "layer".
        start: from "half" of the threshold, or from "rest" as published.

    Raises:
        InputError: for an option out of its range, a hard reset, and a layer that no calibration image drives.
    """
    require_soft_reset(work, "calibrate")
    steps = checked_steps(work.timesteps if timesteps is None else timesteps)
    _check(grid, correct, iterations, learning_rate)
    units = set_thresholds(work, best_thresholds(work, steps, grid, checked_by(by), checked_start(start)))
    start_neurons(work, start)
    if correct == "potential":
        _correct_potentials(work, steps, units)
    elif correct != "none":
        correct_biases(work, steps, units)
    if correct == "weights":
        fit_weights(work, steps, iterations, learning_rate, units, rounds=start == "half")


def _check(grid: int, correct: str, iterations: int, learning_rate: float) -> None:
    if grid < 1:
        raise InputError(f"grid must be at least 1, not {grid}")
    if correct not in ("light", "potential", "weights", "none"):
        raise InputError(f"correct must be 'light', 'potential', 'weights' or 'none', not {correct!r}")
    if iterations < 1:
        raise InputError(f"iterations must be at least 1, not {iterations}")
    if not 0 < learning_rate < float("inf"):
        raise InputError(f"learning_rate must be positive and finite, not {learning_rate}")


def shown_in_time(activation: Tensor, threshold: Scale, timesteps: int, start: Start = "rest") -> Tensor:
    """What T time steps can show of an activation: ``floor(clip(a T / V, 0, T)) V / T``, or the nearest of these."""
    steps = activation * (timesteps / threshold) + (0.5 if start == "half" else 0.0)
    return steps.clamp(0, timesteps).floor() * (threshold / timesteps)


def best_thresholds(work: Conversion, timesteps: int, grid: int, by: By, start: Start) -> dict[str, Scale]:
    """By neuron layer, the thresholds that show its activations best in T time steps."""
    if by == "channel":
        return _best_by_channel(work, timesteps, grid, start)
    largest: Any = activation_percentiles(work, 100)
    errors = {name: [0.0] * grid for name in largest}

    def add_errors(name: str, activation: Tensor) -> None:
        for index in range(grid):
            shown = shown_in_time(activation, largest[name] * (index + 1) / grid, timesteps, start)
            errors[name][index] += (activation - shown).square().sum(dtype=torch.float64).item()

    for_each_activation(work, add_errors)
    return {name: largest[name] * (found.index(min(found)) + 1) / grid for name, found in errors.items()}


def _best_by_channel(work: Conversion, timesteps: int, grid: int, start: Start) -> dict[str, Scale]:
    samples: dict[str, list[Tensor]] = {}
    largest: dict[str, Tensor] = {}
    features: dict[str, tuple[int, ...]] = {}
    images = sum(map(len, work.images))

    def take(name: str, activation: Tensor) -> None:
        rows = activation.movedim(1, 0).flatten(1)
        stride = -(-images * rows.shape[1] // len(activation) // _VALUES_A_CHANNEL)
        samples.setdefault(name, []).append(rows[:, :: max(stride, 1)].clone())
        highest = rows.amax(1)
        largest[name] = torch.maximum(largest[name], highest) if name in largest else highest
        features[name] = tuple(activation.shape[1:])

    for_each_activation(work, take)
    found: dict[str, Scale] = {}
    for name, parts in samples.items():
        values, highest = torch.cat(parts, 1), alive(name, largest[name], "activation").unsqueeze(1)
        candidates = [highest * (index + 1) / grid for index in range(grid)]
        errors = [(values - shown_in_time(values, one, timesteps, start)).square().sum(1) for one in candidates]
        best = torch.stack(errors).argmin(0)
        # A channel of which no sampled value is positive keeps its largest one.
        best = torch.where(values.amax(1) > 0, best, grid - 1)
        found[name] = by_channel(highest[:, 0] * (best + 1) / grid, features[name])
    return found


def correct_biases(work: Conversion, timesteps: int, units: Mapping[str, Scale]) -> None:
    """Add each channel's mean error over the calibration images, at T time steps, to its bias; front to back."""
    activations = _mean_activations(work)
    if sum(map(len, work.images)) * timesteps * _largest_value(work) <= _VALUES_AT_ONCE:
        images = torch.cat(work.images)
        run = _Correcting(work.body, timesteps, activations, units)
        run.sequence(work.encoder(images, timesteps))
        corrections = run.corrections
        for node in list(neuron_nodes(work.body)):
            _add_to_current(work.body, node, corrections[str(node.target)])
        return
    for node in tracked(list(neuron_nodes(work.body)), "correcting the layers", unit="layers"):
        error = _mean_error(work, node, timesteps, activations, units)
        _add_to_current(work.body, node, _by_channels(error))


def _largest_value(work: Conversion) -> int:
    shapes = (node.meta.get("shape", ()) for node in work.body.graph.nodes)
    return max(torch.Size(shape[1:]).numel() for shape in shapes if shape)


class _Correcting(SequenceRun):
    """One run of all time steps in which each neuron layer's current is corrected before it is read."""

    def __init__(
        self, body: fx.GraphModule, timesteps: int, activations: Mapping[str, Tensor], units: Mapping[str, Scale]
    ) -> None:
        super().__init__(body, timesteps)
        self._activations, self._units = activations, units
        self.corrections: dict[str, Tensor] = {}

    def _spike(self, name: str, neuron: LIF, value: Signal | list[Term]) -> Signal:
        current, *others = map(_value, self._terms(value))
        for other in others:
            current = current + other
        spikes = neuron(current, self.timesteps)
        rate = spikes.mean((0, 1))
        correction = _by_channels(self._activations[name] / self._units[name] - rate * neuron.threshold)
        self.corrections[name] = correction = correction.to(current.dtype)
        constant = correction.reshape(-1, *[1] * (rate.dim() - 1))
        spikes = neuron(current + constant, self.timesteps)
        return Signal(spikes.flatten(0, 1), True)


def _value(term: Term) -> Tensor:
    return term.sequence if term.normalisation is None else normalise(term.sequence, term.normalisation)


def _correct_potentials(work: Conversion, timesteps: int, units: Mapping[str, Scale]) -> None:
    activations = _mean_activations(work)
    for node in tracked(list(neuron_nodes(work.body)), "correcting the layers", unit="layers"):
        neuron = work.neuron(str(node.target))
        start = 0.0 if neuron.initial is None else neuron.initial
        neuron.set_initial(start + timesteps * _mean_error(work, node, timesteps, activations, units))


def _mean_error(
    work: Conversion, node: fx.Node, timesteps: int, activations: Mapping[str, Tensor], units: Mapping[str, Scale]
) -> Tensor:
    """The ANN minus what the rates of a neuron layer stand for, the mean over the images, in the current's unit."""
    name = str(node.target)
    return activations[name] / units[name] - _mean_rate(work, node, timesteps) * work.neuron(name).threshold


def _by_channels(error: Tensor) -> Tensor:
    return error.reshape(len(error), -1).mean(1)


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
