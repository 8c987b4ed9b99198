"""Only what changed is predicted again: what a kept prediction is, when it counts, and how much is kept."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import flrplan
from flrplan.anatomy import Mask, Structure
from flrplan.api import plan as plan_module
from flrplan.engine import MODEL_ROOT, Cascade, CascadeSettings, ModelStore
from flrplan.engine.cache import Detail, PredictionCache, StagePrediction, digest_of_array
from flrplan.errors import ModelError, SettingsError
from flrplan.files import publish_version, use_version
from flrplan.image import CT, Geometry
from flrplan.method import LIVER, MASK_FROM, CascadeResult, Probability, StageInput, build_stage_input
from flrplan.nnunet.model import StagePredictor, load_checkpoint
from flrplan.workfolder import FINAL_CHECKPOINT

GRID = Geometry((5, 4, 3), (0.8, 0.9, 2.5), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
LIVER_S, CRLM_S, FLR_S = Structure.LIVER, Structure.CRLM, Structure.FLR


def answer(seed: int, folds: int = 2) -> StagePrediction:
    """A liver of noise, which hardly shrinks."""
    rng = np.random.default_rng(seed)
    place = build_stage_input(np.zeros(GRID.shape_zyx, np.int16), GRID, {}, LIVER)
    probability, *of_folds = (rng.integers(0, 256, GRID.shape_zyx).astype(np.uint8) for _ in range(1 + folds))
    return StagePrediction(place, {LIVER_S: (probability > 127, probability, tuple(of_folds))}, ("said",))


def same(a: StagePrediction, b: StagePrediction) -> bool:
    (mask, p, folds), (other_mask, other_p, other_folds) = a.targets[LIVER_S], b.targets[LIVER_S]
    pairs = [(mask, other_mask), (p, other_p), *zip(folds, other_folds, strict=True)]
    return all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in pairs if x is not None and y is not None)


def fail() -> StagePrediction:
    raise AssertionError("computed again")


def test_what_is_kept_comes_back_as_it_was_and_less_than_that_needs_no_computing() -> None:
    cache, found = PredictionCache(), answer(1)
    assert cache.get(b"k", Detail.FOLDS, lambda: found) is found
    assert same(cache.get(b"k", Detail.FOLDS, fail), found)
    mask, probability, folds = cache.get(b"k", Detail.MASK, fail).targets[LIVER_S]
    assert np.array_equal(mask, found.targets[LIVER_S][0])
    assert (probability, folds) == (None, ())
    assert cache.get(b"k", Detail.MASK, fail).said == ("said",)
    assert cache.get(b"k", Detail.FOLDS, fail).place.restore(mask).shape == GRID.shape_zyx


def test_a_kept_mask_does_not_serve_who_asks_for_probabilities() -> None:
    cache, found = PredictionCache(), answer(1)
    mask = found.targets[LIVER_S][0]
    cache.get(b"k", Detail.MASK, lambda: replace(found, targets={LIVER_S: (mask, None, ())}))
    assert cache.get(b"k", Detail.FOLDS, lambda: found) is found
    assert same(cache.get(b"k", Detail.FOLDS, fail), found), "the fuller one takes its place"


def test_the_one_used_longest_ago_leaves_and_what_is_larger_than_all_room_is_not_kept() -> None:
    one = PredictionCache()
    one.get(b"k", Detail.FOLDS, lambda: answer(0))
    size = one.size_bytes
    assert 180 < size < 300, "a packed mask of 60 voxels and three maps of 60 bytes of noise"
    cache = PredictionCache(int(2.5 * size))
    for key in (b"a", b"b"):
        cache.get(key, Detail.FOLDS, lambda: answer(0))
    cache.get(b"a", Detail.FOLDS, fail)
    cache.get(b"c", Detail.FOLDS, lambda: answer(0))
    cache.get(b"a", Detail.FOLDS, fail)
    with pytest.raises(AssertionError, match="computed again"):
        cache.get(b"b", Detail.FOLDS, fail)
    cache.get(b"large", Detail.FOLDS, lambda: answer(0, folds=9))
    assert cache.size_bytes <= cache.most_bytes
    cache.get(b"a", Detail.FOLDS, fail)
    cache.get(b"c", Detail.FOLDS, fail)  # what finds no room leaves those alone that are kept


@pytest.mark.parametrize("megabytes", [-1, float("nan"), float("inf")])
def test_a_bound_that_is_none_is_refused(megabytes: float) -> None:
    with pytest.raises(SettingsError, match="cache_mb: expected megabytes, 0 or more"):
        ModelStore(cache_mb=megabytes)


def test_threads_that_ask_for_the_same_compute_it_once_and_an_error_is_kept_by_none() -> None:
    cache, computed = PredictionCache(), []
    with pytest.raises(ModelError, match="no weights"):
        cache.get(b"k", Detail.MASK, lambda: (_ for _ in ()).throw(ModelError("no weights")))
    start = threading.Barrier(4)

    def ask(number: int) -> StagePrediction:
        def compute() -> StagePrediction:
            computed.append(number)
            time.sleep(0.05)
            return answer(number // 2)

        start.wait()
        return cache.get(b"k%d" % (number // 2), Detail.FOLDS, compute)

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(ask, range(4)))
    assert sorted(number // 2 for number in computed) == [0, 1]
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


def test_digests_tell_arrays_and_grids_apart() -> None:
    a = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    mask = a > 7
    spaced = replace(GRID, spacing_mm=(0.8, 0.9, 2.4))
    several = [
        digest_of_array(a, GRID),
        digest_of_array(a, spaced),
        digest_of_array(a.reshape(3, 2, 4), GRID),
        digest_of_array(a.view(np.uint16), GRID),
        digest_of_array(a[::-1], GRID),
        digest_of_array(mask),
        digest_of_array(~mask),
    ]
    assert len(set(several)) == len(several)
    assert digest_of_array(np.asfortranarray(a), GRID) == several[0], "the values count, not how they lie in memory"


# --- the cascade, with networks that answer at once ------------------------------------------------------------------------------------


@pytest.fixture
def predicted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages that were predicted, in order: noise that depends on all that a network sees, and on its weights."""
    ran: list[str] = []

    def instant(
        self: StagePredictor, given: StageInput, say: Callable[[str], object], with_probability: bool, with_folds: bool
    ) -> Any:
        ran.append(self.stage.name)
        say(f"{self.stage} was predicted")
        seen = np.abs(given.channels_czyx).sum(axis=0) + sum(int(sha[:3], 16) for sha in self.fold_sha256.values())
        probability, *folds = (((3 + 2 * k) * seen % 256).astype(np.uint8) for k in range(3))
        if not with_folds:
            folds = []
        return {self.stage.target: (probability >= MASK_FROM, probability if with_probability else None, tuple(folds))}

    monkeypatch.setattr(StagePredictor, "_predict", instant)
    return ran


