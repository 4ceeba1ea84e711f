"""``to_nir``: a spiking network as a NIR graph (methods, section 9).

NIR describes neurons in continuous time. One step of ``dt`` seconds turns ``tau dv/dt = -v + R I`` into

    v <- v (1 - dt / tau) + I R dt / tau,

so a leak is written as ``tau = dt / (1 - leak)``, and ``R = tau / dt`` leaves the current as it is. A neuron that does
not leak is an IF with ``R = 1 / dt``.
"""

from __future__ import annotations

import copy
import keyword
import logging
from collections.abc import Container, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, fx, nn

from spikestill.export.extras import optional
from spikestill.export.lowering import lower, terms_of
from spikestill.export.rewriting import Scale
from spikestill.graph import SpikingNetwork, trace
from spikestill.graph.trace import module_of, shape_of
from spikestill.nn import LIF, Direct, Events, Poisson
from spikestill.types import InputError

if TYPE_CHECKING:
    from spikestill.export.nir_file import Graph

__all__ = ["COMPARISONS", "DT", "to_nir"]

DT = 1e-4
"""Seconds a time step: the only value that SpikingJelly and snnTorch agree on."""

COMPARISONS = {"reset-then-leak": ">=", "leak-then-subtract": ">"}
"""How a neuron's potential is compared with its threshold."""

_log = logging.getLogger("spikestill")
_OTHER_READERS = "SpikingJelly, snnTorch, Norse, sinabs and all readers that go by NIR's own equations"


def to_nir(snn: SpikingNetwork, input_shape: Sequence[int] | None = None) -> Graph:
    """A spiking network as a flat NIR graph, of one time step's input.

    BatchNorm and scales are folded into the weights. What NIR has no field for is in the graph's metadata: ``dt``,
    ``timesteps``, ``reset``, ``order``, ``comparison``, ``encoder``, ``input_shape``, ``read_out`` (and
    ``read_out_from``, the step from which on outputs are averaged, if that is not the first); and in a neuron
    node's, its module's ``path`` and, where it has one, its ``initial`` potential. ``from_nir`` honours them. That
    other tools do not is said by a warning of the logger ``spikestill``, where it makes a difference.

    Args:
        snn: the network; it is exported as it is in evaluation.
        input_shape: of one image, ``(C, H, W)``; by default that with which the network was made.

    Returns:
        A ``nir.NIRGraph`` with a method ``write(path)``.

    Raises:
        InputError: for a network that NIR cannot express, by module; for an input shape on which it does not run; and
            where the extra ``export`` is not installed.
    """
    optional("nir", "export")
    body = copy.deepcopy(snn.body).eval()
    place = next(iter(body.graph.find_nodes(op="placeholder")))
    if input_shape is not None and tuple(input_shape) != shape_of(place):
        body = trace(body, input_shape)
    body = lower(body).cpu().float()
    shape = shape_of(next(iter(body.graph.find_nodes(op="placeholder")))) or ()
    stated = _stated(snn, shape)
    _warn(snn)
    return _graph(body, shape, stated)


def _stated(snn: SpikingNetwork, shape: Sequence[int]) -> dict[str, Any]:
    """The graph's metadata."""
    rules = {(neuron.rule.reset, neuron.rule.order) for _, neuron in snn.neurons()}
    if len(rules) != 1:
        raise InputError(f"the network's layers reset in {len(rules)} different ways, a NIR file has room for one")
    ((reset, order),) = rules
    stated = {
        "producer": f"spikestill {metadata.version('spikestill')}",
        "dt": DT,
        "timesteps": snn.timesteps,
        "reset": reset,
        "order": order,
        "comparison": COMPARISONS[order],
        "encoder": type(snn.encoder).__name__.lower(),
        "input_shape": np.array(shape),
        "read_out": "mean",
    }
    if snn.read_out_from > 1:
        stated["read_out_from"] = snn.read_out_from
    if isinstance(snn.encoder, Poisson):
        stated |= {"encoder_scale": float(snn.encoder.scale), "encoder_signed": int(snn.encoder.signed)}
        if snn.encoder.seed is not None:
            stated["encoder_seed"] = int(snn.encoder.seed)
    elif not isinstance(snn.encoder, Direct | Events):
        name = type(snn.encoder).__name__
        raise InputError(f"a NIR file cannot name the encoder {name}: use Direct, Poisson or Events")
    return stated


