"""The jobs follow from stages, architectures and folds: how many, which commands, in which order, leaving what behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from flrplan.errors import SettingsError
from flrplan.evaluation import WRITTEN
from flrplan.method import Variant
from flrplan.networks import PAPER
from flrplan.workflow import BenchmarkSettings, DataKind, Job, Places, Rule, benchmark_jobs, with_split
from flrplan.workflow.jobs import settled_split
from flrplan.workflow.progress import copy_markers, drop_markers, progress_lines, stale_markers
from flrplan.workflow.record import require_same_benchmark
from flrplan.workflow.settings import DataSettings, SplitSettings
from flrplan.workfolder import FINAL_CHECKPOINT

SPLIT = {"test": ["t1"], "folds": [["a1", "a2"], ["b1"]]}


def of(jobs: list[Job], rule: Rule) -> list[Job]:
    return [job for job in jobs if job.rule is rule]


def test_three_architectures_four_stages_and_five_folds_are_sixty_trainings(places: Places) -> None:
    folds = [[f"c{i}"] for i in range(5)]
    (places.work / "splits.json").write_text(json.dumps({"test": ["t1"], "folds": folds}))
    settings = BenchmarkSettings(architectures=PAPER)
    jobs = benchmark_jobs(settings, places)
    train = of(jobs, Rule.TRAIN)
    assert len(train) == len({job.products[0] for job in train}) == 60
    assert len(of(jobs, Rule.PREPROCESS)) == 4, "once for all architectures"
    assert len(of(jobs, Rule.PREDICT)) == 3 * 6
    held_out = next(job for job in jobs if job.name == "swinunetr-held-out")
    assert sorted(held_out.after) == sorted(job.done for job in train if "-swinunetr-" in job.name), (
        "all 20 models of swinunetr, no other"
    )
    fold = next(job for job in jobs if job.name == "stunet-fold-3")
    assert len(fold.after) == 4, "one model a stage"
    grouped = benchmark_jobs(replace(settings, trainings_per_job=15, predictions_per_job=6), places)
    assert [len(job.products) for job in of(grouped, Rule.TRAIN)] == [15] * 4
    assert of(grouped, Rule.TRAIN)[0].name == "liver-nnunet-0-stunet-4"
    assert len(of(grouped, Rule.PREDICT)) == 3


@pytest.mark.parametrize("folds", [[], [["a1", "a2"]]])
def test_a_split_that_cannot_train_is_refused_before_any_job(places: Places, folds: list[list[str]]) -> None:
    (places.work / "splits.json").write_text(json.dumps({"test": ["t1"], "folds": folds}))
    with pytest.raises(SettingsError, match=r"splits\.json has .*, so it can evaluate but not train"):
        benchmark_jobs(BenchmarkSettings(), places)


def test_every_job_comes_after_what_it_needs_and_the_last_one_needs_all(places: Places) -> None:
    settings = BenchmarkSettings(data=DataSettings(DataKind.SYNTHETIC, cases=4), split=SplitSettings(held_out=1, folds=2))
    jobs = benchmark_jobs(settings, places)
    assert [job.rule for job in jobs if job.rule not in (Rule.TRAIN, Rule.PREDICT, Rule.PREPROCESS)] == [
        Rule.PREPARE,
        Rule.SPLIT,
        Rule.EVALUATE,
    ]
    seen: set[str] = set()
    for job in jobs:
        assert set(job.after) <= seen, job.done
        seen.add(job.done)
    reached: set[str] = set()
    todo = [jobs[-1]]
    while todo:
        job = todo.pop()
        reached.add(job.done)
        todo += [j for j in jobs if j.done in job.after]
    assert reached == seen


def test_products_of_predictions_are_the_files_that_the_evaluation_expects(places: Places) -> None:
    jobs = benchmark_jobs(BenchmarkSettings(architectures=("nnunet",), predictions_per_job=3), places)
    files = {str(p.relative_to(places.work / "predictions")) for job in of(jobs, Rule.PREDICT) for p in job.products}
    cv = {
        f"nnunet/{c}/{i}.nii.gz"
        for c in ("pipelined_liver", "pipelined_crlm", "pipelined_flr", "e2e_flr")
        for i in ("a1", "a2", "b1")
    }
    columns = ("pipelined_liver", "pipelined_crlm", "pipelined_flr", "cascaded_crlm", "cascaded_flr", "e2e_flr")
    assert files == cv | {f"nnunet/{c}/t1.nii.gz" for c in columns}


def test_probabilities_are_files_of_the_prediction_so_asking_for_them_makes_it_again(places: Places) -> None:
    without = BenchmarkSettings(architectures=("nnunet",), predictions_per_job=3)
    jobs = benchmark_jobs(without, places)
    for job in jobs:
        for path in (places.folder.workflow / job.done, *job.products):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    asked = benchmark_jobs(replace(without, probabilities=True), places)
    (job,) = of(asked, Rule.PREDICT)
    files = {
        p.relative_to(places.work / "probabilities") for p in job.products if p.is_relative_to(places.work / "probabilities")
    }
    assert files == {p.relative_to(places.work / "predictions") for p in of(jobs, Rule.PREDICT)[0].products}
    assert "--probabilities" in job.command
    assert stale_markers(asked, places.work) == [job.done, asked[-1].done]
    assert "predict: 0 of 1 jobs done; 18 of 36 files there" in progress_lines(asked, places.work)
    split = settled_split(without, places.work)
    require_same_benchmark(without, split, places.work)
    require_same_benchmark(replace(without, probabilities=True), split, places.work)


def test_a_part_of_the_benchmark_says_what_it_leaves_out(places: Places) -> None:
    settings = BenchmarkSettings(architectures=("nnunet",), stages=("crlm", "liver"), folds=(1,), note="partial")
    jobs = benchmark_jobs(settings, places)
    assert len(of(jobs, Rule.TRAIN)) == 2
    predict = of(jobs, Rule.PREDICT)
    assert [job.name for job in predict] == ["nnunet-held-out", "nnunet-fold-1"]
    assert "--fold 1" in " ".join(predict[0].command)
    assert "--stage liver --stage crlm" in " ".join(predict[0].command)
    evaluate = " ".join(jobs[-1].command)
    assert "--allow-missing" in evaluate
    assert [c for c in ("pipelined_liver", "cascaded_crlm", "cascaded_flr", "e2e_flr") if f"--absent {c}" in evaluate] == [
        "cascaded_flr",
        "e2e_flr",
    ]


def test_commands_of_downloads_and_of_pretrained_weights(places: Places) -> None:
    weights = places.work / "w.model"
    weights.write_text("")
    split = places.work / "given.json"
    split.write_text(json.dumps(SPLIT))
    data = DataSettings(DataKind.REFINED, root=Path("/refined"), tcia=Path("/tcia"), allow_missing=True)
    settings = BenchmarkSettings(
        data=data, split=SplitSettings(file=split), pretrained={"nnunet": weights}, train_size="narrow"
    )
    jobs = benchmark_jobs(settings, places)
    prepare = " ".join(jobs[0].command)
    assert prepare.startswith("/python /b/prepare.py refined /refined --out ")
    assert prepare.endswith(f"--tcia /tcia --splits {split} --allow-missing")
    train = " ".join(of(jobs, Rule.TRAIN)[0].command)
    assert f"--split {places.work / 'splits.json'}" in train, "the one that prepare.py writes, which may lack missing cases"
    assert f"--pretrained nnunet={weights} -- " in train
    assert train.endswith("--size narrow")


@pytest.mark.parametrize("kind", [DataKind.TCIA, DataKind.REFINED, DataKind.FOLDER])
def test_a_split_of_a_download_is_drawn_from_its_strata_and_no_other_is_written_before(tmp_path: Path, kind: DataKind) -> None:
    data = DataSettings(kind, root=Path("/data"), images=Path("/ct"))
    settings = BenchmarkSettings(data=data, split=SplitSettings(held_out=30, folds=5))
    prepare, draw, *rest = benchmark_jobs(settings, Places(tmp_path, Path("/b"), "/python"))
    assert prepare.command[-1] == "--no-split"
    assert "--splits" not in prepare.command
    assert f"--dataset {tmp_path / 'dataset.csv'} --held-out 30 --folds 5" in " ".join(draw.command)
    assert draw.after == (prepare.done,)
    assert len(of(rest, Rule.TRAIN)) == len(PAPER) * 4 * 5


def test_a_prepared_folder_is_drawn_from_its_strata_where_it_has_them(places: Places) -> None:
    settings = BenchmarkSettings(split=SplitSettings(held_out=1, folds=2))
    assert "--cases" in benchmark_jobs(settings, places)[0].command
    (places.folder.dataset).touch()
    assert "--dataset" in benchmark_jobs(settings, places)[0].command


def test_a_download_without_a_split_takes_ours_and_other_cases_are_told_to_add_one(tmp_path: Path) -> None:
    ours = tmp_path / "ours.json"
    ours.write_text(json.dumps(SPLIT))
    settings = with_split(BenchmarkSettings(data=DataSettings(DataKind.TCIA, root=Path("/tcia"))), ours)
    prepare = benchmark_jobs(settings, Places(tmp_path / "W", Path("/b"), "/python"))[0]
    assert f"--splits {ours}" in " ".join(prepare.command)
    assert with_split(BenchmarkSettings(), ours).split is None, "a prepared folder has its own"
    folder = BenchmarkSettings(data=DataSettings(DataKind.FOLDER, root=Path("/data")))
    with pytest.raises(SettingsError, match=r"kind folder come without a split; add split: <file>, or split: \{held_out"):
        with_split(folder, ours)


def test_a_split_file_that_is_not_there(places: Places) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.json"):
        benchmark_jobs(BenchmarkSettings(split=SplitSettings(file=Path("/nowhere.json"))), places)


def test_markers_without_their_files_are_dropped(places: Places) -> None:
    jobs = benchmark_jobs(BenchmarkSettings(architectures=("nnunet",)), places)
    first, second = of(jobs, Rule.TRAIN)[:2]
    for job in (first, second):
        (places.folder.workflow / job.done).parent.mkdir(parents=True, exist_ok=True)
        (places.folder.workflow / job.done).touch()
        job.products[0].parent.mkdir(parents=True)
        job.products[0].touch()
    assert "train: 2 of 8 jobs done; 2 of 8 files there" in progress_lines(jobs, places.work)
    assert stale_markers(jobs, places.work) == []
    second.products[0].unlink()
    assert stale_markers(jobs, places.work) == [second.done]
    assert "train: 1 of 8 jobs done; 1 of 8 files there" in progress_lines(jobs, places.work)
    copy_markers(jobs, places.work, places.work / "copy")
    assert [p.name for p in (places.work / "copy").rglob("*") if p.is_file()] == [first.name], "what a dry run sees"
    times = [(folder / first.done).stat().st_mtime_ns for folder in (places.work / "copy", places.folder.workflow)]
    assert times[0] == times[1], "Snakemake compares them"
    drop_markers([second.done], places.work)
    assert [(places.folder.workflow / job.done).is_file() for job in (first, second)] == [True, False]


def test_what_comes_after_files_that_are_gone_is_made_anew_too(places: Places) -> None:
    jobs = benchmark_jobs(BenchmarkSettings(architectures=("nnunet",)), places)
    for job in jobs:
        for path in (places.folder.workflow / job.done, *job.products):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    assert stale_markers(jobs, places.work) == []
    fold = next(job for job in jobs if job.name == "nnunet-fold-1")
    fold.products[0].unlink()
    assert stale_markers(jobs, places.work) == [fold.done, jobs[-1].done], "predictions, then the tables"
    assert "evaluate: 0 of 1 jobs done; 8 of 8 files there" in progress_lines(jobs, places.work)
    fold.products[0].touch()
    preprocess = of(jobs, Rule.PREPROCESS)[0]
    preprocess.products[0].unlink()
    assert stale_markers(jobs, places.work) == [], "all that it trains is there"
    train = next(job for job in of(jobs, Rule.TRAIN) if preprocess.done in job.after)
    train.products[0].unlink()
    assert {preprocess.done, train.done, jobs[-1].done} <= set(stale_markers(jobs, places.work))


def test_another_recipe_or_split_in_the_same_folder_is_refused(places: Places) -> None:
    recipe = places.work / "r.yaml"
    recipe.write_text("common: {}")
    settings = BenchmarkSettings(recipe=recipe)
    split = settled_split(settings, places.work)
    require_same_benchmark(settings, None, places.work)  # before the split is drawn
    require_same_benchmark(settings, split, places.work)
    require_same_benchmark(replace(settings, architectures=(PAPER[0],), note="x"), split, places.work)
    recipe.write_text("common: {training: {epochs: 3}}")
    with pytest.raises(SettingsError, match=r"made of something else \(recipe\b"):
        require_same_benchmark(settings, split, places.work)
    recipe.write_text("common: {}")
    (places.work / "splits.json").write_text('{"test": ["b1"], "folds": [["a1", "a2"], ["t1"]]}')
    with pytest.raises(SettingsError, match=r"made of something else \(mirroring was True, is False; split\.folds was"):
        require_same_benchmark(replace(settings, mirroring=False), settled_split(settings, places.work), places.work)


def test_a_folder_whose_missing_cases_were_dropped_goes_on(tmp_path: Path) -> None:
    given, work = tmp_path / "given.json", tmp_path / "W"
    given.write_text(json.dumps(SPLIT))
    strict = BenchmarkSettings(data=DataSettings(DataKind.TCIA, root=Path("/tcia")), split=SplitSettings(file=given))
    places = Places(work, Path("/b"), "/python")
    require_same_benchmark(strict, settled_split(strict, work), work)  # prepare.py then names the missing case and fails
    settings = replace(strict, data=replace(strict.data, allow_missing=True))
    assert "--splits" in benchmark_jobs(settings, places)[0].command
    require_same_benchmark(settings, settled_split(settings, work), work)
    require_same_benchmark(settings, settled_split(settings, work), work)  # stopped while it was prepared
    reduced = {"test": ["t1"], "folds": [["a1"], ["b1"]]}
    (work / "splits.json").write_text(json.dumps(reduced))  # what prepare.py --allow-missing leaves without a2
    jobs = benchmark_jobs(settings, places)
    assert not any("a2" in str(path) for job in jobs for path in job.products)
    require_same_benchmark(settings, settled_split(settings, work), work)
    (work / "splits.json").write_text(json.dumps({**reduced, "test": []}))
    with pytest.raises(SettingsError, match=r"made of something else \(split\b"):
        require_same_benchmark(settings, settled_split(settings, work), work)
    (work / "splits.json").write_text(json.dumps(reduced))
    given.write_text(json.dumps({"test": ["a2"], "folds": [["a1", "t1"], ["b1"]]}))
    with pytest.raises(SettingsError, match=r"made of something else \(split asked for\b"):
        require_same_benchmark(settings, settled_split(settings, work), work)


def test_another_draw_in_the_same_folder_is_refused(places: Places) -> None:
    settings = BenchmarkSettings(split=SplitSettings(held_out=1, folds=2))
    (places.work / "splits.json").unlink()
    require_same_benchmark(settings, settled_split(settings, places.work), places.work)
    (places.work / "splits.json").write_text(json.dumps(SPLIT))
    require_same_benchmark(settings, settled_split(settings, places.work), places.work)
    other = replace(settings, split=SplitSettings(held_out=2, folds=2))
    with pytest.raises(SettingsError, match=r"made of something else \(split asked for\b"):
        require_same_benchmark(other, settled_split(other, places.work), places.work)


def test_random_weights_on_purpose_are_handed_on_and_recorded(places: Places) -> None:
    settings = BenchmarkSettings(architectures=("nnunet", "stunet"), pretrained={"stunet": None})
    trainings = of(benchmark_jobs(settings, places), Rule.TRAIN)
    said = {job.name: "--pretrained stunet=scratch" in " ".join(job.command) for job in trainings}
    assert said == {job.name: "stunet" in job.name for job in trainings}
    require_same_benchmark(settings, settled_split(settings, places.work), places.work)
    weights = places.work / "w.model"
    weights.write_text("")
    with pytest.raises(SettingsError, match=r"made of something else \(pretrained stunet\b"):
        require_same_benchmark(replace(settings, pretrained={"stunet": weights}), None, places.work)


def test_variants_are_trained_and_predicted_like_architectures_on_arrays_of_their_own_kind(places: Places) -> None:
    coarse = {"spacing_zyx_mm": [2, 2, 2]}
    variants = {
        "seed_1": Variant("seed_1", "nnunet", training={"seed": 1}),
        "coarse": Variant("coarse", "nnunet", plan=coarse),
        "coarse_seed_1": Variant("coarse_seed_1", "nnunet", plan=coarse, training={"seed": 1}),
    }
    settings = BenchmarkSettings(
        architectures=("nnunet",),
        variants=variants,
        variants_file=Path("/b/controls.yaml"),
        stages=("liver",),
        trainings_per_job=9,
        predictions_per_job=9,
    )
    jobs = benchmark_jobs(settings, places)
    own, other = of(jobs, Rule.PREPROCESS)
    prepared = variants["coarse"].preparation
    assert (own.name, other.name) == ("liver", f"liver-{prepared}")
    assert "--architecture" not in own.command
    assert "--architecture coarse --variants /b/controls.yaml" in " ".join(other.command)
    assert other.products == (places.work / "training" / prepared / "liver" / "prepared.json",)
    first, second = of(jobs, Rule.TRAIN)
    assert (first.name, first.after) == ("liver-nnunet-0-seed_1-1", (own.done,))
    assert (second.name, second.after) == ("liver-coarse-0-coarse_seed_1-1", (other.done,))
    assert "--variants /b/controls.yaml --" in " ".join(second.command)
    assert places.work / "models" / "liver" / "coarse" / "fold_1" / FINAL_CHECKPOINT in second.products
    assert [job.name.split("-")[0] for job in of(jobs, Rule.PREDICT)] == ["nnunet", "seed_1", "coarse", "coarse_seed_1"]
    assert all("--variants" not in job.command for job in of(jobs, Rule.PREDICT)), "the models say what they are"


def test_a_variant_may_have_stages_of_its_own(places: Places) -> None:
    variants = {
        "together": Variant("together", "nnunet", stages=("multi",)),
        "liver_only": Variant("liver_only", "nnunet", stages=("liver",)),
    }
    settings = BenchmarkSettings(
        architectures=("nnunet",), variants=variants, stages=("liver", "crlm"), trainings_per_job=9, predictions_per_job=9
    )
    jobs = benchmark_jobs(settings, places)
    assert [job.name for job in of(jobs, Rule.PREPROCESS)] == ["liver", "crlm", "multi"]
    assert [job.name for job in of(jobs, Rule.TRAIN)] == [
        "liver-nnunet-0-liver_only-1",
        "crlm-nnunet-0-nnunet-1",
        "multi-together-0-together-1",
    ]
    together = next(job for job in of(jobs, Rule.PREDICT) if job.name.startswith("together"))
    assert together.command[-8:-6] == ("--stage", "multi")
    assert together.after == (of(jobs, Rule.TRAIN)[-1].done,)
    columns = {path.parent.name for path in together.products}
    assert columns == {"e2e_multi_liver", "e2e_multi_crlm", "e2e_multi_flr"}
    evaluate = " ".join(jobs[-1].command)
    assert "--absent liver_only/cascaded_crlm" in evaluate
    assert "multi_flr" not in evaluate
    with pytest.raises(SettingsError, match="ensembles: both: expected rows with the same stages"):
        replace(settings, ensembles={"both": ("nnunet", "together")})
    assert variants["together"].to_json() == {"architecture": "nnunet", "stages": ["multi"]}


def test_a_variant_starts_from_its_own_weights_else_from_those_of_its_architecture(places: Places) -> None:
    weights = places.work / "w.model"
    weights.write_text("")
    variants = {
        "from_scratch": Variant("from_scratch", "stunet", pretrained="scratch"),
        "at_seed_1": Variant("at_seed_1", "stunet", training={"seed": 1}),
    }
    settings = BenchmarkSettings(
        architectures=("stunet",), variants=variants, stages=("liver",), pretrained={"stunet": weights}, trainings_per_job=9
    )
    train = " ".join(of(benchmark_jobs(settings, places), Rule.TRAIN)[0].command)
    assert f"--pretrained stunet={weights} --pretrained at_seed_1={weights} -- " in train, (
        "flrplan train reads from_scratch's own"
    )


def test_an_ensemble_comes_after_its_members_and_before_the_tables(places: Places) -> None:
    variants = {"seed_1": Variant("seed_1", "nnunet", training={"seed": 1})}
    settings = BenchmarkSettings(
        architectures=("nnunet", "swinunetr"),
        variants=variants,
        ensembles={"both": ("nnunet", "seed_1")},
        stages=("liver",),
        predictions_per_job=9,
    )
    jobs = benchmark_jobs(settings, places)
    [made] = of(jobs, Rule.ENSEMBLE)
    assert [job.split("/")[-1].split("-")[0] for job in made.after] == ["nnunet", "seed_1"]
    assert " ".join(made.command).endswith("--name both --of nnunet --of seed_1")
    assert {p.parts[-3:-1] for p in made.products} == {("both", "pipelined_liver")}
    assert {p.name for p in made.products} == {f"{case}.nii.gz" for case in ("t1", "a1", "a2", "b1")}
    assert made.done in jobs[-1].after
    for ensembles, said in (
        ({"both": ("nnunet",)}, "ensembles: both: expected at least two different rows"),
        ({"both": ("nnunet", "nnunet")}, "expected at least two different rows"),
        ({"both": ("nnunet", "stunet")}, "ensembles: both: unknown stunet; known are nnunet, swinunetr, seed_1"),
        ({"seed_1": ("nnunet", "swinunetr")}, "and a name of its own"),
        ({"whole_liver": ("nnunet", "swinunetr")}, "'whole_liver' cannot be a name"),
    ):
        with pytest.raises(SettingsError, match=said):
            replace(settings, ensembles=ensembles)


def test_variants_may_be_added_to_a_work_folder_but_not_changed(places: Places) -> None:
    plain = BenchmarkSettings(architectures=("nnunet",))
    one = replace(plain, variants={"seed_1": Variant("seed_1", "nnunet", training={"seed": 1})})
    other = replace(plain, variants={"seed_1": Variant("seed_1", "nnunet", training={"seed": 2})})
    for settings in (plain, one, plain):
        require_same_benchmark(settings, None, places.work)
    with pytest.raises(SettingsError, match=r"made of something else \(variant seed_1\b"):
        require_same_benchmark(other, None, places.work)


def test_names_that_are_written_twice_agree() -> None:
    assert WRITTEN[-1] == "summary.json"
