from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from spikestill import models
from spikestill.models import fitted_weights, load_weights
from spikestill.types import InputError


def model(classes: int = 5) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 6), nn.Linear(6, classes)
    )


def state(classes: int = 5) -> dict[str, torch.Tensor]:
    return model(classes).state_dict()


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in state().items()}


@pytest.mark.parametrize("ending", ["safetensors", "pt", "pth", "ckpt", "bin"])
def test_every_tensor_is_taken(tmp_path: Path, ending: str) -> None:
    path, wanted = tmp_path / f"weights.{ending}", state()
    save_file(wanted, path) if ending == "safetensors" else torch.save(wanted, path)
    network = model()
    fitted = load_weights(network, path, num_classes=5)
    assert all(torch.equal(value, wanted[name]) for name, value in network.state_dict().items())
    assert (fitted.classifier, fitted.remarks) == (None, ())


NESTED: dict[str, tuple[Any, str]] = {
    "data parallel": (lambda: prefixed("module."), "names without their prefix 'module.'"),
    "compiled, parallel": (
        lambda: prefixed("module._orig_mod."),
        "names without their prefix 'module._orig_mod.'",
    ),
    "a checkpoint": (lambda: {"state_dict": state(), "epoch": 3}, "the entry 'state_dict'"),
    "timm's checkpoint": (
        lambda: {"epoch": 3, "arch": "x", "state_dict": state(), "state_dict_ema": state()},
        "the entry 'state_dict'",
    ),
    "an entry of its own name": (lambda: {"backbone": state(), "step": 3}, "the entry 'backbone'"),
    "Lightning's checkpoint": (
        lambda: {"state_dict": prefixed("model."), "pytorch-lightning_version": "2.5", "epoch": 1, "loops": {}},
        "the entry 'state_dict', names without their prefix 'model.'",
    ),
}


@pytest.mark.parametrize("kind", NESTED)
def test_checkpoints_are_looked_into_and_that_is_said(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    make, remark = NESTED[kind]
    torch.manual_seed(3)
    content = make()
    torch.save(content, tmp_path / "checkpoint.pt")
    torch.manual_seed(3)
    wanted, network = state(), model()
    with caplog.at_level(logging.INFO, "spikestill"):
        load_weights(network, tmp_path / "checkpoint.pt", num_classes=5)
    assert all(torch.equal(value, wanted[name]) for name, value in network.state_dict().items())
    assert caplog.messages == [f"checkpoint.pt: weights are taken from {remark}"]


def test_what_lies_beside_the_network_in_a_checkpoint_is_left_out(tmp_path: Path) -> None:
    others = {f"loss.{index}": torch.zeros(2) for index in range(5)}
    torch.save({"state_dict": prefixed("model.") | others}, tmp_path / "a.ckpt")
    remarks = load_weights(model(), tmp_path / "a.ckpt", num_classes=5).remarks
    assert remarks[1] == "a.ckpt: 'loss.0', 'loss.1', 'loss.2' and 2 more belong to another network and are left out"


def test_a_classifier_of_other_classes_is_replaced_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved, network = state(1000), model(5)
    fresh = network[-1].weight.clone()
    save_file(saved, tmp_path / "a.safetensors")
    with caplog.at_level(logging.INFO, "spikestill"):
        fitted = load_weights(network, tmp_path / "a.safetensors", num_classes=5)
    assert fitted.classifier == "5"
    assert caplog.messages == ["a.safetensors knows 1000 classes, not 5: the classifier '5' is replaced by a new one"]
    assert torch.equal(network[-1].weight, fresh)
    kept = network.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in saved.items() if not name.startswith("5."))


