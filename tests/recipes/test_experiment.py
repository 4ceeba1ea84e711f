"""Experiment files: what their runs become, and everything that can be wrong with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from spikestill.recipes import AnnRecipe, DistillRecipe
from spikestill.recipes.experiment import Experiment, load_experiment
from spikestill.types import InputError

EXPERIMENTS = Path(__file__).parents[2] / "experiments"

WHOLE: dict[str, Any] = {
    "seeds": [0, 1],
    "layout": "table-2",
    "common": {"data": "digits", "limit_train": 96, "optimiser": {"lr": 0.02}},
    "anns": {"epochs": 2},
    "students": {"timesteps": 3, "epochs": 1},
    "runs": {
        "vgg5/lasnn": {"recipe": "lasnn", "student": "vgg5", "teacher": {"run": "teacher"}, "source": {"run": "vgg5"}},
        "vgg5": {"recipe": "ann", "model": "vgg5", "pixel_scale": "signed"},
        "teacher": {"recipe": "ann", "model": "vgg9", "seeds": [0]},
    },
}


def resolved(folder: Path, contents: Any, **options: Any) -> Experiment:
    path = folder / "mine.yaml"
    path.write_text(contents if isinstance(contents, str) else yaml.safe_dump(contents, sort_keys=False))
    return load_experiment(path, **options)


def with_runs(**runs: Any) -> dict[str, Any]:
    return {"common": {"data": "digits"}, "runs": runs}


def test_a_run_is_its_recipe_then_common_then_its_kind_then_its_own(tmp_path: Path) -> None:
    experiment = resolved(tmp_path, WHOLE)
    assert experiment.layout == "table-2"
    assert [run.folder for run in experiment.runs] == [
        "runs/mine/vgg5/lasnn-s0",
        "runs/mine/vgg5/lasnn-s1",
        "runs/mine/vgg5-s0",
        "runs/mine/vgg5-s1",
        "runs/mine/teacher-s0",
    ]
    student, teacher = experiment.runs[1].recipe, experiment.runs[4].recipe
    assert isinstance(student, DistillRecipe)
    assert isinstance(teacher, AnnRecipe)
    assert (student.seed, student.timesteps, student.epochs, student.limit_train) == (1, 3, 1, 96)
    # Nested fields are laid over one another: the rate is the file's, the rest of the optimiser the preset's.
    assert (student.optimiser.name, student.optimiser.lr) == ("adam", 0.02)
    assert (teacher.optimiser.name, teacher.optimiser.lr, teacher.optimiser.momentum) == ("sgd", 0.02, 0.9)
    assert (teacher.model, teacher.epochs, teacher.seed) == ("vgg9", 2, 0)


def test_a_reference_is_the_run_of_the_same_seed_or_the_only_one(tmp_path: Path) -> None:
    runs = resolved(tmp_path, WHOLE, out="elsewhere").runs
    for seed, run in enumerate(runs[:2]):
        assert isinstance(run.recipe, DistillRecipe)
        assert run.recipe.source == f"elsewhere/vgg5-s{seed}"
        assert run.recipe.teacher == "elsewhere/teacher-s0"
        assert set(run.needs) == {run.recipe.source, run.recipe.teacher}


def test_what_others_need_comes_first_and_seeds_go_one_after_the_other(tmp_path: Path) -> None:
    ordered = [run.folder.removeprefix("runs/mine/") for run in resolved(tmp_path, WHOLE).in_order()]
    assert ordered == ["teacher-s0", "vgg5-s0", "vgg5/lasnn-s0", "vgg5-s1", "vgg5/lasnn-s1"]


def test_of_some_seeds_only_what_they_need_is_kept(tmp_path: Path) -> None:
    experiment = resolved(tmp_path, WHOLE)
    kept = [run.folder.removeprefix("runs/mine/") for run in experiment.only([1]).runs]
    assert kept == ["vgg5/lasnn-s1", "vgg5-s1", "teacher-s0"]
    with pytest.raises(InputError, match=r"no run of the experiment has seed 7 \(it has 0, 1\)"):
        experiment.only([1, 7])


def test_data_take_the_place_of_those_in_common_and_of_no_others(tmp_path: Path) -> None:
    contents = with_runs(a={"recipe": "ann", "model": "vgg5"}, b={"recipe": "ann", "model": "vgg5", "data": "cifar100"})
    runs = resolved(tmp_path, contents, data="cifar10", data_dir="images").runs
    assert [(run.recipe.data, run.recipe.data_dir) for run in runs] == [("cifar10", "images"), ("cifar100", "images")]


def test_stages_are_runs_that_no_table_shows_and_share_a_folder_where_they_are_alike(tmp_path: Path) -> None:
    contents = with_runs(
        short={"recipe": "hybrid", "timesteps": 2, "seeds": [0, 1]}, long={"recipe": "hybrid", "timesteps": 4}
    )
    experiment = resolved(tmp_path, contents)
    stages = [run for run in experiment.runs if not run.shown]
    assert [run.folder for run in stages] == ["runs/mine/hybrid-source-digits-vgg5-s0"]
    assert isinstance(stages[0].recipe, AnnRecipe)
    assert [run.name for run in experiment.shown] == ["short", "short", "long"]
    for run in experiment.shown:
        assert run.needs == (stages[0].folder,)
        assert run.recipe.source == stages[0].folder  # type: ignore[attr-defined]


def test_a_run_may_lie_elsewhere(tmp_path: Path) -> None:
    contents = with_runs(
        teacher={"recipe": "ann", "out": "docs/teacher"},
        student={"recipe": "blockwise", "teacher": {"run": "teacher"}, "seeds": [0, 1]},
    )
    runs = resolved(tmp_path, contents).runs
    assert [run.folder for run in runs] == ["docs/teacher", "runs/mine/student-s0", "runs/mine/student-s1"]
    assert runs[2].recipe.teacher == "docs/teacher"  # type: ignore[attr-defined]


ANN = {"recipe": "ann", "model": "vgg5"}

WRONG: dict[str, tuple[Any, str]] = {
    "not yaml": ("runs: [", "the experiment .* is not valid YAML"),
    "an object": ("runs: !!python/object/apply:os.getcwd []", "is not valid YAML"),
    "no mapping": ("- 1", "must be a mapping of fields"),
    "twice": ("runs:\n  a: {recipe: ann}\n  a: {recipe: ann}\n", "names a twice in one place"),
    "field": ({"seed": [0], "runs": {"a": ANN}}, "unknown field 'seed': did you mean 'seeds'"),
    "layout": ({"layout": "table-5", "runs": {"a": ANN}}, "unknown layout 'table-5': did you mean 'table-"),
    "no runs": ({"seeds": [0]}, "runs must map names to runs"),
    "seeds": ({"seeds": 3, "runs": {"a": ANN}}, r"seeds must list different whole numbers, .* not 3"),
    "seed twice": (with_runs(a=ANN | {"seeds": [1, 1]}), r"a: seeds must list different whole numbers"),
    "section": ({"common": [1], "runs": {"a": ANN}}, "common must be a mapping"),
    "common field": ({"common": {"epoch": 1}, "runs": {"a": ANN}}, "'common.epoch': did you mean 'common.epochs'"),
    "common to students": (
        {"common": {"timesteps": 1}, "runs": {"a": ANN}},
        "common.timesteps is no field of every run: it belongs under students",
    ),
    "a seed among fields": (with_runs(a=ANN | {"seed": 1}), "a: seed: seeds says which"),
    "out for all": ({"common": {"out": "x"}, "runs": {"a": ANN}}, "common.out: runs cannot share a folder"),
    "out for several seeds": (with_runs(a=ANN | {"out": "x", "seeds": [0, 1]}), "a: out: one folder cannot hold"),
    "name": (with_runs(**{"../a": ANN}), "the run '../a' needs a name of letters"),
    "no recipe": (with_runs(a={"model": "vgg5"}), "a: a run is a mapping that names its recipe"),
    "recipe": (with_runs(a={"recipe": "blokwise"}), "a: unknown method 'blokwise': did you mean 'blockwise'"),
    "own field": (with_runs(a=ANN | {"timestep": 3}), "a: unknown option 'timestep'"),
    "value": (with_runs(a=ANN | {"epochs": "many"}), "a: .*option \"epochs\": Expected a <class 'int'>"),
    "no teacher": (with_runs(a={"recipe": "blockwise"}), "a: .*blockwise need a teacher"),
    "reference": (
        with_runs(teacher=ANN, a={"recipe": "blockwise", "teacher": {"run": "teachr"}}),
        "a: teacher: unknown run 'teachr': did you mean 'teacher'",
    ),
    "reference's form": (
        with_runs(a={"recipe": "blockwise", "teacher": {"runs": "a"}}),
        "a: teacher must be a run folder, or another run as in {run: NAME}",
    ),
    "a seed that the reference lacks": (
        with_runs(t=ANN | {"seeds": [0, 1]}, a={"recipe": "blockwise", "teacher": {"run": "t"}, "seeds": [1, 2]}),
        "a: its teacher 't' has no seed 2",
    ),
    "a spiking source": (
        with_runs(t={"recipe": "labels-only"}, a={"recipe": "hybrid", "source": {"run": "t"}}),
        "a: its source 't' is a spiking network: name the run of an ANN",
    ),
    "a circle": (
        with_runs(a=ANN | {"start": {"run": "b"}}, b=ANN | {"start": {"run": "a"}}),
        "a: needs itself, by way of a, b; b: needs itself",
    ),
    "one folder": (
        with_runs(a=ANN | {"out": "x"}, b=ANN | {"out": "x", "epochs": 7}),
        "a and b share the folder x and differ in epochs: give one another out",
    ),
    "stages that differ": (
        with_runs(a={"recipe": "hybrid", "width": 0.5}, b={"recipe": "hybrid"}),
        r"a \(source\) and b \(source\) share the folder .* differ in width: make it a run",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files_are_one_line(case: str, tmp_path: Path) -> None:
    contents, message = WRONG[case]
    with pytest.raises(InputError, match=message) as caught:
        resolved(tmp_path, contents)
    assert "\n" not in str(caught.value)
    assert "mine.yaml" in str(caught.value)


def test_all_problems_are_named_together(tmp_path: Path) -> None:
    contents = with_runs(a=ANN | {"epochs": 0, "width": -1}, b={"recipe": "blockwize"}, c={"recipe": "ann", "modl": 1})
    with pytest.raises(InputError) as caught:
        resolved(tmp_path, contents | {"layouts": "plain"})
    for part in (
        "unknown field 'layouts'",
        "a: ",
        "epochs must be",
        "width must be",
        "b: unknown method",
        "c: unknown",
    ):
        assert part in str(caught.value)


def test_a_missing_file_is_one_line() -> None:
    with pytest.raises(InputError, match="cannot read the experiment absent.yaml: No such file"):
        load_experiment("absent.yaml")


def test_spiking_teachers_are_for_objectives_that_learn_from_spikes(tmp_path: Path) -> None:
    contents = with_runs(t={"recipe": "hybrid"}, a={"recipe": "spike-distillation", "teacher": {"run": "t"}})
    assert resolved(tmp_path, contents).shown[1].recipe.teacher == "runs/mine/t-s0"  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_experiments_of_the_repository_can_be_carried_out(path: Path) -> None:
    experiment = load_experiment(path)
    assert len(experiment.in_order()) == len(experiment.runs)
    assert f"spikestill compare experiments/{path.name}" in path.read_text()


def test_the_blockwise_experiment_names_the_runs_that_were_measured() -> None:
    experiment = load_experiment(EXPERIMENTS / "cifar10-blockwise.yaml")
    assert len(experiment.runs) == 1 + 7 * 3
    folders = {run.folder: run.recipe for run in experiment.runs}
    student = folders["runs/cifar10-blockwise/blockwise-teacher-weights-rate-s2"]
    assert isinstance(student, DistillRecipe)
    assert (student.epochs, student.limit_train, student.batch_size, student.seed) == (3, 20000, 64, 2)
    assert (student.optimiser.name, student.optimiser.lr, student.optimiser.weight_decay) == ("adamw", 0.003, 5e-4)
    assert student.clip_gradient is None
    assert student.teacher == "docs/results/cifar10-blockwise/teacher"
    alone = folders["runs/cifar10-blockwise/labels-only-random-rate-s0"]
    assert isinstance(alone, DistillRecipe)
    assert (alone.teacher, alone.teacher_precision, alone.epochs) == (None, "float32", 4)
