"""The spiking network as a function of a whole sequence, and the record of an ANN."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from spikestill.graph.cut import node_named
from spikestill.graph.rate import RateRun
from spikestill.graph.recomputed_rates import RecomputedRateRun
from spikestill.graph.recomputing import run_in_segments
from spikestill.graph.sequence import Observer, SequenceRun, Watch
from spikestill.graph.streamed_rates import streamed_rates
from spikestill.nn import LIF, Encoder, Events, Poisson
from spikestill.types import InputError, Record

__all__ = ["Gradient", "SpikingNetwork", "record"]

Gradient = Literal["rate", "bptt"]

_STEPS_AT_ONCE = 8
"""How many time steps are held in memory where they may be run some at a time: twice as many save 5 % of the time."""

_STEPS_THAT_FIT = 4
"""Up to how many time steps rate gradients take no more memory than what is kept for their backward pass."""


class SpikingNetwork(nn.Module):
    """A spiking network: ``snn(images)`` carries no state from call to call.

    ``torch.compile``, ``torch.export``, ``torch.jit.trace`` under ``torch.no_grad()``, ``make_fx`` and the transforms
    of ``torch.func`` see plain operations of torch, without autograd the same numbers.

    Args:
        body: the graph of one time step, neurons in it (see ``to_spiking``).
        timesteps: T, at least 1.
        encoder: makes a batch the input of T steps.
        gradient: how gradients reach the weights in training: "rate" (methods 6) or "bptt".
        recompute: in training, less memory for a second forward pass. Under "bptt", keep the sequences of about the
            square root of the layers alone, and compute the others again in the backward pass. Under "rate", from
            the fifth time step on, keep of a sequence the spikes, a bit each, and compute what a BatchNorm normalises
            again once its statistics are known.
        read_out_from: the time step, counted from 1, from which the read-outs are averaged to logits. Where fewer steps
            are run, all of them are. Rate gradients know only the mean of all steps.

    Attributes:
        body: the graph; its modules have the ANN's names.

    Raises:
        InputError: for T < 1, a gradient that is neither, or a read-out that begins before the first step or after T.
    """

    def __init__(
        self,
        body: fx.GraphModule,
        *,
        timesteps: int,
        encoder: Encoder,
        gradient: Gradient = "rate",
        recompute: bool = False,
        read_out_from: int = 1,
    ) -> None:
        super().__init__()
        if timesteps < 1:
            raise InputError(f"the number of time steps must be at least 1, not {timesteps}")
        if gradient not in get_args(Gradient):
            raise InputError(f"gradient must be 'rate' or 'bptt', not {gradient!r}")
        self.body, self.encoder, self.timesteps, self.gradient = body, encoder, timesteps, gradient
        self.recompute = recompute
        if not 1 <= read_out_from <= timesteps:
            raise InputError(f"read_out_from must lie between 1 and T = {timesteps}, not {read_out_from}")
        self.read_out_from = read_out_from

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[B, K]`` of images ``[B, C, H, W]`` or events ``[T, B, C, H, W]``.

        They are the mean of the read-outs over the time steps, from ``read_out_from`` on.
        """
        return self.record(images).logits

    def unroll(
        self,
        images: Tensor,
        timesteps: int | None = None,
        observe: Observer | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """One read-out a time step ``[T, B, K]``, differentiable through time.

        Args:
            images: ``[B, C, H, W]`` or events ``[T, B, C, H, W]``.
            timesteps: another T than the network's own.
            observe: is called with every neuron layer's name and spikes ``[T, B, ...]``; where many steps are run
                without autograd, several times, with some of the steps each.
            watch: is called with every node of the graph and its value, as often as ``observe``.
        """
        steps = _checked(self.timesteps if timesteps is None else timesteps)
        _require_recordable()
        if not self._can_stream(steps):
            return SequenceRun(self.body, steps, observe=observe, watch=watch).sequence(self.encoder(images, steps))
        carries: dict[str, Tensor] = {}
        return torch.cat(
            [
                SequenceRun(self.body, some, carries, observe, watch=watch).sequence(encoded)
                for encoded, some in self._in_parts(images, steps)
            ]
        )

    def record(self, images: Tensor, taps: Collection[str] = (), timesteps: int | None = None) -> Record:
        """Logits, and the firing rates at the named points, with the gradient of the network's mode.

        Under rate gradients more than 8 steps are run some at a time, in memory that does not grow with T; but where a
        BatchNorm takes the statistics of its batch, which are those of all steps, a layer's whole sequence is held, or
        with ``recompute`` its spikes.

        Args:
            images: ``[B, C, H, W]`` or events ``[T, B, C, H, W]``.
            taps: names of points (module paths; see ``cut_points``).
            timesteps: another T than the network's own; all is then as in a network of that T.

        Raises:
            InputError: for a name that is no point of the network, and for T < 1.
        """
        _require_recordable()
        places, nodes = _places(self.body, taps)
        count = _checked(self.timesteps if timesteps is None else timesteps)
        if not nodes and self._can_stream(count):
            steps = self.unroll(images, count)
            return Record(self.read_out(steps), {}, steps, timesteps=count)
        if self.gradient == "rate" and self.training and torch.is_grad_enabled():
            logits, tapped = self._rates(images, nodes, count)
            return Record(logits, {name: tapped[nodes[node]] for name, node in places.items()}, timesteps=count)
        encoded = self.encoder(images, count)
        if self.recompute and self.training and torch.is_grad_enabled():
            by_name = {node.name: name for node, name in nodes.items()}
            steps, tapped = run_in_segments(self.body, encoded, count, by_name)
        else:
            run = SequenceRun(self.body, count, taps=nodes)
            steps, tapped = run.sequence(encoded), run.tapped
        rates = {name: spikes.mean(0) for name, spikes in tapped.items()}
        return Record(
            self.read_out(steps),
            {name: rates[nodes[node]] for name, node in places.items()},
            steps,
            {name: tapped[nodes[node]] for name, node in places.items()},
            timesteps=count,
        )

    def read_out(self, steps: Tensor) -> Tensor:
        """Logits ``[B, K]`` of read-outs ``[T, B, K]``: their mean from ``read_out_from`` on."""
        return steps[self.read_out_from - 1 :].mean(0) if len(steps) >= self.read_out_from else steps.mean(0)

    def _rates(self, images: Tensor, taps: Mapping[fx.Node, str], timesteps: int) -> tuple[Tensor, dict[str, Tensor]]:
        if self.read_out_from > 1:
            raise InputError("rate gradients average all steps: set read_out_from to 1 to train, or use bptt")
        if timesteps > _STEPS_AT_ONCE and not any(map(_needs_statistics, self.body.modules())):
            return streamed_rates(self.body, self._in_parts(images, timesteps), taps)
        saves_memory = self.recompute and timesteps > _STEPS_THAT_FIT
        run = (RecomputedRateRun if saves_memory else RateRun)(self.body, timesteps, taps)
        return run.rate(self.encoder(images, timesteps)), run.tapped

    def _in_parts(self, images: Tensor, timesteps: int) -> Iterator[tuple[Tensor, int]]:
        """The encoded input of some steps at a time, ``[t, B, ...]`` or ``[1, B, ...]``, and how many these are.

        Poisson spikes are drawn when they are needed; another encoder may look at all steps together.
        """
        whole = None if type(self.encoder) is Poisson else self.encoder(images, timesteps)
        for start in range(0, timesteps, _STEPS_AT_ONCE):
            some = min(_STEPS_AT_ONCE, timesteps - start)
            if whole is None:
                yield self.encoder(images, some), some
            else:
                yield whole if len(whole) == 1 else whole[start : start + some], some

    def _can_stream(self, timesteps: int) -> bool:
        """Whether the steps may be run some at a time: in evaluation, without autograd.

        Training modules look at all steps together (statistics, one mask of dropout), and so do normalisations without
        running statistics.
        """
        return (
            timesteps > _STEPS_AT_ONCE
            and not torch.is_grad_enabled()
            and not any(module.training or _needs_statistics(module) for module in self.modules())
        )

    def step(self, frame: Tensor, state: Mapping[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits ``[B, K]`` of one time step, and the state to go on with.

        Args:
            frame: the input of this step, ``[B, C, H, W]``; the encoder encodes it alone.
            state: what the previous step returned; None starts at rest.
        """
        _require_recordable()
        carries = dict(state or {})
        encoded = self.encoder(frame.unsqueeze(0) if isinstance(self.encoder, Events) else frame, 1)
        return SequenceRun(self.body, 1, carries).sequence(encoded)[0], carries

    def neurons(self) -> Iterator[tuple[str, LIF]]:
        """The neuron layers by name, in the order in which the graph calls them."""
        for node in self.body.graph.nodes:
            if node.op == "call_module":
                module = self.body.get_submodule(str(node.target))
                if isinstance(module, LIF):
                    yield str(node.target), module

    def extra_repr(self) -> str:  # noqa: D102
        return f"timesteps={self.timesteps}, gradient={self.gradient!r}"


def record(
    traced: fx.GraphModule,
    images: Tensor,
    taps: Collection[str] = (),
    *,
    gradients: Collection[str] = (),
    labels: Tensor | None = None,
) -> Record:
    """Logits of a traced ANN and its activations at the named points.

    Args:
        traced: from ``trace``.
        images: ``[B, C, H, W]``.
        taps: names of points (module paths; see ``cut_points``).
        gradients: names of points at which the gradient of the cross-entropy is wanted as well. It is taken whether
            autograd is on or off; the graph begins at the first of the points, and the record is then a constant.
        labels: ``[B]``, for the gradients.
    """
    features = {name: node_named(traced, name) for name in taps}
    wanted = {name: node_named(traced, name) for name in gradients}
    run = _TappedRun(traced, {*features.values(), *wanted.values()}, leaves=set(wanted.values()))
    if not wanted:
        logits = run.run(images)
        return Record(logits, {name: run.tapped[node] for name, node in features.items()})
    assert labels is not None
    with torch.enable_grad():
        logits = run.run(images)
        # The sum, not the mean: each image's gradient is that of its own loss, whatever the batch.
        loss = functional.cross_entropy(logits.float(), labels, reduction="sum")
        given = torch.autograd.grad(loss, [run.tapped[node] for node in wanted.values()], materialize_grads=True)
    return Record(
        logits.detach(),
        {name: run.tapped[node].detach() for name, node in features.items()},
        gradients=dict(zip(wanted, given, strict=True)),
    )


class _TappedRun(fx.Interpreter):
    """One run of an ANN that keeps the values at some nodes; autograd reaches back to ``leaves`` at least."""

    def __init__(self, traced: fx.GraphModule, taps: Collection[fx.Node], leaves: Collection[fx.Node]) -> None:
        super().__init__(traced)
        self.taps, self.leaves = taps, leaves
        self.tapped: dict[fx.Node, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n not in self.taps:
            return result
        if n in self.leaves and not result.requires_grad:
            result = result.detach().requires_grad_()
        self.tapped[n] = result
        return result


def _places(body: fx.GraphModule, taps: Collection[str]) -> tuple[dict[str, fx.Node], dict[fx.Node, str]]:
    """The node of every name, and one name of every node: a node may have been asked for under several."""
    places = {name: node_named(body, name) for name in taps}
    return places, {node: name for name, node in places.items()}


def _require_recordable() -> None:
    """Refuse ``torch.jit.trace`` with autograd: it has no surrogate gradient, and fails within itself."""
    if torch.jit.is_tracing() and torch.is_grad_enabled():  # type: ignore[attr-defined]
        raise InputError("torch.jit.trace records no surrogate gradient: trace a spiking network under torch.no_grad()")


def _needs_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)


def _checked(timesteps: int) -> int:
    if timesteps < 1:
        raise InputError(f"the number of time steps must be at least 1, not {timesteps}")
    return timesteps
