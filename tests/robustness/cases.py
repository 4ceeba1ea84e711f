"""The trainings that the kill loop kills: every recipe made small, and what draws, averages and shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from spikestill.recipes.loading import fields_of
from spikestill.recipes.names import presets

__all__ = ["CASES", "SPIKING_TEACHER", "Case"]

_SEEDED_POISSON = {"name": "poisson", "options": {"seed": 3}}
_DRAWING = {"encoder": _SEEDED_POISSON, "ema": 0.9}

_SMALL: dict[str, Any] = {
    "data": "digits",
    "width": 0.25,
    "limit_train": 64,
    "batch_size": 32,
    "validation": 0.1,
    "device": "cpu",
    "image_size": None,
    "augmentation": {"crop": 1, "flip": False},
    "logger": "none",
    "checkpoint_minutes": 1e-9,  # after every step
}
_STAGE: dict[str, Any] = {"epochs": 1, "batch_size": 32, "checkpoint_minutes": 1e-9}


@dataclass(frozen=True)
class Case:
    """A training.

    Attributes:
        name: of the case.
        recipe: the preset that it makes small.
        changes: fields in place of that one's.
        devices: the processes that train together.
        spiking_teacher: whether it learns from a spiking network, which draws its input.
    """

    name: str
    recipe: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    devices: int = 1
    spiking_teacher: bool = False

    def words(self, folder: Path, epochs: int) -> list[str]:
        """The command without ``--out``; the recipe is written into ``folder``, beside which a teacher may lie."""
        fields = _made_small(fields_of(self.recipe), epochs) | dict(self.changes) | {"devices": self.devices}
        if self.spiking_teacher:
            fields["teacher"] = str(folder.parent / "spiking-teacher" / "run")
        file = folder / "recipe.yaml"
        file.write_text(yaml.safe_dump(fields))
        return ["train" if "model" in fields else "distill", str(file)]


def _made_small(fields: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    small = {name: value for name, value in fields.items() if name not in ("events", "image_size")} | _SMALL
    small["epochs"] = epochs if fields.get("epochs") else 0
    if "schedule" in fields:
        small["schedule"] = fields["schedule"] | {"warmup": min(fields["schedule"].get("warmup", 0), 1)}
    if "model" in fields:
        return small | {"model": "vgg5"}
    small |= {"student": "vgg5", "timesteps": 2}
    if fields.get("encoder") == {"name": "events"}:
        del small["encoder"]
    small["objectives"] = [_one_step(term) for term in fields.get("objectives", [{"name": "cross-entropy"}])]
    if "conversion" in fields:
        options = fields["conversion"]["options"]
        small["conversion"] = {"images": 32, "options": options | ({"timesteps": 2} if "timesteps" in options else {})}
    stages = {name: {**stage, **_STAGE} for name, stage in fields.get("stages", {}).items()}
    if {term["name"] for term in small["objectives"]} & {"logits", "blockwise", "activation-attention"}:
        stages["teacher"] = {**_STAGE, "model": "vgg5"}
    return small | {"stages": stages}


def _one_step(term: Mapping[str, Any]) -> dict[str, Any]:
    return {**term, "options": {"window": 1}} if term["name"] == "spikes" else dict(term)


SPIKING_TEACHER = Case("spiking-teacher", "labels-only", {"encoder": _SEEDED_POISSON})

CASES = (
    *(Case(name, name, spiking_teacher=name == "spike-distillation") for name in sorted(presets())),
    Case("average, seeded Poisson", "labels-only", _DRAWING),
    Case("rate gradients, average, seeded Poisson", "rate-bp", _DRAWING),
    Case("spiking teacher, average, seeded Poisson", "spike-distillation", _DRAWING, spiking_teacher=True),
    Case("dropout, average, skipped steps", "ann", {"ema": 0.9, "model_options": {"dropout": 0.2}, "on_nan": "skip"}),
    Case("two processes", "labels-only", _DRAWING, devices=2),
    Case("two processes, a stage", "label-distillation", devices=2),
)
