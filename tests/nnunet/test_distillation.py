"""One network in place of an ensemble: what it learns, from which cases, when it is offered, and what it is called then."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch

from flrplan.anatomy import Mask, Structure
from flrplan.api.model_zip import export_models, import_exported
from flrplan.api.run_plan import run_plan
from flrplan.api.train import train
from flrplan.cli import main
from flrplan.engine import Cascade, CascadeSettings, FoundModel, ModelStore
from flrplan.engine.models import DISTILLED, IS_DEMO
from flrplan.errors import LabelError, ModelError, SettingsError
from flrplan.files import current_version, versions, write_json
from flrplan.image import CT
from flrplan.learning import DistillationRequest, distil, distillation
from flrplan.learning.distillation import DISTILLED_NETWORK, Comparison, Distilled
from flrplan.method import FLR, Recipe, stage_named
from flrplan.networks import architecture_named
from flrplan.nnunet.environment import nnunet_folders
from flrplan.nnunet.model import ModelFolder, load_checkpoint, write_checkpoint
from flrplan.nnunet.model.model_folder import PUBLISHED_NAME
from flrplan.nnunet.prepare import CONFIGURATION
from flrplan.nnunet.prepare.architecture_plan import plan_training
from flrplan.nnunet.train import train_fold
from flrplan.nnunet.train.distillation import DistillingTrainer, Divergence, Teacher
from flrplan.nnunet.train.training_run import StageWork
from flrplan.planning.calibration import Calibration, settings_of_run
from flrplan.workfolder import FINAL_CHECKPOINT

CPU = torch.device("cpu")
STEPS = {"iterations_per_epoch": 6, "learning_rate": 0.01, "mirror_axes": [], "workers": 0}


@pytest.fixture(scope="module")
def models(tiny_prepared: StageWork, tiny_recipe: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two folds of stage flr, trained apart for a few steps: they differ, and find something."""
    root = tmp_path_factory.mktemp("ensemble")
    shutil.copytree(tiny_prepared.root, root / "work")
    for fold in (0, 1):
        recipe = tiny_recipe(**STEPS, epochs=6, seed=fold)
        train_fold(StageWork(root / "work", FLR), fold, recipe, root / "models" / "flr" / "nnunet", CPU)
    return root / "models"


@pytest.fixture(scope="module")
def ensemble(models: Path) -> ModelFolder:
    return ModelFolder.open(models / "flr" / "nnunet")


