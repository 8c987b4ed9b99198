"""Importing what the field has: labels beside the liver, input that was not masked, old plans, zips, other kinds of model, odd folds."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from flrplan.anatomy import Mask, Structure
from flrplan.cli import main
from flrplan.engine import Cascade, CascadeSettings, ModelStore
from flrplan.errors import ModelError
from flrplan.files import current_version
from flrplan.image import CT
from flrplan.method import CRLM, FLR, LIVER, InputSettings, RegionMode, StageInput, build_stage_input
from flrplan.nnunet.imported import import_model
from flrplan.nnunet.imported import source as import_source
from flrplan.nnunet.imported.labels import choose_labels
from flrplan.nnunet.model import ModelFolder, StagePredictor, load_checkpoint
from flrplan.workfolder import FINAL_CHECKPOINT

CPU = torch.device("cpu")
MSD = {"background": 0, "liver": 1, "cancer": 2}


def old_configuration(dims: int = 3, network: str = "PlainConvUNet") -> dict[str, Any]:
    """One configuration as nnU-Net 2.0 to 2.2 wrote it, with a tiny network."""
    resample = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    return {
        "data_identifier": "nnUNetPlans_x",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [16] * dims,
        "median_image_size_in_voxels": [30.0] * dims,
        "spacing": [6.0] * dims,
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "UNet_class_name": network,
        "UNet_base_num_features": 2,
        "n_conv_per_stage_encoder": [1, 1],
        "n_conv_per_stage_decoder": [1],
        "num_pool_per_axis": [1] * dims,
        "pool_op_kernel_sizes": [[1] * dims, [2] * dims],
        "conv_kernel_sizes": [[3] * dims, [3] * dims],
        "unet_max_num_features": 4,
        **{f"resampling_fn_{part}": "resample_data_or_seg_to_shape" for part in ("data", "seg", "probabilities")},
        **{f"resampling_fn_{part}_kwargs": resample for part in ("data", "seg", "probabilities")},
        "batch_dice": False,
    }


def plans(reader: str = "SimpleITKIO", **configurations: dict[str, Any]) -> dict[str, Any]:
    statistics = {"mean": 80.0, "std": 40.0, "percentile_00_5": -50.0, "percentile_99_5": 200.0}
    return {
        "dataset_name": "Dataset003_Liver",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": reader,
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": configurations,
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": statistics},
    }


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Writes a foreign trained-model folder whose network answers ``answer`` everywhere; returns it."""

    def write(
        labels: dict[str, Any] | None = None,
        answer: int = 2,
        folds: tuple[str, ...] = ("fold_0",),
        name: str = "3d_fullres",
        checkpoint: str = FINAL_CHECKPOINT,
        dataset: dict[str, Any] | None = None,
        folder: Path | None = None,
        **described: Any,
    ) -> Path:
        folder = folder or tmp_path / "results" / "Dataset003_Liver" / f"nnUNetTrainer__nnUNetPlans__{name}"
        content = described or plans(**{name: old_configuration(2 if name == "2d" else 3)})
        about = {"channel_names": {"0": "CT"}, "labels": labels or MSD, "numTraining": 3, "file_ending": ".nii.gz"}
        about |= dataset or {}
        manager = PlansManager(json.loads(json.dumps(content)))
        heads = manager.get_label_manager(about).num_segmentation_heads
        channels = len(about["channel_names"])
        configuration = manager.get_configuration(name)
        architecture = configuration.configuration["architecture"]  # whose package has both networks in one file by now
        architecture["network_class_name"] = architecture["network_class_name"].replace(".residual_unet.", ".unet.")
        network = nnUNetTrainer.build_network_architecture(manager, configuration, channels, heads, False)
        for key, tensor in network.state_dict().items():
            if ".seg_layers." in key:
                tensor.zero_()
                if key.endswith("bias"):
                    tensor[:] = -1.0
                    tensor[answer] = 1.0
        for fold in folds:
            (folder / fold).mkdir(parents=True)
            saved = {"network_weights": network.state_dict(), "optimizer_state": {}, "trainer_name": "nnUNetTrainer"}
            saved |= {"init_args": {"configuration": name, "fold": fold}, "inference_allowed_mirroring_axes": (0, 1, 2)}
            torch.save({**saved, "_best_ema": np.float64(0.5)}, folder / fold / checkpoint)
        (folder / "plans.json").write_text(json.dumps(content))
        (folder / "dataset.json").write_text(json.dumps(about))
        return folder

    return write


