"""Which labels train which stages, and what is said about the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flrplan.anatomy import PlanningLabel, Structure
from flrplan.cohort import SyntheticCase
from flrplan.errors import GridError, LabelError
from flrplan.image import CT
from flrplan.learning import AnnotatedImage, read_annotations
from flrplan.method import CRLM, FLR, FLR_E2E, LIVER

Annotate = Callable[..., AnnotatedImage]


def test_what_a_label_holds_decides(synthetic: list[SyntheticCase], annotate: Annotate, tmp_path: Path) -> None:
    case = synthetic[0]
    lesion = (case.planning_zyx >= 3).astype(np.uint8)
    liver = (case.planning_zyx > 0).astype(np.uint8)
    images = [
        annotate(case),
        annotate(case, {"liver": 1}, liver, "liver_only"),
        annotate(case, {"liver": 1, "crlm": 2}, liver, "no_metastasis"),
        annotate(case, {"liver": 1, "crlm": 2}, liver + lesion, "with_metastasis"),
        annotate(case, {"liver": 1}, np.zeros_like(liver), "empty_liver"),
        annotate(case, {"spleen": 1}, liver, "spleen"),
    ]
    found = read_annotations(images, tmp_path / "masks", held_out=["with_metastasis"])
    ids = {stage.name: [a.case.case_id for a in found.for_stage(stage).cases] for stage in (LIVER, CRLM, FLR, FLR_E2E)}
    assert ids == {
        "liver": ["liver_only", "no_metastasis", case.case_id],
        "crlm": ["no_metastasis", case.case_id],
        "flr": [case.case_id],
        "flr_e2e": [case.case_id],
    }
    reasons = {entry.case_id: entry.reason for entry in found.for_stage(CRLM).left_out}
    assert set(reasons) == {"liver_only", "with_metastasis", "empty_liver", "spleen"}
    assert reasons["liver_only"] == "its label does not hold crlm; it holds liver"
    assert reasons["with_metastasis"] == "held out by the split file"
    assert "unknown label names ['spleen']" in reasons["spleen"]
    assert {e.case_id: e.reason for e in found.for_stage(LIVER).left_out}["empty_liver"] == "its liver has no voxels"


def test_a_case_reads_back_as_the_annotators_masks(synthetic: list[SyntheticCase], annotate: Annotate, tmp_path: Path) -> None:
    case = synthetic[0]
    annotation = read_annotations([annotate(case)], tmp_path / "masks").for_stage(FLR).cases[0]
    ct, masks = annotation.case.load([Structure.LIVER, Structure.CRLM, Structure.FLR])
    assert np.array_equal(ct.array_zyx, case.hu_zyx)
    assert np.array_equal(masks[Structure.LIVER], case.planning_zyx > 0)
    assert np.array_equal(masks[Structure.CRLM], case.planning_zyx >= 3)
    assert np.array_equal(masks[Structure.FLR], np.isin(case.planning_zyx, (1, 4)))
    assert annotation.voxels[Structure.CRLM] == int((case.planning_zyx >= 3).sum())


def test_too_few_cases_name_every_reason(synthetic: list[SyntheticCase], annotate: Annotate, tmp_path: Path) -> None:
    def on_another_grid(ct: CT) -> PlanningLabel:
        raise GridError("the label is on another grid\n  than the CT")

    images = [annotate(case) for case in synthetic[:3]]
    images.append(AnnotatedImage("shifted", images[0].image, on_another_grid))
    images.append(AnnotatedImage("damaged", tmp_path / "nothing.nii.gz", on_another_grid))
    images.append(AnnotatedImage("deleted", images[0].image, lambda ct: None))
    with pytest.raises(LabelError) as caught:
        read_annotations(images, tmp_path / "masks").for_stage(CRLM).require_enough()
    text = str(caught.value)
    assert text.startswith("stage crlm: 3 cases can train it, at least 4 are needed")
    assert "Draw liver and crlm in more images" in text
    assert "Left out (3): damaged: " in text
    assert "shifted: the label is on another grid than the CT" in text
    assert "deleted: it has no final label" in text


def test_no_label_at_all(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="no image has a final label, so nothing can be learned"):
        read_annotations([], tmp_path)


def test_an_empty_target_in_every_training_case(synthetic: list[SyntheticCase], annotate: Annotate, tmp_path: Path) -> None:
    names = {"liver": 1, "crlm": 2}
    images = [annotate(c, names, (c.planning_zyx > 0).astype(np.uint8)) for c in synthetic]
    cases = read_annotations(images, tmp_path / "masks").for_stage(CRLM)
    cases.require_enough()
    with pytest.raises(LabelError, match="stage crlm: the target crlm is empty in all 4 cases that train"):
        cases.require_target([c.case_id for c in synthetic])
