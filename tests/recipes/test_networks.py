from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import spikestill as ss
from spikestill.data import DataSet, ImageSet
from spikestill.recipes import AnnRecipe, DistillRecipe, Encoder, NetworkDescription, Neuron, Surrogate
from spikestill.recipes.networks import build_encoder, build_neuron, describe_spiking
from spikestill.runs import Run
from spikestill.types import InputError


def small_data() -> DataSet:
    def images(count: int) -> ImageSet:
        return ImageSet(torch.randint(256, (count, 3, 8, 8), dtype=torch.uint8), torch.arange(count) % 3)

    names = ("a", "b", "c")
    return DataSet("small", images(6), images(3), images(3), names, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1))


def test_a_spiking_network_is_rebuilt_from_json_alone(tmp_path: Path) -> None:
    neuron = Neuron(leak=0.7, threshold=1.5, reset="hard", learn=("threshold",), surrogate=Surrogate(name="atan"))
    recipe = DistillRecipe(method="m", student="vgg5", width=0.25, timesteps=3, neuron=neuron, gradient="bptt")
    description = NetworkDescription.of(recipe, small_data())
    network = description.build().eval()
    run = Run(tmp_path)
    run.write_yaml("recipe.yaml", {})
    run.write_network("student", network.state_dict(), description.as_json())

    again = NetworkDescription.of_run(run)
    assert again == description
    rebuilt = again.load(run)
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(rebuilt(images), network(images))
    assert (rebuilt.timesteps, rebuilt.gradient) == (3, "bptt")


def test_the_description_takes_the_data_apart() -> None:
    description = NetworkDescription.of(AnnRecipe(model="vgg5", width=0.25), small_data())
    assert (description.num_classes, description.input_shape) == (3, (3, 8, 8))
    assert (description.mean, description.class_names) == ((0.5, 0.4, 0.3), ("a", "b", "c"))
    assert description.spiking is None


def test_poisson_inputs_lie_within_one() -> None:
    recipe = DistillRecipe(method="m", student="vgg5", encoder=Encoder(name="poisson"))
    description = NetworkDescription.of(recipe, small_data())
    assert description.mean == description.std == (0.5, 0.5, 0.5)


def test_loading_draws_no_random_number(tmp_path: Path) -> None:
    description = NetworkDescription.of(AnnRecipe(model="vgg5", width=0.25), small_data())
    run = Run(tmp_path)
    run.write_yaml("recipe.yaml", {})
    run.write_network("model", description.build().state_dict(), description.as_json())
    before = torch.get_rng_state()
    description.load(run)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_of_another_network_and_damaged_descriptions_are_refused(tmp_path: Path) -> None:
    description = NetworkDescription.of(AnnRecipe(model="vgg5", width=0.25), small_data())
    run = Run(tmp_path)
    run.write_yaml("recipe.yaml", {})
    run.write_network("model", {"other": torch.zeros(1)}, description.as_json())
    with pytest.raises(InputError, match="do not fit vgg5") as caught:
        description.load(run)
    assert "\n" not in str(caught.value)
    run.write_json("model.json", {"model": "vgg5", "colour": "red"})
    with pytest.raises(InputError, match="description of the network is damaged"):
        NetworkDescription.of_run(run)


def test_a_module_of_ones_own_cannot_be_rebuilt() -> None:
    description = NetworkDescription.of(AnnRecipe(model="custom:Mine"), small_data())
    with pytest.raises(InputError, match=r"module of your own \(Mine\)"):
        description.build()


@pytest.mark.parametrize("name", ["name", "num_classes", "width"])
def test_an_option_that_is_a_field_already_is_refused(name: str) -> None:
    description = NetworkDescription.of(AnnRecipe(model="vgg5", model_options={name: 3}), small_data())
    with pytest.raises(InputError, match=f"model_options cannot set {name}: fields of the recipe or the data do"):
        description.build()


def test_neurons_and_encoders_are_what_the_recipe_says() -> None:
    neuron = build_neuron(Neuron(name="if", threshold=2.0, order="leak-then-subtract", detach_reset=False))
    assert isinstance(neuron, ss.IF)
    assert (float(neuron.threshold), neuron.rule.order, neuron.rule.detach_reset) == (2.0, "leak-then-subtract", False)
    assert isinstance(build_encoder(Encoder(name="poisson", options={"signed": False})), ss.Poisson)
    with pytest.raises(InputError, match="encoder direct takes no options"):
        build_encoder(Encoder(name="direct", options={"speed": 1}))
    with pytest.raises(InputError, match="unknown option of [a-z ]+ 'gamma'"):
        build_neuron(Neuron(surrogate=Surrogate(options={"gamma": 1.0})))


def test_a_given_network_describes_itself() -> None:
    neuron = ss.LIF(leak=0.7, threshold=0.5, reset="hard", surrogate=ss.Triangle(alpha=2.0))
    ann = ss.models.create("vgg5", width=0.25, image_size=8)
    network = ss.to_spiking(ann, neuron=neuron, timesteps=2, encoder=ss.Poisson(scale=2.0), input_shape=(3, 8, 8))
    found = json.loads(json.dumps(describe_spiking(network)))
    assert found["encoder"] == {"name": "poisson", "options": {"scale": 2.0, "signed": True, "seed": None}}
    assert (found["timesteps"], found["gradient"]) == (2, "rate")
    assert found["neuron"]["surrogate"] == {"name": "triangle", "options": {"alpha": 2.0}}
    assert found["neuron"]["leak"] == pytest.approx(0.7)
