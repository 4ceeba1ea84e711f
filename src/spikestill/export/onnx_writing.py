"""``to_onnx``: a spiking network, unrolled over its time steps, as one ONNX graph without state.

The graph is put together from the lowered network, node by node: tracing the unrolled steps, as torch's own exporter
does, takes minutes where T is large. Weights are in the file once, whatever T.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, fx, nn

from spikestill.export.extras import optional
from spikestill.export.lowering import lower
from spikestill.export.rewriting import Scale
from spikestill.files import write_atomically
from spikestill.graph import SpikingNetwork, trace
from spikestill.graph.trace import module_of, shape_of
from spikestill.nn import LIF, Direct
from spikestill.progress import tracked
from spikestill.types import InputError

__all__ = ["Predictions", "replay_onnx", "to_onnx"]

_OPSET, _IR_VERSION = 17, 8
"""Old enough for the run times in use: ONNX 1.12 of 2022."""


def to_onnx(
    snn: SpikingNetwork,
    path: str | Path,
    input_shape: Sequence[int] | None = None,
    timesteps: int | None = None,
) -> Path:
    """Write a spiking network, unrolled over T time steps, as an ONNX file; any number of images goes in at once.

    Input ``images``: ``[batch, C, H, W]`` under direct encoding; else the encoded input of all time steps,
    ``[T, batch, C, H, W]``. Outputs: ``logits [batch, K]``, the mean over time, and ``steps [T, batch, K]``.

    Args:
        snn: the network; it is exported as it is in evaluation.
        path: the file.
        input_shape: of one image, ``(C, H, W)``; by default that with which the network was made.
        timesteps: T, if not the network's own.

    Returns:
        Where it lies.

    Raises:
        InputError: for an operation without equivalent, by module; T < 1; an input shape on which the network does not
            run; where the file cannot be written, and where the extra ``export`` is not installed.
    """
    onnx = optional("onnx", "export")
    steps = snn.timesteps if timesteps is None else timesteps
    if steps < 1:
        raise InputError(f"the number of time steps must be at least 1, not {steps}")
    body = copy.deepcopy(snn.body).eval()
    if input_shape is not None:
        body = trace(body, input_shape)
    lowered, is_constant = lower(body, keep_maxima=True).cpu().float(), isinstance(snn.encoder, Direct)
    unrolled = _Unrolled(onnx, lowered, steps, is_constant, snn.read_out_from)
    model = unrolled.model()
    onnx.checker.check_model(model, full_check=True)
    write_atomically(Path(path), model.SerializeToString())
    return Path(path)


@dataclass(frozen=True)
class Predictions:
    """What a file's run says beside the network.

    Attributes:
        differing: the images of which the two name different classes.
        images: how many were shown.
        logits: the largest difference of a logit.
    """

    differing: int
    images: int
    logits: float

    def __str__(self) -> str:
        """The count, and how far the logits are apart."""
        return f"{self.differing} of {self.images} predictions differ (logits by at most {self.logits:.1e})"


def replay_onnx(path: str | Path, snn: SpikingNetwork, images: Tensor) -> Predictions:
    """Run an ONNX file of :func:`to_onnx` by onnxruntime, and the network, on the same images.

    Args:
        path: the file, of the network's own number of time steps.
        snn: the network, in evaluation mode.
        images: ``[B, C, H, W]``, or events ``[T, B, C, H, W]``.

    Raises:
        InputError: for a file that onnxruntime cannot read, a network whose logits are not finite, and where the extra
            ``export`` is not installed.
    """
    import torch

    from spikestill.nn import Events

    runtime = optional("onnxruntime", "export")
    try:
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors have no common base but this
        raise InputError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    with torch.no_grad():
        encoded = snn.encoder(images, snn.timesteps)
        sequence = encoded.expand(snn.timesteps, *encoded.shape[1:])
        bare = SpikingNetwork(snn.body, timesteps=snn.timesteps, encoder=Events()).eval()
        found: list[tuple[Tensor, Tensor]] = []
        for one in tracked(sequence.split(1, dim=1), "replaying", unit="images"):
            given = one[0] if isinstance(snn.encoder, Direct) else one
            by_file = session.run(["logits"], {"images": given.cpu().numpy()})[0]
            found.append((torch.from_numpy(by_file), bare(one).cpu()))
    logits, wanted = (torch.cat(part) for part in zip(*found, strict=True))
    if not wanted.isfinite().all():
        raise InputError("the network's logits are not finite: there is nothing to compare a file with")
    differing = int(((logits.argmax(1) != wanted.argmax(1)) | ~logits.isfinite().all(1)).sum())
    return Predictions(differing, len(wanted), float((logits - wanted).abs().max()))


class _Unrolled:
    """An ONNX graph that grows step by step.

    Args:
        onnx: the package.
        body: a lowered network.
        timesteps: T.
        is_constant: whether every step has the same input; what precedes the first neuron is then computed once.
        read_out_from: the step from which on read-outs are averaged.
    """

    def __init__(
        self, onnx: Any, body: fx.GraphModule, timesteps: int, is_constant: bool, read_out_from: int = 1
    ) -> None:
        self._read_out_from = read_out_from if read_out_from <= timesteps else 1
        self._onnx, self._body, self._timesteps, self._is_constant = onnx, body, timesteps, is_constant
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._still: dict[fx.Node, str] = {}
        self._carries: dict[fx.Node, str] = {}

    def model(self) -> Any:
        """The whole model, all steps in it."""
        readouts = [self._step(time) for time in range(self._timesteps)]
        placeholder, output = (next(iter(self._body.graph.find_nodes(op=op))) for op in ("placeholder", "output"))
        lifted = [self._op("Unsqueeze", [name, self._constant("time_axis", np.array([0]))]) for name in readouts]
        self._nodes.append(self._onnx.helper.make_node("Concat", lifted, ["steps"], axis=0))
        late = self._op("Concat", lifted[self._read_out_from - 1 :], axis=0) if self._read_out_from > 1 else "steps"
        mean = self._onnx.helper.make_node("ReduceMean", [late], ["logits"], axes=[0], keepdims=0)
        self._nodes.append(mean)
        result: Any = output.args[0]
        image, classes = ["batch", *(shape_of(placeholder) or ())], ["batch", *(shape_of(result) or ())]
        given = image if self._is_constant else [self._timesteps, *image]
        floats, info = self._onnx.TensorProto.FLOAT, self._onnx.helper.make_tensor_value_info
        outputs = [info("logits", floats, classes), info("steps", floats, [self._timesteps, *classes])]
        graph = self._onnx.helper.make_graph(
            self._nodes,
            "spikestill",
            [info("images", floats, given)],
            outputs,
            [self._onnx.numpy_helper.from_array(value, name) for name, value in self._constants.items()],
        )
        return self._onnx.helper.make_model(
            graph,
            producer_name="spikestill",
            producer_version=metadata.version("spikestill"),
            opset_imports=[self._onnx.helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
        )

    def _step(self, time: int) -> str:
        """Add one time step; the name of its read-out."""
        values = dict(self._still)
        for node in self._body.graph.nodes:
            if node in values:
                continue
            if node.op == "output":
                return values[node.args[0]]
            if node.op == "placeholder":
                values[node] = "images" if self._is_constant else self._frame(time)
            else:
                values[node] = self._add(node, values, time)
            if self._is_constant and not self._moves(node):
                self._still[node] = values[node]
        raise AssertionError("a graph ends in its output")

    def _moves(self, node: fx.Node) -> bool:
        """Whether a value differs from step to step, under a constant input."""
        return isinstance(module_of(self._body, node), LIF) or any(
            item not in self._still for item in node.all_input_nodes
        )

    def _frame(self, time: int) -> str:
        return self._op("Gather", ["images", self._constant(f"time_{time}", np.array(time))], axis=0)

    def _add(self, node: fx.Node, values: dict[fx.Node, str], time: int) -> str:
        """Add what computes a node at one time step; the name of its value."""
        module: Any = module_of(self._body, node)
        given = [values[item] for item in node.args]  # type: ignore[index]
        if module is None:
            return self._op("Add", given)
        if isinstance(module, LIF):
            return self._spike(node, module, given[0], last=time == self._timesteps - 1)
        name = str(node.target)
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            given += [self._tensor(f"{name}.weight", module.weight)]
            given += [] if module.bias is None else [self._tensor(f"{name}.bias", module.bias)]
        if isinstance(module, nn.Linear):
            return self._op("Gemm", given, transB=1)
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            padding: Any = module.padding
            geometry = {"strides": module.stride, "pads": [*padding, *padding], "dilations": module.dilation}
            return self._op("Conv", given, **geometry)
        if isinstance(module, nn.AvgPool2d | nn.MaxPool2d):
            return self._pool(module, given)
        if isinstance(module, nn.Flatten):
            return self._op("Flatten", given, axis=1)
        assert isinstance(module, Scale)
        return self._op("Mul", [*given, self._tensor(f"{name}.scale", module.scale)])

    def _pool(self, module: Any, given: list[str]) -> str:
        kernel, stride, padding = map(_pair, (module.kernel_size, module.stride, module.padding))
        window = {"kernel_shape": kernel, "strides": stride, "pads": [*padding, *padding]}
        if isinstance(module, nn.AvgPool2d):
            return self._op("AveragePool", given, **window, count_include_pad=1)
        return self._op("MaxPool", given, **window, dilations=_pair(module.dilation), ceil_mode=int(module.ceil_mode))

    def _spike(self, node: fx.Node, neuron: LIF, current: str, *, last: bool) -> str:
        """Charge, fire and, but for the last step, reset and leak: as ``dynamics.NeuronRule`` does."""
        name, rule = str(node.target), neuron.rule
        threshold, leak = (self._tensor(f"{name}.{key}", getattr(neuron, key)) for key in ("threshold", "leak"))
        carry = self._carries.get(node)
        if carry is None and neuron.initial is not None:
            carry = self._tensor(f"{name}.initial", neuron.initial)
        potential = current if carry is None else self._op("Add", [current, carry])
        fires = "GreaterOrEqual" if rule.order == "reset-then-leak" else "Greater"
        fired = self._op(fires, [potential, threshold])
        spikes = self._op("Cast", [fired], to=self._onnx.TensorProto.FLOAT)
        if last:
            return spikes
        if rule.reset == "hard":
            zero = self._constant("zero", np.array(0, np.float32))
            left = self._op("Mul", [leak, self._op("Where", [fired, zero, potential])])
        elif rule.order == "reset-then-leak":
            left = self._op("Mul", [leak, self._op("Sub", [potential, self._op("Mul", [threshold, spikes])])])
        else:
            left = self._op("Sub", [self._op("Mul", [leak, potential]), self._op("Mul", [threshold, spikes])])
        self._carries[node] = left
        return spikes

    def _op(self, kind: str, given: list[str], **attributes: Any) -> str:
        name = f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(kind, given, [name], name=name, **attributes))
        return name

    def _tensor(self, name: str, value: Tensor) -> str:
        return self._constant(name, value.detach().cpu().contiguous().numpy())

    def _constant(self, name: str, value: Any) -> str:
        self._constants.setdefault(name, value)
        return name


def _pair(value: Any) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)
