"""``spikestill auto MODEL_OR_FILE_OR_RUN --data D``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from spikestill.cli.signature import call
from spikestill.cli.tables import print_rows
from spikestill.text import visible
from spikestill.types import InputError

if TYPE_CHECKING:
    from spikestill.train.auto.result import AutoResult

__all__ = ["auto_command", "print_result", "run"]


def run(words: Sequence[str]) -> None:
    """Parse and carry out."""
    following = [*words[1:], ""]
    is_switch = [
        word == "--overwrite" and after not in ("true", "false") for word, after in zip(words, following, strict=True)
    ]
    call(
        auto_command, "auto", ["--overwrite=true" if one else word for word, one in zip(words, is_switch, strict=True)]
    )


def auto_command(
    ann: str,
    data: str | None = None,
    timesteps: int = 4,
    tolerance: float = 1.0,
    budget: str = "30m",
    student: str | None = None,
    model: str | None = None,
    weights: str | None = None,
    width: float = 1.0,
    model_options: dict[str, Any] | None = None,
    mean: str | None = None,
    std: str | None = None,
    data_dir: str | None = None,
    image_size: int | None = None,
    anytime: bool = True,
    images: int = 2000,
    epochs: int = 100,
    batch_size: int = 128,
    precision: Literal["auto", "float32", "bf16"] = "auto",
    seed: int = 0,
    device: str = "auto",
    out: str | None = None,
    overwrite: bool = False,
) -> None:
    """Find the best spiking network of a trained ANN within a budget, and the table that says why.

    It converts the ANN in every way, and trains if none is good enough. The choice is made on validation images; the
    test set is read once. The same command goes on after an interruption.

    Args:
        ann: a run folder, a file of weights (with --model), or a model's name (with --weights).
        data: a data set's name; by default that of the ANN's run.
        timesteps: T, the steps an image is shown.
        tolerance: how many percentage points below the ANN are good enough.
        budget: time for everything, such as 90s, 30m, 2h or 1h30m; a number alone means minutes.
        student: the student's architecture, for an ANN that cannot become spiking itself.
        model: the architecture of a file of weights.
        weights: of a model's name: a file, or pretrained.
        width: factor on the channels of a built-in model.
        model_options: further options of the model, as in '{pooling: max}'.
        mean: channel means that the ANN's pixels were normalised with, as in 0.5,0.5,0.5; by default the data's.
        std: channel standard deviations, likewise.
        data_dir: where named data sets lie.
        image_size: bring the images to this height and width.
        anytime: train a student that is good after every time step, and not only after T.
        images: the most validation images that anything is measured on.
        epochs: the most epochs of the training.
        batch_size: of the training.
        precision: float32, bf16, or auto for what measures faster.
        seed: of all that is drawn.
        device: cpu, cuda or auto.
        out: the folder of auto.json, table.csv, report.html and the runs; by default runs/auto-...
        overwrite: begin anew where an earlier one lies.

    Raises:
        InputError: for whatever cannot be used, and an ANN that is near chance on these data.
    """
    from spikestill.train import auto

    result = auto(
        ann,
        data=data,
        timesteps=timesteps,
        tolerance=tolerance,
        budget=budget,
        out=out,
        overwrite=overwrite,
        student=student,
        model=model,
        weights=weights,
        width=width,
        model_options=model_options or {},
        mean=_numbers(mean, "--mean"),
        std=_numbers(std, "--std"),
        data_dir=data_dir,
        image_size=image_size,
        anytime=anytime,
        images=images,
        epochs=epochs,
        batch_size=batch_size,
        precision=precision,
        seed=seed,
        device=device,
    )
    print_result(result)


def print_result(result: AutoResult) -> None:
    """Print the table, the recommendation, and where everything lies."""
    from spikestill.train.auto.result import HEADER

    title = (
        f"validation images: T = {result.timesteps}, and the Pareto front of accuracy and energy (all rows: table.csv)"
    )
    print_rows(title, HEADER, result.cells(result.shown))
    for reason in result.reasons:
        print(visible(f"- {reason}"))
    print(visible(result.recommendation, lines=True))
    print(visible(f"report: {result.page}"))


def _numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{option} must be numbers separated by commas, one a channel, not '{text}'") from error
