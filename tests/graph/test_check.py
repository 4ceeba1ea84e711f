from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spikestill.graph import check
from spikestill.types import InputError
from tests.graph.networks import SHAPE, network


class Every(nn.Module):
    """Every way to spell a ReLU, a dropout and a maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.once, self.inplace, self.capped = nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6()
        self.drop, self.pool = nn.Dropout(0.1), nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.capped(self.inplace(self.once(self.conv(x))))
        x = functional.relu6(functional.relu(self.conv(x), inplace=True))
        x = torch.relu_(torch.relu(x)).relu().relu_()
        x = functional.dropout(self.drop(x), 0.2, self.training)
        return functional.max_pool2d(self.pool(x), 2)


def test_every_spelling_is_found() -> None:
    report = check(Every(), SHAPE)
    listed = [(finding.name, finding.operation, finding.verdict, finding.remark) for finding in report.activations]
    rewritten = "a function: becomes a module"
    assert listed == [
        ("once", "ReLU", "spiking", ""),
        ("inplace", "ReLU", "spiking", "in-place"),
        ("capped", "ReLU6", "spiking", ""),
        ("(model)", "relu", "rewritten", f"{rewritten}, in-place"),
        ("(model)", "relu6", "rewritten", rewritten),
        ("(model)", "relu", "rewritten", rewritten),
        ("(model)", "relu_", "rewritten", f"{rewritten}, in-place"),
        ("(model)", "relu", "rewritten", rewritten),
        ("(model)", "relu_", "rewritten", f"{rewritten}, in-place"),
    ]
    noted = [finding.operation for finding in report.findings if finding.verdict == "noted"]
    assert noted == ["Dropout", "dropout", "MaxPool2d", "max_pool2d"]
    assert not report.refused
    report.raise_if_refused()


def test_calls_of_one_module_are_counted() -> None:
    report = check(network("residual"), SHAPE)
    assert [finding.name for finding in report.activations] == ["2", "3.relu", "3.relu", "4.relu", "4.relu"]
    assert "call 2 of 2 of one module" in report.activations[2].remark


def test_every_refused_module_has_a_line_and_is_named_in_one_message() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.SiLU(), nn.Sequential(nn.LayerNorm([4, 8, 8])), nn.ReLU(), nn.Softmax(1)
    )
    report = check(model, SHAPE)
    assert [(finding.name, finding.operation) for finding in report.refused] == [
        ("1", "SiLU"),
        ("2.0", "LayerNorm"),
        ("4", "Softmax"),
    ]
    lines = [line for line in str(report).splitlines() if line.startswith("refused")]
    assert len(lines) == 3
    assert all(finding.remark in line for finding, line in zip(report.refused, lines, strict=True))
    with pytest.raises(InputError, match=r"Sequential cannot become spiking: 1 \(SiLU\).*2.0 \(LayerNorm\)") as refusal:
        report.raise_if_refused()
    assert "\n" not in str(refusal.value)


def test_a_model_without_activation_is_refused() -> None:
    report = check(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), SHAPE)
    assert [finding.name for finding in report.refused] == ["(whole model)"]
    assert "no ReLU" in report.refused[0].remark


def test_the_table_ends_with_a_summary() -> None:
    assert str(check(network("dense"), SHAPE)).splitlines()[-1] == (
        "Sequential: 5 activations become neurons (4 after a rewrite), 0 operations refused"
    )


def test_the_model_stays_as_it_is() -> None:
    model = network("residual")
    modules = {name: type(module) for name, module in model.named_modules()}
    check(model, SHAPE)
    assert {name: type(module) for name, module in model.named_modules()} == modules
    assert not any(module._forward_hooks for module in model.modules())
