from __future__ import annotations

import pytest

from spikestill.cli.tables import print_accuracy, print_rows


@pytest.mark.parametrize("terminal", [False, True])
def test_figures_are_never_broken_up(
    terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    name, figures = "a method of several long words", [f"{index}1.00 ± 1.41" for index in range(1, 8)]
    print_rows("title", ("method", *(f"t = {index}" for index in range(1, 7)), "peak memory, MiB"), [(name, *figures)])
    out = capsys.readouterr().out
    assert all(figure in out for figure in figures)
    assert (name in out) == (not terminal)
    assert ("peak memory, MiB" in out) == (not terminal)
    assert "memory," in out


@pytest.mark.parametrize(
    ("last", "shown"),
    [(4, [1, 2, 3, 4]), (6, [1, 2, 3, 4, 5, 6]), (7, [1, 2, 4, 7]), (2500, [128, 256, 512, 1024, 2048])],
)
def test_of_many_steps_the_last_and_powers_of_two_are_shown(
    last: int, shown: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {"accuracy_by_timestep": {str(t): t / 5000 for t in range(1, last + 1)}, "spikes_per_neuron": 1.5}
    print_accuracy("title", figures)
    words = capsys.readouterr().out
    for step in {1, 3, last, *shown}:
        assert (f"t = {step} " in words) == (step in shown or step == last)
    assert "1.500" in words


def test_operations_are_shown_beside_the_ann_s(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {
        "test_accuracy_by_timestep": {"1": 0.5},
        "test_spikes_per_neuron": 0.25,
        "test_synaptic_operations": 1_234_567.8,
        "test_multiply_accumulates": 20_000.0,
        "test_ann_multiply_accumulates": 3_000_000.0,
        "test_energy_nanojoules": 1203.1,
        "test_ann_energy_nanojoules": 13800.0,
        "test_operations_not_counted": ["LIF", "bias"],
    }
    print_accuracy("title", figures, prefix="test_")
    lines = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    assert ["SNN", "1.235", "0.020", "1,203.1"] in lines
    assert ["ANN", "3.000", "13,800.0"] in lines
    assert ["not", "counted:", "LIF,", "bias"] in lines
