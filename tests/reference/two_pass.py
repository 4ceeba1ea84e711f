"""Rate-based backpropagation written a second time, plainly: the judge of the one in ``spikestill.graph.rate``.

Two passes over the graph. The first runs every time step by itself, neuron by neuron, in the plainest loops, and notes
each neuron's rate and eligibility from the formulas of the method (Yu et al. 2024), each normalisation's input, each
dropout's mask and what each maximum gave. The second is an ordinary network of rates under autograd:

* a linear layer is computed again, on rates;
* a normalisation is the affine map of the first pass's statistics, as functions of the rates (their derivative by a
  rate being that of all T steps shifted together);
* a neuron is ``E * x`` moved to the counted rate; where its leak or threshold is learnt, it is the loop over time
  itself, each spike replaced by the surrogate's smoothed step moved to the spike;
* a maximum is the maximum of the rates moved to the mean over time of the maxima.

Nothing of the engine under test is used but its graph and its modules' parameters.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from spikestill.dynamics import NeuronRule
from spikestill.nn import LIF

NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
DROPOUTS = (nn.Dropout, nn.Dropout2d)
MAXIMA = (torch.max_pool2d, nn.functional.adaptive_max_pool2d)


def next_sensitivity(
    k: Tensor, rule: NeuronRule, leak: Tensor, threshold: Tensor, v: Tensor, spike: Tensor, g: Tensor
) -> Tensor:
    """``k_{t+1}`` from ``k_t``, by the table of methods 6."""
    if rule.reset == "hard":
        return 1 + leak * k * (1 - spike) if rule.detach_reset else 1 + leak * k * (1 - spike - v * g)
    if rule.detach_reset:
        return 1 + leak * k
    if rule.order == "reset-then-leak":
        return 1 + leak * k * (1 - threshold * g)
    return 1 + k * (leak - threshold * g)


def eligibility(currents: list[Tensor], neuron: LIF) -> tuple[list[Tensor], Tensor, Tensor]:
    """Spikes of every step, rate and E, by the recursion for ``k``."""
    rule, leak, threshold = neuron.rule, neuron.leak.detach(), neuron.threshold.detach()
    previous = _start(neuron, currents[0])
    spike = torch.zeros_like(currents[0])
    k = torch.ones_like(currents[0])
    spikes, total = [], torch.zeros_like(currents[0])
    for current in currents:
        if rule.order == "leak-then-subtract" and rule.reset == "soft":
            v = leak * previous + current - threshold * spike
            spike = (v > threshold).to(v.dtype)
            previous = v
        else:
            v = leak * previous + current
            spike = (v >= threshold if rule.order == "reset-then-leak" else v > threshold).to(v.dtype)
            previous = v - threshold * spike if rule.reset == "soft" else v * (1 - spike)
        g = rule.surrogate.derivative(v - threshold, threshold)
        total = total + g * k
        k = next_sensitivity(k, neuron.rule, leak, threshold, v, spike, g)
        spikes.append(spike)
    return spikes, torch.stack(spikes).mean(0), total / len(currents)


def smoothed_rate(currents: list[Tensor], neuron: LIF) -> Tensor:
    """The rate, differentiable by currents, leak and threshold: every spike has the smoothed step's derivative."""
    rule, leak, threshold = neuron.rule, neuron.leak, neuron.threshold
    previous = _start(neuron, currents[0])
    undecayed = torch.zeros_like(currents[0])
    spikes = []
    for current in currents:
        v = leak * previous + current - undecayed
        fired = (v >= threshold if rule.order == "reset-then-leak" else v > threshold).to(v.dtype)
        smooth = rule.surrogate.smoothed_step(v - threshold, threshold.detach())
        spike = fired + smooth - smooth.detach()
        reset = fired if rule.detach_reset else spike
        if rule.reset == "hard":
            previous = v * (1 - reset)
        elif rule.order == "reset-then-leak":
            previous = v - threshold * reset
        else:
            previous, undecayed = v, threshold * reset
        spikes.append(spike)
    return torch.stack(spikes).mean(0)