@pytest.fixture(scope="module")
def ct() -> CT:
    grid = Geometry((14, 12, 9), (0.8, 0.9, 2.5), (1, 2, 3), (1, 0, 0, 0, -1, 0, 0, 0, 1))
    hu = np.random.default_rng(5).integers(-200, 200, grid.shape_zyx).astype(np.int16)
    return CT(hu, grid, "noise", "noise", ())


@pytest.fixture
def cascade() -> Cascade:
    return Cascade(ModelStore(Path("no-models-of-ours"), demo=MODEL_ROOT / "demo"), CascadeSettings(device="cpu"))


def everything(cascade: Cascade, ct: CT, given: dict[Structure, Mask] | None = None) -> tuple[CascadeResult, list[Any]]:
    """A run with all that can be asked of it."""
    kept: dict[Structure, Probability] = {}
    folds: list[Any] = []
    result = cascade.run(ct, given, on_probability=kept.__setitem__, on_folds={FLR_S: folds.append})
    return result, [*(kept[s] for s in sorted(kept)), *folds[0]]


def equal(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in zip(a, b, strict=True))


def test_after_an_edit_only_what_depends_on_it_is_predicted_and_all_is_as_of_a_fresh_run(
    cascade: Cascade, demo_store: ModelStore, ct: CT, predicted: list[str]
) -> None:
    first, _ = everything(cascade, ct)
    crlm, liver = first.masks[CRLM_S].copy(), first.masks[LIVER_S].copy()
    z, y, x = (int(n) for n in np.argwhere(liver)[np.count_nonzero(liver) // 2])
    crlm[z, y, x] ^= True
    liver[z, y, x] = False
    for given, again in (
        (None, []),
        (
            {LIVER_S: first.masks[LIVER_S], CRLM_S: first.masks[CRLM_S]},
            [],
        ),  # given masks are as good as the same ones predicted
        ({CRLM_S: crlm}, ["flr"]),
        ({LIVER_S: first.masks[LIVER_S], CRLM_S: crlm}, []),
        ({LIVER_S: liver}, ["crlm", "flr"]),
    ):
        predicted.clear()
        result, maps = everything(cascade, ct, given)
        assert predicted == again
        fresh, fresh_maps = everything(Cascade(demo_store, CascadeSettings(device="cpu")), ct, given)
        assert equal([result.masks[s] for s in fresh.masks], [*fresh.masks.values()])
        assert equal(maps, fresh_maps)
        assert "flr was predicted" in result.warnings, "what the network said is kept with its answer"
        assert (result.sources, result.models, result.warnings) == (fresh.sources, fresh.models, fresh.warnings)
    result.masks[FLR_S][:] = True  # what is handed out is the caller's own
    predicted.clear()
    assert not everything(cascade, ct, {LIVER_S: liver})[0].masks[FLR_S].all()
    assert predicted == []


def test_another_ct_grid_or_setting_is_predicted_anew(cascade: Cascade, ct: CT, predicted: list[str]) -> None:
    brighter = ct.array_zyx.copy()
    brighter[0, 0, 0] += 1
    moved = replace(ct.geometry, spacing_mm=(0.8, 0.9, 2.6))
    mirrored = Cascade(cascade.store, CascadeSettings(device="cpu", mirroring=True))
    raw = Cascade(cascade.store, CascadeSettings(device="cpu", largest_liver=False))
    fast = Cascade(cascade.store, CascadeSettings(device="cpu", engine="fast"))
    others = [
        replace(ct.geometry, origin_mm=(1, 2, 3.001)),
        replace(ct.geometry, direction=(-1, 0, 0, 0, 1, 0, 0, 0, 1)),
        replace(ct.geometry, direction=(0.8, -0.6, 0, -0.6, -0.8, 0, 0, 0, 1)),
    ]
    for who, image, again in (
        (cascade, ct, ["liver"]),
        *((cascade, replace(ct, geometry=other), ["liver"]) for other in others),
        (cascade, replace(ct, array_zyx=ct.array_zyx.astype(np.float32)), ["liver"]),
        (cascade, replace(ct, array_zyx=np.asfortranarray(ct.array_zyx)), []),
        (cascade, replace(ct, array_zyx=brighter), ["liver"]),
        (cascade, replace(ct, geometry=moved), ["liver"]),
        (mirrored, ct, []),  # the demo models were trained without mirroring, so there is none
        (fast, ct, ["liver"]),
        (raw, ct, []),  # what becomes of the mask afterwards does not change the prediction
        (cascade, replace(ct, name="other", source="elsewhere"), []),
    ):
        predicted.clear()
        who.run(image, stages=(LIVER,))
        assert predicted == again


def test_a_retrained_model_answers_itself_from_the_next_request_on(ct: CT, tmp_path: Path, predicted: list[str]) -> None:
    shutil.copytree(MODEL_ROOT / "demo" / "liver", tmp_path / "liver", ignore=shutil.ignore_patterns("training_cohort.json"))
    cascade = Cascade(ModelStore(tmp_path, demo=None), CascadeSettings(device="cpu"))
    before = cascade.run(ct, stages=(LIVER,)).masks[LIVER_S]
    path = tmp_path / "liver" / "nnunet" / "fold_0" / FINAL_CHECKPOINT
    edit(path, shift)
    retrained = cascade.run(ct, stages=(LIVER,)).masks[LIVER_S]
    assert predicted == ["liver", "liver"]
    times = path.stat()
    edit(path, shift)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == times.st_size
    again = cascade.run(ct, stages=(LIVER,)).masks[LIVER_S]
    assert predicted == ["liver"] * 3, "retrained, with size and time kept"
    retrained, before = again, retrained
    assert not np.array_equal(before, retrained)
    fresh = Cascade(ModelStore(tmp_path, demo=None, cache_mb=0), CascadeSettings(device="cpu"))
    assert np.array_equal(retrained, fresh.run(ct, stages=(LIVER,)).masks[LIVER_S])


def shift(content: dict[str, Any]) -> None:
    """Other weights of the same size."""
    name = next(n for n in content["network_weights"] if n.endswith("bias"))
    content["network_weights"][name] = content["network_weights"][name] + 1


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes a checkpoint in place."""
    content = load_checkpoint(path)
    change(content)
    torch.save(content, path)


def test_another_configuration_and_other_mirrored_axes_of_the_same_weights_are_predicted_anew(
    ct: CT, tmp_path: Path, predicted: list[str]
) -> None:
    shutil.copytree(MODEL_ROOT / "demo" / "liver", tmp_path / "liver", ignore=shutil.ignore_patterns("training_cohort.json"))
    model = tmp_path / "liver" / "nnunet"
    plans = json.loads((model / "plans.json").read_text())
    (name,) = plans["configurations"]
    plans["configurations"]["other"] = {**plans["configurations"][name], "spacing": [5.0, 4.0, 4.0]}
    (model / "plans.json").write_text(json.dumps(plans))
    store = ModelStore(tmp_path, demo=None)
    for changes in (
        {},
        {"inference_allowed_mirroring_axes": (0,)},
        {"inference_allowed_mirroring_axes": (1, 2)},
        {"init_args": {"configuration": "other"}},
    ):
        for fold in (0, 1):
            edit(model / f"fold_{fold}" / FINAL_CHECKPOINT, lambda content, new=changes: content.update(new))
        for mirroring in (True, False):
            Cascade(store, CascadeSettings(device="cpu", mirroring=mirroring)).run(ct, stages=(LIVER,))
    # without mirroring the axes say nothing, and the last configuration is another one with it and without
    assert predicted == ["liver"] * 5


def test_versions_that_are_switched_back_and_forth_answer_each_as_itself(ct: CT, tmp_path: Path, predicted: list[str]) -> None:
    model = tmp_path / "liver" / "nnunet"
    shutil.copytree(MODEL_ROOT / "demo" / "liver" / "nnunet", model, ignore=shutil.ignore_patterns("training_cohort.json"))
    shutil.copytree(
        MODEL_ROOT / "demo" / "liver" / "nnunet", tmp_path / "new", ignore=shutil.ignore_patterns("training_cohort.json")
    )
    edit(tmp_path / "new" / "fold_0" / FINAL_CHECKPOINT, shift)
    cascade = Cascade(ModelStore(tmp_path, demo=None), CascadeSettings(device="cpu"))
    first = cascade.run(ct, stages=(LIVER,))
    publish_version(tmp_path / "new", model)
    found = [cascade.run(ct, stages=(LIVER,))]
    for version in ("0", "1", "0"):
        use_version(model, version)
        found.append(cascade.run(ct, stages=(LIVER,)))
    assert predicted == ["liver", "liver"]
    assert [r.models["liver"].folder for r in found] == ["liver/nnunet/versions/1", "liver/nnunet"] * 2
    for result, of_first in zip(found, (False, True) * 2, strict=True):
        assert np.array_equal(result.masks[LIVER_S], first.masks[LIVER_S]) == of_first


def test_two_requests_at_once_predict_once(cascade: Cascade, ct: CT, predicted: list[str]) -> None:
    with ThreadPoolExecutor(2) as threads:
        a, b = threads.map(lambda _: cascade.run(ct).masks, range(2))
    assert predicted == ["liver", "crlm", "flr"]
    assert equal([*a.values()], [*b.values()])
    assert not np.shares_memory(a[FLR_S], b[FLR_S])


def test_a_store_that_keeps_nothing_predicts_each_time(demo_store: ModelStore, ct: CT, predicted: list[str]) -> None:
    for _ in range(2):
        Cascade(demo_store, CascadeSettings(device="cpu")).run(ct, stages=(LIVER,))
    assert predicted == ["liver", "liver"]
    assert demo_store.cache.size_bytes == 0


def test_plan_called_twice_in_one_process_predicts_only_what_changed(
    cascade: Cascade, ct: CT, predicted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Cascade] = []
    monkeypatch.setattr(plan_module, "Cascade", lambda settings: made.append(cascade) or cascade)
    plan_module._own_cascade.cache_clear()
    first = flrplan.plan(ct, raw=True, disagreement=True)
    second = flrplan.plan(ct, raw=True, height_cm=180, weight_kg=80)
    plan_module._own_cascade.cache_clear()
    assert (predicted, len(made)) == (["liver", "crlm", "flr"], 1)
    assert np.array_equal(first.label_zyx, second.label_zyx)


def test_real_networks_give_the_same_from_memory(small_ct: CT, small_truth: dict[Structure, Mask], cascade: Cascade) -> None:
    given = {LIVER_S: small_truth[LIVER_S], CRLM_S: small_truth[CRLM_S]}
    (first, maps), (second, kept_maps) = (everything(cascade, small_ct, given) for _ in range(2))
    assert second.seconds["flr_predict"] < first.seconds["flr_predict"] / 3
    assert equal([*first.masks.values()], [*second.masks.values()])
    assert equal(maps, kept_maps)
    assert maps[0].max() > MASK_FROM