def predicted(folder: Path, ct: CT) -> Mask:
    model = ModelFolder.open(current_version(folder))
    return StagePredictor(model, CPU).predict(build_stage_input(ct.array_zyx, ct.geometry, {}, LIVER, model.input))[
        LIVER.target
    ]


@pytest.fixture
def tiny_ct(small_ct: CT) -> CT:
    geometry = small_ct.geometry
    array = np.ascontiguousarray(small_ct.array_zyx[:12, 30:50, 20:44])
    image = geometry.image(small_ct.array_zyx)[20:44, 30:50, :12]
    return CT(array, type(geometry).of(image), "tiny", "tiny", ())


# --- which labels


def test_a_tumour_beside_the_liver_is_asked_for(make: Callable[..., Path], tmp_path: Path, tiny_ct: CT) -> None:
    source, target = make(), tmp_path / "models" / "liver"
    with pytest.raises(ModelError) as caught:
        import_model(source, LIVER, target)
    assert f"flrplan models import {source} --stage liver --label liver,cancer" in str(caught.value)
    assert "no part of it, --label liver" in str(caught.value)
    assert not target.exists()
    model = import_model(source, LIVER, target, "Liver, CANCER")
    assert (model.labels, model.warnings, model.describe()) == (
        ("liver", "cancer"),
        (),
        "label liver + cancer, sees the whole CT",
    )
    assert predicted(target, tiny_ct).all(), "cancer everywhere is liver everywhere"
    before = StagePredictor(model, CPU).identity.decides
    alone = import_model(source, LIVER, target, "liver", force=True)
    assert alone.warnings == ("the imported model labels 'cancer' apart, and it is not counted as liver",)
    assert not predicted(target, tiny_ct).any()
    assert StagePredictor(alone, CPU).identity.decides != before, "the same weights, but another answer: plan again"


@pytest.mark.parametrize(
    ("labels", "asked", "expected"),
    [
        ({"Liver": 1, "spleen": 2, "portal_vein_and_splenic_vein": 3, "lung_upper_lobe_left": 4, "kidney_cyst": 5}, None, ("Liver",)),
        ({"liver": [1, 2], "cancer": 2}, None, ("liver",)),
        ({"liver_segment_1": 1, "liver_segment_2": 2}, "liver segment 1,LIVER-SEGMENT-2", ("liver_segment_1", "liver_segment_2")),
        ({"liver, healthy": 1, "tumour": 2}, "liver, healthy", ("liver, healthy",)),
    ],
)  # fmt: skip
def test_labels_that_leave_no_doubt(labels: dict[str, Any], asked: str | None, expected: tuple[str, ...]) -> None:
    dataset = {"labels": {"background": 0, **labels, "ignore": 9}, "regions_class_order": [1, 2]}
    assert choose_labels(dataset, LIVER, asked, "S").names == expected


