"""``from_nir``: a spiking network from a NIR graph, by the discretisation that its metadata states."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from torch import Tensor, fx, nn

from spikestill.dynamics.neuron import Order, Reset
from spikestill.export.extras import optional
from spikestill.export.nir_writing import COMPARISONS
from spikestill.export.rewriting import Scale
from spikestill.graph import SpikingNetwork, trace
from spikestill.nn import LIF, Direct, Encoder, Events, Poisson
from spikestill.types import InputError, unknown_name

if TYPE_CHECKING:
    import nir

__all__ = ["from_nir"]

_CLOSE = 1e-6


@dataclass(frozen=True)
class _Stated:
    """How a NIR graph is to be run.

    Attributes:
        source: what the graph is called in messages.
        dt: seconds a time step.
        timesteps: T.
        reset: soft or hard.
        order: of reset and leak.
        encoder: makes a batch the graph's input.
        read_out_from: the step from which on read-outs are averaged.
    """

    source: str
    dt: float
    timesteps: int
    reset: Reset
    order: Order
    encoder: Encoder
    read_out_from: int = 1


def from_nir(
    source: str | Path | nir.NIRGraph,
    *,
    dt: float | None = None,
    timesteps: int | None = None,
    reset: Reset | None = None,
    order: Order | None = None,
) -> SpikingNetwork:
    """The spiking network of a NIR graph: its neurons reset, leak and fire as the graph's metadata says.

    The network is for running: of the surrogate gradient and of what was learnable, a file says nothing.

    Args:
        source: a file, or a graph. One that ``to_nir`` made says everything that the other arguments say; for one of
            another tool, they are what it leaves open.
        dt: seconds a time step.
        timesteps: T; the number of steps is no part of the network's function, so another one may be given.
        reset: "soft" subtracts the threshold, "hard" sets the potential to 0.
        order: "reset-then-leak" (fires at the threshold) or "leak-then-subtract" (fires above it).

    Returns:
        The network, in evaluation mode. Events, as from another simulator, go in as ``snn.encoder = Events()`` has it.

    Raises:
        InputError: for a file that is missing, damaged or no NIR file; for one that leaves open what it is run by, or
            whose neurons do not fit its ``dt``; for a node or a wiring that has no equivalent here, by name; and where
            the extra ``export`` is not installed.
    """
    optional("nir", "export")
    name = str(source) if isinstance(source, str | Path) else "the NIR graph"
    if isinstance(source, str | Path):
        from spikestill.export.nir_file import read

        source = read(source)
    given = {"dt": dt, "timesteps": timesteps, "reset": reset, "order": order}
    stated = _stated(source, name, {key: value for key, value in given.items() if value is not None})
    body = _body(source, stated)
    first = min(stated.read_out_from, stated.timesteps)
    return SpikingNetwork(body, timesteps=stated.timesteps, encoder=stated.encoder, read_out_from=first).eval()


def _stated(graph: nir.NIRGraph, source: str, given: Mapping[str, Any]) -> _Stated:
    """What the metadata and, where they say nothing, the arguments say."""
    own = {key: _plain(value) for key, value in (graph.metadata or {}).items()}
    for key, value in given.items():
        if key != "timesteps" and key in own and own[key] != value:
            raise InputError(f"{source} says {key} = {own[key]}, not {value}: leave out {key}")
    found = {**own, **given}
    missing = [key for key in ("dt", "timesteps", "reset", "order") if key not in found]
    if missing:
        example = "from_nir(path, dt=1e-4, timesteps=4, reset='hard', order='leak-then-subtract')"
        raise InputError(f"{source} does not say its {', '.join(missing)}: give what it leaves open, as in {example}")
    for key, known in (("reset", get_args(Reset)), ("order", get_args(Order))):
        if found[key] not in known:
            raise InputError(f"{source}: {unknown_name(key, str(found[key]), known)}")
    if found.get("comparison", COMPARISONS[found["order"]]) != COMPARISONS[found["order"]]:
        raise InputError(f"{source} contradicts itself: order {found['order']} does not fire at {found['comparison']}")
    try:
        seconds, steps, first = float(found["dt"]), int(found["timesteps"]), int(found.get("read_out_from", 1))
    except (TypeError, ValueError) as error:
        raise InputError(f"{source}: dt, timesteps and read_out_from must be numbers: {error}") from error
    if not 0 < seconds < math.inf:
        raise InputError(f"{source}: dt must be positive, not {seconds}")
    return _Stated(source, seconds, steps, found["reset"], found["order"], _encoder(found, source), first)


def _encoder(found: Mapping[str, Any], source: str) -> Encoder:
    name = found.get("encoder", "direct")
    if name == "poisson":
        scale, signed = found.get("encoder_scale", 1.0), found.get("encoder_signed", 1)
        return Poisson(float(scale), bool(signed), found.get("encoder_seed"))
    kinds: dict[str, type[Encoder]] = {"direct": Direct, "events": Events}
    if name not in kinds:
        raise InputError(f"{source}: {unknown_name('encoder', str(name), (*kinds, 'poisson'))}")
    return kinds[name]()


def _body(graph: nir.NIRGraph, stated: _Stated) -> fx.GraphModule:
    """The graph as modules, and sums of what arrives at a node in the order of the edges."""
    import nir

    ends = [sum(isinstance(node, kind) for node in graph.nodes.values()) for kind in (nir.Input, nir.Output)]
    if ends != [1, 1]:
        raise InputError(f"{stated.source} has {ends[0]} inputs and {ends[1]} outputs: there must be one each")
    arriving: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for start, end in graph.edges:
        arriving[end].append(start)
    root, wired, made = nn.Module(), fx.Graph(), dict[str, fx.Node]()
    shape: tuple[int, ...] = ()
    for name in _in_order(arriving, stated.source):
        node = graph.nodes[name]
        if isinstance(node, nir.Input):
            shape = tuple(int(size) for size in node.input_type["input"])
            made[name] = wired.placeholder("input")
            continue
        if not arriving[name]:
            raise InputError(f"{stated.source}: nothing arrives at node '{name}'")
        total = made[arriving[name][0]]
        for other in arriving[name][1:]:
            total = wired.call_function(operator.add, (total, made[other]))
        if isinstance(node, nir.Output):
            wired.output(total)
        else:
            path = _path(root, name, node)
            _add(root, path, _module(name, node, stated))
            made[name] = wired.call_module(path, (total,))
    return trace(fx.GraphModule(root, wired).eval(), shape)


def _in_order(arriving: Mapping[str, list[str]], source: str) -> list[str]:
    try:
        order = list(TopologicalSorter(arriving).static_order())
    except CycleError as error:
        raise InputError(
            f"{source} is recurrent ({' -> '.join(error.args[1])}): a network here feeds forward"
        ) from error
    return order


def _path(root: nn.Module, name: str, node: Any) -> str:
    """Where a node's module lies: at the path of the neurons it was made of, else under its own name."""
    return str(_plain(node.metadata.get("path", name.replace(".", "_"))))


