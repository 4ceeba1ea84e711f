from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from spikestill.data import Augmentation
from spikestill.recipes import AnnRecipe, Anytime, DistillRecipe, Objective, as_mapping, from_mapping, load, presets
from spikestill.recipes.loading import differences
from spikestill.types import InputError

OF_LASNN = ["lasnn", "hybrid", "hybrid-distillation", "conversion", "calibration", "diet-snn", "qcfs"]
OF_DATA = ["resnet34-imagenet", "resnet19-cifar10-dvs", "vgg11-cifar10-dvs", "vgg16-tiny-imagenet"]
OF_ANNS = ("ann", "wide8-cifar10")
OF_BLOCKWISE = ["labels-only", "label-distillation", "rate-bp", "blockwise", "self-distillation"]


@pytest.mark.parametrize("name", OF_LASNN)
def test_the_presets_that_convert_have_stages_for_all_they_need(name: str) -> None:
    recipe = load(DistillRecipe, name)
    source, teacher = recipe.stage("source"), recipe.stage("teacher")
    assert source is not None
    assert (recipe.method, source.model, source.model_options) == (name, recipe.student, recipe.model_options)
    assert (teacher is not None) == (name in ("lasnn", "hybrid-distillation"))
    assert (recipe.epochs == 0) == (name in ("conversion", "calibration", "qcfs"))
    for other in (["--encoder.name=direct"], ["--gradient=rate"]):
        assert load(DistillRecipe, name, other).stage("source") is not None


@pytest.mark.parametrize("name", ["ann", *OF_BLOCKWISE])
def test_every_preset_is_a_recipe_of_its_own_name(name: str) -> None:
    if name == "ann":
        assert load(AnnRecipe, name).method == "ann"
        return
    words = [] if name in ("labels-only", "rate-bp", "self-distillation") else ["--teacher", "runs/teacher"]
    recipe = load(DistillRecipe, name, words)
    assert (recipe.method, recipe.timesteps, recipe.neuron.leak) == (name, 4, 0.2)
    assert recipe.neuron.surrogate.options == {"alpha": 4.0}
    assert (recipe.optimiser.lr, recipe.optimiser.momentum, recipe.optimiser.weight_decay) == (0.1, 0.9, 5e-4)


def test_the_presets_are_all_tested_and_say_how_they_are_launched() -> None:
    assert set(presets()) == {*OF_ANNS, "spike-distillation", *OF_BLOCKWISE, *OF_LASNN, *OF_DATA}
    for name, path in presets().items():
        command = "train" if name in OF_ANNS else "distill"
        assert f"#   spikestill {command} {name} --" in path.read_text()


def test_blockwise_has_the_weights_of_its_equation() -> None:
    recipe = load(DistillRecipe, "blockwise", ["--teacher=t"])
    assert recipe.gradient == "rate"
    assert recipe.objectives == (
        Objective(name="cross-entropy"),
        Objective(name="logits", weight=0.3, options={"temperature": 3.0}),
        Objective(name="blockwise", weight=0.5, options={"distillation": 0.3, "temperature": 3.0}),
    )


def test_self_distillation_needs_no_teacher() -> None:
    recipe = load(DistillRecipe, "self-distillation")
    assert (recipe.gradient, recipe.needs_teacher) == ("rate", ())
    assert recipe.objectives == (
        Objective(name="cross-entropy"),
        Objective(name="branches", options={"distillation": 0.3, "temperature": 3.0}),
    )


def test_anytime_is_a_switch_with_two_shares() -> None:
    assert load(DistillRecipe, "rate-bp").train_timesteps == "all"
    recipe = load(DistillRecipe, "rate-bp", ["--train-timesteps=anytime", "--anytime.final=0.1"])
    assert (recipe.train_timesteps, recipe.anytime) == ("anytime", Anytime(full=0.5, final=0.1))
    assert from_mapping(DistillRecipe, as_mapping(recipe)) == recipe


def test_overrides_are_dotted_typed_and_spelled_with_dashes_or_underscores() -> None:
    words = ["--batch-size", "32", "--optimiser.lr=0.5", "--optimiser.weight_decay", "0", "--limit-train", "100"]
    recipe = load(AnnRecipe, "ann", [*words, "--schedule.name=step", "--schedule.milestones=[3, 6]"])
    assert (recipe.batch_size, recipe.optimiser.lr, recipe.optimiser.weight_decay) == (32, 0.5, 0.0)
    assert recipe.schedule.milestones == (3, 6)
    assert recipe.limit_train == 100
    assert isinstance(recipe.limit_train, int)
    assert load(AnnRecipe, "ann", ["--limit-train=0.5"]).limit_train == 0.5