@pytest.fixture(scope="module")
def request_(
    models: Path, tiny_cohort: Path, tiny_recipe: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    folder = tmp_path_factory.mktemp("distilled")
    return DistillationRequest(
        FLR,
        tiny_cohort,
        folder / "work",
        folder / "out",
        models,
        recipe=tiny_recipe(**{**STEPS, "learning_rate": 0.003}, epochs=3, loss="dice_bce"),
        held_out=1,
        device="cpu",
    )


@pytest.fixture(scope="module")
def done(request_: DistillationRequest) -> Distilled:
    """A distillation that was killed after its first epoch and started again; far from 0.995."""

    def kill(report: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distil(request_, kill)
    return distil(request_)


def copied(models: Path, to: Path, **published: object) -> Path:
    shutil.copytree(models, to)
    if published:
        write_json(to / "flr" / "nnunet" / PUBLISHED_NAME, published)
    return to


def test_the_loss_is_the_divergence_of_the_two_and_nothing_where_they_are_the_same() -> None:
    """The teacher says 1/2, the student 3/4: 1/2 ln(1/2 / 3/4) + 1/2 ln(1/2 / 1/4) = 1/2 ln(4/3)."""
    half, logit = torch.full((1, 2, 1, 1, 3), 0.5), torch.full((1, 2, 1, 1, 3), log(3))
    assert float(Divergence()(logit, half)) == pytest.approx(0.5 * log(4 / 3))
    teacher = torch.tensor([-40.0, -3.0, 0.0, 0.7, 8.0, 40.0]).reshape(1, 1, 1, 2, 3)
    student = teacher.clone().requires_grad_()
    same = Divergence()(student, teacher.sigmoid())
    same.backward()
    assert float(same.detach()) == pytest.approx(0, abs=1e-7)
    assert student.grad is not None
    assert float(student.grad.abs().max()) < 1e-7
    for other in (teacher + 0.1, teacher - 0.1, -teacher):
        assert float(Divergence()(other, teacher.sigmoid())) > 1e-5


@pytest.fixture
def trainer(tiny_work: StageWork, ensemble: ModelFolder, tiny_recipe: Callable[..., Recipe]) -> Iterator[DistillingTrainer]:
    """A student of the two folds, with the weights of the first."""
    plans = plan_training(tiny_work.preprocessed, architecture_named("nnunet"), tiny_recipe().plan)
    with nnunet_folders(tiny_work.folder):
        trainer = DistillingTrainer({**plans, "continue_training": False}, CONFIGURATION, 0, ensemble.dataset, CPU)
        trainer.apply(tiny_recipe().training)
        trainer.learn_from(Teacher.open(ensemble))
        trainer.initialize()
        trainer.network.load_state_dict(trainer.teacher.weights[0])
        yield trainer


def test_the_target_is_the_sigmoid_of_the_averaged_logits_at_each_resolution(trainer: DistillingTrainer) -> None:
    data = torch.randn(2, 2, 16, 24, 24, generator=torch.Generator().manual_seed(1))
    of_folds = []
    for weights in trainer.teacher.weights.values():
        trainer.network.load_state_dict(weights)
        of_folds.append([output.detach() for output in trainer.network(data)])
    [(_, target, share)] = trainer._parts_of({"data": data, "target": [torch.full((2, 1, 16, 24, 24), float("nan"))]})
    assert share == 1  # and the label, NaN, has no part in it
    for found, first, second in zip(target, *of_folds, strict=True):
        assert torch.allclose(found, ((first + second) / 2).sigmoid())


def test_several_outputs_and_resolutions_are_learned_each_for_itself(trainer: DistillingTrainer) -> None:
    logits = torch.tensor([[2.0, -1.0], [0.0, 4.0]]).reshape(1, 2, 1, 1, 2)
    coarse = logits[..., :1]
    trainer._folds = [lambda data: [logits, coarse], lambda data: [2 - logits, coarse]]
    fine, lower = trainer._taught(torch.zeros(1, 2, 1, 1, 2))
    assert torch.allclose(fine, torch.full_like(logits, 1.0).sigmoid())
    assert torch.allclose(lower, coarse.sigmoid())


def test_who_answers_as_the_teacher_has_nothing_to_learn(trainer: DistillingTrainer) -> None:
    data = torch.randn(2, 2, 16, 24, 24, generator=torch.Generator().manual_seed(2))
    batch = {"data": data, "target": [torch.zeros(2, 1, 16, 24, 24)]}
    apart = float(trainer.validation_step(batch)["loss"])
    trainer._folds = trainer._folds[:1]
    found = trainer.validation_step(batch)
    assert float(found["loss"]) == pytest.approx(0, abs=1e-6)
    assert apart > 1e-3
    assert not found["fp_hard"].any()
    assert not found["fn_hard"].any()


def test_the_student_comes_nearer_to_the_ensemble_than_the_fold_it_began_as(done: Distilled, ensemble: ModelFolder) -> None:
    distilled = done.record[DISTILLED]
    assert 0 < distilled["agreement_before"]["flr"] < distilled["agreement"]["flr"] <= 1
    assert set(distilled["dice"]) == {"ensemble", "fold 0", "distilled"}
    run = json.loads((done.student / "fold_0" / "run.json").read_text())
    assert run["resumed_at"] == [1]  # after the kill
    assert (run["pretrained"]["fresh"], run["pretrained"]["skipped"]) == ([], {})
    assert run["recipe"]["training"]["loss"] == "bce"
    plans = (json.loads((folder / "plans.json").read_text()) for folder in (done.student, ensemble.path))
    assert len({json.dumps(p["configurations"]["3d_fullres"]["architecture"]) for p in plans}) == 1


def test_without_a_recipe_it_trains_as_the_first_fold_did_at_a_lower_rate(
    request_: DistillationRequest, ensemble: ModelFolder
) -> None:
    found = distillation._recipe(replace(request_, recipe=None, epochs=9), ensemble).training
    assert (found.epochs, found.iterations_per_epoch, found.mirror_axes, found.seed, found.loss) == (9, 6, (), 0, "bce")
    assert found.learning_rate == pytest.approx(0.01 / 5)


def test_a_recipe_without_a_learning_rate_has_a_fifth_of_the_first_folds_too(
    request_: DistillationRequest, ensemble: ModelFolder, tmp_path: Path
) -> None:
    recipe = Recipe.from_mapping({"training": {"epochs": 7}})
    found = distillation._recipe(replace(request_, recipe=recipe), ensemble).training
    assert (found.epochs, found.learning_rate) == (7, pytest.approx(0.01 / 5))
    assert distillation._recipe(request_, ensemble).training.learning_rate == 0.003  # its own
    shutil.copytree(ensemble.path, tmp_path / "model")
    (tmp_path / "model" / "fold_0" / "run.json").unlink()  # nothing says the fold's: of what is recommended
    advised = architecture_named("nnunet").hyperparameters.learning_rate
    found = distillation._recipe(replace(request_, recipe=None), ModelFolder.open(tmp_path / "model")).training
    assert found.learning_rate == pytest.approx(advised / 5)


def test_a_distillation_that_is_repeated_publishes_nothing_new(done: Distilled, request_: DistillationRequest) -> None:
    model = request_.work / "student" / "flr" / "nnunet"
    before = versions(model), (done.student / "fold_0" / "run.json").read_bytes()
    again = distil(request_)
    assert (versions(model), (again.student / "fold_0" / "run.json").read_bytes()) == before
    assert again.record[DISTILLED] == done.record[DISTILLED]


def test_held_out_cases_do_not_train_and_what_taught_is_not_forgotten(
    done: Distilled, request_: DistillationRequest, ensemble: ModelFolder
) -> None:
    run = json.loads((done.student / "fold_0" / "run.json").read_text())
    held_out = done.record[DISTILLED]["held_out_ids"]
    assert len(held_out) == 1
    assert not set(held_out) & set(run["train_ids"])
    assert len(run["train_ids"]) == 3
    assert list(done.comparison.agreement[DISTILLED_NETWORK]["flr"]) == held_out
    assert done.record[DISTILLED]["held_out_that_trained_the_ensemble"] == held_out  # two folds learned from all four
    for case in (ids := {*run["train_ids"], *held_out}):  # one that no fold has learned from goes before
        assert distillation._split(request_, ids - {case})[1].validation_ids(0) == (case,)
    assert ModelFolder.open(done.student).training_cases(0) == ensemble.training_cases(0) | ensemble.training_cases(1)
    assert run["teacher_sha256"] == done.record[DISTILLED]["weights_sha256"] == Teacher.open(ensemble).sha256


def test_a_student_of_a_demo_model_says_so_in_the_work_folder_too(
    done: Distilled,
    request_: DistillationRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Not offered, or stopped before it was compared: ``--models <work>/student`` plans with it."""

    def stop(*_: Any) -> Comparison:
        raise KeyboardInterrupt

    def found() -> FoundModel:
        return ModelStore(request_.work / "student", demo=None).find(FLR, "nnunet")

    demo = replace(request_, models=copied(request_.models, tmp_path / "models", **{IS_DEMO: True}))
    monkeypatch.setattr(distillation, "train", lambda *_: None)  # it is trained
    with monkeypatch.context() as stopped:
        stopped.setattr(distillation, "compare", stop)
        with pytest.raises(KeyboardInterrupt):
            distil(demo)
    assert found().demo
    words = ["--stage", "flr", "--cases", demo.cases, "--work", demo.work, "--out", demo.out, "--models", demo.models]
    assert main(["models", "distil", *map(str, words), "--held-out", "1", "--device", "cpu"]) == 1
    assert "the ensemble is a demo model, and so is this: not for patients" in capsys.readouterr().out
    assert found().demo
    assert found().distilled
    distil(request_)
    assert not found().demo


def test_a_kill_right_after_the_training_leaves_a_student_that_says_so(
    request_: DistillationRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*given: Any) -> None:
        train(*given)
        raise KeyboardInterrupt

    demo = copied(request_.models, tmp_path / "models", **{IS_DEMO: True})
    monkeypatch.setattr(distillation, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        distil(replace(request_, models=demo, work=tmp_path / "work", epochs=1))
    found = ModelStore(tmp_path / "work" / "student", demo=None).find(FLR, "nnunet")
    assert found.demo


@pytest.fixture(scope="module")
def offered(done: Distilled, request_: DistillationRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the network, taken anyway; its ensemble is called a demo model."""
    folder = tmp_path_factory.mktemp("offered")
    demo = copied(request_.models, folder / "models", **{IS_DEMO: True})
    (demo / "flr" / "nnunet" / "LICENSE").write_text("for nobody")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distillation, "train", lambda *_: None)  # it is trained
        distil(replace(request_, models=demo, out=folder / "out", anyway=True))
    return folder / "out"


def test_a_network_taken_anyway_says_what_it_is_wherever_it_goes(
    offered: Path, ensemble: ModelFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def check(root: Path) -> None:
        found = ModelStore(root, demo=None).find(FLR, "nnunet")
        assert found.demo
        assert found.folder.folds == (0,)
        identity = ModelStore(root, demo=None).predictor(FLR, "nnunet", CPU)[1]
        assert identity.distilled is not None
        assert identity.to_json()["distilled"] == identity.distilled
        assert identity.distilled["weights_sha256"] == Teacher.open(ensemble).sha256
        assert main(["models", "list", "--models", str(root)]) == 0
        said = f"demo (not for patients), distilled from 2 folds (agreement: flr {identity.distilled['agreement']['flr']})"
        assert said in capsys.readouterr().out

    check(offered)
    assert [p.name for p in (offered / "flr").iterdir() if not p.name.endswith(".lock")] == ["nnunet"]  # nothing half written
    export_models(ModelStore(offered, demo=None), tmp_path / "models.zip")
    import_exported(tmp_path / "models.zip", tmp_path / "elsewhere")
    check(tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "flr" / "nnunet" / "LICENSE").read_text() == "for nobody"


def test_a_plan_of_one_network_names_it_and_has_another_models_calibration_not(
    offered: Path, models: Path, small_ct: CT, small_truth: Mapping[Structure, Mask]
) -> None:
    cascade, before = (Cascade(ModelStore(root, demo=None), CascadeSettings(device="cpu")) for root in (offered, models))
    given = {s: small_truth[s] for s in (Structure.LIVER, Structure.CRLM)}
    plan = run_plan(cascade, small_ct, given, disagreement=True)
    assert plan.masks[Structure.FLR].any()
    assert plan.result.models["flr"].distilled
    assert plan.disagreement_zyx is not None
    assert not plan.disagreement_zyx.any()
    assert plan.interval is not None
    assert len(plan.interval.fold_fractions) == 1
    ran = settings_of_run(False, True)
    calibration = Calibration({"flr": before.identity(FLR).decides}, ran, "cases", {})
    assert calibration.is_of({"flr": before.identity(FLR)}, ran)
    assert not calibration.is_of(plan.result.models, ran)


def test_agreement_is_asked_of_every_target_and_nothing_found_is_no_agreement() -> None:
    def compared(found: list[str], **targets: Mapping[str, float]) -> Comparison:
        return Comparison({DISTILLED_NETWORK: targets}, {}, {t: found for t in targets})

    assert compared(["a"], liver={"a": 0.994, "b": 0.996}).doubts() == []
    assert compared(["a"], liver={"a": 1.0}, crlm={"a": 0.99, "b": 0.999}).doubts() == [
        "crlm: mean agreement 0.9945, least 0.9900 (a)"
    ]
    assert "finds no crlm in any of the 2 held-out cases" in compared([], crlm={"a": 1.0, "b": 1.0}).doubts()[0]


def test_a_network_that_agrees_is_offered(
    done: Distilled, request_: DistillationRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distillation, "LEAST_AGREEMENT", done.record[DISTILLED]["agreement"]["flr"])
    monkeypatch.setattr(distillation, "train", lambda *_: None)  # it is trained
    result = distil(replace(request_, out=tmp_path))
    assert (result.offered, result.doubts) == (tmp_path / "flr" / "nnunet", [])
    with pytest.raises(ModelError, match="flr/nnunet exists already; give another --out"):
        distil(replace(request_, out=tmp_path))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda model: shutil.rmtree(model / "fold_1"), "has one fold, 0: there is no ensemble to distil; train more folds"),
        (
            lambda model: (model / "fold_1" / FINAL_CHECKPOINT).write_bytes(b"PK"),
            "fold_1/checkpoint_final.pth: .* it is damaged",
        ),
        (lambda model: spoil_weights(model, torch.nan), "fold_1/checkpoint_final.pth: 4 weights are NaN or infinite"),
        (lambda model: spoil_weights(model, None), "the weights do not fit the network of plans.json"),
    ],
    ids=["one fold", "cut short", "NaN", "a weight is missing"],
)
def test_an_ensemble_that_cannot_teach_is_told_before_anything_is_prepared(
    spoil: Callable[[Path], object], message: str, request_: DistillationRequest, tmp_path: Path
) -> None:
    models = copied(request_.models, tmp_path / "models")
    spoil(models / "flr" / "nnunet")
    with pytest.raises(ModelError, match=message):
        distil(replace(request_, models=models, work=tmp_path / "work", out=tmp_path / "out"))
    assert not (tmp_path / "work").exists()
    assert not (tmp_path / "out" / "flr" / "nnunet").exists()


