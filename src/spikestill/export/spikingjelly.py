"""Networks from SpikingJelly and to it: the same weights, the same spikes (extra ``peers``).

SpikingJelly keeps membrane potentials in the modules and calls a network once a time step. Its ``IFNode`` and
``LIFNode`` reset, then leak, and fire at the threshold, which is the order ``reset-then-leak`` here.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from spikestill.dynamics import ATan, Rectangular, Sigmoid, Triangle
from spikestill.dynamics.surrogate import Surrogate
from spikestill.export.extras import optional
from spikestill.graph import SpikingNetwork, to_spiking
from spikestill.graph.network import Gradient
from spikestill.nn import LIF, Direct, Encoder, MaxGate
from spikestill.types import InputError

__all__ = ["from_spikingjelly", "to_spikingjelly"]

_STATELESS = (
    *("Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "Linear", "Flatten", "Upsample"),
    *("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "MaxPool1d", "MaxPool2d", "MaxPool3d"),
    *("AvgPool1d", "AvgPool2d", "AvgPool3d", "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d"),
)
"""Layers that SpikingJelly derives from torch's of the same name, adding nothing but the two ways to call them."""

_DROPOUTS = ("Dropout", "Dropout2d")
_MULTI_STEP = ("SeqToANNContainer", "MultiStepContainer")
_CONTAINERS = (*_MULTI_STEP, "StepModeContainer")
_SURROGATES: dict[str, type[Any]] = {
    "Sigmoid": Sigmoid,
    "ATan": ATan,
    "PiecewiseQuadratic": Triangle,
    "Rect": Rectangular,
}


def to_spikingjelly(snn: SpikingNetwork) -> nn.Module:
    """A spiking network as a SpikingJelly network, in single-step mode.

    It takes the encoded input of one time step, ``[B, C, H, W]``, and gives the read-out ``[B, K]``. Call it T times
    and average; ``spikingjelly.activation_based.functional.reset_net`` puts it to rest for the next images. Modules
    keep their names, and their weights are copies.

    Args:
        snn: the network; its encoder and its number of time steps stay with the caller.

    Raises:
        InputError: for neurons that SpikingJelly does not have (order leak-then-subtract, initial potentials other
            than half a threshold), and maxima over time, by name; and where the extra ``peers`` is not installed.
    """
    layer = optional("spikingjelly.activation_based.layer", "peers")
    body = copy.deepcopy(snn.body)
    for path, neuron in snn.neurons():
        body.set_submodule(path, _to_node(path, neuron).train(neuron.training))
    for path, module in list(body.named_modules()):
        if isinstance(module, MaxGate):
            raise InputError(f"'{path}' is a maximum over time, which SpikingJelly lacks: use max_pool='average'")
        kind = type(module)
        if kind.__module__.startswith("torch.nn") and kind.__name__ in _STATELESS:
            # What the class adds is the mode alone; a new module would have to repeat every argument.
            module.__class__ = getattr(layer, kind.__name__)
            module.step_mode = "s"
        elif isinstance(module, nn.Dropout | nn.Dropout2d):
            body.set_submodule(path, getattr(layer, kind.__name__)(module.p).train(module.training))
    body.recompile()
    return body


def from_spikingjelly(
    net: nn.Module,
    input_shape: Sequence[int],
    timesteps: int = 4,
    *,
    encoder: Encoder | None = None,
    gradient: Gradient = "rate",
) -> SpikingNetwork:
    """The spiking network of a SpikingJelly network, which itself stays as it is.

    A neuron with ``decay_input=True`` reads ``x / tau``: here it reads ``x`` and its threshold is ``tau`` times as
    high, which gives the same spikes up to rounding. At the end both are run on two random images in double precision,
    so that what was read differently is refused and not returned.

    Args:
        net: whose forward pass is one time step of one batch; ``IFNode`` and ``LIFNode`` are its neurons.
        input_shape: of one image, ``(C, H, W)``.
        timesteps: T.
        encoder: by default ``Direct()``.
        gradient: "rate" or "bptt".

    Raises:
        InputError: for a module without equivalent, by name; a neuron that is called twice a step; a network that
            cannot be traced, or handles time itself; and where the extra ``peers`` is not installed.
    """
    neuron = optional("spikingjelly.activation_based.neuron", "peers")
    functional = optional("spikingjelly.activation_based.functional", "peers")
    plain, original = copy.deepcopy(net), copy.deepcopy(net)
    functional.reset_net(original)
    neurons: dict[str, LIF] = {}
    for path, module in list(plain.named_modules()):
        if isinstance(module, nn.ReLU | nn.ReLU6):
            raise InputError(f"'{path}' is a {type(module).__name__}, which does not spike: give a spiking network")
        if type(module) in (neuron.IFNode, neuron.LIFNode, neuron.HalfThresholdIFNode):
            neurons[path] = _from_node(path, module)
            plain = _placed(plain, path, nn.ReLU())
        else:
            plain = _without_modes(plain, path, module)
    if not neurons:
        raise InputError(f"{type(net).__name__} has no neurons of SpikingJelly: to_spiking makes an ANN spiking")
    snn = to_spiking(plain, input_shape=input_shape, timesteps=timesteps, encoder=encoder, gradient=gradient)
    for path, _ in list(snn.neurons()):
        if path not in neurons:
            raise InputError(f"'{path}' is a function, or a neuron's second call in one time step: make it a module")
        snn.body.set_submodule(path, neurons[path].train(net.training))
    _require_same(snn, original, functional, input_shape)
    return snn


