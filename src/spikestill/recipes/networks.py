"""What rebuilds a network without its recipe: the content of ``model.json`` and ``student.json``."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from spikestill.data import DataSet
from spikestill.recipes.distillation import DistillRecipe
from spikestill.recipes.parts import Encoder, Neuron, Surrogate
from spikestill.recipes.schema import AnnRecipe, Recipe
from spikestill.runs import Run
from spikestill.tensors import require_finite
from spikestill.types import InputError, unknown_name
from spikestill.values import record_of

if TYPE_CHECKING:
    from spikestill.graph import SpikingNetwork
    from spikestill.nn import LIF
    from spikestill.nn import Encoder as EncoderModule

__all__ = ["NetworkDescription", "Spiking", "build_encoder", "build_neuron", "describe_spiking"]


@dataclass(frozen=True, kw_only=True)
class Spiking:
    """What makes a spiking network of an ANN.

    Attributes:
        neuron: what takes the place of every activation.
        encoder: how an image becomes a sequence.
        timesteps: T.
        gradient: rate or bptt.
        recompute: save memory for a second forward pass.
        max_pool: keep, gate or average.
    """

    neuron: Neuron
    encoder: Encoder
    timesteps: int
    gradient: Literal["rate", "bptt"]
    max_pool: Literal["keep", "gate", "average"]
    recompute: bool = False


@dataclass(frozen=True, kw_only=True)
class NetworkDescription:
    """Everything about a network but its weights.

    Attributes:
        model: the architecture's name; ``custom:CLASS`` for a module of the user's own, which cannot be rebuilt.
        width: factor on its channels.
        options: its further options.
        num_classes: K.
        input_shape: ``(C, H, W)``.
        mean: channel means that its inputs were normalised with, on the [0, 1] scale.
        std: channel standard deviations, likewise.
        class_names: one name a class, in label order.
        levels: of its quantised activations, those of an ANN for QCFS; None where they are not quantised.
        spiking: what makes it spiking; None for an ANN.
        frames: how many frames the recordings of an event camera are cut into; None for images.
        conversion: what a conversion has changed in its graph (see ``convert.restore``); None for none.
    """

    model: str
    num_classes: int
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    width: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)
    levels: int | None = None
    spiking: Spiking | None = None
    frames: int | None = None
    conversion: dict[str, Any] | None = None

    @classmethod
    def of(cls, recipe: Recipe, data: DataSet) -> NetworkDescription:
        """The network that ``recipe`` trains on ``data``."""
        spiking = None
        mean, std = recipe.mean or data.mean, recipe.std or data.std
        if isinstance(recipe, DistillRecipe):
            spiking = Spiking(
                neuron=recipe.neuron,
                encoder=recipe.encoder,
                timesteps=recipe.timesteps,
                gradient=recipe.gradient,
                max_pool=recipe.max_pool,
                recompute=recipe.recompute,
            )
        if recipe.pixels == "signed":
            mean = std = (0.5,) * len(mean)
        return cls(
            model=recipe.network,
            width=recipe.width,
            options=recipe.model_options,
            num_classes=data.num_classes,
            input_shape=data.input_shape,
            mean=mean,
            std=std,
            class_names=data.class_names,
            levels=recipe.levels if isinstance(recipe, AnnRecipe) else None,
            spiking=spiking,
            frames=data.frames,
        )

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> NetworkDescription:
        """The inverse of :meth:`as_json`.

        Raises:
            InputError: when fields are missing or not ours.
        """
        try:
            return record_of(cls, fields)
        except TypeError as error:
            raise InputError(f"the description of the network is damaged: {error}") from error

    @classmethod
    def of_run(cls, run: Run) -> NetworkDescription:
        """The description of a run's network.

        Raises:
            InputError: when the run has none or it is damaged.
        """
        return cls.from_json(run.read_json(f"{run.kind}.json"))

    @property
    def takes_frames(self) -> bool:
        """Whether the network sees a recording frame by frame; any other sees images, or the mean of the frames."""
        return self.spiking is not None and self.spiking.encoder.name == "events"

    def as_json(self) -> dict[str, Any]:
        """As plain mappings and lists."""
        return dataclasses.asdict(self)

    def build_ann(self, *, pretrained: bool = False) -> nn.Module:
        """The ANN, or what the spiking network is made of, with fresh (or published) weights.

        Raises:
            InputError: when the architecture is unknown, is code without consent (see ``spikestill.trust``), refuses
                its options or does not fit the input.
        """
        from spikestill import models

        if self.model.startswith("custom:"):
            name = self.model.removeprefix("custom:")
            raise InputError(f"the network is a module of your own ({name}): build it and load the run's safetensors")
        known = {
            "num_classes": self.num_classes,
            "in_channels": self.input_shape[0],
            "image_size": self.input_shape[1],
            "width": self.width,
            "pretrained": pretrained,
            "trust_code": False,  # the name may come from a file
        }
        if twice := self.options.keys() & {"name", *known}:
            raise InputError(
                f"model_options cannot set {', '.join(sorted(twice))}: fields of the recipe or the data do"
            )
        return models.create(self.model, **known, **self.options)  # type: ignore[arg-type]

    def make_spiking(self, ann: nn.Module) -> SpikingNetwork:
        """A spiking network out of (a copy of) ``ann``, as described.

        Raises:
            InputError: when a layer of it cannot become spiking.
        """
        from spikestill import graph

        assert self.spiking is not None
        return graph.to_spiking(
            ann,
            neuron=build_neuron(self.spiking.neuron),
            timesteps=self.spiking.timesteps,
            encoder=build_encoder(self.spiking.encoder),
            gradient=self.spiking.gradient,
            max_pool=self.spiking.max_pool,
            recompute=self.spiking.recompute,
            input_shape=self.input_shape,
        )

    def build(self) -> nn.Module:
        """The network with fresh weights: a SpikingNetwork, or the ANN.

        Raises:
            InputError: as :meth:`build_ann` and :meth:`make_spiking`.
        """
        ann = self.build_ann()
        if self.levels is not None:
            from spikestill.convert import quantised_structure

            return quantised_structure(ann, self.input_shape, levels=self.levels)
        if self.spiking is None:
            return ann
        network = self.make_spiking(ann)
        if self.conversion is not None:
            from spikestill.convert import restore

            restore(network, self.conversion)
        return network

    def load(self, run: Run) -> nn.Module:
        """The network with the weights of ``run``, in evaluation mode.

        Raises:
            InputError: when the weights are missing, damaged, not finite, or of another network.
        """
        weights = run.read_weights()
        require_finite(weights, f"the network in {run.folder}")
        with torch.random.fork_rng(devices=[]):
            network = self.build()
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise InputError(f"the weights in {run.folder} do not fit {self.model}: {reason}") from error
        return network.eval()


def build_neuron(neuron: Neuron) -> LIF:
    """The neuron module that ``neuron`` describes.

    Raises:
        InputError: for parameters it refuses.
    """
    from spikestill import nn as spiking

    shared = {
        "threshold": neuron.threshold,
        "reset": neuron.reset,
        "order": neuron.order,
        "detach_reset": neuron.detach_reset,
        "surrogate": build_surrogate(neuron.surrogate),
        "learn": neuron.learn,
    }
    return spiking.IF(**shared) if neuron.name == "if" else spiking.LIF(leak=neuron.leak, **shared)


def build_surrogate(surrogate: Surrogate) -> Any:
    """The surrogate gradient that ``surrogate`` describes.

    Raises:
        InputError: for parameters it refuses.
    """
    from spikestill import dynamics

    kinds = {
        "sigmoid": dynamics.Sigmoid,
        "linear": dynamics.Linear,
        "atan": dynamics.ATan,
        "triangle": dynamics.Triangle,
        "rectangular": dynamics.Rectangular,
    }
    return _with_options(f"surrogate {surrogate.name}", kinds[surrogate.name], surrogate.options)


def build_encoder(encoder: Encoder) -> EncoderModule:
    """The encoder that ``encoder`` describes.

    Raises:
        InputError: for options it refuses.
    """
    from spikestill import nn as spiking

    kinds = {"direct": spiking.Direct, "poisson": spiking.Poisson, "events": spiking.Events}
    return _with_options(f"encoder {encoder.name}", kinds[encoder.name], encoder.options)


def describe_spiking(network: SpikingNetwork) -> dict[str, Any]:
    """The recipe's fields that ``network`` answers itself: neuron (its first one), encoder, time steps and gradient.

    Single layers may have thresholds and leaks of their own: those are among the weights.
    """
    from spikestill import nn as spiking

    described: dict[str, Any] = {"timesteps": network.timesteps, "gradient": network.gradient}
    encoder = network.encoder
    described["encoder"] = {"name": type(encoder).__name__.lower()}
    if isinstance(encoder, spiking.Poisson):
        described["encoder"]["options"] = {"scale": encoder.scale, "signed": encoder.signed, "seed": encoder.seed}
    for _, neuron in network.neurons():
        surrogate = neuron.rule.surrogate
        described["neuron"] = {
            "name": "if" if isinstance(neuron, spiking.IF) else "lif",
            "leak": neuron.leak.item(),
            "threshold": neuron.threshold.item(),
            "reset": neuron.rule.reset,
            "order": neuron.rule.order,
            "detach_reset": neuron.rule.detach_reset,
            "learn": list(neuron.learn),
            "surrogate": {"name": type(surrogate).__name__.lower(), "options": dataclasses.asdict(surrogate)},
        }
        break
    return described


def _with_options(what: str, kind: Any, options: Mapping[str, Any]) -> Any:
    known = inspect.signature(kind).parameters.keys() - {"args", "kwargs"}
    if options and not known:
        raise InputError(f"{what} takes no options")
    for name in options:
        if name not in known:
            raise unknown_name(f"option of {what}", name, known)
    try:
        return kind(**options)
    except TypeError as error:
        raise InputError(f"{what}: {error}") from error
