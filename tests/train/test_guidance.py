from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import spikestill as ss
from spikestill.objectives import CrossEntropy
from spikestill.recipes import DistillRecipe, NetworkDescription, load
from spikestill.runs import Run
from spikestill.train import distill, evaluate, train
from spikestill.train.callbacks import Journal, last_checkpoint_file
from spikestill.train.guidance import guided_learner
from spikestill.train.learner import DistillLearner
from spikestill.train.loaders import load_data, make_batches
from spikestill.train.teachers import find_teacher
from spikestill.types import InputError

StudentMaker = Callable[..., DistillRecipe]
GUIDED = [{"name": "cross-entropy"}, {"name": "logits"}, {"name": "blockwise", "weight": 0.5}]


def prepared(recipe: DistillRecipe) -> DistillLearner:
    data, device = load_data(recipe), torch.device("cpu")
    description = NetworkDescription.of(recipe, data)
    batches = make_batches(recipe, data, description, "train", device)
    return guided_learner(recipe, data, description, None, None, device, batches)


@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_a_student_learns_and_its_run_holds_everything(
    student_recipe: StudentMaker, teacher: Run, gradient: str
) -> None:
    run = train(student_recipe(teacher=str(teacher.folder), objectives=GUIDED, gradient=gradient))
    assert run.kind == "student"
    result = run.read_json("result.json")
    assert list(result["test_accuracy_by_timestep"]) == ["1", "2"]
    assert result["test_accuracy_by_timestep"]["2"] == result["test_accuracy"]
    assert 0 < result["test_spikes_per_neuron"] < 2
    assert 0 < result["test_synaptic_operations"] < 2 * result["test_ann_multiply_accumulates"]
    by_layer = result["test_operations_by_layer"].values()
    for name in ("multiply_accumulates", "ann_multiply_accumulates"):
        assert result[f"test_{name}"] == sum(layer[name] for layer in by_layer) > 0
    analog, spiking = 4.6 * result["test_multiply_accumulates"], 0.9 * result["test_synaptic_operations"]
    assert result["test_energy_nanojoules"] == pytest.approx((analog + spiking) / 1000)
    assert "LIF" in result["test_operations_not_counted"]
    assert result["training_peak_memory_mib"] > 10
    rows = run.read_table("metrics.csv")
    assert {"train_cross-entropy", "train_logits", "train_blockwise"} <= rows[0].keys()
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])


def test_mappings_are_in_the_checkpoint_and_not_among_the_weights(student_recipe: StudentMaker, teacher: Run) -> None:
    run = train(student_recipe(teacher=str(teacher.folder), objectives=GUIDED, epochs=1))
    kept = load_file(run.folder / "student.safetensors")
    checkpoint = torch.load(last_checkpoint_file(run), weights_only=True)["state_dict"]
    assert all(name.startswith("body.") for name in kept)
    assert any(name.startswith("objectives.") for name in checkpoint)
    assert not any("teacher" in name.lower() for name in checkpoint)


def test_trained_tails_and_branches_are_trained_in_the_checkpoint_and_dropped(
    student_recipe: StudentMaker, teacher: Run
) -> None:
    terms = [{"name": "cross-entropy"}, {"name": "blockwise", "options": {"tail": "trained"}}, {"name": "branches"}]
    recipe = student_recipe(teacher=str(teacher.folder), objectives=terms, epochs=1)
    start = dict(prepared(recipe).named_parameters())
    run = train(recipe)
    kept = load_file(run.folder / "student.safetensors")
    checkpoint = torch.load(last_checkpoint_file(run), weights_only=True)["state_dict"]
    assert all(name.startswith("body.") for name in kept)
    moved = {name for name, value in start.items() if not torch.equal(value, checkpoint[name])}
    assert moved == set(start)
    assert {".".join(name.split(".")[:3]) for name in moved if name.startswith("objectives.")} == {
        "objectives.1.mappings",
        "objectives.1.trained_tails",
        "objectives.2.branches",
    }


