"""Do all contestants compute the same network? Spikes, logits and gradients, in float32, on a few images.

Spikes, logits and gradients are compared with BatchNorm in evaluation mode, on a copy of the network whose numbers are
so short that nothing is rounded (``networks.exact``): not one spike may differ from spikestill's, of the same order of
reset. Gradients are compared with a twin's: through time with through time, by rates with by rates.

With BatchNorm on the statistics of the batch nothing is exact: rounding moves a few potentials across the threshold,
each such spike disturbs the layers behind it, and in a large untrained network the gradients part ways. The tests
compare them there on a network so small that no spike differs. snnTorch's gradients have no twin: its BatchNorm sees
one time step at once, so in training its network is another one, of the same cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import networks
from benchmarks.contestants import INFERENCE, TRAINING, Contestant, LeakThenSubtract
from benchmarks.setting import Setting

__all__ = ["check", "similarity"]

_MOST_STEPS = 8
_LOGITS_ALLOWED = 1e-4
_SIMILARITY_ASKED = 0.9999


def check(task: str, names: Sequence[str], ann: nn.Module, setting: Setting, images: int = 4) -> dict[str, Any]:
    """Every contestant's differences, by name.

    Args:
        task: "training" or "inference".
        names: of the contestants.
        ann: the network.
        setting: the comparison's; T is cut to 8, beyond which float32 would round.
        images: how many.

    Returns:
        Of each: ``same``, the verdict; ``order``, the neurons' rule; ``differing`` and ``compared``, spikes by layer;
        ``logits``, the greatest difference relative to the greatest logit; ``twin``; ``gradient``, the cosine of the
        angle to the twin's. What cannot be compared is None.
    """
    timesteps = min(setting.timesteps, _MOST_STEPS)
    setting = replace(setting, batch=images, precision="float32", timesteps=timesteps)
    batch = setting.data()
    batch = ((batch[0] * 8).round() / 8, batch[1])
    exact = networks.exact(ann)
    kinds = TRAINING if task == "training" else INFERENCE
    references = {
        "reset-then-leak": TRAINING["spikestill-bptt"](exact, setting, training=False),
        "leak-then-subtract": LeakThenSubtract(exact, setting, training=False),
        "": TRAINING["ann"](exact, setting, training=False),
    }
    expected = {order: (one.spikes(batch[0]), one.infer(batch[0])) for order, one in references.items()}
    results = {}
    for name in names:
        spikes, logits = expected[kinds[name].order]
        contestant = _eager(kinds[name], exact, setting, training=False)
        results[name] = _compared(contestant, batch[0], spikes, logits)
        if task == "training" and kinds[name].twin:
            twin = kinds[name].twin
            results[name] |= {"twin": twin, "gradient": similarity(name, twin, exact, setting, batch, frozen=True)}
        results[name]["same"] = _verdict(results[name])
    return results


def similarity(
    name: str, twin: str, ann: nn.Module, setting: Setting, batch: tuple[Tensor, Tensor], *, frozen: bool
) -> float:
    """The cosine between two contestants' gradients in one training step.

    Args:
        name: of one contestant.
        twin: of the other.
        ann: the network.
        setting: of both.
        batch: images and labels.
        frozen: with BatchNorm in evaluation mode.
    """
    one, other = (_gradient(TRAINING[each], ann, setting, batch, frozen=frozen) for each in (name, twin))
    return torch.cosine_similarity(one, other, dim=0).item()


def _compared(contestant: Contestant, images: Tensor, spikes: Sequence[Tensor], logits: Tensor) -> dict[str, Any]:
    own, own_logits = contestant.spikes(images), contestant.infer(images)
    return {
        "order": contestant.order,
        "differing": [int((a.bool() != b.bool()).sum()) for a, b in zip(own, spikes, strict=True)],
        "compared": [a.numel() for a in own],
        "logits": float((own_logits - logits).abs().max() / logits.abs().max().clamp(min=1e-12)),
        "twin": None,
        "gradient": None,
    }


def _verdict(result: Mapping[str, Any]) -> bool:
    similar = result["gradient"] is None or result["gradient"] >= _SIMILARITY_ASKED
    return bool(sum(result["differing"]) == 0 and result["logits"] <= _LOGITS_ALLOWED and similar)


def _eager(kind: type[Contestant], ann: nn.Module, setting: Setting, *, training: bool) -> Contestant:
    contestant = kind(ann, setting, training=training)
    contestant.eager()
    return contestant


def _gradient(
    kind: type[Contestant], ann: nn.Module, setting: Setting, batch: tuple[Tensor, Tensor], *, frozen: bool
) -> Tensor:
    """All gradients of one training step; ``frozen``: with BatchNorm in evaluation mode."""
    contestant = _eager(kind, ann, setting, training=True)
    for module in contestant.net.modules():
        if frozen and isinstance(module, nn.BatchNorm2d):
            module.eval()
    contestant.step(*batch)
    gradients = [weight.grad for weight in contestant.net.parameters()]
    return torch.cat([gradient.double().flatten() for gradient in gradients if gradient is not None])
