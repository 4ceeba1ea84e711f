from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from spikestill import models
from spikestill.types import InputError


def theirs(small: bool, channels: int = 3) -> nn.Module:
    """torchvision's ResNet-18, or what people make of it for small images."""
    network = models.create("torchvision:resnet18", num_classes=10, in_channels=channels)
    if small:
        network.conv1 = nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
        network.maxpool = nn.Identity()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network.eval()


@pytest.mark.parametrize("small", [True, False])
def test_weights_under_torchvisions_names_compute_the_same(
    small: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network, path = theirs(small), str(tmp_path / "a.pt")
    torch.save({"state_dict": {f"module.{name}": value for name, value in network.state_dict().items()}}, path)
    with caplog.at_level(logging.INFO, "spikestill"):
        options = models.options_of_file("resnet18", path)
        ours = models.create("resnet18", num_classes=10, image_size=32, **options)
        models.load_weights(ours, path, num_classes=10)
    assert options == ({} if small else {"stem": "imagenet", "pooling": "max"})
    assert "a.pt: the names are those of torchvision's residual networks, and are taken as ours" in caplog.messages
    said = "a.pt begins with a kernel of 7 pixels: resnet18 is built with {'stem': 'imagenet', 'pooling': 'max'}"
    assert (said in caplog.messages) == (not small)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours.eval()(images), network(images))


def test_grey_images_go_to_a_network_of_three_channels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network, path = theirs(small=True), str(tmp_path / "a.pt")
    torch.save(network.state_dict(), path)
    ours = models.create("resnet18", num_classes=10, in_channels=1, image_size=32)
    with caplog.at_level(logging.INFO, "spikestill"):
        models.load_weights(ours, path, num_classes=10)
    assert caplog.messages[-1] == (
        "a.pt takes images of 3 channels, the data have 1: its first kernels are summed over the channels, as if each "
        "image were given to it three times"
    )
    grey = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(ours.eval()(grey), network(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


def test_networks_of_other_blocks_and_colours_for_grey_are_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "a.pt")
    torch.save(theirs(small=True, channels=1).state_dict(), path)
    with pytest.raises(InputError, match=r"are of another size: 'stem.conv.weight' differ"):
        models.load_weights(models.create("resnet18", in_channels=3), path, num_classes=10)
    torch.save(models.create("torchvision:resnet50").state_dict(), path)
    with pytest.raises(InputError, match="are of another architecture"):
        models.load_weights(models.create("resnet34"), path, num_classes=10)
    assert models.options_of_file("vgg5", path) == {}
    ours = models.create("resnet18", stem="imagenet")
    torch.save(ours.state_dict(), path)
    assert models.options_of_file("resnet18", path) == {"stem": "imagenet"}