@pytest.mark.parametrize("initialise", ["random", "shift"])
def test_a_student_teaches_itself_without_a_teacher(
    student_recipe: StudentMaker, teacher: Run, initialise: str
) -> None:
    fields = {} if initialise == "random" else {"source": str(teacher.folder), "initialise": initialise}
    run = train(student_recipe(objectives=[{"name": "cross-entropy"}, {"name": "branches"}], **fields))
    rows = run.read_table("metrics.csv")
    assert float(rows[-1]["train_branches"]) < float(rows[0]["train_branches"])


def resumed_after(step: int, recipe: DistillRecipe, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The run of a training that is killed after a step, its checkpoint just written, and then resumed."""

    class KilledError(Exception):
        pass

    def save_and_die(self: Journal, trainer: Any, learner: Any, *rest: Any, **more: Any) -> None:
        if trainer.global_step == step:
            self.save(trainer, learner)
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "on_train_batch_end", save_and_die)
        with pytest.raises(KilledError):
            train(recipe)
    return train(recipe, resume=True)


@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_a_resume_gives_the_same_bits(
    student_recipe: StudentMaker, teacher: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gradient: str
) -> None:
    fields = {"teacher": str(teacher.folder), "objectives": GUIDED, "gradient": gradient}
    whole = train(student_recipe(out=str(tmp_path / "whole"), **fields))
    resumed = resumed_after(7, student_recipe(out=str(tmp_path / "broken"), **fields), monkeypatch)
    one, two = (load_file(run.folder / "student.safetensors") for run in (whole, resumed))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


AS_THEY_ARE = {"crop": 0, "flip": False}


def test_a_teacher_that_is_asked_once_teaches_the_same(
    student_recipe: StudentMaker, teacher: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    ask = DistillLearner._asked
    monkeypatch.setattr(DistillLearner, "_asked", lambda *given: asked.append(len(given[2])) or ask(*given))
    fields = {"teacher": str(teacher.folder), "objectives": GUIDED, "augmentation": AS_THEY_ARE}
    once = train(student_recipe(out=str(tmp_path / "once"), **fields))
    assert sum(asked) == 160
    asked.clear()
    monkeypatch.setattr(DistillLearner, "remember_teacher", lambda learner: None)
    each_time = train(student_recipe(out=str(tmp_path / "each_time"), **fields))
    assert sum(asked) == 2 * 160
    one, two = (load_file(run.folder / "student.safetensors") for run in (once, each_time))
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "fields",
    [
        {"augmentation": {"crop": 1, "flip": False}},
        {"objectives": [{"name": "activation-attention"}]},
        {"teacher": None},
    ],
    ids=["augmented", "looked into", "none"],
)
def test_where_a_teacher_is_asked_each_time(student_recipe: StudentMaker, teacher: Run, fields: dict[str, Any]) -> None:
    given = {"teacher": str(teacher.folder), "objectives": GUIDED, "augmentation": AS_THEY_ARE} | fields
    if given["teacher"] is None:
        given["objectives"] = [{"name": "cross-entropy"}]
    assert all(len(batch) == 2 for batch in prepared(student_recipe(**given)).batches)


@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_a_student_learns_from_attention(student_recipe: StudentMaker, teacher: Run, gradient: str) -> None:
    terms = [{"name": name, "weight": 0.45} for name in ("activation-attention", "gradient-attention")]
    run = train(
        student_recipe(teacher=str(teacher.folder), objectives=[{"name": "cross-entropy"}, *terms], gradient=gradient)
    )
    rows = run.read_table("metrics.csv")
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    for name in ("activation-attention", "gradient-attention"):
        assert 0 < float(rows[-1][f"train_{name}"]) < float("inf")


def test_the_teacher_stays_as_it_is(student_recipe: StudentMaker, teacher: Run) -> None:
    recipe = student_recipe(teacher=str(teacher.folder), objectives=GUIDED)
    learner = prepared(recipe).train()
    (traced,) = learner._teacher
    assert traced is not None
    before = {name: value.clone() for name, value in traced.state_dict().items()}
    optimiser = torch.optim.SGD([p for module in learner.trained for p in module.parameters() if p.requires_grad], 0.1)
    images, labels = torch.randn(8, 1, 8, 8), torch.arange(8)
    loss, logits, terms = learner.losses(images, labels)
    assert logits.shape == (8, 10)
    assert loss.item() == pytest.approx((terms[0] + terms[1] + 0.5 * terms[2]).item(), rel=1e-5)
    loss.backward()
    optimiser.step()
    assert not traced.training
    assert all(torch.equal(value, before[name]) for name, value in traced.state_dict().items())


def test_teacher_weights_start_the_student_where_the_teacher_is(student_recipe: StudentMaker, teacher: Run) -> None:
    recipe = student_recipe(teacher=str(teacher.folder), initialise="teacher-weights")
    learner = prepared(recipe)
    state = learner.network.state_dict()
    for name, value in load_file(teacher.folder / "model.safetensors").items():
        assert torch.equal(state[f"body.{name}"], value)


def test_the_teacher_sees_its_own_normalisation(student_recipe: StudentMaker, teacher: Run) -> None:
    recipe = student_recipe(teacher=str(teacher.folder), objectives=GUIDED, encoder={"name": "poisson"})
    learner = prepared(recipe)
    data = load_data(recipe)
    pixels = data.train.images[:4].float() / 255
    guidance = learner._guidance((pixels - 0.5) / 0.5, data.train.labels[:4])
    expected = find_teacher(str(teacher.folder), data).network((pixels - data.mean[0]) / data.std[0])
    assert guidance is not None
    torch.testing.assert_close(guidance.logits, expected, rtol=1e-4, atol=1e-4)


def test_the_python_function_trains_the_given_student(tmp_path: Path, teacher: Run) -> None:
    torch.manual_seed(0)
    ann = NetworkDescription.of_run(teacher).load(teacher)
    student = ss.to_spiking(ann, neuron=ss.LIF(leak=0.7), timesteps=2, gradient="bptt", input_shape=(1, 8, 8))
    before = {name: value.clone() for name, value in student.state_dict().items()}
    options: dict[str, Any] = {"epochs": 1, "limit_train": 160, "batch_size": 32, "device": "cpu"}
    run = distill(
        student=student,
        teacher=ann,
        data="digits",
        objectives=["cross-entropy", "logits"],
        out=str(tmp_path / "run"),
        **options,
    )
    recipe = run.read_yaml("recipe.yaml")
    assert recipe["gradient"] == "bptt"
    assert recipe["neuron"]["leak"] == pytest.approx(0.7)
    kept = load_file(run.folder / "student.safetensors")
    assert all(torch.equal(value, kept[name]) for name, value in student.state_dict().items())
    assert not all(torch.equal(value, before[name]) for name, value in kept.items())
    with pytest.raises(InputError, match="module of your own"):
        evaluate(run.folder)


def test_the_python_function_takes_names_too(tmp_path: Path, teacher: Run) -> None:
    run = distill(
        student="vgg5",
        teacher=teacher.folder,
        objectives=["logits"],
        epochs=1,
        width=0.25,
        timesteps=1,
        limit_train=160,
        batch_size=32,
        device="cpu",
        out=str(tmp_path / "run"),
    )
    assert evaluate(run.folder, timesteps=(1, 3))["accuracy_by_timestep"].keys() == {"1", "3"}


def other_teacher(tmp_path: Path, **changes: Any) -> str:
    fields = {"num_classes": 10, "input_shape": (1, 8, 8), "mean": (0.3,), "std": (0.4,)} | changes
    names = tuple(map(str, range(fields["num_classes"])))
    description = NetworkDescription(model="vgg5", width=0.25, class_names=names, **fields)
    run = Run(tmp_path / "other")
    run.write_yaml("recipe.yaml", {})
    run.write_network("model", description.build().state_dict(), description.as_json())
    return str(run.folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 7}, "knows 7 classes, the data has 10"),
        (
            {"input_shape": (3, 8, 8), "mean": (0.3,) * 3, "std": (0.4,) * 3},
            r"takes images \(3, 8, 8\) \(C, H, W\), the data has \(1, 8, 8\)",
        ),
    ],
)
def test_a_teacher_of_other_classes_or_channels_is_refused(
    student_recipe: StudentMaker, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    recipe = student_recipe(teacher=other_teacher(tmp_path, **changes), objectives=[{"name": "logits"}])
    with pytest.raises(InputError, match=message):
        train(recipe)
    assert not Path(recipe.folder).exists()


def test_networks_in_hand_are_checked_as_well(tmp_path: Path) -> None:
    ann = ss.models.create("vgg5", width=0.25, in_channels=1, image_size=8, num_classes=7)
    student = ss.to_spiking(ann, timesteps=1, input_shape=(1, 8, 8))
    options: dict[str, Any] = {"epochs": 1, "limit_train": 100, "device": "cpu", "out": str(tmp_path / "run")}
    with pytest.raises(InputError, match="the student has 7 classes, the data digits has 10"):
        distill(student=student, **options)
    fitting = ss.models.create("vgg5", width=0.25, in_channels=1, image_size=8)
    student = ss.to_spiking(fitting, timesteps=1, input_shape=(1, 8, 8))
    with pytest.raises(InputError, match="the teacher has 7 classes"):
        distill(student=student, teacher=ann, objectives=["logits"], **options)
    colour = ss.models.create("vgg5", width=0.25, in_channels=3, image_size=8)
    student = ss.to_spiking(colour, timesteps=1, input_shape=(3, 8, 8))
    with pytest.raises(InputError, match="the student does not take images"):
        distill(student=student, **options)
    with pytest.raises(InputError, match="must be a spiking network"):
        distill(student=fitting, **(options | {"timesteps": 2}))


def test_a_teacher_must_have_learned_this(student_recipe: StudentMaker) -> None:
    recipe = student_recipe(teacher="resnet20", objectives=[{"name": "logits"}])
    with pytest.raises(InputError, match="the teacher 'resnet20' is no run folder"):
        train(recipe)
    with pytest.raises(InputError, match="knows the 1000 classes of ImageNet, not the 10 of digits: fine-tune"):
        find_teacher("timm:resnet18", load_data(recipe))  # what `train` trains first


def test_a_student_cannot_take_weights_of_another_shape(student_recipe: StudentMaker, teacher: Run) -> None:
    recipe = student_recipe(teacher=str(teacher.folder), initialise="teacher-weights", width=0.5)
    with pytest.raises(InputError, match="needs an ANN of the student's architecture and width; vgg5 is another"):
        train(recipe)


def test_a_spiking_run_teaches_its_logits_alone(student_recipe: StudentMaker, tmp_path: Path) -> None:
    run = train(student_recipe(epochs=1))
    recipe = student_recipe(teacher=str(run.folder), objectives=[{"name": "blockwise"}], out=str(tmp_path / "next"))
    with pytest.raises(InputError, match="is a spiking network: give the run of an ANN"):
        train(recipe)
    logits = student_recipe(teacher=str(run.folder), objectives=[{"name": "logits"}], out=str(tmp_path / "next"))
    assert train(logits).finished


def test_a_stored_recipe_is_a_recipe(student_recipe: StudentMaker) -> None:
    recipe = student_recipe(epochs=1)
    run = train(recipe)
    assert load(DistillRecipe, run.folder / "recipe.yaml") == recipe


def test_evaluation_refuses_other_data(student_recipe: StudentMaker) -> None:
    run = train(student_recipe(epochs=1))
    with pytest.raises(InputError, match="unknown data set"):
        evaluate(run.folder, data="digit")
    with pytest.raises(InputError, match="is no run folder"):
        evaluate(run.folder / "absent")


def test_objectives_are_told_how_far_the_training_is(
    student_recipe: StudentMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    compute = CrossEntropy.forward

    def noted(self: CrossEntropy, *given: Any) -> Any:
        seen.append(self.progress)
        return compute(self, *given)

    monkeypatch.setattr(CrossEntropy, "forward", noted)
    train(student_recipe())
    assert seen == [step / 10 for step in range(10)]
