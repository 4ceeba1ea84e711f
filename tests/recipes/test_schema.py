from __future__ import annotations

from typing import Any

import pytest

from spikestill.recipes import AnnRecipe, Anytime, DistillRecipe, Neuron, Objective, Optimiser, Recipe, Schedule
from spikestill.types import InputError


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (AnnRecipe, {"model": "resnet21"}, "unknown model 'resnet21': did you mean 'resnet20'"),
        (AnnRecipe, {"data": "cifar11"}, "unknown data set 'cifar11': did you mean 'cifar10"),
        (AnnRecipe, {"epochs": 0}, "epochs must be at least 1, not 0"),
        (AnnRecipe, {"batch_size": 0}, "batch_size must be at least 1"),
        (AnnRecipe, {"devices": 0}, "devices must be at least 1"),
        (AnnRecipe, {"accumulate": 0}, "accumulate must be at least 1"),
        (AnnRecipe, {"strategy": "fsdp", "ema": 0.9}, "strategy fsdp takes neither ema nor clip_gradient"),
        (AnnRecipe, {"width": 0.0}, "width must be positive"),
        (AnnRecipe, {"validation": 0}, "validation must be positive"),
        (AnnRecipe, {"limit_train": 0}, "limit_train must be positive"),
        (AnnRecipe, {"image_size": 0}, "image_size must be at least 1"),
        (AnnRecipe, {"clip_gradient": 0.0}, "clip_gradient must be positive"),
        (AnnRecipe, {"ema": 1.0}, "ema must lie in"),
        (AnnRecipe, {"checkpoint_minutes": 0.0}, "checkpoint_minutes must be positive"),
        (AnnRecipe, {"device": "tpu"}, "device must be cpu, cuda or auto"),
        (AnnRecipe, {"levels": 0}, "levels must be at least 1, not 0"),
        (AnnRecipe, {"start": "runs/a", "pretrained": True}, "pretrained weights and those of start: give one"),
        (AnnRecipe, {"label_smoothing": 1.0}, "label_smoothing must lie in"),
        (AnnRecipe, {"optimiser": Optimiser(lr=0.0)}, r"optimiser\.lr must be positive"),
        (AnnRecipe, {"optimiser": Optimiser(momentum=1.0)}, r"optimiser\.momentum must lie in"),
        (AnnRecipe, {"optimiser": Optimiser(weight_decay=-1.0)}, r"optimiser\.weight_decay must not be negative"),
        (AnnRecipe, {"optimiser": Optimiser(name="adam", nesterov=True)}, "nesterov needs sgd"),
        (AnnRecipe, {"epochs": 2, "schedule": Schedule(warmup=2.5)}, r"schedule\.warmup must lie in \[0, epochs = 2\]"),
        (AnnRecipe, {"schedule": Schedule(name="step")}, "milestones and schedule.name = step belong together"),
        (AnnRecipe, {"schedule": Schedule(milestones=(3,))}, "milestones and schedule.name = step belong together"),
        (AnnRecipe, {"schedule": Schedule(factor=0.0)}, r"schedule\.factor"),
        (DistillRecipe, {"timesteps": 0}, "timesteps must be at least 1, not 0"),
        (DistillRecipe, {"neuron": Neuron(leak=0.0)}, r"neuron\.leak must lie in"),
        (DistillRecipe, {"neuron": Neuron(threshold=-1.0)}, r"neuron\.threshold must be positive"),
        (DistillRecipe, {"neuron": Neuron(name="if", learn=("leak",))}, "which an if neuron does not have"),
        (DistillRecipe, {"neuron": Neuron(leak=1.0, learn=("leak",))}, "must then start below 1"),
        (DistillRecipe, {"objectives": ()}, "at least one term"),
        (DistillRecipe, {"objectives": (Objective(name="logit"),)}, "unknown objective 'logit': did you mean 'logits'"),
        (DistillRecipe, {"objectives": (Objective(name="cross-entropy", weight=0.0),)}, "weight of objective"),
        (DistillRecipe, {"objectives": (Objective(name="logits"),)}, "logits need a teacher: give --teacher"),
        (
            DistillRecipe,
            {"teacher": "t", "objectives": (Objective(name="logits", options={"each_step": True}),)},
            "logits: each_step needs gradient: bptt.* to train every step there, set train_timesteps: anytime",
        ),
        (
            DistillRecipe,
            {"objectives": (Objective(name="cross-entropy", options={"each_step": True}),)},
            "cross-entropy: each_step needs gradient: bptt",
        ),
        (DistillRecipe, {"objectives": (Objective(name="own-ensemble"),)}, "own-ensemble needs gradient: bptt"),
        (
            DistillRecipe,
            {"teacher": "t", "objectives": (Objective(name="selective"),), "train_timesteps": "anytime"},
            "selective needs gradient: bptt",
        ),
        (
            DistillRecipe,
            {"teacher": "t", "objectives": (Objective(name="gradient-attention"),), "train_timesteps": "anytime"},
            "gradient-attention needs 2 time steps, and train_timesteps: anytime also draws fewer",
        ),
        (DistillRecipe, {"anytime": Anytime(full=1.5)}, r"anytime\.full must lie in \[0, 1\], not 1.5"),
        (DistillRecipe, {"anytime": Anytime(final=-1.0)}, r"anytime\.final must lie in \[0, 1\], not -1.0"),
        (DistillRecipe, {"anytime": Anytime(full=0.9)}, "anytime is given, but train_timesteps: all always runs T"),
        (DistillRecipe, {"initialise": "teacher-weights"}, "teacher-weights need a teacher"),
        (DistillRecipe, {"teacher": "runs/teacher"}, "no objective and no initialisation uses it"),
    ],
)
def test_what_cannot_be_used_is_refused(kind: type[Recipe], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind(**({"method": "test"} | fields))


def test_all_problems_are_reported_together_in_one_line() -> None:
    with pytest.raises(InputError) as caught:
        DistillRecipe(method="mine", epochs=0, timesteps=0, student="vgg55", objectives=(Objective(name="logits"),))
    message = str(caught.value)
    assert message.startswith("recipe 'mine': ")
    assert "\n" not in message
    for part in ("epochs must", "timesteps must", "unknown model 'vgg55'", "need a teacher"):
        assert part in message


def test_the_default_folder_says_what_was_done() -> None:
    recipe = AnnRecipe(data="parquet:../data/cifar10-jpeg", model="timm:resnet18", seed=3)
    assert recipe.folder == "runs/ann-cifar10-jpeg-timm-resnet18-s3"
    assert AnnRecipe(out="here").folder == "here"


def test_models_from_outside_are_left_to_their_loaders() -> None:
    assert AnnRecipe(model="torchvision:resnet18").network == "torchvision:resnet18"
    with pytest.raises(InputError, match="unknown model 'timmm:resnet18'"):
        AnnRecipe(model="timmm:resnet18")
