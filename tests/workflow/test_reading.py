"""The YAML of a benchmark: what it may say, and how a mistake in it is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flrplan.errors import SettingsError
from flrplan.method import PAPER_STAGES, STAGES, Variant
from flrplan.networks import PAPER
from flrplan.workflow import DataKind, Rule, read_benchmark, read_variants
from flrplan.workflow.settings import Resources

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "benchmark").glob("**/*.yaml"))


SCRATCH = "pretrained: {stunet: scratch}"


def write(folder: Path, text: str) -> Path:
    path = folder / "b.yaml"
    path.write_text(text)
    return path


def test_a_file_that_only_says_the_start_is_the_paper_on_a_prepared_folder(tmp_path: Path) -> None:
    settings = read_benchmark(write(tmp_path, SCRATCH))
    assert settings.data.kind is DataKind.PREPARED
    assert settings.architectures == PAPER
    assert settings.stages == tuple(map(str, PAPER_STAGES))
    assert (settings.mirroring, settings.recipe, settings.folds) == (True, None, ())


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("")
    text = "data: {kind: tcia, root: ../download}\nsplit: s.json\nrecipe: r.yaml\nresources: {train: {gpus: 1, threads: 4}}"
    text += "\npretrained: {stunet: w.model}"
    (tmp_path / "w.model").write_text("")
    settings = read_benchmark(write(tmp_path, text))
    assert settings.data.root == tmp_path / "../download"
    assert settings.split is not None
    assert settings.split.file == tmp_path / "s.json"
    assert settings.recipe == tmp_path / "r.yaml"
    assert settings.pretrained == {"stunet": tmp_path / "w.model"}
    assert settings.resources_of(Rule.TRAIN) == Resources(threads=4, gpus=1)
    assert settings.resources_of(Rule.PREDICT) == Resources()


def test_a_file_that_extends_another_takes_the_place_of_its_keys(tmp_path: Path) -> None:
    folder = tmp_path / "below"
    folder.mkdir()
    (folder / "r.yaml").write_text("")
    (folder / "base.yaml").write_text(
        SCRATCH + "\nrecipe: r.yaml\nfolds: [0]\nvariants: {a: {architecture: nnunet}}\nmirroring: false"
    )
    settings = read_benchmark(write(tmp_path, "extends: below/base.yaml\nfolds: [1]"))
    assert (settings.recipe, settings.folds, settings.mirroring) == (folder / "r.yaml", (1,), False)
    assert settings.rows == (*PAPER, "a")
    assert settings.variants_file == tmp_path / "b.yaml"
    assert list(read_variants(tmp_path / "b.yaml")) == ["a"]
    own = write(
        tmp_path, "extends: below/base.yaml\nvariants: {b: {architecture: stunet, pretrained: scratch}}\narchitectures: []"
    )
    assert read_benchmark(own).rows == ("b",)
    made = write(tmp_path, "extends: below/base.yaml\nensembles: {both: [a, stunet]}")
    assert read_benchmark(made).ensembles == {"both": ("a", "stunet")}
    with pytest.raises(SettingsError, match=r"b\.yaml: extends goes round in a circle: b\.yaml -> b\.yaml"):
        read_benchmark(write(tmp_path, "extends: b.yaml"))
    with pytest.raises(SettingsError, match=r"none\.yaml: no such file"):
        read_benchmark(write(tmp_path, "extends: none.yaml"))
    with pytest.raises(
        SettingsError,
        match=r"b\.yaml: variants: whole_liver: name: 'whole_liver' cannot be a name: .* nor a stage or a baseline of the tables",
    ):
        read_benchmark(write(tmp_path, SCRATCH + "\nvariants: {whole_liver: {architecture: nnunet}}"))


def test_a_recipe_that_no_row_can_take_is_told_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("crlm: {training: {epochs: 0}}")
    text = "architectures: [nnunet]\nrecipe: r.yaml"
    with pytest.raises(SettingsError, match=r"b\.yaml: .*r\.yaml, stage crlm: training: epochs must be at least 1, got 0"):
        read_benchmark(write(tmp_path, text))
    assert read_benchmark(write(tmp_path, f"{text}\nstages: [liver]")).recipe is not None
    with pytest.raises(SettingsError, match="nnunet has no network_size 'huge'"):
        read_benchmark(write(tmp_path, "architectures: [nnunet]\ntrain_size: huge"))
    (tmp_path / "r.yaml").write_text("common: {plan: {network_size: narrow}}")
    variant = "variants: {a: {architecture: nnunet, plan: {features: [4, 8], patch_size_zyx: [32, 32, 32]}}}"
    with pytest.raises(SettingsError, match="features is a size of its own; leave network_size at base, got 'narrow'"):
        read_benchmark(write(tmp_path, f"{text}\n{variant}"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("architecture: nnunet", "settings: unknown architecture; known are data, split, architectures"),
        ("architectures: [unet]", "architectures[0] must be one of nnunet, swinunetr, stunet, resenc, got 'unet'"),
        ("architectures: nnunet", "architectures must be a list, got 'nnunet'"),
        ("stages: [liver, spleen]", "stages[1] must be one of liver, crlm, flr, flr_e2e, multi, got 'spleen'"),
        ("stages: []", "must name at least one"),
        ("data: {kind: zenodo}", "data: kind must be 'prepared', 'synthetic', 'tcia', 'refined' or 'folder', got 'zenodo'"),
        ("data: {kind: tcia}", "data of kind tcia need root"),
        ("data: {kind: refined, root: x}", "need either tcia: (the download) or images:"),
        ("data: {path: x}", "data: unknown path; known are kind, root"),
        ("split: {file: x}", "split: unknown file; known are held_out, folds"),
        ("split: {folds: 1}", "split: folds must be at least 2, got 1"),
        ("recipe: r.yaml", "recipe: no such file"),
        ("pretrained: {nnunet: w.model}", "pretrained: nnunet: no such file"),
        ("", "pretrained: expected what stunet starts from, found nothing"),
        ("pretrained: {nnunet: scratch}", "pretrained: {stunet: FILE} (docs/networks.md). To start at random say"),
        ("pretrained: {stunet: }", "say pretrained: {stunet: scratch}; the tables then say so"),
        ("architectures: [nnunet]\npretrained: {stunet: scratch}", "pretrained: unknown stunet; known are nnunet"),
        ("resources: {training: {}}", "resources: training must be 'prepare', 'split', 'preprocess', 'train'"),
        ("resources: {train: {gpu: 1}}", "resources: train: unknown gpu; known are threads, mem_mb, minutes, gpus"),
        ("probabilities: all", "probabilities must be true or false, got 'all'"),
        ("mirroring: 0", "mirroring must be true or false, got 0"),
        ("trainings_per_job: 0", "trainings_per_job must be at least 1, got 0"),
        ("- a", "the file must be names with values, got ['a']"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_mistake_is_told_with_file_key_and_what_is_known(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_benchmark(write(tmp_path, text))
    assert str(caught.value).startswith(str(tmp_path / "b.yaml"))
    assert said in str(caught.value)


def test_without_an_architecture_that_the_paper_pretrains_nothing_need_be_said(tmp_path: Path) -> None:
    assert read_benchmark(write(tmp_path, "architectures: [nnunet, swinunetr]")).pretrained == {}


@pytest.mark.parametrize(
    "path",
    [p for p in CONFIGS if "data:" in p.read_text() and p.name != "benchmark.yaml"],
    ids=lambda p: p.name,
)
def test_the_files_of_the_repository_can_be_read(path: Path) -> None:
    assert set(read_benchmark(path).stages) <= set(STAGES)


def test_controls_and_recipes_stand_beside_the_papers_rows(tmp_path: Path) -> None:
    files = {p.name: p.read_text() for p in CONFIGS}
    (tmp_path / "benchmark.yaml").write_text(files["benchmark.yaml"].replace("  stunet: ", "  stunet: scratch "))
    variants: dict[str, Variant] = {}
    for name in ("controls.yaml", "recipes.yaml"):
        settings = read_benchmark(write(tmp_path, files[name]))
        assert settings.architectures == PAPER
        assert not set(settings.variants) & set(variants), "both run in one work folder"
        variants |= settings.variants
    assert settings.ensembles == {"ensemble": ("nnunet", "stunet", "resenc_l")}
    assert [name for name, v in variants.items() if v.preparation] == ["stunet_1p5mm", "swinunetr_own_spacing"]
    original = re.sub("(?m)^  # ", "  ", files["controls.yaml"]).replace("/data/W_original", str(tmp_path))
    assert read_benchmark(write(tmp_path, original)).variants["nnunet_original"].labels == tmp_path


def test_the_papers_benchmark_asks_what_stunet_starts_from_and_is_whole_but_for_that(tmp_path: Path) -> None:
    path = next(p for p in CONFIGS if p.name == "benchmark.yaml")
    with pytest.raises(SettingsError, match=r"benchmark\.yaml: pretrained: expected what stunet starts from, found nothing"):
        read_benchmark(path)
    filled = write(tmp_path, path.read_text().replace("  stunet: ", "  stunet: scratch "))
    assert read_benchmark(filled).pretrained == {"stunet": None}
