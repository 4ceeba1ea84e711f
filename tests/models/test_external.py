from __future__ import annotations

import importlib
import sys

import pytest
import torch
from torch import fx, nn

from spikestill import models, trust
from spikestill.types import InputError


def first_convolution(model: nn.Module) -> nn.Conv2d:
    return next(module for module in model.modules() if isinstance(module, nn.Conv2d))


@pytest.mark.parametrize(
    "name", ["timm:resnet18", "timm:resnet18.a1_in1k", "torchvision:resnet18", "torchvision:vgg11_bn"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_classes_and_channels_reach_the_library(name, channels):
    torch.manual_seed(0)
    model = models.create(name, num_classes=7, in_channels=channels).eval()

    assert first_convolution(model).in_channels == channels
    assert model(torch.randn(2, channels, 32, 32)).shape == (2, 7)


def test_options_reach_the_library():
    ours = models.create("timm:resnet18", drop_rate=0.25)
    theirs = models.create("torchvision:resnet18", zero_init_residual=True)

    assert ours.drop_rate == 0.25
    assert theirs.layer1[0].bn2.weight.abs().max() == 0


@pytest.mark.parametrize("name", ["torchvision:googlenet", "torchvision:inception_v3"])
def test_auxiliary_classifiers_are_left_out(name):
    model = models.create(name, num_classes=5, init_weights=False).train()

    assert not model.aux_logits
    assert isinstance(fx.symbolic_trace(model), fx.GraphModule)
    assert model(torch.randn(2, 3, 96, 96)).shape == (2, 5)


def test_googlenet_warns_of_nothing_and_is_initialised():
    model = models.create("torchvision:googlenet", num_classes=5)

    # Its own initialisation, a normal of standard deviation 0.01; torch's default for this layer has 0.048.
    assert 0.009 < first_convolution(model).weight.std().item() < 0.011


@pytest.fixture
def published(monkeypatch):
    """Weights such as would be downloaded: of a fresh model with 1000 classes."""
    import torchvision

    weights = {}
    for name, entry in (("resnet18", "ResNet18"), ("squeezenet1_0", "SqueezeNet1_0"), ("inception_v3", "Inception_V3")):
        torch.manual_seed(5)
        options = {"init_weights": False} if name == "inception_v3" else {}
        state = torchvision.models.get_model(name, **options).state_dict()
        weights[name] = state
        enumeration = getattr(torchvision.models, f"{entry}_Weights")
        monkeypatch.setattr(enumeration, "get_state_dict", lambda self, *args, state=state, **kwargs: state)
    return weights


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_0", "inception_v3"])
def test_pretrained_weights_get_a_classifier_of_the_asked_size(published, name):
    model = models.create(f"torchvision:{name}", num_classes=4, pretrained=True).eval()

    state = model.state_dict()
    kept = [key for key, value in published[name].items() if key in state and state[key].shape == value.shape]
    assert len(state) - len(kept) == 2
    assert all(torch.equal(state[key], published[name][key]) for key in kept)
    assert model(torch.randn(2, 3, 96, 96)).shape == (2, 4)
    # In training an auxiliary classifier would make a tuple of the output.
    assert model.train()(torch.randn(2, 3, 96, 96)).shape == (2, 4)


def test_pretrained_weights_keep_their_classifier_for_their_own_classes(published):
    model = models.create("torchvision:resnet18", num_classes=1000, pretrained=True)

    assert torch.equal(model.fc.weight, published["resnet18"]["fc.weight"])


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_a_pretrained_first_convolution_answers_grey_images_alike(published, channels):
    colour = models.create("torchvision:resnet18", num_classes=1000, pretrained=True).eval()
    other = models.create("torchvision:resnet18", num_classes=1000, in_channels=channels, pretrained=True).eval()
    grey = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(2))

    with torch.no_grad():
        expected = colour.conv1(grey.expand(-1, 3, -1, -1))
        torch.testing.assert_close(other.conv1(grey.expand(-1, channels, -1, -1)), expected, rtol=1e-4, atol=1e-5)


def test_a_model_that_shifts_colours_does_not_shift_other_channels(published):
    model = models.create("torchvision:inception_v3", num_classes=4, in_channels=1, pretrained=True).eval()

    assert model(torch.randn(2, 1, 96, 96)).shape == (2, 4)


def test_weights_that_cannot_be_had_are_one_line(monkeypatch):
    import timm
    import torchvision

    def offline(*args, **kwargs):
        raise OSError("name or service\nnot known")

    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", offline)
    monkeypatch.setattr(timm, "create_model", offline)
    for name in ("torchvision:resnet18", "timm:resnet18"):
        with pytest.raises(InputError, match=f"weights of model '{name}' .*name or service not known.*leave out"):
            models.create(name, pretrained=True)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("timm:resnet18x", {}, "unknown model 'timm:resnet18x': did you mean 'timm:resnet18"),
        ("timm:", {}, "unknown model 'timm:'"),
        ("timm:resnet18.a1_in2k", {}, "did you mean 'timm:resnet18.a1_in1k'"),
        ("torchvision:resnet81", {}, "unknown model 'torchvision:resnet81': did you mean 'torchvision:resnet18'"),
        ("torchvision:fcn_resnet50", {}, "unknown model 'torchvision:fcn_resnet50'"),
        ("timm:resnet18", {"batch_norm": False}, "'timm:resnet18' does not take these options .batch_norm"),
        ("torchvision:resnet18", {"pooling": "max"}, "'torchvision:resnet18' does not take these options .pooling"),
        ("timm:resnet18", {"width": 0.5}, "'timm:resnet18' has a fixed width: leave out width=0.5"),
        ("timm:test_efficientnet_ln", {"pretrained": True, "width": 2}, "has a fixed width"),
    ],
)
def test_wrong_names_and_options_of_the_libraries(name, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        models.create(name, **arguments)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_model_without_weights_says_so():
    import timm

    bare = next(name for name in timm.list_models("resnet*") if not timm.models.is_model_pretrained(name))
    with pytest.raises(InputError, match=f"'timm:{bare}' has no pretrained weights: leave out pretrained"):
        models.create(f"timm:{bare}", pretrained=True)


@pytest.mark.parametrize(("name", "package"), [("timm:resnet18", "timm"), ("torchvision:resnet18", "torchvision")])
def test_a_missing_library_is_named(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(InputError, match=f"model '{name}' needs {package} .*: pip install {package}"):
        models.create(name)


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    (tmp_path / "my_own_models.py").write_text(
        """
from torch import nn

size = 3

class Everything(nn.Linear):
    def __init__(self, **keywords):
        super().__init__(1, 1)
        self.keywords = keywords

def some(num_classes, *, in_channels=3, hidden=5):
    return nn.Sequential(nn.Conv2d(in_channels, hidden, 1), nn.Flatten(), nn.LazyLinear(num_classes))

def nothing():
    return nn.Linear(2, 2)

def wide(width=1.0, pretrained=False):
    model = nn.Linear(2, 2)
    model.asked = (width, pretrained)
    return model

def demanding(num_classes, secret):
    return nn.Linear(2, num_classes)

def number(num_classes):
    return num_classes

def faulty():
    raise TypeError("a fault of the function's own")

def annotated(num_classes) -> int:
    raise AssertionError("called")

def lazily_annotated(num_classes) -> "SomethingUnknown":
    return nn.Linear(2, num_classes)

class Other:
    def __init__(self, num_classes=1):
        raise AssertionError("called")

import functools
from os import system
from subprocess import run
wrapped = functools.partial(system, "true")
cached = functools.lru_cache(nothing)
"""
    )
    (tmp_path / "my_broken_models.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield "my_own_models"
    for module in ("my_own_models", "my_broken_models"):
        sys.modules.pop(module, None)


def test_a_function_gets_the_keywords_that_it_takes(user_module):
    some = models.create("python:my_own_models:some", num_classes=4, in_channels=2, image_size=6, hidden=7)
    everything = models.create("python:my_own_models:Everything", num_classes=4, image_size=6, depth=2)

    assert some(torch.zeros(1, 2, 6, 6)).shape == (1, 4)
    assert some[0].out_channels == 7
    assert everything.keywords == {"num_classes": 4, "in_channels": 3, "image_size": 6, "depth": 2}
    assert isinstance(models.create("python:my_own_models:nothing"), nn.Linear)
    assert models.create("python:my_own_models:wide").asked == (1.0, False)
    assert models.create("python:my_own_models:wide", width=0.5, pretrained=True).asked == (0.5, True)


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("my_own_models", {}, "must have the form python:package.module:function"),
        (":some", {}, "must have the form"),
        ("my_own_models:", {}, "must have the form"),
        ("my_other_models:some", {}, "cannot import 'my_other_models' .*: is its folder on PYTHONPATH."),
        (
            "my_broken_models:some",
            {},
            "cannot import 'my_broken_models' .No module named 'a_package_that_is_not_there'",
        ),
        (".models:some", {}, "cannot import '.models'"),
        ("my_own_models:somme", {}, "unknown function of module 'my_own_models' 'somme': did you mean 'some'."),
        ("my_own_models:size", {}, "'size' is not callable: name a function that returns an nn.Module"),
        ("my_own_models:number", {}, "must be an nn.Module, but a int came back"),
        ("my_own_models:demanding", {}, "cannot be called: missing a required argument: 'secret'"),
        ("my_own_models:some", {"depth": 3}, "'python:my_own_models:some' does not take the option 'depth'"),
        ("my_own_models:some", {"width": 0.5}, "does not take the option 'width'"),
        ("my_own_models:some", {"pretrained": True}, "does not take the option 'pretrained'"),
    ],
)
def test_wrong_paths_of_ones_own(user_module, path, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        models.create(f"python:{path}", **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("os:system", "'os' belongs to Python's standard library"),
        ("subprocess:run", "belongs to Python's standard library"),
        ("builtins:exec", "belongs to Python's standard library"),
        ("importlib.util:find_spec", "belongs to Python's standard library"),
        ("my_own_models:system", "neither a Python function nor a subclass of nn.Module"),
        ("my_own_models:wrapped", "neither a Python function nor a subclass of nn.Module"),
        ("my_own_models:run", "function of Python's standard library"),
        ("my_own_models:Other", "is a class, but no subclass of nn.Module"),
        ("my_own_models:annotated", "is annotated to return int"),
    ],
)
def test_what_cannot_return_a_model_is_not_called_even_with_consent(user_module, path, message):
    for consents in (True, False):
        with trust.consent(trust_code=True), pytest.raises(InputError, match=message):
            models.create(f"python:{path}", trust_code=consents)


def test_a_name_from_a_file_is_not_even_imported_without_consent(user_module):
    name = "python:my_own_models:nothing"
    with pytest.raises(InputError, match=f"'{name}' is code that a file names"):
        models.create(name, trust_code=False)
    assert user_module not in sys.modules
    with trust.consent([name]):
        assert isinstance(models.create(name, trust_code=False), nn.Linear)


def test_functions_that_are_decorated_or_annotated_by_an_unknown_name_are_models(user_module):
    assert isinstance(models.create("python:my_own_models:cached"), nn.Linear)
    assert models.create("python:my_own_models:lazily_annotated", num_classes=3).out_features == 3


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("timm:resnet18", "checkpoint_path"),
        ("timm:resnet18", "pretrained_cfg"),
        ("timm:resnet18", "pretrained_cfg_overlay"),
        ("timm:resnet18", "cache_dir"),
        ("torchvision:resnet18", "weights"),
        ("torchvision:fcn_resnet50", "weights_backbone"),
    ],
)
def test_options_that_load_files_are_refused(name, option, tmp_path):
    with pytest.raises(InputError, match=f"option {option} would load files"):
        models.create(name, **{option: str(tmp_path / "evil.pt")})


@pytest.mark.parametrize("name", ["timm:hf-hub:someone/evil", "timm:local-dir:/tmp/evil", "timm:hf_hub:a/b"])
def test_names_of_hubs_and_folders_are_no_models(name):
    with pytest.raises(InputError, match="unknown model"):
        models.create(name)


def test_a_fault_of_the_function_keeps_its_traceback(user_module):
    with pytest.raises(TypeError, match="a fault of the function's own"):
        models.create("python:my_own_models:faulty")


def test_a_built_in_model_imports_neither_library():
    import subprocess

    code = "import sys, spikestill.models as m; m.create('vgg5'); print({'timm', 'torchvision'} & {*sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