@pytest.mark.parametrize(
    ("stage", "labels", "asked", "message"),
    [
        (LIVER, {"liver": 1, "Leber_Metastase": 2}, None, r"--label liver,Leber_Metastase, or, where it is no part"),
        (LIVER, {"liver": 1, "vessels": 2, "hepatic_vein": 3}, None, r"--label liver,vessels,hepatic_vein, or, where they are"),
        (LIVER, {"liver": 1, "crlm_in_remnant": 2}, None, r"--label liver,crlm_in_remnant"),
        (LIVER, {"Foie": 1, "tumeur du foie": 2}, None, r"no label 'liver'.*--label \"Foie,tumeur du foie\""),
        (LIVER, {"remnant": 1, "resection": 2}, None, r"--label remnant,resection"),
        (LIVER, {"liver": 1}, "background", r"no label 'background'; choose with --label one of \['liver'\]"),
        (LIVER, {"liver": 1}, "liver,cancer", r"no label 'cancer'"),
        (LIVER, {"liver": 1, "crlm": 2}, "crlm", r"the label 'crlm' is the crlm, but stage liver looks for the liver"),
        (CRLM, {"liver": 1, "cancer": 2, "kidney_tumor": 3}, None, r"no label 'crlm'.*--stage crlm --label cancer$"),
        (CRLM, {"liver": 1, "cancer": 2}, "liver", r"the label 'liver' is the liver, but stage crlm looks for the crlm"),
        (CRLM, {"crlm": 1, "necrosis": 2}, None, r"--label crlm,necrosis"),
        (FLR, {"flr": 1, "tumour": 2}, None, r"--label flr,tumour"),
        (LIVER, {"0": "background", "1": "liver"}, None, "labels as nnU-Net 1 writes them"),
        (LIVER, {"liver": [3, 4], "cancer": 4}, None, r"the region 'liver' holds the values \[3, 4\].* as 1; correct"),
    ],
)  # fmt: skip
def test_labels_that_leave_a_doubt(stage: Any, labels: dict[str, Any], asked: str | None, message: str) -> None:
    dataset = {"labels": {"background": 0, **labels} if "0" not in labels else labels, "regions_class_order": [1, 4]}
    with pytest.raises(ModelError, match=message):
        choose_labels(dataset, stage, asked, "SOURCE")


# --- what it was trained to see


