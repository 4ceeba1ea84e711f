from __future__ import annotations

import torch
from torch import nn

from spikestill import models


def test_densenet121_with_a_small_stem_is_the_published_network():
    import torchvision

    torch.manual_seed(0)
    theirs = torchvision.models.densenet121(num_classes=6).eval()
    theirs.features.conv0 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.features.pool0 = nn.Identity()
    ours = models.create("densenet121", num_classes=6).eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, 32, 32)

    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)


def test_the_parameter_count_and_depth():
    model = models.create("densenet121")

    # torchvision's documentation: 7 978 856 with 1000 classes and a 7x7 stem.
    expected = 7_978_856 - 64 * 3 * (49 - 9) - 990 * 1025
    assert sum(parameter.numel() for parameter in model.parameters()) == expected
    assert sum(isinstance(module, (nn.Conv2d, nn.Linear)) for module in model.modules()) == 121


def test_the_maps_and_channels_of_every_stage():
    model = models.create("densenet121", in_channels=1, image_size=8, width=0.5).eval()
    maps, seen = torch.zeros(1, 1, 8, 8), []
    for stage in ("stem", "layer1", "layer2", "layer3", "layer4"):
        maps = model.get_submodule(stage)(maps)
        seen.append(tuple(maps.shape[1:]))

    assert seen == [(32, 8, 8), (128, 8, 8), (256, 4, 4), (512, 2, 2), (512, 1, 1)]


def test_max_pooling_stands_in_the_transitions_and_stops_at_one_pixel():
    def poolings(size: int) -> list[str]:
        model = models.create("densenet121", image_size=size, width=0.25, pooling="max")
        return [path for path, module in model.named_modules() if isinstance(module, nn.MaxPool2d)]

    assert poolings(8) == ["layer2.pool", "layer3.pool", "layer4.pool"]
    assert poolings(2) == ["layer2.pool"]


def test_the_stem_has_no_activation_without_batch_norm():
    model = models.create("densenet121", width=0.25, batch_norm=False)

    assert [name for name, _ in model.get_submodule("stem").named_children()] == ["conv"]