def _to_node(path: str, neuron: LIF) -> nn.Module:
    """The SpikingJelly neuron that fires as a layer does."""
    nodes, surrogates = (optional(f"spikingjelly.activation_based.{name}", "peers") for name in ("neuron", "surrogate"))
    if neuron.rule.order != "reset-then-leak":
        raise InputError(f"'{path}' has the order {neuron.rule.order}; SpikingJelly has reset-then-leak alone")
    if neuron.initial is not None and not _starts_half_way(neuron):
        raise InputError(
            f"'{path}' starts from a potential of its own; SpikingJelly's start at rest or, IF with soft reset, at "
            "half a threshold"
        )
    name = next((name for name, kind in _SURROGATES.items() if isinstance(neuron.rule.surrogate, kind)), None)
    if name is None:
        kind = type(neuron.rule.surrogate).__name__
        raise InputError(f"'{path}' has the surrogate gradient {kind}, which SpikingJelly lacks: {_known()}")
    surrogate: Any = neuron.rule.surrogate
    options = {
        "v_threshold": neuron.threshold.item(),
        "v_reset": None if neuron.rule.reset == "soft" else 0.0,
        "surrogate_function": getattr(surrogates, name)(alpha=surrogate.alpha),
        "detach_reset": neuron.rule.detach_reset,
    }
    leak = neuron.leak.item()
    if neuron.initial is not None:
        del options["v_reset"]
        half: nn.Module = nodes.HalfThresholdIFNode(**options)
        return half
    node: nn.Module = (
        nodes.IFNode(**options) if leak == 1 else nodes.LIFNode(tau=1 / (1 - leak), decay_input=False, **options)
    )
    return node


def _starts_half_way(neuron: LIF) -> bool:
    """Whether a layer of IF neurons with soft reset starts at half of its threshold."""
    if neuron.initial is None or neuron.initial.numel() > 1:
        return False
    return neuron.rule.reset == "soft" and neuron.leak.item() == 1 and neuron.initial.item() * 2 == neuron.threshold


def _from_node(path: str, node: Any) -> LIF:
    """The layer that fires as a SpikingJelly neuron does."""
    if node.v_reset not in (None, 0):
        raise InputError(f"'{path}' resets to {node.v_reset:g}: only 0 (hard) and None (soft) have an equivalent here")
    if not node.surrogate_function.spiking:
        raise InputError(f"'{path}' gives no spikes (its surrogate function has spiking=False)")
    tau, threshold = getattr(node, "tau", None), float(node.v_threshold)
    if tau is not None and node.decay_input:
        threshold *= tau
    leak, reset = 1.0 if tau is None else 1 - 1 / tau, "soft" if node.v_reset is None else "hard"
    surrogate = _surrogate(path, node.surrogate_function)
    try:
        made = LIF(leak, threshold, reset, "reset-then-leak", node.detach_reset, surrogate)  # type: ignore[arg-type]
        made.set_initial(made.threshold / 2 if type(node).__name__ == "HalfThresholdIFNode" else None)
        return made
    except InputError as error:
        raise InputError(f"'{path}': {error}") from error


def _surrogate(path: str, function: Any) -> Surrogate:
    name = type(function).__name__
    if name not in _SURROGATES:
        raise InputError(f"'{path}' has the surrogate gradient {name}, which has no equivalent here: {_known()}")
    surrogate: Surrogate = _SURROGATES[name](float(function.alpha))
    return surrogate


def _known() -> str:
    pairs = ", ".join(f"{kind.__name__} ({name})" for name, kind in _SURROGATES.items())
    return f"both know {pairs}"


def _without_modes(net: nn.Module, path: str, module: nn.Module) -> nn.Module:
    """Put torch's own module in the place of one of SpikingJelly's."""
    kind = type(module)
    if not kind.__module__.startswith("spikingjelly.activation_based."):
        return net
    if kind.__name__ in _STATELESS:
        module.__class__ = getattr(nn, kind.__name__)
    elif kind.__name__ in _CONTAINERS:
        module.__class__ = nn.Sequential
    elif kind.__name__ in _DROPOUTS:
        return _placed(net, path, getattr(nn, kind.__name__)(module.p))
    elif not kind.__module__.endswith(".surrogate"):
        raise InputError(f"'{path}' is a {kind.__name__} of SpikingJelly, which has no equivalent here")
    return net


def _placed(net: nn.Module, path: str, module: nn.Module) -> nn.Module:
    """A network with another module at a path; itself the module where the path is empty."""
    if not path:
        return module
    net.set_submodule(path, module.train(net.training))
    return net


@torch.no_grad()
def _require_same(snn: SpikingNetwork, original: nn.Module, functional: Any, input_shape: Sequence[int]) -> None:
    """Run both in double precision; a network that runs only all steps at once, in its own way.

    Raises:
        InputError: where they do not agree.
    """
    handles_time = InputError(
        "SpikingJelly's network handles time itself: give one whose forward pass is one time step"
    )
    output: Any = next(iter(snn.body.graph.find_nodes(op="output"))).args[0]
    if not isinstance(output, fx.Node) or len(output.meta["shape"]) < 2 or output.meta["shape"][0] != 2:
        raise handles_time  # the two images that were traced are no longer two
    images = torch.randn(2, *input_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours, theirs = (copy.deepcopy(snn).cpu().double().eval(), copy.deepcopy(original).cpu().double().eval())
    ours.encoder = Direct()
    mine = ours.unroll(images)
    takes_all = any(type(module).__name__ in _MULTI_STEP for module in theirs.modules())
    try:
        functional.set_step_mode(theirs, "m" if takes_all else "s")
        sequence = images.expand(snn.timesteps, *images.shape)
        found: Tensor = theirs(sequence) if takes_all else torch.stack([theirs(frame) for frame in sequence])
    except Exception as error:
        raise InputError(f"SpikingJelly's network does not run: {' '.join(str(error).split())}") from error
    if found.shape != mine.shape or not torch.allclose(found, mine):
        raise handles_time
