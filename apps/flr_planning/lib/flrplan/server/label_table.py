"""Label names as clients know them: their colours, their DICOM codes, and the list that a client sends with a label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flrplan.anatomy import (
    APPEARANCE,
    KNOWN_LABEL_NAMES,
    Appearance,
    CodedConcept,
    Compartment,
    PlanningLabel,
    Structure,
    label_name,
)
from flrplan.errors import LabelError, SettingsError
from flrplan.image import Geometry
from flrplan.image.segmentation import NO_LABELS, read_segmentation

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


def names_in_setting(text: str) -> dict[str, int]:
    """Names and values of ``--conf label_names liver=1,crlm=2``. Raises: SettingsError."""
    names: dict[str, int] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, value = part.partition("=")
        name = label_name(name)
        if name not in KNOWN_LABEL_NAMES or not value.strip().isdecimal() or int(value) < 1 or int(value) in names.values():
            raise SettingsError(
                f"label_names: expected NAME=VALUE,... with values of their own from 1 up and names of {', '.join(KNOWN_LABEL_NAMES)}; "
                f"got {part!r}"
            )
        names[name] = int(value)
    return names


def read_label(path: Path, info: Mapping[str, Any]) -> tuple[PlanningLabel, Geometry]:
    """A label file as structures, by the names that came with it, and its grid. Raises: LabelError, ImageError."""
    held = read_segmentation(path)
    names = {} if held.names is not None else names_sent(info, str(path))
    return held.label(held.geometry, str(path), names), held.geometry


def read_stored_label(
    path: Path, info: Mapping[str, Any], copied: Mapping[str, int], grid: Geometry, grid_of: str
) -> PlanningLabel:
    """A stored label file as structures, by the names in its header, those that came with it, or else, for a file that somebody copied to its
    place, those of the setting ``label_names``.

    Raises: LabelError, GridError, ImageError.
    """
    held = read_segmentation(path)
    names = {} if held.names is not None else names_sent(info, str(path)) or dict(copied)
    if held.names is None and not names:
        image = path.name.partition(".nii")[0].partition(".nrrd")[0]
        raise LabelError(
            f"{path}: no label names came with it, as with a file that was copied to its place. Submit it: curl -X PUT "
            f'\'SERVER/datastore/label?image={image}&tag=final\' -F \'params={{"label_info": [{{"name": "liver", "idx": 1}}]}}\' '
            f"-F label=@{path.name}; or name the values of all copied files with --conf label_names liver=1,crlm=2 "
            f"(known names: {', '.join(KNOWN_LABEL_NAMES)})"
        )
    return held.label(grid, grid_of, names)


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
