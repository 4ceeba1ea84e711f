"""``spikestill convert RUN --method NAME --timesteps T``."""

from __future__ import annotations

from collections.abc import Sequence

from spikestill.cli.training import report
from spikestill.recipes.words import value_of, without
from spikestill.types import InputError

__all__ = ["run"]

_HELP = """usage: spikestill convert RUN [--method NAME] [--timesteps T] [options]

Convert the ANN of a run into a spiking network, without training it, and measure that at every time step up to T. NAME
is one of best (the default: several are tried, and calibration images choose), normalise, threshold-balancing,
balance-locally, shift, calibrate and quantise. The result is a run as any other.

  --conversion.images N     training images to calibrate with (default: 256)
  --conversion.options MAP  the method's own, as in '{percentile: 99.7}'; of all methods by: channel|layer,
                            start: half|rest, max_pool: gate|keep, batch_norm: fold|keep, read_out_from: N
  --encoder.name NAME       direct (the default) or poisson
  --out DIR                 the run folder
  --overwrite               replace the run there

Further options are those of `spikestill distill conversion --help`."""

_OF_THE_ANN = (
    "data",
    "data_dir",
    "image_size",
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
        InputError: for a run that is none of an ANN, wrong options, and whatever the method refuses.
    """
    from spikestill.recipes import AnnRecipe, DistillRecipe, as_mapping, load
    from spikestill.recipes.loading import read_source
    from spikestill.runs import Run
    from spikestill.train import train

    if not words or "-h" in words or "--help" in words:
        print(_HELP)
        return
    folder, rest = words[0], list(words[1:])
    if folder.startswith("-"):
        raise InputError("convert needs a run folder, which comes first")
    source = Run.open(folder)
    if source.kind != "model":
        raise InputError(f"{folder} holds a spiking network already: give the run of an ANN")
    method, overwrite = value_of(rest, "--method"), "--overwrite" in rest
    rest = [word for word in without(rest, "--method") if word != "--overwrite"]
    recipe = as_mapping(load(AnnRecipe, source.folder / "recipe.yaml"))
    fields = read_source(DistillRecipe, "conversion") | {name: recipe[name] for name in _OF_THE_ANN}
    # What is converted sees a recording as the ANN does: the mean of its frames.
    fields |= {"student": recipe["model"], "source": folder, "encoder": {"name": "direct"}}
    if method is not None:
        fields["initialise"] = method
    report(train(load(DistillRecipe, fields, rest), overwrite=overwrite))
