"""The masks that one case of a stage is trained with."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping

import numpy as np

from flrplan.anatomy import Mask, Structure
from flrplan.errors import LabelError
from flrplan.image import CT
from flrplan.input_masks.mask_errors import DEFAULT_ERRORS, MaskErrors
from flrplan.input_masks.perturb import perturb_lesions, perturb_liver
from flrplan.method import InputMasks, Stage
from flrplan.workfolder import Case

logger = logging.getLogger(__name__)


def masks_for_training(
    case: Case,
    ct: CT,
    truth: Mapping[Structure, Mask],
    stage: Stage,
    source: InputMasks,
    errors: MaskErrors | None = None,
) -> dict[Structure, Mask]:
    """The masks of ``stage.needs``, ``(Z, Y, X) bool`` on the CT's grid; the same at every call.

    A liver that was not found holds nothing to learn from: then all masks of the case are the true ones.
    errors: what perturbed masks are drawn from (None: :data:`DEFAULT_ERRORS`).
    Raises: LabelError where predicted masks are asked for and the case has none; ImageError and GridError from their files.
    """
    true = {structure: truth[structure] for structure in stage.needs}
    if source is InputMasks.GROUND_TRUTH or not stage.needs:
        return true
    if source is InputMasks.PREDICTED_OOF:
        absent = [s.value for s in stage.needs if s not in case.predicted]
        if absent:
            raise LabelError(
                f"input_masks: {source.value} needs a predicted {', '.join(absent)} of every training case and there is none; "
                "give the out-of-fold predictions (flrplan train --predictions DIR), or choose perturbed"
            )
        masks = case.load_predicted(stage.needs, ct)
    else:
        masks = _perturbed(case.case_id, ct, true, errors or DEFAULT_ERRORS)
    if stage.region is not None and not masks[stage.region].any():
        logger.warning("case %s: no %s was predicted, so stage %s takes its true masks", case.case_id, stage.region, stage)
        return true
    return masks


def _perturbed(case_id: str, ct: CT, true: Mapping[Structure, Mask], errors: MaskErrors) -> dict[Structure, Mask]:
    """Each structure is drawn by a generator of its own, so that all stages of a case see the same liver."""
    spacing = ct.geometry.spacing_zyx_mm
    masks: dict[Structure, Mask] = {}
    if Structure.LIVER in true:
        masks[Structure.LIVER] = perturb_liver(
            true[Structure.LIVER], spacing, errors.liver, _generator(case_id, Structure.LIVER)
        )
    if Structure.CRLM in true:
        within = masks.get(Structure.LIVER, np.ones(ct.geometry.shape_zyx, bool))
        generator = _generator(case_id, Structure.CRLM)
        masks[Structure.CRLM] = perturb_lesions(true[Structure.CRLM], within, spacing, errors.lesions, generator)
    return masks


def _generator(case_id: str, structure: Structure) -> np.random.Generator:
    digest = hashlib.sha256(f"{case_id}/{structure.value}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
