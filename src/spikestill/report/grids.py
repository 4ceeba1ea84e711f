"""The LaSNN paper's tables: accuracies by student and system."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from spikestill.report.systems import LASNN, Measured
from spikestill.report.table import Table
from spikestill.types import InputError

__all__ = ["depth", "table_1", "table_2", "table_3", "table_4"]

_ACCURACY = "test accuracy in percent, mean ± standard deviation over the seeds"
_CONVERSIONS = ("conversion", "calibration", "QCFS")

Columns = Sequence[tuple[str, Callable[[Measured], bool]]]
"""Each column's name, and which experiments stand in it."""


def table_1(found: Sequence[Measured]) -> Table:
    """Table I: conversions after several numbers of time steps, and LaSNN.

    A conversion is read out at every step, so that one run gives several rows: 1, 2, 5, 10, ..., the last, and where it
    first reaches the accuracy of a LaSNN of the same architecture and data.
    """
    lasnn = [entry for entry in found if entry.system in LASNN]
    rows = []
    for entry in found:
        if entry.system not in (*_CONVERSIONS, *LASNN):
            continue
        same = [other for other in lasnn if _student(other) == _student(entry)]
        steps = {entry.timesteps}
        if entry.system in _CONVERSIONS:
            steps = {*entry.round_steps, *(step for other in same for step in _first_reaching(entry, other))}
        what = entry.label
        if entry.system == "conversion":
            what = what.replace("conversion", f"conversion by {entry.recipe['initialise']}", 1)
        who = (entry.data, what, entry.architecture, entry.setting)
        rows += [(*who, str(step), entry.accuracy_at(step)) for step in sorted(steps)]
    names = ("data", "system", "architecture", "setting", "time steps", "accuracy")
    return Table(_ACCURACY, names, tuple(rows), texts=4)


def table_2(found: Sequence[Measured]) -> Table:
    """Table II: each student's ANN, hybrid training, label distillation and LaSNN."""
    columns = [(name, _is(name)) for name in ("hybrid", "label distillation")]
    return _by_setting(found, [*columns, *_lasnn(found)], with_ann=True)


def table_3(found: Sequence[Measured]) -> Table:
    """Table III: spike distillation and LaSNN."""
    return _by_setting(found, [("spike distillation", _is("spike distillation")), *_lasnn(found)])


def table_4(found: Sequence[Measured]) -> Table:
    """Table IV: each student's ANN, what it is without LaSNN, and LaSNN under each teacher.

    Without LaSNN means, in the paper's section IV-C1, the converted network, and without its layer-wise part hybrid
    training: both have a column.
    """
    columns = [(name, _is(name)) for name in ("conversion", "hybrid")]
    return _by_setting(found, [*columns, *_lasnn(found, by_teacher=True)], with_ann=True)


def depth(found: Sequence[Measured]) -> Table:
    """Fig. 3: calibration and LaSNN over the depth of the student, a column for each setting of each."""
    columns = []
    for name, holds in [("calibration", _is("calibration")), *_lasnn(found)]:
        settings = {entry.setting: entry.timesteps for entry in found if holds(entry)}
        columns += [
            (f"{name} ({setting})", _both(holds, setting)) for setting in sorted(settings, key=settings.__getitem__)
        ]
    shown = [entry for entry in found if any(holds(entry) for _, holds in columns)]
    rows = []
    for layers, *student in sorted({(entry.depth or 0, *_student(entry)) for entry in shown}):
        same = [entry for entry in shown if _student(entry) == tuple(student)]
        cells = [_one([entry for entry in same if holds(entry)], name) for name, holds in columns]
        rows.append((*student, str(layers or ""), *(entry.accuracy if entry else "" for entry in cells)))
    return Table(_ACCURACY, ("data", "student", "depth", *(name for name, _ in columns)), tuple(rows), texts=2)


def _by_setting(found: Sequence[Measured], columns: Columns, *, with_ann: bool = False) -> Table:
    """A row for each student and setting of which a trained spiking network stands in a column.

    What was only converted stands in the rows of its architecture and input, as accurate as it is after their time
    steps; where there are none, in a row of its own.
    """
    rows = []
    for head in _heads([entry for entry in found if any(holds(entry) for _, holds in columns)]):
        here = [entry for entry in found if _belongs(entry, head)]
        placed = [_one([entry for entry in here if holds(entry)], name) for name, holds in columns]
        students = [entry for entry in placed if entry is not None]
        same = [entry for entry in found if _student(entry) == _student(head)]
        figures = [entry.accuracy_at(head.timesteps) if entry is not None else "" for entry in placed]
        rows.append((*_student(head), head.setting, *([_ann(students, same)] if with_ann else []), *figures))
    names = (*(("ANN",) if with_ann else ()), *(name for name, _ in columns))
    return Table(_ACCURACY, ("data", "student", "setting", *names), tuple(rows), texts=3)