def test_looking_says_nothing_and_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save({"state_dict": state(7)}, tmp_path / "a.pt")
    network = model()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with caplog.at_level(logging.INFO, "spikestill"):
        assert fitted_weights(network, tmp_path / "a.pt", num_classes=5).classifier == "5"
    assert not caplog.messages
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_published_weights_of_googlenet_leave_its_auxiliary_classifiers_out(tmp_path: Path) -> None:
    import torchvision

    whole = torchvision.models.googlenet(aux_logits=True, init_weights=False)
    torch.save(whole.state_dict(), tmp_path / "googlenet.pth")
    ours = models.create("torchvision:googlenet", num_classes=10, init_weights=False)
    fitted = load_weights(ours, tmp_path / "googlenet.pth", num_classes=10)
    assert fitted.classifier == "fc"
    assert fitted.remarks[0] == "googlenet.pth: the auxiliary classifiers (aux1, aux2) are left out"
    assert torch.equal(ours.inception5b.branch1.conv.weight, whole.inception5b.branch1.conv.weight)  # type: ignore[union-attr]


class Harmful:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("nested", [False, True])
def test_a_file_that_wants_to_execute_is_refused_and_does_not(tmp_path: Path, nested: bool) -> None:
    harm = Harmful(tmp_path / "harm")
    torch.save({"state_dict": state(), "more": harm} if nested else harm, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"wants to execute \w+\.mkdir when it is read, which is refused") as caught:
        load_weights(model(), tmp_path / "a.pth", num_classes=5)
    assert not (tmp_path / "harm").exists()
    assert "\n" not in str(caught.value)
    torch.load(tmp_path / "a.pth", weights_only=False)
    assert (tmp_path / "harm").exists()


def test_a_whole_module_is_refused_with_the_way_out(tmp_path: Path) -> None:
    torch.save(model(), tmp_path / "a.pt")
    with pytest.raises(InputError, match="wants to execute torch.nn.modules.* save the weights alone"):
        load_weights(model(), tmp_path / "a.pt", num_classes=5)


def without(name: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state().items() if not key.startswith(name)}


WRONG: dict[str, tuple[Any, str]] = {
    "names are missing": (
        lambda: without("1."),
        "another architecture: it lacks '1.weight', '1.bias', '1.running_mean'",
    ),
    "names are too many": (lambda: state() | {"6.weight": torch.zeros(2)}, "the model has no '6.weight'"),
    "another network": (
        lambda: nn.ModuleDict({"body": nn.Linear(2, 2)}).state_dict(),
        "it lacks '0.weight', '0.bias', '1.weight' and 7 more; the model has no 'body.weight', 'body.bias'",
    ),
    "another size": (
        lambda: state() | {"0.weight": torch.zeros(8, 3, 3, 3)},
        r"of another size: '0.weight' differ \('0.weight' is 8x3x3x3 in the file, 4x3x3x3 in the model\)",
    ),
    "another width before the classifier": (
        lambda: state() | {"5.weight": torch.zeros(5, 7)},
        "'5.weight' is 5x7 in the file, 5x6 in the model",
    ),
    "two networks": (lambda: {"student": state(), "teacher": state()}, r"several sets of weights \(student, teacher\)"),
    "no network": (lambda: {"epoch": 3}, "holds no weights"),
    "a list": (lambda: [1, 2], "holds no weights"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_weights_that_do_not_fit_are_one_line(tmp_path: Path, kind: str) -> None:
    make, message = WRONG[kind]
    torch.save(make(), tmp_path / "a.pt")
    with pytest.raises(InputError, match=message) as caught:
        load_weights(model(), tmp_path / "a.pt", num_classes=5)
    assert "\n" not in str(caught.value)


def test_a_batch_count_may_be_missing(tmp_path: Path) -> None:
    older = {name: value for name, value in state().items() if not name.endswith("num_batches_tracked")}
    save_file(older, tmp_path / "a.safetensors")
    network = model()
    load_weights(network, tmp_path / "a.safetensors", num_classes=5)
    assert torch.equal(network[0].weight, older["0.weight"])


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_a_file_that_is_none_is_one_line(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    with pytest.raises(InputError, match=f"there is no file of weights at .*a.{ending}"):
        load_weights(model(), path, num_classes=5)
    path.write_bytes(b"neither the one nor the other")
    with pytest.raises(InputError, match="cannot read the weights") as caught:
        load_weights(model(), path, num_classes=5)
    assert "\n" not in str(caught.value)