def _warn(snn: SpikingNetwork) -> None:
    """Say what other readers will do otherwise."""
    neurons = [neuron for _, neuron in snn.neurons()]
    ignored = []
    if any(neuron.rule.reset == "soft" for neuron in neurons):
        ignored.append("the soft reset (they reset to 0)")
    if any(neuron.initial is not None for neuron in neurons):
        ignored.append("the initial membrane potentials (they start at 0)")
    if ignored:
        _log.warning(
            "NIR has no field for %s: %s will ignore it and compute other spikes; ss.export.from_nir honours it",
            " and ".join(ignored),
            _OTHER_READERS,
        )


def _graph(body: fx.GraphModule, shape: Sequence[int], stated: dict[str, Any]) -> Graph:
    """The NIR graph of a lowered body."""
    import nir

    from spikestill.export.nir_file import Graph

    names: dict[fx.Node, str] = {}
    nodes: dict[str, Any] = {"input": nir.Input(np.array(shape)), "output": None}
    edges: list[tuple[str, str]] = []
    for node in body.graph.nodes:
        if node.op == "placeholder":
            names[node] = "input"
        elif node.op == "call_module":
            source: Any = node.args[0]
            names[node] = name = _free_name(str(node.target), nodes)
            nodes[name] = _node(module_of(body, node), node, shape_of(source) or (), shape_of(node) or ())
            edges += [(names[term], name) for term in terms_of(source)]
        elif node.op == "output":
            result: Any = node.args[0]
            nodes["output"] = nir.Output(np.array(shape_of(result)))
            edges.append((names[result], "output"))
    return Graph(nodes, edges, stated)


def _free_name(path: str, taken: Container[str]) -> str:
    """A module's path as a name that Python and every reader take: an identifier, without dots."""
    name = path.replace(".", "_")
    if not name.isidentifier() or keyword.iskeyword(name):
        name = f"_{name}"
    while name in taken:
        name += "_"
    return name


def _node(module: Any, node: fx.Node, before: Sequence[int], after: Sequence[int]) -> Any:
    """The NIR node of a module."""
    import nir

    if isinstance(module, LIF):
        return _neurons(module, str(node.target), after)
    if isinstance(module, nn.Conv2d):
        geometry = (module.stride, module.padding, module.dilation, 1)
        return nir.Conv2d(tuple(before[1:]), _array(module.weight), *geometry, _array(module.bias))
    if isinstance(module, nn.Conv1d):
        stride, padding, dilation = (int(value[0]) for value in (module.stride, module.padding, module.dilation))
        return nir.Conv1d(before[1], _array(module.weight), stride, padding, dilation, 1, _array(module.bias))
    if isinstance(module, nn.Linear):
        return nir.Affine(_array(module.weight), _array(module.bias, len(module.weight)))
    if isinstance(module, nn.AvgPool2d):
        return nir.AvgPool2d(*map(np.array, (module.kernel_size, module.stride, module.padding)))
    if isinstance(module, nn.Flatten):
        return nir.Flatten(np.array(before), 0, -1)
    assert isinstance(module, Scale)
    return nir.Scale(_array(module.scale))


def _neurons(neuron: LIF, path: str, shape: Sequence[int]) -> Any:
    import nir

    leak, threshold = neuron.leak.item(), neuron.threshold.item()
    own: dict[str, Any] = {"path": path}
    if neuron.initial is not None:
        own["initial"] = _array(neuron.initial.expand(tuple(shape)))
    full = {"v_threshold": np.full(shape, threshold), "v_reset": np.zeros(shape)}
    if leak == 1:
        return nir.IF(r=np.full(shape, 1 / DT), **full, metadata=own)
    tau = np.full(shape, DT / (1 - leak))
    return nir.LIF(tau=tau, r=tau / DT, v_leak=np.zeros(shape), **full, metadata=own)


def _array(values: Tensor | None, zeros: int = 0) -> Any:
    return np.zeros(zeros, np.float32) if values is None else values.detach().contiguous().numpy().copy()
