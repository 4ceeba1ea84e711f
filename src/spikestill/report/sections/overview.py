"""What the page says first: student against teacher, time steps, energy; and the table of several systems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spikestill.report.blocks import Figures, Section
from spikestill.report.shown import Shown, plural, share

__all__ = ["Headline", "headline", "overview"]


@dataclass(frozen=True)
class Headline:
    """The head of the page.

    Attributes:
        title: of the page.
        summary: in a sentence or two.
        figures: the numbers that matter: what each is, the number, and what it says.
    """

    title: str
    summary: str
    figures: Sequence[tuple[str, str, str]]


def headline(systems: Sequence[Shown]) -> Headline:
    """The head for one system, or for several."""
    data = systems[0].measured.data
    if len(systems) > 1:
        *names, last = dict.fromkeys(system.name for system in systems)
        listed = f"{', '.join(names)} and {last}" if names else last
        students = [one for one in systems if one.spikes]
        best = max(students, key=_accuracy, default=systems[0])
        equals = [one.name for one in students if one is not best and not best.is_apart(_accuracy(one))]
        summary = f"{listed[0].upper()}{listed[1:]}, side by side. {_sentence(best, several=True, equals=equals)}"
        anns = [one for one in systems if not one.spikes]
        return Headline(
            f"{len(systems)} systems on {data}", summary, _figures(best, anns[0] if len(anns) == 1 else None)
        )
    system = systems[0]
    title = f"{system.name}: {system.measured.architecture} on {data}"
    return Headline(title, _sentence(system), _figures(system))


def overview(systems: Sequence[Shown]) -> Section | None:
    """The table over several systems."""
    if len(systems) < 2:
        return None
    header = [
        "system",
        "network",
        "seeds",
        "T",
        "accuracy",
        "95 % interval",
        "teacher or ANN",
        "spikes a neuron",
        "SynOps, M",
        "energy",
        "minutes",
    ]
    rows = [_row(system) for system in systems]
    note = (
        "Accuracy on the test images, mean ± standard deviation over seeds. The interval is Wilson's, of the number of "
        "test images: systems whose difference lies within chance are not ranked. SynOps: accumulates an image, in "
        "millions. "
        "Energy: an estimate, as a share of the same network's as an ANN. Minutes are those of the training."
    )
    kept = [column for column, cells in enumerate(zip(*rows, strict=True)) if any(cells)]
    header, rows = [header[column] for column in kept], [[row[column] for column in kept] for row in rows]
    table = Figures("All systems", header, rows, [system.colour for system in systems])
    return Section("systems", "Side by side", note, [table])


def _accuracy(system: Shown) -> float:
    return system.figure("test_accuracy") or 0.0


def _sentence(system: Shown, several: bool = False, equals: Sequence[str] = ()) -> str:
    accuracy, teacher, energy = system.figure("test_accuracy"), system.teacher, system.energy_share
    if accuracy is None:
        return "Its result holds no test accuracy."
    if not system.spikes:
        return f"An ANN that puts {share(accuracy)} of the test images into their class."
    steps = plural(system.timesteps, "time step")
    who = f"The best student, {system.name}, reaches" if several else f"A spiking network of {steps} reaches"
    if equals:
        who = f"Of the students {system.name} reaches the most,"
    text = f"{who} {share(accuracy)} {'after ' + steps if several else 'test accuracy'}"
    if teacher is not None:
        who = "its teacher" if system.origin == "teacher" else "the ANN that it was converted from"
        text += f"; {who} reaches {share(teacher[1])}"
    if equals and system.tested is not None:
        images = plural(system.tested[1], "test image")
        text += f". On {images} that is no difference from {', '.join(equals)} (95\N{NO-BREAK SPACE}% intervals)"
    if energy is not None:
        text += f". Its layers take an estimated {share(energy, 0)} of the energy that they would take as an ANN"
    return f"{text}."


def _figures(system: Shown, ann: Shown | None = None) -> list[tuple[str, str, str]]:
    found = []
    accuracy, spread = system.figure("test_accuracy"), system.spread("test_accuracy")
    if accuracy is not None:
        seeds = plural(len(system.seeds), "seed")
        said = f"± {share(spread)} over {seeds}" if spread is not None else f"test accuracy, seed {system.seeds[0]}"
        said += f"; 95\N{NO-BREAK SPACE}% interval {system.interval}" if system.interval else ""
        found.append(("student" if system.spikes else "ANN", share(accuracy), said))
    beside = ann.figure("test_accuracy") if ann is not None else None
    level = system.teacher[1] if system.teacher is not None else beside
    if level is not None and accuracy is not None and system.spikes:
        said = _gap(100 * (accuracy - level))
        said += "" if system.is_apart(level) else ", which is no difference on so many images"
        found.append((system.origin if system.teacher else "ANN", share(level), said))
    if system.spikes:
        spikes = system.figure("test_spikes_per_neuron")
        fired = f"{spikes:.2f} spikes a neuron" if spikes is not None else "an image is shown"
        found.append(("time steps", str(system.timesteps), fired))
    if system.energy_share is not None:
        energy = system.figure("test_energy_nanojoules") or 0.0
        found.append(("energy", share(system.energy_share, 0), f"of the ANN's: {energy:,.0f} nJ an image (estimate)"))
    return found


def _gap(points: float) -> str:
    if abs(points) < 0.05:
        return "the student reaches the same"
    return f"the student is {abs(points):.1f} points {'below' if points < 0 else 'above'}"


def _row(system: Shown) -> list[str]:
    run = system.measured
    spikes = run.figure(lambda result: result["test_spikes_per_neuron"], 1, 2)
    operations = run.figure(lambda result: result["test_synaptic_operations"], 1e-6, 2)
    teacher, energy = system.teacher, system.energy_share
    return [
        system.name,
        run.architecture,
        ", ".join(map(str, system.seeds)),
        str(system.timesteps) if system.spikes else "",
        run.accuracy,
        system.interval,
        f"{100 * teacher[1]:.2f}" if teacher is not None else "",
        spikes,
        operations,
        share(energy, 0) if energy is not None else "",
        run.figure(lambda result: result["training_seconds"], 1 / 60, 1),
    ]