def spoil_weights(model: Path, value: float | None) -> None:
    path = model / "fold_1" / FINAL_CHECKPOINT
    content = load_checkpoint(path)
    name = next(iter(content["network_weights"]))
    if value is None:
        del content["network_weights"][name]
    else:
        content["network_weights"][name].fill_(value)
    write_checkpoint(path, content)


def test_another_ensemble_does_not_go_on_with_the_training_of_this_one(
    done: Distilled, request_: DistillationRequest, tmp_path: Path
) -> None:
    models = copied(request_.models, tmp_path / "models")
    path = models / "flr" / "nnunet" / "fold_1" / FINAL_CHECKPOINT
    content = load_checkpoint(path)
    next(iter(content["network_weights"].values())).mul_(2)
    write_checkpoint(path, content)
    with pytest.raises(SettingsError, match=r"training_state.pth: the training there .*teacher_sha256\.1 was"):
        distil(replace(request_, models=models, out=tmp_path))


def test_requests_that_cannot_be(request_: DistillationRequest, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'lung'"):
        stage_named("lung")
    fresh = replace(request_, work=tmp_path / "work", out=tmp_path / "out")
    with pytest.raises(SettingsError, match="held_out: at most 3 of these 4 cases, got 4; the others train"):
        distil(replace(fresh, held_out=4))
    with pytest.raises(SettingsError, match="epochs must be at least 1"):
        replace(fresh, epochs=0)
    few = tmp_path / "few"
    shutil.copytree(request_.cases, few)
    ids = sorted(p.name.removesuffix(".nii.gz") for p in (few / "images").iterdir())
    write_json(few / "splits.json", {"test": ids[1:], "folds": [ids[:1]]})
    with pytest.raises(LabelError, match="expected at least 2 cases, one to train on and one to compare on, found 1"):
        distil(replace(fresh, cases=few, held_out=None))  # what the split calls test has no part in it
    assert not (tmp_path / "work").exists()


def test_below_the_agreement_nothing_is_offered_and_the_command_says_the_figures(
    done: Distilled, request_: DistillationRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert done.offered is None
    assert not request_.place.exists()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({"flr": {"training": request_.recipe.to_json()["training"]}}))  # type: ignore[union-attr]
    words = ["--stage", "flr", "--cases", request_.cases, "--work", request_.work, "--out", request_.out, "--models"]
    words += [request_.models, "--recipe", recipe, "--epochs", 4, "--held-out", 1, "--device", "cpu"]
    assert main(["models", "distil", *map(str, words)]) == 1
    said = capsys.readouterr()
    student = current_version(request_.work / "student" / "flr" / "nnunet")
    record = json.loads((student / PUBLISHED_NAME).read_text())[DISTILLED]
    assert f"flr: mean agreement {record['agreement']['flr']:.4f}, least" in said.out
    assert "on 1 held-out cases, mean Dice; 1 of them trained the ensemble" in said.out
    assert "at least 0.995 for each target" in said.err
    assert "more --epochs (it had 4) goes on" in said.err
    assert not request_.place.exists()