def _heads(placed: Sequence[Measured]) -> list[Measured]:
    """An experiment for each row: the first of each student and setting."""
    heads = {(*_student(entry), entry.setting): entry for entry in reversed(placed) if entry.trained}
    heads = dict(reversed(heads.items()))
    trained = {(*_student(entry), entry.encoder) for entry in heads.values()}
    for entry in placed:
        if not entry.trained and (*_student(entry), entry.encoder) not in trained:
            heads.setdefault((*_student(entry), entry.setting), entry)
    return list(heads.values())


def _belongs(entry: Measured, head: Measured) -> bool:
    """Whether an experiment stands in the row of another."""
    if _student(entry) != _student(head) or entry.encoder != head.encoder:
        return False
    return entry.setting == head.setting if entry.trained else head.timesteps in entry.steps


def _ann(students: Sequence[Measured], same: Sequence[Measured]) -> str:
    """The ANN that the row's students were converted from, over as many seeds as one of them had.

    Where that is not there, the only ANN of their architecture among the runs.
    """
    sources = [source for entry in students if (source := entry.others("source")) is not None]
    named = [entry for entry in same if entry.system == "ANN"]
    ann = max(sources, key=lambda source: len(source.runs)) if sources else _one(named, "ANN")
    return ann.accuracy if ann is not None else ""


def _one(entries: Sequence[Measured], column: str) -> Measured | None:
    """The only experiment of a cell; None where it is empty.

    Raises:
        InputError: when there are several.
    """
    if len(entries) > 1:
        one, two = (entry.runs[0] for entry in entries[:2])
        same = ("out", "seed")
        differing = [name for name in one.recipe if name not in same and one.recipe[name] != two.recipe.get(name)]
        raise InputError(
            f"two experiments belong to one cell ({entries[0].architecture}, {column}): {one.folder} and {two.folder} "
            f"differ in {', '.join(differing)}: name only one of them"
        )
    return entries[0] if entries else None


def _is(system: str) -> Callable[[Measured], bool]:
    return lambda entry: entry.system == system


def _both(holds: Callable[[Measured], bool], setting: str) -> Callable[[Measured], bool]:
    return lambda entry: holds(entry) and entry.setting == setting


def _lasnn(found: Sequence[Measured], *, by_teacher: bool = False) -> list[tuple[str, Callable[[Measured], bool]]]:
    """The columns of LaSNN, one for each of its kinds and teachers.

    Args:
        found: all experiments.
        by_teacher: name the columns by their teachers, where there is one kind; otherwise teachers are named where
            there are several.
    """
    entries = [entry for entry in found if entry.system in LASNN]
    if not entries:
        return [] if by_teacher else [(LASNN[0], _is(LASNN[0]))]
    kinds = dict.fromkeys((entry.system, _teacher(entry)) for entry in entries)
    several_systems, several_teachers = (len(set(names)) > 1 for names in zip(*kinds, strict=True))

    def name(system: str, teacher: str) -> str:
        if not (by_teacher or several_teachers):
            return system
        return teacher if by_teacher and not several_systems else f"{system}, {teacher}"

    def holds(system: str, teacher: str) -> Callable[[Measured], bool]:
        return lambda entry: entry.system == system and _teacher(entry) == teacher

    return [(name(*kind), holds(*kind)) for kind in kinds]


def _student(entry: Measured) -> tuple[str, str]:
    return entry.data, entry.architecture


def _teacher(entry: Measured) -> str:
    """A teacher's architecture and accuracy, as a column's name; its name alone where its run is not there."""
    teacher = entry.others("teacher")
    return str(entry.recipe.get("teacher")) if teacher is None else f"{teacher.architecture} ({teacher.accuracy})"


def _first_reaching(conversion: Measured, other: Measured) -> list[int]:
    """The first time step at which a conversion is as accurate as another network in the end, if there is one."""
    level = other.mean_accuracy_at(other.timesteps)
    return [step for step in conversion.steps if conversion.mean_accuracy_at(step) >= level][:1]