def _start(neuron: LIF, like: Tensor) -> Tensor:
    """What, decayed by the leak, the first step begins with."""
    return torch.zeros_like(like) if neuron.initial is None else (neuron.initial / neuron.leak).expand_as(like)


class _SpikePass(fx.Interpreter):
    """Every value is the list of its T steps."""

    def __init__(self, body: fx.GraphModule, encoded: list[Tensor]) -> None:
        super().__init__(body)
        self.encoded, self.timesteps = encoded, len(encoded)
        self.notes: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "placeholder":
            return self.encoded
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if n.op == "output":
            return args[0]
        module = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
        if isinstance(module, LIF):
            spikes, rate, gain = eligibility(args[0], module)
            self.notes[n.name] = (args[0], rate, gain)
            return spikes
        if isinstance(module, NORMALISATIONS) and module.training:
            self.notes[n.name] = torch.stack(args[0])
            mean, variance = _statistics(torch.cat(args[0]))
            return [_affine(step, mean, variance, module) for step in args[0]]
        if isinstance(module, DROPOUTS):
            self.notes[n.name] = mask = module(torch.ones_like(args[0][0]))
            return [step * mask for step in args[0]]
        steps = [self._call(n, _at(args, t), _at(kwargs, t)) for t in range(self.timesteps)]
        if n.target in MAXIMA:
            self.notes[n.name] = torch.stack(steps).mean(0)
        return steps

    def _call(self, n: fx.Node, args: Any, kwargs: Any) -> Any:
        return getattr(fx.Interpreter, n.op)(self, n.target, args, kwargs)


class _RatePass(fx.Interpreter):
    def __init__(self, body: fx.GraphModule, notes: dict[str, Any]) -> None:
        super().__init__(body)
        self.notes = notes

    def run_node(self, n: fx.Node) -> Any:
        note = self.notes.get(n.name)
        if note is None:
            return super().run_node(n)
        rate_in = self.env[n.args[0]]
        if n.target in MAXIMA:
            value = n.target(rate_in, *n.args[1:])
            return note + value - value.detach()
        module = self.fetch_attr(str(n.target))
        moved = rate_in - rate_in.detach()
        if isinstance(module, DROPOUTS):
            return rate_in * note
        if isinstance(module, LIF):
            currents, rate, gain = note
            return smoothed_rate([step + moved for step in currents], module) if module.learn else rate + gain * moved
        mean, variance = _statistics((note + moved).flatten(0, 1))
        return _affine(rate_in, mean, variance, module)


def rate_output(body: fx.GraphModule, encoded: list[Tensor]) -> Tensor:
    """The mean output, carrying the rate gradient, for the encoded input of every step."""
    first = _SpikePass(body, encoded)
    with torch.no_grad():
        for node in body.graph.nodes:
            first.env[node] = first.run_node(node)
    return _RatePass(body, first.notes).run(torch.stack(encoded).mean(0))


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of every channel."""
    axes = tuple(axis for axis in range(x.dim()) if axis != 1)
    return x.mean(axes), x.var(axes, unbiased=False)


def _affine(x: Tensor, mean: Tensor, variance: Tensor, module: Any) -> Tensor:
    shape = (1, -1, *[1] * (x.dim() - 2))
    normal = (x - mean.view(shape)) / torch.sqrt(variance.view(shape) + module.eps)
    return normal if module.weight is None else normal * module.weight.view(shape) + module.bias.view(shape)


def _at(arguments: Any, t: int) -> Any:
    """Step t of every list of tensors among the arguments."""
    if isinstance(arguments, list) and arguments and isinstance(arguments[0], Tensor):
        return arguments[t]
    if isinstance(arguments, tuple | list):
        return type(arguments)(_at(item, t) for item in arguments)
    if isinstance(arguments, dict):
        return {name: _at(item, t) for name, item in arguments.items()}
    return arguments