def test_a_model_of_the_whole_ct_is_given_the_whole_ct(
    make: Callable[..., Path], tmp_path: Path, small_ct: CT, small_truth: dict[Structure, Mask], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = make(), tmp_path / "models" / "crlm" / "nnunet"
    with pytest.raises(ModelError, match=r"does not say what it was trained to see\. .*--input whole"):
        import_model(source, CRLM, target, "cancer")
    model = import_model(source, CRLM, target, "cancer", input_settings=InputSettings(RegionMode.WHOLE))
    assert model.describe() == "label cancer, sees the whole CT"
    seen: list[StageInput] = []

    def predict(_: StagePredictor, given: StageInput, say: object) -> dict[Structure, Mask]:
        seen.append(given)
        return {Structure.CRLM: np.zeros(given.geometry.shape_zyx, bool)}

    monkeypatch.setattr(StagePredictor, "predict", predict)
    cascade = Cascade(ModelStore(tmp_path / "models", demo=None), CascadeSettings(device="cpu"))
    liver = small_truth[Structure.LIVER]
    result = cascade.run(small_ct, {Structure.LIVER: liver}, (CRLM,))
    expected = build_stage_input(small_ct.array_zyx, small_ct.geometry, {}, LIVER).channels_czyx
    assert np.array_equal(seen[0].channels_czyx, expected)
    assert result.models["crlm"].imported == {"from": source.name, "labels": ["cancer"], "sees": "the whole CT"}
    masked = InputSettings(RegionMode.MASK, outside_hu=0.0)
    model = import_model(source, CRLM, target, "cancer", True, masked)
    given = build_stage_input(small_ct.array_zyx, small_ct.geometry, {Structure.LIVER: liver}, CRLM, model.input)
    assert given.geometry.shape_zyx == small_ct.array_zyx.shape
    assert set(np.unique(given.channels_czyx[0][~given.crop(liver)])) == {0.0}
    assert "outside the liver set to 0 HU" in model.describe()
    with pytest.raises(ModelError, match=r"says itself what it was trained on \(the CT outside the liver set to 0 HU\)"):
        import_model(target, CRLM, tmp_path / "again", input_settings=InputSettings())
    assert import_model(target, CRLM, tmp_path / "again").input == masked


def test_channels_that_are_no_ct(make: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = make()
    content = json.loads((source / "dataset.json").read_text())
    for first, message in (
        ("MR", "trained on MR, not on CT"),
        ("T1_gd", "trained on T1_gd, not on CT"),
        ("PET-CT", "not on CT"),
    ):
        (source / "dataset.json").write_text(json.dumps({**content, "channel_names": {"0": first}}))
        with pytest.raises(ModelError, match=message):
            import_model(source, LIVER, tmp_path / "liver", "liver,cancer")
    (source / "dataset.json").write_text(json.dumps({**content, "channel_names": {"0": "CT", "1": "CT_portal"}}))
    with pytest.raises(ModelError, match=r"stage liver takes 1 channels \(CT\), this model takes 2 \(CT, CT_portal\)"):
        import_model(source, LIVER, tmp_path / "liver", "liver,cancer")
    del content["channel_names"]
    (source / "dataset.json").write_text(json.dumps({**content, "modality": {"0": "zscore"}}))
    import_model(source, LIVER, tmp_path / "liver", "liver,cancer")
    assert "its first channel is called 'zscore'" in caplog.text


def test_images_turned_to_ras_by_nnunets_reader(make: Callable[..., Path], tmp_path: Path, tiny_ct: CT) -> None:
    source = make(**plans("NibabelIOWithReorient", **{"3d_fullres": old_configuration()}))
    import_model(source, LIVER, tmp_path / "liver", "liver,cancer")
    predictor = StagePredictor(ModelFolder.open(tmp_path / "liver"), CPU)
    given = build_stage_input(tiny_ct.array_zyx, tiny_ct.geometry, {}, LIVER)
    sitk.WriteImage(given.geometry.image(given.channels_czyx[0]), str(tmp_path / "ct.nii.gz"))
    theirs, _ = NibabelIOWithReorient().read_images([str(tmp_path / "ct.nii.gz")])
    seen: list[np.ndarray] = []
    predictor._predictor.predict_sliding_window_return_logits = lambda data: seen.append(data) or torch.zeros(
        3, *data.shape[1:]
    )  # type: ignore
    run = predictor._predictor.configuration_manager.preprocessor_class.run_case_npy
    calls: list[np.ndarray] = []

    def spy(self: Any, data: np.ndarray, *rest: Any) -> Any:
        calls.append(data.copy())
        return run(self, data, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor._predictor.configuration_manager.preprocessor_class, "run_case_npy", spy)
        predictor.predict(given)
    assert np.array_equal(calls[0], theirs)
    assert not np.array_equal(calls[0], given.channels_czyx)
    mask = np.arange(given.channels_czyx[0].size).reshape(given.channels_czyx[0].shape) % 7 == 0
    assert np.array_equal(predictor._turned(predictor._turned(mask)), mask)


# --- what nnU-Net reads


@pytest.mark.parametrize("network", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_plans_of_the_first_versions(make: Callable[..., Path], tmp_path: Path, tiny_ct: CT, network: str) -> None:
    source = make(**plans(**{"3d_fullres": old_configuration(network=network)}))
    import_model(source, LIVER, tmp_path / "liver", "liver,cancer")
    assert predicted(tmp_path / "liver", tiny_ct).all()
    configuration = json.loads((tmp_path / "liver" / "plans.json").read_text())["configurations"]["3d_fullres"]
    assert configuration["architecture"]["network_class_name"].endswith(f"unet.{network}")
    (source / "plans.json").write_text(
        json.dumps(plans(**{"3d_fullres": {**old_configuration(), "UNet_class_name": "os.system"}}))
    )
    with pytest.raises(ModelError, match=rf"{source}: plans\.json describes no network that nnU-Net 2\.8\.1 can build"):
        import_model(source, LIVER, tmp_path / "no", "liver,cancer")


@pytest.mark.parametrize("name", ["2d", "3d_lowres"])
def test_other_configurations_are_run(make: Callable[..., Path], tmp_path: Path, tiny_ct: CT, name: str) -> None:
    import_model(make(name=name), LIVER, tmp_path / "liver", "liver,cancer")
    assert predicted(tmp_path / "liver", tiny_ct).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"previous_stage": "3d_lowres"}, "is the second stage of nnU-Net's own cascade .* import the 3d_fullres model"),
        ({"preprocessor_name": "MyPreprocessor"}, "names MyPreprocessor, which nnU-Net 2.8.1 does not have"),
        ({"normalization_schemes": ["MyNorm"]}, "names MyNorm, which nnU-Net"),
        ({"resampling_fn_data": "os.system"}, "not complete for nnU-Net 2.8.1"),
        ({"unet_max_num_features": 3}, "the weights do not fit the network of plans.json"),
    ],
)
def test_plans_that_cannot_be_served(make: Callable[..., Path], tmp_path: Path, change: dict[str, Any], message: str) -> None:
    source = make()
    (source / "plans.json").write_text(json.dumps(plans(**{"3d_fullres": {**old_configuration(), **change}})))
    with pytest.raises(ModelError, match=f"{source}.*{message}") as caught:
        import_model(source, LIVER, tmp_path / "liver", "liver,cancer")
    assert ".partial" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["results"]


