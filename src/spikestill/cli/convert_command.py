"""``spikestill convert RUN | FILE | MODEL --timesteps T``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spikestill.cli.training import report
from spikestill.recipes.words import spelled, value_of, without
from spikestill.types import InputError

__all__ = ["run"]

_HELP = """usage: spikestill convert RUN [options]
       spikestill convert FILE --model MODEL --data NAME [options]
       spikestill convert MODEL --data NAME [options]

Convert a trained ANN into a spiking network, without training it, and measure that at every time step up to T. The ANN
is that of a run; a file of weights (safetensors, or .pt/.pth/.ckpt with a state_dict); or a model that comes with its
weights: timm:NAME and torchvision:NAME with the published ones, python:PACKAGE.MODULE:FUNCTION with those that the
function gives it. The result is a run as any other.

  --model MODEL             of a file: its architecture, named as for `spikestill check`
  --data NAME               the data; of a run, in place of its own
  --image_size N            side to which images are brought
  --mean A,B,C --std A,B,C  how the ANN's pixels were normalised, one number a channel, if not as the data's are
  --timesteps T             for how long an image is shown
  --method NAME             best (the default: several are tried, and calibration images choose), normalise, shift,
                            balance-locally, threshold-balancing, calibrate or quantise
  --conversion.images N     training images to calibrate with (default: 256)
  --conversion.options MAP  the method's own, as in '{percentile: 99.7}'; of all methods by: channel|layer,
                            start: half|rest, max_pool: gate|keep, batch_norm: fold|keep, read_out_from: N
  --max_pool average        average in place of maximum pooling
  --encoder.name NAME       direct (the default) or poisson
  --out DIR                 the run folder
  --overwrite               replace the run there

Further options are those of `spikestill distill conversion --help`."""

_OF_THE_ANN = (
    "data",
    "data_dir",
    "image_size",
    "mean",
    "std",
    "skip_corrupt",
    "events",
    "limit_train",
    "validation",
    "split_seed",
    "width",
    "model_options",
    "channels_last",
)
"""What the spiking network shares with the ANN's recipe."""


def run(words: Sequence[str]) -> None:
    """Convert and measure.

    Raises:
        InputError: for what is no trained ANN, a file or model without what it needs, wrong options, and whatever the
            method refuses.
    """
    from spikestill.recipes import DistillRecipe, load
    from spikestill.recipes.loading import read_source
    from spikestill.train import train

    if not words or "-h" in words or "--help" in words:
        print(_HELP)
        return
    ann, rest = words[0], [spelled(word) for word in words[1:]]
    if ann.startswith("-"):
        raise InputError("convert needs a run folder, a file of weights or a model, which comes first")
    overwrite = "--overwrite" in rest
    rest = [word for word in rest if word != "--overwrite"]
    model, method = value_of(rest, "--model") or value_of(rest, "--student"), value_of(rest, "--method")
    for option in ("--model", "--student", "--method"):
        rest = without(rest, option)
    # What is converted sees a recording as the ANN does: the mean of its frames.
    fields = read_source(DistillRecipe, "conversion") | {"encoder": {"name": "direct"}} | _of_ann(ann, model, rest)
    if method is not None:
        fields["initialise"] = method
    report(train(load(DistillRecipe, fields, rest), overwrite=overwrite))


def _of_ann(ann: str, model: str | None, words: Sequence[str]) -> dict[str, Any]:
    """The fields of the student's recipe that follow from the ANN.

    Raises:
        InputError: for what is no trained ANN, and for a file or a model without its architecture or data.
    """
    from spikestill import models
    from spikestill.train.teachers import PUBLISHED, names_model

    if models.is_weights_file(ann):
        if not Path(ann).is_file():
            raise InputError(f"there is no file of weights at {ann}")
        if model is None:
            raise InputError(
                f"{ann} holds weights alone: name their architecture with --model, as in --model resnet18 or "
                "--model python:PACKAGE.MODULE:FUNCTION"
            )
        _require_data(ann, words)
        return {"student": model, "source": ann, "model_options": models.options_of_file(model, ann)}
    if not names_model(ann):
        return _of_run(ann, model)
    if model is not None:
        raise InputError(f"{ann} is a model: --model is for a file of weights")
    _require_data(ann, words)
    if ann in models.names() and value_of(words, "--source") is None:
        raise InputError(
            f"model '{ann}' has no published weights: name a file of them, as in spikestill convert FILE --model {ann}"
        )
    return {"student": ann, "source": ann if ann.startswith("python:") else PUBLISHED}


def _of_run(folder: str, model: str | None) -> dict[str, Any]:
    from spikestill.recipes import AnnRecipe, as_mapping, load
    from spikestill.runs import Run

    if not Path(folder).is_dir():
        raise InputError(
            f"'{folder}' is no run folder, no file of weights (.safetensors, .pt, .pth, .ckpt or .bin) and no model "
            "(timm:NAME, torchvision:NAME or python:PACKAGE.MODULE:FUNCTION)"
        )
    source = Run.open(folder)
    if source.kind != "model":
        raise InputError(f"{folder} holds a spiking network already: give the run of an ANN")
    if model is not None:
        raise InputError(f"{folder} is a run, which knows its model: --model is for a file of weights")
    recipe = as_mapping(load(AnnRecipe, source.folder / "recipe.yaml"))
    return {name: recipe[name] for name in _OF_THE_ANN} | {"student": recipe["model"], "source": folder}


def _require_data(ann: str, words: Sequence[str]) -> None:
    if value_of(words, "--data") is None:
        raise InputError(f"{ann} does not say on which data: name them with --data (see `spikestill list datasets`)")
