"""From settings to the finished folder of ``auto``, held meanwhile so that two commands do not share it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import cast

from torch import nn

from spikestill.graph import SpikingNetwork
from spikestill.recipes import DistillRecipe, NetworkDescription, load
from spikestill.report import write_page
from spikestill.runs import HeldError, Run
from spikestill.train.auto.ann import GivenAnn, find_ann
from spikestill.train.auto.context import Context
from spikestill.train.auto.course import Course
from spikestill.train.auto.ledger import Ledger
from spikestill.train.auto.page import section
from spikestill.train.auto.result import AutoResult
from spikestill.train.auto.settings import Settings
from spikestill.train.auto.table import rows_from
from spikestill.train.loaders import resolve_device
from spikestill.train.processes import was_launched
from spikestill.types import InputError

__all__ = ["carry_out"]


def carry_out(settings: Settings, module: nn.Module | None, folder: Path | None, *, overwrite: bool) -> AutoResult:
    """Do what is not done yet, and read the outcome.

    Args:
        settings: what is asked for.
        module: the ANN, where no name stands for it.
        folder: where to; None for one under runs/.
        overwrite: begin anew.

    Raises:
        InputError: for whatever cannot be used.
    """
    folder = folder or Path("runs") / _folder_name(settings)
    if was_launched():
        raise InputError("auto runs in one process: start it without torchrun")
    with Run(folder).held(wait=False) as free:
        if not free:
            raise HeldError(f"another process works on {folder}: wait for it, or choose another --out")
        ledger = Ledger(folder, settings, overwrite=overwrite)
        if ledger.find("done") is None:
            device = resolve_device(settings.device)
            context = Context(settings, find_ann(settings, module), device, folder)
            Course(context, ledger).run()
        return _outcome(settings, module, ledger)


def _folder_name(settings: Settings) -> str:
    name = Path(settings.ann.replace(":", "-")).stem or "ann"
    data = [] if settings.data is None else [Path(settings.data.replace(":", "-")).name]
    return "-".join(["auto", name, *data, f"t{settings.timesteps}"])


def _outcome(settings: Settings, module: nn.Module | None, ledger: Ledger) -> AutoResult:
    done, test = ledger.find("done"), ledger.find("test")
    run = Run(ledger.folder / test["run"])
    result = AutoResult(
        ledger.folder,
        run,
        done["method"],
        settings.timesteps,
        tuple(rows_from(done["table"])),
        test["ann_energy_nanojoules"],
        test,
        tuple(ledger.reasons),
        done["recommendation"],
        ledger.folder / "report.html",
        functools.partial(_load, run, module, settings),
    )
    if not result.page.exists():
        ann = [settings.ann] if module is None and Run(Path(settings.ann)).finished else []
        write_page([*ann, str(run.folder)], result.page, [section(result, ledger.find("ann")["accuracy"])])
    return result


def _load(run: Run, module: nn.Module | None, settings: Settings) -> SpikingNetwork:
    """The network of a run, on the CPU; of a module in hand it is made as in the training, for its structure."""
    if module is None:
        return cast(SpikingNetwork, NetworkDescription.of_run(run).load(run))
    recipe = load(DistillRecipe, run.folder / "recipe.yaml")
    ann: GivenAnn = find_ann(settings, module)
    return Context(settings, ann, resolve_device("cpu"), run.folder.parent).trained(recipe, run)
