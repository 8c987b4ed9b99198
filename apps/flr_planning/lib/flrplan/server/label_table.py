"""Label names as clients know them: their colours, their DICOM codes, and the list that a client sends with a label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flrplan.anatomy import APPEARANCE, Appearance, CodedConcept, Compartment, Structure, label_name
from flrplan.errors import LabelError
from flrplan.image.segmentation import NO_LABELS

APPEARANCE_OF_NAME: Mapping[str, Appearance] = {
    **{s.value: APPEARANCE[s] for s in Structure},
    **{c.label_name: APPEARANCE[c] for c in Compartment},
}
AUTOMATIC, SEMIAUTOMATIC = "AUTOMATIC", "SEMIAUTOMATIC"
"""DICOM Segment Algorithm Type: a prediction, and what an annotator submitted."""
COMPARTMENT_NAMES: Mapping[str, int] = {c.label_name: int(c) for c in Compartment}


def label_colors(names: Sequence[str] | Mapping[str, int]) -> dict[str, list[int]]:
    """RGB 0..255 by label name, for clients that ask. 3D Slicer takes its own colours, by name."""
    return {name: list(APPEARANCE_OF_NAME[name].rgb) for name in names if name in APPEARANCE_OF_NAME}


def names_sent(info: Mapping[str, Any], what: str) -> dict[str, int]:
    """Label name to index from what a datastore keeps beside a label; empty if nothing was sent.

    Clients send ``label_info: [{"name": .., "idx": ..}]``; a result that the server saved itself holds ``params.label_names``.
    What a viewer makes for itself (``background``, scribbles) is left out. Raises: LabelError where an entry has no name, no integer index, or a name twice.
    """
    entries = info.get("label_info")
    if not entries:
        own = info.get("params")
        return dict(own.get("label_names") or {}) if isinstance(own, Mapping) else {}
    names: dict[str, int] = {}
    for entry in entries if isinstance(entries, list) else [entries]:
        try:
            name, index = label_name(str(entry["name"])), int(entry["idx"])
        except (KeyError, TypeError, ValueError):
            raise LabelError(
                f'{what}: each entry of label_info needs a name and an idx, like {{"name": "liver", "idx": 1}}; got {entry!r}'
            ) from None
        if name in NO_LABELS:
            continue
        if name in names:
            raise LabelError(f"{what}: label_info names {name!r} twice")
        names[name] = index
    return names


def segment_entry(name: str, index: int, algorithm_type: str) -> dict[str, Any]:
    """One entry of ``label_info`` for MONAI Label's SEG writer, with codes and colour where the name is one of ours."""
    entry: dict[str, Any] = {"name": name, "idx": index, "description": name}
    look = APPEARANCE_OF_NAME.get(name)
    if look is None:
        return entry
    attribute = {
        "labelID": index,
        "SegmentLabel": name,
        "SegmentDescription": look.title,
        "SegmentAlgorithmType": algorithm_type,
        "SegmentAlgorithmName": "flrplan in MONAI Label",
        "SegmentedPropertyCategoryCodeSequence": _code(look.category),
        "SegmentedPropertyTypeCodeSequence": _code(look.type),
        "recommendedDisplayRGBValue": list(look.rgb),
    }
    if look.modifier is not None:
        attribute["SegmentedPropertyTypeModifierCodeSequence"] = _code(look.modifier)
    return {**entry, "description": look.title, "color": list(look.rgb), "segmentAttribute": attribute}


def _code(concept: CodedConcept) -> dict[str, str]:
    return {"CodeValue": concept.value, "CodingSchemeDesignator": concept.scheme, "CodeMeaning": concept.meaning}