def _add(root: nn.Module, path: str, module: nn.Module) -> None:
    *outer, last = path.split(".")
    owner = root
    for part in outer:
        if not hasattr(owner, part):
            owner.add_module(part, nn.Module())
        owner = getattr(owner, part)
    owner.add_module(last, module)


def _module(name: str, node: Any, stated: _Stated) -> nn.Module:
    """The module of a NIR node."""
    import nir

    if isinstance(node, nir.LIF | nir.IF):
        return _neurons(name, node, stated)
    if isinstance(node, nir.Conv2d | nir.Conv1d):
        return _convolution(node)
    if isinstance(node, nir.Affine | nir.Linear):
        weight = _tensor(node.weight)
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=isinstance(node, nir.Affine), device="meta")
        return _filled(linear, weight, getattr(node, "bias", None))
    if isinstance(node, nir.AvgPool2d):
        geometry: Any = [_numbers(value, 2) for value in (node.kernel_size, node.stride, node.padding)]
        return nn.AvgPool2d(*geometry)
    if isinstance(node, nir.Flatten):
        return _flatten(name, node, stated)
    if isinstance(node, nir.Scale):
        return Scale(_tensor(node.scale))
    raise InputError(f"{stated.source}: node '{name}' is a {type(node).__name__}, which has no equivalent here")


