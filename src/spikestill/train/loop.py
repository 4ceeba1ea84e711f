"""From a checked recipe to a finished run."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import nn

from spikestill import runs
from spikestill.data import Batches, DataSet
from spikestill.graph import SpikingNetwork
from spikestill.recipes import AnnRecipe, DistillRecipe, NetworkDescription, Recipe, as_mapping
from spikestill.runs import HeldError, Run
from spikestill.train.callbacks import (
    AtomicCheckpoints,
    Journal,
    Progress,
    last_checkpoint_file,
)
from spikestill.train.conversion import trainable_ann
from spikestill.train.conversion_gap import what_costs
from spikestill.train.learner import AnnLearner, Learner
from spikestill.train.live import Live, live_logger, refuse_missing
from spikestill.train.loaders import load_data, make_batches, normalised_as, place, resolve_device
from spikestill.train.measuring import TEST_SEED, evidence_of, examine
from spikestill.train.memory import saying_what_to_lower
from spikestill.train.origins import Meter, recorded
from spikestill.train.overlap import check_folder
from spikestill.train.processes import ALONE, Processes, together
from spikestill.train.provenance import Provenance, recipe_changes, relocated
from spikestill.train.remarks import remarks_kept
from spikestill.train.stopping import StoppedError
from spikestill.train.strategies import refuse_strategy, shared_training
from spikestill.types import InputError

__all__ = ["execute"]

_log = logging.getLogger("spikestill")


def execute(
    recipe: Recipe,
    *,
    resume: bool = False,
    overwrite: bool = False,
    network: SpikingNetwork | None = None,
    teacher: nn.Module | None = None,
    data: DataSet | None = None,
    wait: bool = False,
    read_test: bool = True,
) -> Run:
    """Train as ``recipe`` says and write the run, together with the processes that were started with this one.

    Everything that can be refused is refused before anything is written into the run folder, which is held meanwhile.

    Args:
        recipe: what to do.
        resume: continue an unfinished run from its last checkpoint; a finished one is returned as it is.
        overwrite: replace an earlier run.
        network: train this student in place of the one that the recipe names.
        teacher: learn from this ANN in place of the one that the recipe names.
        data: the recipe's data set, where it is loaded already.
        wait: for another process that trains the same run; it is refused otherwise.
        read_test: false stops before the test set is read; ``resume`` then finishes the run.

    Returns:
        The finished run.

    Raises:
        InputError: for whatever in recipe, data, teacher or folder cannot be used, and when the loss is not finite.
    """
    processes = together(recipe.device)
    recipe = relocated(recipe)
    with processes.agreed():
        check_folder(recipe)
    with _held(Run(Path(recipe.folder)), processes, wait):
        return _execute(recipe, processes, resume, overwrite, network, teacher, data, read_test)


@contextlib.contextmanager
def _held(run: Run, processes: Processes, wait: bool) -> Iterator[None]:
    """Keep other commands off the run; of several processes the first one does."""
    with contextlib.ExitStack() as stack:
        with processes.agreed():
            free = not processes.is_first or stack.enter_context(run.held(wait=False))
            if not free and not wait:
                raise HeldError(
                    f"{run.folder} is being trained by another process: wait for it, or choose another --out"
                )
            if not free:
                _log.info(f"{run.folder} is being trained by another process: waiting for it")
                stack.enter_context(run.held(wait=True))
        yield


def _execute(
    recipe: Recipe,
    processes: Processes,
    resume: bool,
    overwrite: bool,
    network: SpikingNetwork | None,
    teacher: nn.Module | None,
    data: DataSet | None,
    read_test: bool,
) -> Run:
    with processes.agreed():
        run = Run.refuse_used(recipe.folder, resume=resume, overwrite=overwrite)
        if resume and (run.folder / "recipe.yaml").exists():
            _refuse_other_recipe(run, recipe)
            if run.finished:
                return run
        device = resolve_device(recipe.device, processes)
        refuse_strategy(recipe, processes, device)
        refuse_missing(recipe)
    data = load_data(recipe, processes) if data is None else normalised_as(recipe, data)
    with processes.agreed():
        description = NetworkDescription.of(recipe, data)
        torch.manual_seed(recipe.seed)
        train_batches = make_batches(recipe, data, description, "train", device, processes)
        validation_batches = make_batches(recipe, data, description, "validation", device, processes)
        meter = Meter(data, description, validation_batches, device, processes)
        with remarks_kept() as remarks:
            learner = _learner(
                recipe,
                data,
                description,
                network,
                teacher,
                device,
                train_batches,
                processes,
                meter if read_test else None,
            )
        learner.draw_apart()
    origins = meter.measured()
    with processes.agreed():
        if processes.is_first:
            if overwrite:
                run.clear()
            run.write_yaml("recipe.yaml", as_mapping(recipe))
            run.write_json("environment.json", runs.environment() | ({"remarks": remarks} if remarks else {}))
        provenance = Provenance.of(recipe, data)
    journal = Journal(run, recipe.checkpoint_minutes, device, provenance, data.unreadable, processes)
    _fit(recipe, run, learner, journal, train_batches, validation_batches, device, resume)
    if not read_test:
        return run
    remarks = [remark for one in origins for remark in one.remarks]
    if isinstance(recipe, DistillRecipe) and processes.count == 1:
        remarks += what_costs(recipe, data, description, learner.kept, origins, journal.best_accuracy, device)
    found = {"origins": recorded(origins, journal.best_accuracy), "remarks": remarks}
    _finish(recipe, run, data, description, learner, journal, device, teacher, found)
    return run


def _refuse_other_recipe(run: Run, recipe: Recipe) -> None:
    if other := recipe_changes(recipe, run):
        raise InputError(f"cannot resume {run.folder}: it was started with other values of {', '.join(other)}")


def _learner(
    recipe: Recipe,
    data: DataSet,
    description: NetworkDescription,
    network: SpikingNetwork | None,
    teacher: nn.Module | None,
    device: torch.device,
    batches: Batches,
    processes: Processes = ALONE,
    meter: Meter | None = None,
) -> Learner:
    """The network, on its device and in its memory layout, with all that trains it."""
    if isinstance(recipe, AnnRecipe):
        ann = trainable_ann(recipe, data, description, device)
        learner: Learner = AnnLearner(
            place(ann, device, recipe.channels_last), recipe, batches=batches, processes=processes
        )
    else:
        from spikestill.train.guidance import guided_learner

        assert isinstance(recipe, DistillRecipe)
        learner = guided_learner(recipe, data, description, network, teacher, device, batches, processes, meter)
    return learner.train()


def _fit(
    recipe: Recipe,
    run: Run,
    learner: Learner,
    journal: Journal,
    train_batches: Batches,
    validation_batches: Batches,
    device: torch.device,
    resume: bool,
) -> None:
    if recipe.epochs == 0:
        journal.keep_untrained(learner, _validation_accuracy(recipe, learner, validation_batches, device))
        return
    label = f"{recipe.method} {recipe.network} seed {recipe.seed}"
    checkpoint = last_checkpoint_file(run)
    # FSDP leaves a network in flat pieces: a copy takes its weights in the end.
    whole = copy.deepcopy(learner.network).cpu() if recipe.strategy == "fsdp" else None
    with _quiet():
        trainer = lightning.Trainer(
            max_epochs=recipe.epochs,
            accumulate_grad_batches=recipe.accumulate,
            gradient_clip_val=recipe.clip_gradient,
            callbacks=[journal, Progress(journal, label), Live(journal, recipe)],
            **shared_training(recipe, learner.processes, device, AtomicCheckpoints()),
            default_root_dir=run.folder,
            logger=live_logger(recipe, run.folder) or False,
            log_every_n_steps=1,  # of what Lightning logs by itself, which is nothing
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        try:
            with saying_what_to_lower(recipe):
                trainer.fit(
                    learner,
                    train_batches,
                    validation_batches,
                    ckpt_path=checkpoint if resume and checkpoint.exists() else None,
                    weights_only=True,
                )
        except StoppedError as stop:
            raise stop.interrupted from None
        except SystemExit as end:
            # Lightning ends the whole process on Ctrl-C; that is the caller's to decide.
            if isinstance(end.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from end
            raise
    if whole is not None:
        learner.network = whole


def _validation_accuracy(recipe: Recipe, learner: Learner, batches: Batches, device: torch.device) -> float:
    examined = examine(
        learner.kept.eval(),
        batches,
        precision=recipe.precision,
        device=device,
        processes=learner.processes,
        title="measuring on the validation images",
    )
    return float(examined.figures["accuracy"])


def _finish(
    recipe: Recipe,
    run: Run,
    data: DataSet,
    description: NetworkDescription,
    learner: Learner,
    journal: Journal,
    device: torch.device,
    teacher: nn.Module | None,
    found: dict[str, Any],
) -> None:
    """Keep the weights that validation chose, read the test set once, and write the analysis and the result."""
    seconds, peak = journal.seconds, journal.peak_memory  # before the test has its part in them
    network = learner.kept.to(device)
    processes = learner.processes
    with processes.agreed():
        network.load_state_dict(journal.best_weights())
    network.eval()
    kind = "model" if description.spiking is None else "student"
    if isinstance(network, SpikingNetwork):
        description = dataclasses.replace(description, conversion=network.body.meta.get("converted"))
    with processes.agreed():
        if processes.is_first:
            told = {"epoch": journal.best_epoch, "validation_accuracy": journal.best_accuracy}
            run.write_network(kind, network.state_dict(), description.as_json(), told)
        test = make_batches(recipe, data, description, "test", device, processes)
    started = time.monotonic()
    examined = examine(
        network,
        test,
        precision=recipe.precision,
        device=device,
        processes=processes,
        title="measuring on the test images",
    )
    measured = dict(examined.figures)
    seconds_of_test = time.monotonic() - started
    for complaints in processes.gathered(dict(data.unreadable.complaints)):  # each met those of its own share
        data.unreadable.complaints.update(complaints)
    with processes.agreed():
        if processes.is_first:
            evidence_of(recipe, data, description, network, examined, device, teacher).write(run)
            data.unreadable.summarise()
    result = {
        "method": recipe.method,
        "network": recipe.network,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "data": data.name,
        "data_fingerprint": data.fingerprint,
        "data_notes": list(data.notes),
        "unreadable_files_skipped": len(data.unreadable),
        "images": {"train": len(data.train), "validation": len(data.validation), "test": len(data.test)},
        "epochs": recipe.epochs,
        "seed": recipe.seed,
        "selected_by": "validation accuracy",
        "best_epoch": journal.best_epoch,
        "validation_accuracy": journal.best_accuracy,
        **{name: values for name, values in found.items() if values},
        "weights_fingerprint": run.fingerprint,
        # Of several processes each draws for its images: one that measures again draws otherwise.
        **({"test_seed": TEST_SEED} if processes.count == 1 else {}),
        "steps_skipped": learner.skipped_steps,
        "test_set_read": "once, after training, with the weights that validation chose",
        "test_accuracy": measured.pop("accuracy"),
        **{f"test_{name}": figure for name, figure in measured.items()},
        "training_seconds": round(seconds, 1),
        **({"training_peak_memory_mib": round(peak, 1)} if recipe.epochs else {}),
        "test_seconds": round(seconds_of_test, 1),
        **({"processes": processes.count} if processes.count > 1 else {}),
    }
    with processes.agreed():
        if processes.is_first:
            run.write_json("result.json", result)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's advice about data-loader workers and its banners to itself; our lines say what matters."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels: list[Any] = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
        # Its successor is unknown to older releases of torch.
        warnings.filterwarnings("ignore", message=".*`broadcast_buffers` is deprecated.*")
        # Which parameters an objective leaves without a gradient is not known beforehand.
        warnings.filterwarnings("ignore", message=".*find_unused_parameters=True was specified.*")
        # An objective's frozen part of the teacher is meant to be in evaluation mode.
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
        # Lightning's own use of a torch class that newer versions deprecate.
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