def test_objectives_can_be_given_whole_with_defaults_for_the_rest() -> None:
    recipe = load(DistillRecipe, "labels-only", ["--teacher=t", "--objectives=[{name: logits}]"])
    assert recipe.objectives == (Objective(name="logits", weight=1.0, options={}),)


def test_a_recipe_survives_yaml() -> None:
    recipe = load(DistillRecipe, "blockwise", ["--teacher=t", "--neuron.learn=[threshold]", "--ema=0.9"])
    again = load(DistillRecipe, yaml.safe_load(yaml.safe_dump(as_mapping(recipe))))
    assert again == recipe
    assert from_mapping(DistillRecipe, as_mapping(recipe)) == recipe


def test_digits_are_not_mirrored_unless_asked() -> None:
    assert load(AnnRecipe, "ann", ["--data=digits"]).augmentation == Augmentation(crop=1, flip=False)
    assert load(AnnRecipe, "ann", ["--data=cifar10"]).augmentation == Augmentation()
    assert load(AnnRecipe, "ann", ["--augmentation.crop=2"]).augmentation == Augmentation(crop=2)


@pytest.mark.parametrize(
    ("kind", "source", "words", "message"),
    [
        (DistillRecipe, "blokwise", [], "unknown method 'blokwise': did you mean 'blockwise'"),
        (AnnRecipe, "ann", ["--epoch", "3"], "unknown option '--epoch': did you mean '--epochs'"),
        (AnnRecipe, "ann", ["--optimiser.learning-rate=3"], "unknown option '--optimiser.learning-rate'"),
        (AnnRecipe, "ann", ["--epochs", "many"], "option \"epochs\": Expected a <class 'int'>"),
        (AnnRecipe, "ann", ["--epochs"], "argument --epochs: expected one argument"),
        (AnnRecipe, "ann", ["--precision=fp8"], 'option "precision"'),
        (AnnRecipe, "blockwise", [], "names a student: it is one for `spikestill distill`"),
        (DistillRecipe, "ann", [], "names a model: it is one for `spikestill train`"),
        (AnnRecipe, "absent.yaml", [], r"cannot read the recipe absent\.yaml: No such file"),
        (AnnRecipe, {"optimiser": {"lrr": 1}}, [], r"unknown option 'optimiser\.lrr': did you mean 'optimiser\.lr'"),
        (AnnRecipe, {"augmentation": {"crop": -1}}, [], "crop must be a number of pixels"),
        (AnnRecipe, "ann", ["3"], "[uU]nrecognized arguments: 3"),
        (DistillRecipe, {"objectives": [{"name": "a", "weight": None}]}, [], r"'objectives\[0\].weight' must have a"),
        (DistillRecipe, {"objectives": [{"name": "a", "wait": 1}]}, [], r"unknown option 'objectives\[0\].wait': did"),
    ],
)
def test_wrong_input_is_one_line(kind: type[AnnRecipe], source: str, words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(kind, source, words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: [", "not valid YAML"),
        ("- 1", "must be a mapping"),
        ("epochs: !!python/object/apply:os.getcwd []", "not valid YAML"),
        ("epoch: 3", "unknown option 'epoch': did you mean 'epochs'"),
        ("epochs: 3\noptimiser: {lr: 1}\nepochs: 4", r"mine\.yaml names epochs twice in one place"),
        ("optimiser: 3", "option 'optimiser' must be a mapping of fields, not 3"),
        ("optimiser: {lr: null}", "option 'optimiser.lr' must have a value"),
        ("a: &a [1, *a]", "not valid YAML: its aliases make more than 100000 values of it"),
        ("optimiser: {lr: 1, lr: 2}", r"mine\.yaml names lr twice in one place"),
    ],
)
def test_wrong_files_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load(AnnRecipe, path)
    assert "\n" not in str(caught.value)


BOMBS = {
    "lists": ("[x, x]", "[{}]"),
    "merges": ("{x: 1}", "{{<<: [{}]}}"),
    "pairs": ("[x, x]", "!!pairs [a: [{}]]"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_aliases_that_multiply_are_refused_before_anything_writes_them_out(bomb: str, tmp_path: Path) -> None:
    first, more = BOMBS[bomb]
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{n + 1}: &a{n + 1} {more.format(', '.join([f'*a{n}'] * 9))}" for n in range(40)]
    (tmp_path / "mine.yaml").write_text("\n".join([*lines, "seed: *a40", "epochs: *a40"]))
    with pytest.raises(InputError, match="its aliases make more than 100000 values of it"):
        load(AnnRecipe, tmp_path / "mine.yaml")


def test_anchors_are_not_names_that_come_twice(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("model: vgg5\noptimiser: &o {lr: 0.2}\nschedule: {warmup: 1}\nmodel_options: {a: *o, b: *o}\n")
    assert load(AnnRecipe, path).optimiser.lr == 0.2


def test_differences_leave_out_what_has_no_meaning_and_know_the_defaults() -> None:
    recipe = load(DistillRecipe, "hybrid", ["--seed=3"])
    stored = as_mapping(recipe)
    assert differences(recipe, stored | {"out": "x", "device": "cuda", "checkpoint_minutes": 1.0}) == []
    changed = stored | {"neuron": stored["neuron"] | {"leak": 0.5}, "seed": 4, "of a later version": 1}
    assert differences(recipe, changed) == ["seed", "neuron"]
    # What a recipe.yaml does not have was not known then: it had the default, which is not what hybrid says of stages.
    older = {name: value for name, value in stored.items() if name not in ("max_pool", "stages")}
    older["optimiser"] = {name: value for name, value in stored["optimiser"].items() if name != "nesterov"}
    assert differences(recipe, older) == ["stages"]


def test_spike_distillation_needs_a_teacher_that_spikes() -> None:
    with pytest.raises(InputError, match="spikes need a teacher: give --teacher RUN_OR_MODEL"):
        load(DistillRecipe, "spike-distillation")
    recipe = load(DistillRecipe, "spike-distillation", ["--teacher=runs/hybrid"])
    assert recipe.gradient == "bptt"
    assert recipe.stage("source") is not None


@pytest.mark.parametrize("name", OF_DATA)
def test_the_presets_of_one_data_set_have_its_papers_settings(name: str) -> None:
    recipe = load(DistillRecipe, name, ["--teacher=t"] if name == "resnet34-imagenet" else [])
    student, _, data = name.partition("-")
    assert (recipe.method, recipe.student, recipe.data) == (name, student, data)
    papers = {
        "imagenet": (4, "rate", "sgd", 0.2, 2e-5, 512, 100),
        "cifar10-dvs": (10, "rate", "sgd", 0.1, 5e-4, 128, 300),
        "tiny-imagenet": (100, "bptt", "adam", 1e-4, 5e-4, 16, 100),
    }
    optimiser = (recipe.optimiser.name, recipe.optimiser.lr, recipe.optimiser.weight_decay)
    assert (recipe.timesteps, recipe.gradient, *optimiser, recipe.batch_size, recipe.epochs) == papers[data]
    assert recipe.augmentation.flip
    assert recipe.event_frames == (10 if data == "cifar10-dvs" else None)


@pytest.mark.parametrize(
    ("data", "mirrors", "folder"),
    [
        ("digits-events", False, "runs/labels-only-digits-events-vgg5-s0"),
        ("images-events:digits", False, "runs/labels-only-images-events-digits-vgg5-s0"),
        ("images-events:cifar10", True, "runs/labels-only-images-events-cifar10-vgg5-s0"),
        ("images-events:parquet:x/hub/", True, "runs/labels-only-images-events-hub-vgg5-s0"),
    ],
)
def test_simulated_events_are_taken_for_events(data: str, mirrors: bool, folder: str) -> None:
    recipe = load(DistillRecipe, "labels-only", [f"--data={data}", "--student=vgg5", "--timesteps=10"])
    assert recipe.encoder.name == "events"
    assert (recipe.augmentation.crop, recipe.augmentation.roll, recipe.augmentation.flip) == (0, 5, mirrors)
    assert recipe.event_frames == 10
    assert recipe.folder == folder
    counts = ["--mean=[2.0,2.0]", "--std=[1.0,1.0]"]  # of events, not pixels of at most 1
    assert load(DistillRecipe, "labels-only", [f"--data={data}", "--student=vgg5", *counts]).mean == (2.0, 2.0)


@pytest.mark.parametrize("data", ["images-events:cifr10", "images-events:", "digits-event"])
def test_unknown_images_of_simulated_events_are_named(data: str) -> None:
    with pytest.raises(InputError, match=f"unknown data set '{data.removeprefix('images-events:') or data}'"):
        load(DistillRecipe, "labels-only", [f"--data={data}", "--student=vgg5"])