def zipped(folder: Path, path: Path) -> Path:
    """As nnUNetv2_export_model_to_zip: paths below nnUNet_results."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, file.relative_to(folder))
        archive.writestr("__MACOSX/Dataset003_Liver/._plans.json", "junk")
        archive.writestr("Dataset003_Liver/inference_information.txt", "not needed")
    return path


def test_the_zip_of_an_export(make: Callable[..., Path], tmp_path: Path, tiny_ct: CT) -> None:
    make(folds=("fold_0", "fold_1"))
    make(name="2d")
    path = zipped(tmp_path / "results", tmp_path / "export.zip")
    with pytest.raises(ModelError, match=r"export\.zip holds 2 models, .*choose with --configuration one of 2d, 3d_fullres"):
        import_model(path, LIVER, tmp_path / "models" / "liver", "liver,cancer")
    with pytest.raises(ModelError, match=r"holds 2 models, .*0 are 3d_lowres"):
        import_model(path, LIVER, tmp_path / "models" / "liver", "liver,cancer", configuration="3d_lowres")
    with pytest.raises(
        ModelError, match=f"models import {path} --configuration 3d_fullres --stage liver --label liver,cancer, or"
    ):
        import_model(path, LIVER, tmp_path / "models" / "liver", configuration="3d_fullres")
    model = import_model(path, LIVER, tmp_path / "models" / "liver", "liver,cancer", configuration="3d_fullres")
    assert (model.folds, model.imported_from) == ((0, 1), "export.zip")
    assert predicted(model.path, tiny_ct).all()
    assert [p.name for p in (tmp_path / "models").iterdir() if p.name.startswith(".unpacked")] == []
    assert import_model(tmp_path / "results", LIVER, tmp_path / "b", "liver,cancer", configuration="2d").folds == (0,)


def test_zips_that_are_refused(make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make()
    path = tmp_path / "x.zip"

    def refused(message: str) -> None:
        with pytest.raises(ModelError, match=message) as caught:
            import_model(path, LIVER, tmp_path / "models" / "liver", "liver,cancer")
        assert ".unpacked" not in str(caught.value)
        assert not [p for p in tmp_path.rglob("*") if p.name.startswith((".unpacked", ".liver.", "climbed"))]

    for climbing in ("../climbed", "/tmp/climbed", "a/../../climbed", "..\\climbed", "C:\\climbed"):
        with zipfile.ZipFile(zipped(folder, path), "a") as archive:
            archive.writestr(climbing, "x")
        refused("a path outside of itself")
    with zipfile.ZipFile(zipped(folder, path), "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.write(folder / "fold_0" / FINAL_CHECKPOINT, f"fold_0/{FINAL_CHECKPOINT}")
    refused(rf"x\.zip holds fold_0/{FINAL_CHECKPOINT} twice")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("plans.json", "dataset.json"):
            archive.write(folder / name, name)
        with archive.open(f"fold_0/{FINAL_CHECKPOINT}", "w", force_zip64=True) as big:
            for _ in range(80):
                big.write(bytes(1024**2))
    refused(r"would unpack to 83886080 bytes from \d+, .*it is not unpacked")
    zipped(folder, path)
    monkeypatch.setattr(import_source, "MAX_UNPACKED", 1000)
    refused("would unpack to")
    monkeypatch.undo()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refused("x.zip is no whole zip; download or copy it again")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("plans.json", "{}")
        archive.writestr("dataset.json", "{}")
        archive.writestr(f"fold_0/{FINAL_CHECKPOINT}", "no checkpoint")
    refused(r"x\.zip: dataset\.json has no channel_names")


@pytest.mark.parametrize(
    ("files", "given", "message"),
    [
        (["plans.pkl", "fold_0/model_final_checkpoint.model", "fold_0/model_final_checkpoint.model.pkl"], "", "a model of nnU-Net 1"),
        (["fold_0/model_final_checkpoint.model.pkl"], "fold_0/model_final_checkpoint.model.pkl", "a model of nnU-Net 1.*--pretrained"),
        (["small_ep4k.model"], "small_ep4k.model", "a model of nnU-Net 1.*train --architecture stunet --pretrained FILE"),
        (["plans.json", "dataset.json", f"fold_0/{FINAL_CHECKPOINT}"], f"fold_0/{FINAL_CHECKPOINT}", "is a checkpoint, .* its fold: .*/given"),
        (["plans.json", f"fold_0/{FINAL_CHECKPOINT}"], "fold_0", "is a part of a model; give the folder above it"),
        (["plans.json", f"fold_0/{FINAL_CHECKPOINT}"], "plans.json", "is one file of a model; give its folder"),
        (["plans.json", f"fold_0/{FINAL_CHECKPOINT}"], "", "dataset.json is missing"),
        (["dataset.json", f"fold_0/{FINAL_CHECKPOINT}"], "", "lacks plans.json"),
        (["plans.json", "dataset.json"], "", f"expected fold_<k>/{FINAL_CHECKPOINT}, found none"),
        (["plans.json", "dataset.json", "fold_0/checkpoint_best.pth"], "", "was not finished.*--checkpoint checkpoint_best.pth"),
        (["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "dataset.json"], "", "holds the data of an nnU-Net training"),
        (["nnUNetPlans.json", "dataset_fingerprint.json"], "", "holds the data of an nnU-Net training"),
        (["configs/metadata.json", "models/model.pt"], "", "not of nnU-Net 2 .a MONAI bundle"),
        (["readme.txt"], "", "holds no plans.json; expected nnU-Net 2's trained-model folder"),
        (["weights.tar.gz"], "weights.tar.gz", "an archive of another kind than zip; unpack it"),
        (["readme.txt"], "readme.txt", "is neither a folder nor a zip"),
        (["readme.txt"], "nowhere", "no such file or folder"),
        (["plans.json", "dataset.json", f"fold_1/{FINAL_CHECKPOINT}", f"fold_01/{FINAL_CHECKPOINT}"], "", "fold_01 and fold_1 are both fold 1"),
    ],
)  # fmt: skip
def test_what_is_no_such_model_is_called_by_its_name(files: list[str], given: str, message: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / "given" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "given" / name).write_text("{}")
    source = tmp_path / "given" / given
    with pytest.raises(ModelError, match=f"{source}.*{message}"):
        import_model(source, LIVER, tmp_path / "models" / "liver")
    if not given:  # the same files in a zip
        with zipfile.ZipFile(tmp_path / "given.zip", "w") as archive:
            for name in files:
                archive.writestr(f"Dataset/model/{name}", "{}")
        with pytest.raises(ModelError, match=rf"{tmp_path / 'given.zip'}.*{message}"):
            import_model(tmp_path / "given.zip", LIVER, tmp_path / "models" / "liver")


def test_a_checkpoint_is_a_zip_too_and_not_taken_for_one(tmp_path: Path) -> None:
    torch.save({"network_weights": {}}, tmp_path / "model.zip")
    with pytest.raises(ModelError, match=r"model\.zip is a checkpoint, one part of a model"):
        import_model(tmp_path / "model.zip", LIVER, tmp_path / "liver")


def test_folds_that_collide_or_lack_something(
    make: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = make(folds=("fold_1", "fold_all", "fold_3", "fold_0.old"))
    (source / "fold_2").mkdir()
    (source / "fold_2" / "checkpoint_best.pth").write_bytes((source / "fold_3" / FINAL_CHECKPOINT).read_bytes())
    all_cases = source / "fold_all" / FINAL_CHECKPOINT
    content = load_checkpoint(all_cases)
    torch.save({**content, "network_weights": {k: v * 0 for k, v in content["network_weights"].items()}}, all_cases)
    model = import_model(source, LIVER, tmp_path / "liver", "liver,cancer")
    assert model.folds == (1, 3)
    assert all(load_checkpoint(model.checkpoint(k))["network_weights"]["decoder.seg_layers.0.bias"][2] == 1 for k in (1, 3))
    record = model.dataset["flrplan"]["import"]
    assert record["folds"] == {"1": "fold_1", "3": "fold_3"}
    assert set(record["left_out"]) == {"fold_all", "fold_0.old", "fold_2"}
    assert "fold_all is left out: it was trained on all cases" in caplog.text
    assert f"fold_2 is left out: it has no {FINAL_CHECKPOINT}" in caplog.text
    best = import_model(source, LIVER, tmp_path / "best", "liver,cancer", checkpoint="checkpoint_best.pth")
    assert best.folds == (2,)
    for fold in ("fold_1", "fold_3", "fold_2", "fold_0.old"):
        shutil.rmtree(source / fold)
    assert import_model(source, LIVER, tmp_path / "all", "liver,cancer").folds == (0,)
    assert "fold_all becomes fold 0" in caplog.text


def test_folds_of_different_configurations(make: Callable[..., Path], tmp_path: Path) -> None:
    source = make(folds=("fold_0", "fold_1"))
    content = load_checkpoint(source / "fold_1" / FINAL_CHECKPOINT)
    torch.save({**content, "init_args": {"configuration": "2d"}}, source / "fold_1" / FINAL_CHECKPOINT)
    with pytest.raises(ModelError, match=f"{source}: its folds are of different configurations"):
        import_model(source, LIVER, tmp_path / "liver", "liver,cancer")


def test_the_command_says_and_lists_what_was_understood(
    make: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make()
    command = ["models", "import", str(source), "--models", str(tmp_path / "m"), "--stage"]
    assert main([*command, "liver"]) == 1
    assert "--stage liver --label liver,cancer" in capsys.readouterr().err
    assert main([*command, "liver", "--label", "liver"]) == 0
    printed = capsys.readouterr().out
    assert "label liver, sees the whole CT; folds 0" in printed
    assert "warning: the imported model labels 'cancer' apart" in printed
    assert main([*command, "crlm", "--label", "cancer", "--input", "whole", "--outside-hu", "0"]) == 1
    assert "--outside-hu has no effect with --input whole" in capsys.readouterr().err
    assert main([*command, "crlm", "--label", "cancer", "--crop-margin-mm", "5"]) == 1
    assert "--crop-margin-mm has no effect with no --input" in capsys.readouterr().err
    assert main([*command, "liver", "--label", "liver", "--input", "crop", "--force"]) == 1
    assert "stage liver sees the whole CT" in capsys.readouterr().err
    assert main([*command, "crlm", "--label", "cancer", "--input", "mask_and_crop", "--crop-margin-mm", "5"]) == 0
    capsys.readouterr()
    assert main(["models", "list", "--models", str(tmp_path / "m")]) == 0
    printed = capsys.readouterr().out
    assert f"imported from {source.name} (label liver, sees the whole CT), folds [0]" in printed
    assert "label cancer, sees the CT cut to the liver and 5 mm around it and outside the liver set to -1024 HU" in printed
