"""Rate gradients with the statistics of the batch, in memory that hardly grows with T.

BatchNorm in training takes statistics over all steps, so no step can be normalised before the last one is there. Rather
than hold a layer's whole sequence until then, this run makes it twice, some steps at a time: once for the statistics,
once for the neurons. What is kept of a sequence are its spikes, a bit each. It gives what ``rate.py`` gives, within
rounding; a convolution between neurons and a BatchNorm runs once more forward. What so many read that it would be made
more than three times (in dense blocks, and where many layers have no neurons between them) is kept as it is.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import starmap
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikestill.dynamics import Normalisation, PackedSpikes, RateState, Term, moments_in_parts, normalise, time_mean
from spikestill.graph.arguments import found_in, mapped
from spikestill.graph.convolutions import KnownConvolution, spike_output
from spikestill.graph.fusion import is_neuron
from spikestill.graph.operations import is_linear
from spikestill.graph.rate import Pair, RateRun, at_rates, moved, normalised_rate, repeated
from spikestill.graph.rate_gradients import RateLinear
from spikestill.graph.trace import module_of
from spikestill.nn import LIF, MaxGate
from spikestill.nn.batch_norm import normalisation_of

__all__ = ["RecomputedRateRun"]

_STEPS_AT_ONCE = 2
"""How many time steps of a sequence are in memory at a time; more of a small one, as many as fit into the place of one
step of the largest."""
_MOST_TIMES = 3
"""How often a sequence is made at most."""


class _Parts:
    """A sequence that is made anew, ``[t, B, ...]`` at a time and without autograd, whenever it is read.

    Args:
        make: what makes it.
        is_spare: whether its parts are new ones, which the one that reads them may write over.
    """

    def __init__(self, make: Callable[[], Iterator[Tensor]], is_spare: bool = True) -> None:
        self._make, self.is_spare = make, is_spare

    def __iter__(self) -> Iterator[Tensor]:
        return self._make()

    def each(self, function: Callable[[Tensor], Tensor], is_spare: bool = True) -> _Parts:
        """The sequence with a function applied to every part, which does not hand on the part itself."""
        return _Parts(lambda: map(partial(_without_autograd, function), self), is_spare)

    def kept(self) -> _Parts:
        """The sequence, made for the last time."""
        parts = tuple(self)
        return _Parts(lambda: iter(parts), is_spare=False)


class _PairInParts(Pair):
    """As ``Pair``, with a sequence in parts."""

    sequence: _Parts  # type: ignore[assignment]

    def __init__(self, sequence: _Parts, rate: Tensor | Callable[[Tensor], Tensor]) -> None:
        super().__init__(None, rate)
        self.sequence = sequence

    def _time_mean(self) -> Tensor:
        return moments_in_parts(self.sequence)[2]

    def unread_rate(self, like: Tensor) -> Tensor:
        """The rate ``[B, ...]`` as the way of the gradient alone: its value is not read."""
        unread = like.new_full((), float("nan")).expand(like.shape)
        return self._rate if isinstance(self._rate, Tensor) else self._rate(unread)

    def term(self) -> Any:
        return _Summand(self, None)


@dataclass(frozen=True)
class _Summand:
    """As ``Term``, of a pair in parts."""

    pair: _PairInParts
    normalisation: Normalisation | None

    def of_steps(self, part: Tensor) -> Term:
        return Term(part, self.normalisation, is_spare=self.pair.sequence.is_spare)

    def of_rate(self, like: Tensor) -> Term:
        """With the rate, for neurons of this shape, dtype and memory layout, ``[B, ...]``."""
        rate = self.pair.unread_rate(like) if self.normalisation is None else self.pair.rate
        return Term(like.unsqueeze(0), self.normalisation, rate)


class RecomputedRateRun(RateRun):
    """One training run of a spiking graph under rate gradients: as ``RateRun``, in less memory and more time."""

    def __init__(self, body: fx.GraphModule, timesteps: int, taps: Mapping[fx.Node, str] | None = None) -> None:
        super().__init__(body, timesteps, taps)
        self._kept = _often_made(body, self._deferred, self.taps)
        self._steps, self._input = _steps_at_once(body), next(iter(body.graph.nodes))

    def run_node(self, n: fx.Node) -> Any:  # noqa: D102
        result = super().run_node(n)
        if n in self._kept:
            for pair in found_in(result, _PairInParts):
                pair.sequence = pair.sequence.kept()
        return result

    def rate(self, encoded: Tensor) -> Tensor:  # noqa: D102
        if encoded.shape[0] == 1:
            return super().rate(encoded)
        mean = encoded.mean(0) if encoded.requires_grad else time_mean(encoded)
        parts = encoded.detach().split(self._steps[self._input])
        return self.run(_PairInParts(_Parts(lambda: iter(parts), is_spare=False), mean)).rate

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: D102
        if target is operator.getitem and isinstance(args[0], list):  # of several results
            return args[0][args[1]]
        return super().call_function(target, args, kwargs)

    def _spike(self, neuron: LIF, terms: Sequence[Term | _Summand]) -> Pair:
        state: RateState | None = None
        packed = PackedSpikes()
        for some, steps in self._in_parts(terms):
            spikes, state = neuron.rate_steps(some, steps, state)
            packed.add(spikes)
            dtype = spikes.dtype
            del some, spikes  # before the next part is made
        assert state is not None
        # Bits hold no NaN: a neuron that has counted one fires nothing else.
        sound = torch.where(state.spike_count.isnan(), state.spike_count, 1.0).to(dtype)
        by_rate = [term if isinstance(term, Term) else term.of_rate(sound) for term in terms]
        rate = neuron.rate_after(state, self.timesteps, by_rate)
        return _PairInParts(_Parts(partial(packed.parts, self._steps[self._node], sound)), rate)

    def _in_parts(self, terms: Sequence[Term | _Summand]) -> Iterator[tuple[list[Term], int]]:
        """The terms of some steps at a time, and how many steps these are."""
        moving = [term for term in terms if isinstance(term, _Summand)]
        still = [term for term in terms if isinstance(term, Term)]
        if not moving:
            most = self._steps[self._node]
            return ((still, min(most, self.timesteps - start)) for start in range(0, self.timesteps, most))

        def some(*parts: Tensor) -> tuple[list[Term], int]:
            return [*still, *(term.of_steps(part) for term, part in zip(moving, parts, strict=True))], len(parts[0])

        return _together(some, [term.pair.sequence for term in moving])

    def _gated(self, gate: MaxGate, pair: Pair) -> Pair:
        assert isinstance(pair, _PairInParts)
        sequence = pair.sequence

        def passed() -> Iterator[Tensor]:
            carry: Tensor | None = None
            for part in sequence:
                made, carry = _without_autograd(gate.run, part, carry)
                yield made

        return _PairInParts(_Parts(passed), gate(pair.rate))

    def _dropped(self, pair: Pair, mask: Tensor) -> Pair:
        if not isinstance(pair, _PairInParts):
            return super()._dropped(pair, mask)
        return _PairInParts(pair.sequence.each(lambda part: part * mask.to(part.dtype)), pair.rate * mask)

    def _counted(self, module: Any, pair: Pair, layer: type[RateLinear | KnownConvolution]) -> Pair:
        assert isinstance(pair, _PairInParts)
        is_spare = not module._forward_hooks  # which may keep what they see

        def of_steps(part: Tensor) -> Tensor:
            return spike_output(module, part.flatten(0, 1)).unflatten(0, (len(part), -1))

        parts = pair.sequence.each(of_steps, is_spare)
        return _PairInParts(parts, lambda mean: layer.apply(pair.rate, module.weight, module.bias, mean, module))

    def _normalised(self, module: _BatchNorm, pair: Pair) -> Any:
        if not isinstance(pair, _PairInParts):
            return super()._normalised(module, pair)
        normalisation, mean = normalisation_of(module, pair.sequence)
        if mean is not None:
            pair.has_mean(mean)
        return _Summand(pair, normalisation)

    def _normalised_pair(self, module: _BatchNorm, pair: Pair) -> Pair:
        norm = self._normalised(module, pair).normalisation
        assert isinstance(pair, _PairInParts)
        return _PairInParts(pair.sequence.each(lambda part: normalise(part, norm)), normalised_rate(pair.rate, norm))

    def _generic(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        moving = list(dict.fromkeys(pair for pair in found_in((args, kwargs), Pair) if isinstance(pair, _PairInParts)))
        if not moving:
            return super()._generic(function, args, kwargs)
        if isinstance(function, _BatchNorm) and (function.training or function.running_mean is None):
            return self._by_the_whole(function, moving[0])
        is_linear = self._is_linear

        def of_steps(*parts: Tensor) -> Any:
            at_hand, steps = dict(zip(moving, parts, strict=True)), len(parts[0])

            def values(item: Any) -> Any:
                if not isinstance(item, Pair):
                    return item
                if item not in at_hand:
                    return repeated(item.rate, steps)
                return at_hand[item].flatten(0, 1)

            made = function(*mapped(args, values), **mapped(dict(kwargs), values))
            return mapped(made, lambda value: value.unflatten(0, (steps, -1)) if isinstance(value, Tensor) else value)

        def paired(rate: Tensor, chosen: Callable[[Any], Tensor]) -> Pair:
            def some(*parts: Tensor) -> Tensor:
                return chosen(_without_autograd(of_steps, *parts))

            parts = _Parts(lambda: _together(some, [pair.sequence for pair in moving]), is_spare=False)
            return _PairInParts(parts, rate if is_linear else lambda mean: moved(rate, mean))

        by_rate = at_rates(function, args, kwargs)
        if isinstance(by_rate, Tensor):
            return paired(by_rate, lambda value: value)
        if not found_in(by_rate, Tensor):  # sizes
            return by_rate
        return [paired(rate, operator.itemgetter(place)) for place, rate in enumerate(by_rate)]

    def _by_the_whole(self, function: Callable[..., Any], pair: _PairInParts) -> Pair:
        """What needs all steps at once."""
        result: Pair = super()._generic(function, (Pair(torch.cat(tuple(pair.sequence)), pair.rate),), {})
        assert result.sequence is not None
        parts = result.sequence.split(self._steps[self._node])
        return _PairInParts(_Parts(lambda: iter(parts), is_spare=False), result.rate)


def _steps_at_once(body: fx.GraphModule) -> dict[fx.Node, int]:
    """Of every node, how many time steps a part of its sequence has, where it is a new one.

    What is made of that sequence, up to the next neurons, comes in the same parts, so the largest of them decides.
    """
    sizes: dict[fx.Node, int] = {}
    for node in reversed(body.graph.nodes):
        made_of_it = (sizes[user] for user in node.users if not is_neuron(body, user))
        sizes[node] = max(math.prod(node.meta.get("shape", ())), *made_of_it, 1)
    largest = max(sizes.values())
    return {node: max(_STEPS_AT_ONCE, largest // size) for node, size in sizes.items()}


def _together(function: Callable[..., Any], sequences: Sequence[_Parts]) -> Iterator[Any]:
    """A function of the parts of several sequences."""
    if len(sequences) == 1:  # no name here, which would keep a part while the next one is made
        return map(function, sequences[0])
    return starmap(function, _of_same_steps(sequences))


def _of_same_steps(sequences: Sequence[_Parts]) -> Iterator[tuple[Tensor, ...]]:
    """Their parts, cut where another one's ends."""
    readers = [iter(sequence) for sequence in sequences]
    rests = [next(reader) for reader in readers]
    while True:
        steps = min(map(len, rests))
        yield tuple(rest[:steps] for rest in rests)
        rests = [rest[steps:] for rest in rests]
        for place, reader in enumerate(readers):
            if not len(rests[place]):
                rests[place] = next(reader, rests[place])
        if not all(map(len, rests)):
            return


def _often_made(body: fx.GraphModule, deferred: Collection[fx.Node], taps: Collection[fx.Node]) -> frozenset[fx.Node]:
    """The nodes whose sequence would be made more than ``_MOST_TIMES``, were it made anew for all who read it."""
    times: dict[fx.Node, int] = {}
    often: set[fx.Node] = set()
    for node in reversed(body.graph.nodes):
        if is_neuron(body, node):
            times[node] = 1
            continue
        module, readings = module_of(body, node), sum(times[user] for user in node.users)
        if node in deferred:  # a sum is read with its neurons; a normalisation once more, for its statistics
            times[node] = readings + (module is not None)
            continue
        by_neurons_alone = all(user in deferred or is_neuron(body, user) for user in node.users)
        is_counted = isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) or not is_linear(body, node)
        times[node] = max(readings, 1) + (is_counted and not by_neurons_alone) + (node in taps)
        if times[node] > _MOST_TIMES:
            often.add(node)
            times[node] = 1
    return frozenset(often)


def _without_autograd(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns. A generator would hold a ``no_grad`` open while its reader goes on."""
    with torch.no_grad():
        return function(*arguments)
