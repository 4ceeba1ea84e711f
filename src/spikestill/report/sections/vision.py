"""What the networks look at, and what they get wrong: attention maps and mistakes."""

from __future__ import annotations

from collections.abc import Sequence

from spikestill.report.blocks import Block, Gallery, MapRow, Maps, Section, Shot, picture_address
from spikestill.report.evidence import Evidence, Mistake, Sample
from spikestill.report.shown import Shown, plural, share

__all__ = ["vision"]

_LEAD = (
    "An attention map is the mean over a layer’s channels of the squared firing rate, or of the squared activation of "
    "an ANN; each is scaled to its own largest value, from dark to bright."
)


def vision(systems: Sequence[Shown]) -> Section:
    """Attention maps of some samples, and the wrong answers that a network was surest of."""
    blocks: list[Block] = []
    # Of several systems the first one's maps are unfolded: better those of a student with its teacher's beside them.
    for place, system in enumerate(sorted(systems, key=lambda one: (not one.teacher, not one.spikes))):
        prefix = f"{system.name}: " if len(systems) > 1 else ""
        recorded = system.recorded
        if recorded is not None and recorded.attention:
            blocks.append(_maps(recorded, f"{prefix}Attention", system.spikes, folded=place > 0))
        if recorded is not None:
            blocks.append(_mistakes(recorded, f"{prefix}Examples it gets wrong"))
    without = [system.name for system in systems if system.recorded is None]
    missing = f"Not shown of {', '.join(without)}: the run has no analysis.json." if without else ""
    return Section("images", "Images", _LEAD if blocks else "", blocks, missing)


def _maps(recorded: Evidence, title: str, spikes: bool, folded: bool) -> Block:
    own = "student" if spikes else "ANN"
    groups = [(own, len(recorded.attention))]
    columns = [pair.point for pair in recorded.attention]
    taught = all(pair.teacher_maps for pair in recorded.attention)
    if taught:
        groups.append(("teacher", len(recorded.attention)))
        columns += [pair.teacher_point or "" for pair in recorded.attention]
    rows = []
    for index, sample in enumerate(recorded.samples):
        name = recorded.classes[sample.label]
        maps = [(pair.maps[index], f"{own} at {pair.point}: attention on {name}") for pair in recorded.attention]
        if taught:
            maps += [
                (pair.teacher_maps[index], f"teacher at {pair.teacher_point}: attention on {name}")
                for pair in recorded.attention
            ]
        drawn = [(picture_address(picture, as_map=True), text) for picture, text in maps]
        rows.append(MapRow(_shot(sample, recorded.classes), drawn))
    return Maps(title, groups, columns, rows, folded)


def _mistakes(recorded: Evidence, title: str) -> Block:
    count = sum(sum(line) - line[index] for index, line in enumerate(recorded.confusion))
    known = f"{count} of {plural(recorded.images, 'test image')} are wrong. " if recorded.confusion else ""
    if not recorded.mistakes:
        return Gallery(title, [], f"All {plural(recorded.images, 'test image')} are right.")
    note = f"{known}Shown are the {len(recorded.mistakes)} of which it was surest."
    return Gallery(title, [_shot(one, recorded.classes) for one in recorded.mistakes], note)


def _shot(sample: Sample, classes: Sequence[str]) -> Shot:
    label, predicted = classes[sample.label], classes[sample.predicted]
    lines = [label]
    if sample.predicted != sample.label:
        lines = [f"{label} → {predicted}"]
    if isinstance(sample, Mistake):
        lines.append(f"sure to {share(sample.confidence, 0)}")
        if sample.teacher_predicted is not None:
            lines.append(f"teacher: {classes[sample.teacher_predicted]}")
    text = f"Test image of class {label}, taken for {predicted}"
    return Shot(picture_address(sample.image), text, lines, sample.predicted == sample.label)
