"""The cascade with the demo models: what is given, what is predicted, on which grid, and what is said about it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from flrplan.anatomy import Mask, Structure
from flrplan.engine import DEMO_NOTE, MODEL_ROOT, Cascade, CascadeSettings, ModelStore
from flrplan.engine.cache import PredictionCache
from flrplan.errors import EmptyLiverError, GridError, SettingsError
from flrplan.image import CT, Geometry
from flrplan.method import CASCADE, CRLM, FLR, FLR_E2E, LIVER, InputSettings, Probability, Source
from flrplan.nnunet.model import StagePredictor, load_checkpoint
from flrplan.workfolder import FINAL_CHECKPOINT


@pytest.fixture(scope="module")
def cascade(demo_store: ModelStore) -> Cascade:
    return Cascade(demo_store, CascadeSettings(device="cpu"))


def overlap(a: Mask, b: Mask) -> float:
    return float(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))


def test_everything_predicted(cascade: Cascade, small_ct: CT, small_truth: dict[Structure, Mask]) -> None:
    steps: list[str] = []
    result = cascade.run(small_ct, on_step=steps.append)
    assert [s.split(": ")[1] for s in steps] == ["liver", "crlm", "flr"]
    assert set(result.masks) == {Structure.LIVER, Structure.CRLM, Structure.FLR}
    assert set(result.sources.values()) == {Source.PREDICTED}
    assert overlap(result.masks[Structure.LIVER], small_truth[Structure.LIVER]) > 0.8
    assert result.demo
    assert DEMO_NOTE in result.warnings
    assert set(result.models) == {"liver", "crlm", "flr"}
    label, _ = result.planning_map()
    assert np.array_equal(label > 0, result.masks[Structure.LIVER])


def test_given_masks_are_kept_and_not_predicted(cascade: Cascade, small_ct: CT, small_truth: dict[Structure, Mask]) -> None:
    given = {s: small_truth[s] for s in (Structure.LIVER, Structure.CRLM)}
    result = cascade.run(small_ct, given)
    assert result.masks[Structure.LIVER] is given[Structure.LIVER]
    assert result.masks[Structure.CRLM] is given[Structure.CRLM]
    assert list(result.models) == ["flr"]
    assert result.sources[Structure.LIVER] is Source.GIVEN
    assert result.sources[Structure.FLR] is Source.PREDICTED


def test_a_stage_that_does_not_fit_into_the_gpu_goes_to_the_cpu(
    cascade: Cascade,
    demo_store: ModelStore,
    small_ct: CT,
    small_truth: dict[Structure, Mask],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A GPU's error in place of the GPU: the predictor of the device ``cuda`` runs out of memory, that of the CPU answers."""
    on_cpu, identity = demo_store.predictor(CRLM, "nnunet", torch.device("cpu"))
    on_gpu = StagePredictor(on_cpu.folder, torch.device("cpu"))
    on_gpu._predictor.device = torch.device("cuda")

    def fail(*args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    monkeypatch.setattr(on_gpu, "_predict", fail)
    asked: list[str] = []

    class Store:
        cache = PredictionCache(0)

        def predictor(self, stage: object, architecture: str, device: torch.device, *_: object) -> object:
            asked.append(device.type)
            return (on_gpu if device.type == "cuda" else on_cpu), identity

    given = {Structure.LIVER: small_truth[Structure.LIVER]}
    with_gpu = Cascade(Store(), CascadeSettings(device="cpu"))  # type: ignore[arg-type]
    with_gpu.device = torch.device("cuda")
    result, expected = with_gpu.run(small_ct, given, (CRLM,)), cascade.run(small_ct, given, (CRLM,))
    assert asked == ["cuda", "cpu"]
    assert np.array_equal(result.masks[Structure.CRLM], expected.masks[Structure.CRLM])
    said = [warning for warning in result.warnings if warning not in expected.warnings]
    assert said == ["crlm: the memory of cuda ran out; this stage was predicted on the CPU, which takes longer"]


def test_a_network_that_does_not_fit_into_the_gpu_goes_to_the_cpu(
    cascade: Cascade,
    demo_store: ModelStore,
    small_ct: CT,
    small_truth: dict[Structure, Mask],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A card that other work has filled: what is put on it fails, with one of its libraries' words for it."""
    to = torch.nn.Module.to

    def fail_on_cuda(self: torch.nn.Module, device: torch.device) -> torch.nn.Module:
        if device.type == "cuda":
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        return to(self, device)

    monkeypatch.setattr(torch.nn.Module, "to", fail_on_cuda)
    with_gpu = Cascade(demo_store, CascadeSettings(device="cpu"))
    with_gpu.device = torch.device("cuda")
    assert with_gpu.identity(CRLM) == cascade.identity(CRLM), "which model serves needs no room on the card"
    given = {Structure.LIVER: small_truth[Structure.LIVER]}
    result, expected = with_gpu.run(small_ct, given, (CRLM,)), cascade.run(small_ct, given, (CRLM,))
    assert np.array_equal(result.masks[Structure.CRLM], expected.masks[Structure.CRLM])
    assert "crlm: the memory of cuda ran out; this stage was predicted on the CPU, which takes longer" in result.warnings


def test_crlm_given_without_a_liver_predicts_the_liver(
    cascade: Cascade, small_ct: CT, small_truth: dict[Structure, Mask]
) -> None:
    result = cascade.run(small_ct, {Structure.CRLM: small_truth[Structure.CRLM]}, stages=(FLR,))
    assert result.sources[Structure.LIVER] is Source.PREDICTED
    assert result.sources[Structure.CRLM] is Source.GIVEN
    assert list(result.models) == ["liver", "flr"]


def test_an_empty_crlm_is_an_answer(cascade: Cascade, small_ct: CT, small_truth: dict[Structure, Mask]) -> None:
    empty = np.zeros_like(small_truth[Structure.CRLM])
    result = cascade.run(small_ct, {Structure.LIVER: small_truth[Structure.LIVER], Structure.CRLM: empty})
    assert not result.masks[Structure.CRLM].any()
    assert Structure.FLR in result.masks


def test_end_to_end_needs_nothing(cascade: Cascade, small_ct: CT) -> None:
    result = cascade.run(small_ct, stages=(FLR_E2E,))
    assert set(result.masks) == {Structure.FLR}


def test_an_empty_liver_is_an_error(cascade: Cascade, small_ct: CT, small_truth: dict[Structure, Mask]) -> None:
    with pytest.raises(EmptyLiverError, match="the given liver mask is empty"):
        cascade.run(small_ct, {Structure.LIVER: np.zeros_like(small_truth[Structure.LIVER])})


def test_no_liver_found_is_an_error(small_ct: CT, tmp_path: Path) -> None:
    """A model that answers "background" everywhere: the demo model with its last bias far below 0."""
    shutil.copytree(MODEL_ROOT / "demo" / "liver", tmp_path / "liver", ignore=shutil.ignore_patterns("training_cohort.json"))
    for path in tmp_path.glob(f"liver/nnunet/fold_*/{FINAL_CHECKPOINT}"):
        content = load_checkpoint(path)
        for name, weight in content["network_weights"].items():
            if name.startswith("decoder.seg_layers") and name.endswith("bias"):
                content["network_weights"][name] = torch.full_like(weight, -1000.0)
        torch.save(content, path)
    kept: dict[Structure, Probability] = {}
    blind = Cascade(ModelStore(tmp_path, demo=None), CascadeSettings(device="cpu"))
    with pytest.raises(EmptyLiverError, match=f"{small_ct.name}: no liver was found in synthetic"):
        blind.run(small_ct, on_probability=kept.__setitem__)
    assert [s for s, p in kept.items() if p.shape == small_ct.geometry.shape_zyx and p.max() < 128] == [Structure.LIVER]


def test_wrong_shapes_and_devices_are_refused(cascade: Cascade, small_ct: CT, demo_store: ModelStore) -> None:
    with pytest.raises(GridError, match="the given liver has shape"):
        cascade.run(small_ct, {Structure.LIVER: np.ones((3, 3, 3), bool)})
    with pytest.raises(SettingsError, match="unknown device 'gpu'"):
        Cascade(demo_store, CascadeSettings(device="gpu"))


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 2, 0)])
def test_axis_order_of_the_file_does_not_matter(cascade: Cascade, small_ct: CT, order: tuple[int, int, int]) -> None:
    """The same CT stored with swapped and flipped axes gives, voxel by voxel, the same liver."""
    image = small_ct.geometry.image(small_ct.array_zyx)
    moved = sitk.Flip(sitk.PermuteAxes(image, order), (True, False, True), False)
    other = CT(sitk.GetArrayFromImage(moved), Geometry.of(moved), "moved", "synthetic", ())
    liver = cascade.run(small_ct, stages=(LIVER,)).masks[Structure.LIVER]
    moved_liver = cascade.run(other, stages=(LIVER,)).masks[Structure.LIVER]
    back = sitk.Resample(
        other.geometry.image(moved_liver), image, sitk.Transform(), sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8
    )
    assert np.array_equal(sitk.GetArrayFromImage(back) > 0, liver)


