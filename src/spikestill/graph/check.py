"""``check``: what of a network becomes spiking, what is rewritten, and what is refused and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import fx, nn

from spikestill.graph.images_apart import calls_that_mix_images
from spikestill.graph.operations import (
    is_activation,
    is_dropout,
    is_linear,
    is_max_pool,
    is_module,
    name_of,
    why_refused,
)
from spikestill.graph.trace import calls, scope_of, trace
from spikestill.types import InputError

__all__ = ["Finding", "Report", "check", "examine"]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: the module's path, or the module in which a function is called.
        operation: what stands there.
        verdict: "spiking" (becomes a neuron as it is), "rewritten" (becomes one after a rewrite), "noted" (stays, with
            a remark) or "refused".
        remark: how it is rewritten, what to know, or why it is refused and what to do.
    """

    name: str
    operation: str
    verdict: Literal["spiking", "rewritten", "noted", "refused"]
    remark: str = ""


@dataclass(frozen=True)
class Report:
    """What ``to_spiking`` will do with a model; printed, it has a line for every finding."""

    model: str
    findings: tuple[Finding, ...]

    @property
    def activations(self) -> tuple[Finding, ...]:
        """The activations, each of which becomes a neuron of its own."""
        return tuple(finding for finding in self.findings if finding.verdict in ("spiking", "rewritten"))

    @property
    def refused(self) -> tuple[Finding, ...]:
        """What cannot spike."""
        return tuple(finding for finding in self.findings if finding.verdict == "refused")

    def raise_if_refused(self) -> None:
        """Raise an :class:`InputError` that names every refused module, and why."""
        if self.refused:
            reasons = "; ".join(f"{item.name} ({item.operation}): {item.remark}" for item in self.refused)
            raise InputError(f"{self.model} cannot become spiking: {reasons}")

    def __str__(self) -> str:
        """A line a finding, and a summary."""
        name_width = max((len(finding.name) for finding in self.findings), default=0)
        operation_width = max((len(finding.operation) for finding in self.findings), default=0)
        lines = [
            f"{item.verdict:<9}  {item.name:<{name_width}}  {item.operation:<{operation_width}}  {item.remark}".rstrip()
            for item in self.findings
        ]
        rewritten = sum(finding.verdict == "rewritten" for finding in self.findings)
        lines.append(
            f"{self.model}: {len(self.activations)} activations become neurons ({rewritten} after a rewrite), "
            f"{len(self.refused)} operations refused"
        )
        return "\n".join(lines)


def check(model: nn.Module, input_shape: Sequence[int] = (3, 32, 32)) -> Report:
    """What ``to_spiking`` would do with ``model``, which stays as it is.

    Args:
        model: the ANN.
        input_shape: of one image, ``(C, H, W)``.

    Raises:
        InputError: if the model cannot be traced or does not run on that shape.
    """
    return examine(trace(model, input_shape), type(model).__name__)


def examine(traced: fx.GraphModule, name: str) -> Report:
    """The report on a model that is traced already."""
    findings = tuple(_findings(traced))
    if not any(finding.verdict in ("spiking", "rewritten") for finding in findings):
        findings += (Finding("(whole model)", name, "refused", "it has no ReLU: nothing in it could become a neuron"),)
    return Report(name, findings)


def _findings(traced: fx.GraphModule) -> Iterator[Finding]:
    made = Counter(_where(node) for node in calls(traced.graph) if is_activation(traced, node))
    met: Counter[str] = Counter()
    mixing = calls_that_mix_images(traced)
    for node in calls(traced.graph):
        where, operation = _where(node), name_of(traced, node)
        if is_activation(traced, node):
            met[where] += 1
            remarks = []
            if not is_module(traced, node):
                remarks.append("a function: becomes a module")
            elif made[where] > 1:
                remarks.append(f"call {met[where]} of {made[where]} of one module: a neuron of its own")
            if node.meta.get("in_place"):
                remarks.append("in-place")
            shared = bool(remarks) and remarks != ["in-place"]
            yield Finding(where, operation, "rewritten" if shared else "spiking", ", ".join(remarks))
        elif is_max_pool(traced, node):
            remark = "maximum of each step's spikes (max_pool='gate': of rates, exact in conversion; or 'average')"
            yield Finding(where, operation, "noted", remark)
        elif is_dropout(traced, node):
            written = node.meta.get("written", operation)
            more = "" if node.meta.get("is_module", True) else "a function: becomes a module, "
            yield Finding(where, written, "noted", f"{more}one mask for all time steps")
        elif not is_linear(traced, node):
            yield Finding(where, operation, "refused", why_refused(traced, node))
        elif node in mixing:
            yield Finding(where, operation, "refused", mixing[node])


def _where(node: fx.Node) -> str:
    return (scope_of(node) or ["(model)"])[-1]
