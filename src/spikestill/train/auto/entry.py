"""``auto`` as a function; Lightning is loaded when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikestill.types import InputError

if TYPE_CHECKING:
    from torch import nn

    from spikestill.train.auto.result import AutoResult

__all__ = ["auto"]


def auto(
    ann: nn.Module | str | Path,
    *,
    data: str | None = None,
    timesteps: int = 4,
    tolerance: float = 1.0,
    budget: str | float = "30m",
    out: str | Path | None = None,
    overwrite: bool = False,
    trust_code: bool = False,
    **options: Any,
) -> AutoResult:
    """Find the best spiking network of a trained ANN: convert it in every way, train if that is not good enough.

    What is chosen is chosen on validation images; the test set is read once, at the end. The same call goes on where an
    earlier one was stopped.

    Args:
        ann: a run folder, a file of weights (with ``model``), a model's name (with ``weights``), or a trained module.
        data: a data set's name; None for that of the ANN's run.
        timesteps: T, the steps an image is shown.
        tolerance: how many percentage points below the ANN are good enough.
        budget: time for everything, such as 90s, 30m or 2h; a number alone means minutes.
        out: the folder of auto.json, table.csv, report.html and the runs; by default one under runs/.
        overwrite: begin anew where an earlier one lies.
        trust_code: import and call a ``python:`` function that a run names; one among the arguments needs no consent.
        **options: further fields of ``Settings``: model, weights, width, model_options, student, mean, std, data_dir,
            image_size, anytime, images, epochs, batch_size, precision, seed, device.

    Returns:
        The chosen student, the table, and one sentence; printed, a short table.

    Raises:
        InputError: for whatever cannot be used, and an ANN that is near chance on these data.
    """
    from torch import nn

    from spikestill import trust
    from spikestill.train.auto.carrying_out import carry_out
    from spikestill.train.auto.settings import Settings, parse_budget
    from spikestill.types import unknown_name

    known = set(Settings.__dataclass_fields__)
    for option in options:
        if option not in known:
            raise unknown_name("option of auto", option, known)
    module = ann if isinstance(ann, nn.Module) else None
    if module is None and not isinstance(ann, str | Path):
        raise InputError(f"auto takes a trained module, or the name of one, not {type(ann).__name__}")
    name = f"custom:{type(ann).__name__}" if module is not None else str(ann)
    given: dict[str, Any] = {
        "data": data,
        "timesteps": timesteps,
        "tolerance": tolerance,
        "budget": parse_budget(budget),
    }
    settings = Settings(ann=name, **given, **options)
    with trust.consent(trust.code_names([{"model": name}, options]), trust_code=trust_code):
        return carry_out(settings, module, None if out is None else Path(out), overwrite=overwrite)