def test_stray_pieces_of_a_predicted_liver_are_dropped_and_told(demo_store: ModelStore, small_ct: CT) -> None:
    """Two copies of the patient in one field of view: the demo liver model finds two livers, one is kept."""
    one, air = small_ct.array_zyx, np.full_like(small_ct.array_zyx[..., :12], -1000)
    double = np.concatenate([one, air, one], axis=2)
    geometry = replace(small_ct.geometry, size_xyz=double.shape[::-1])
    ct = replace(small_ct, array_zyx=double, geometry=geometry)
    kept = Cascade(demo_store, CascadeSettings(device="cpu")).run(ct, stages=(LIVER,))
    raw = Cascade(demo_store, CascadeSettings(device="cpu", largest_liver=False)).run(ct, stages=(LIVER,))
    dropped = np.count_nonzero(raw.masks[Structure.LIVER]) - np.count_nonzero(kept.masks[Structure.LIVER])
    assert dropped > 0.4 * np.count_nonzero(raw.masks[Structure.LIVER])
    told = f"of the predicted liver ({dropped * geometry.voxel_volume_ml:.1f} ml) dropped"
    assert any(w.endswith(told) for w in kept.warnings), kept.warnings


def test_order_of_the_cascade() -> None:
    assert CASCADE == (LIVER, CRLM, FLR)
    assert FLR.needs == (Structure.LIVER, Structure.CRLM)
    assert InputSettings().channel_names(FLR) == ("CT", "crlm")