def _convolution(node: Any) -> nn.Module:
    weight = _tensor(node.weight)
    dimensions = weight.dim() - 2
    padding = _plain(node.padding)
    kind: Any = nn.Conv1d if dimensions == 1 else nn.Conv2d
    layer = kind(
        weight.shape[1] * int(node.groups),
        weight.shape[0],
        tuple(weight.shape[2:]),
        _numbers(node.stride, dimensions),
        padding if isinstance(padding, str) else _numbers(padding, dimensions),
        _numbers(node.dilation, dimensions),
        int(node.groups),
        device="meta",
    )
    return _filled(layer, weight, node.bias)


def _filled(layer: Any, weight: Tensor, bias: Any) -> nn.Module:
    layer.weight = nn.Parameter(weight)
    layer.bias = None if bias is None else nn.Parameter(_tensor(bias))
    return layer


def _flatten(name: str, node: Any, stated: _Stated) -> nn.Module:
    dimensions = len(node.input_type["input"])
    if int(node.start_dim) != 0 or int(node.end_dim) not in (-1, dimensions - 1):
        raise InputError(f"{stated.source}: node '{name}' flattens only some of its axes, which has no equivalent here")
    return nn.Flatten()


def _neurons(name: str, node: Any, stated: _Stated) -> LIF:
    """The neurons of a node, whose arrays must each hold one value, at the stated time step."""
    where = f"{stated.source}: node '{name}'"
    value = {field: _uniform(where, field, getattr(node, field)) for field in _FIELDS if hasattr(node, field)}
    for field in ("v_reset", "v_leak"):
        if value.get(field, 0.0) != 0:
            raise InputError(f"{where} has {field} = {value[field]:g}: only 0 has an equivalent here")
    # One step of the equation: v <- leak v + gain x.
    leak = 1.0 if "tau" not in value else 1 - stated.dt / value["tau"]
    gain = value["r"] * (stated.dt if "tau" not in value else 1 - leak)
    if not 0 < leak <= 1 or not math.isclose(gain, 1, rel_tol=_CLOSE):
        given = ", ".join(f"{field} = {value[field]:g}" for field in ("tau", "r") if field in value)
        raise InputError(f"{where} ({given}) does not fit dt = {stated.dt:g} s: state the dt it was made with")
    neuron = LIF(leak, value["v_threshold"], stated.reset, stated.order)
    if "initial" in node.metadata:
        neuron.set_initial(_tensor(node.metadata["initial"]))
    return neuron


_FIELDS = ("tau", "r", "v_leak", "v_reset", "v_threshold")


def _uniform(where: str, field: str, values: Any) -> float:
    found = np.unique(np.asarray(values))
    if found.size != 1 or not np.isfinite(found).all():
        raise InputError(f"{where} has {found.size} values of {field}: a layer has one here, and it is finite")
    return float(found[0])


def _numbers(values: Any, count: int) -> tuple[int, ...]:
    found = np.asarray(values).reshape(-1).tolist()
    return tuple(int(value) for value in (found * count if len(found) == 1 else found))


def _tensor(values: Any) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float32))


def _plain(value: Any) -> Any:
    """A scalar or text of a file as Python's own."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.item() if isinstance(value, np.generic | np.ndarray) and np.size(value) == 1 else value
