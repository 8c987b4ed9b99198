"""Structures, compartments, and what a label of a client says."""

from __future__ import annotations

import numpy as np
import pytest

from flrplan.anatomy import (
    APPEARANCE,
    COMPARTMENTS_OF,
    KNOWN_LABEL_NAMES,
    Compartment,
    Structure,
    check_planning_map,
    decode_label,
    decode_layers,
    structure_mask,
    to_compartments,
)
from flrplan.errors import GridError, LabelError

COMPARTMENTS = {c.label_name: int(c) for c in Compartment}


def random_masks(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nested masks: CRLM and FLR anywhere inside the liver, overlapping each other."""
    generator = np.random.default_rng(seed)
    liver = generator.random((6, 7, 8)) < 0.6
    return liver, liver & (generator.random(liver.shape) < 0.3), liver & (generator.random(liver.shape) < 0.5)


def test_conversion_is_lossless_for_nested_masks() -> None:
    liver, crlm, flr = random_masks()
    label, report = to_compartments(liver, crlm, flr)
    assert report.findings() == []
    assert set(np.unique(label)) == {0, 1, 2, 3, 4}
    for structure, mask in (
        (Structure.LIVER, liver),
        (Structure.CRLM, crlm),
        (Structure.FLR, flr),
        (Structure.LRS, liver & ~flr),
    ):
        assert np.array_equal(structure_mask(label, structure), mask)


def test_what_does_not_nest_is_counted() -> None:
    liver, crlm, flr = (np.zeros((2, 2, 2), bool) for _ in range(3))
    liver[0] = True
    crlm[1, 0, 0] = True
    flr[1, 0] = True
    label, report = to_compartments(liver, crlm, flr)
    assert (report.crlm_outside_liver, report.flr_outside_liver) == (1, 2)
    assert [f.split(" voxels")[0] for f in report.findings()] == ["1 CRLM", "2 FLR"]
    assert set(np.unique(label)) == {0, 2}
    with pytest.raises(GridError, match="must share a shape"):
        to_compartments(liver, crlm, flr[:1])


def test_lrs_and_flr_part_the_liver() -> None:
    assert COMPARTMENTS_OF[Structure.FLR] | COMPARTMENTS_OF[Structure.LRS] == COMPARTMENTS_OF[Structure.LIVER]
    assert not COMPARTMENTS_OF[Structure.FLR] & COMPARTMENTS_OF[Structure.LRS]


def test_every_label_has_a_name_colour_and_code() -> None:
    assert set(APPEARANCE) == {*Structure, *Compartment}
    assert len(KNOWN_LABEL_NAMES) == 8
    red, green, _ = APPEARANCE[Structure.LRS].rgb
    assert red > green, "LRS is red as in the paper"
    red, green, _ = APPEARANCE[Structure.FLR].rgb
    assert green > red, "FLR is green as in the paper"


def test_planning_map_values_are_checked() -> None:
    assert check_planning_map(np.array([[[0, 4]]]), "x").dtype == np.uint8
    with pytest.raises(
        LabelError, match=r"case 7: a planning label map holds 0\.\.4 .*found \[5, 9\]; give these voxels one of"
    ):
        check_planning_map(np.array([[[9, 5, 1]]]), "case 7")


def test_a_liver_at_any_index() -> None:
    array = np.zeros((2, 2, 2), np.uint8)
    array[0] = 3
    label = decode_label(array, {"liver": 3}, "x")
    assert label.holds == {Structure.LIVER}
    assert np.array_equal(label.masks[Structure.LIVER], array == 3)


def test_structures_nest_in_the_liver() -> None:
    array = np.array([[[0, 1, 2, 2]]])
    label = decode_label(array, {"crlm": 2, "liver": 1}, "x")
    assert label.masks[Structure.LIVER].tolist() == [[[False, True, True, True]]]
    assert label.masks[Structure.CRLM].sum() == 2


def test_named_without_voxels_is_empty_and_unnamed_is_absent() -> None:
    array = np.array([[[0, 1]]])
    label = decode_label(array, {"liver": 1, "crlm": 2}, "x")
    assert label.holds == {Structure.LIVER, Structure.CRLM}
    assert not label.masks[Structure.CRLM].any()
    assert Structure.FLR not in label.holds


def test_compartments_in_any_order() -> None:
    array = np.array([[[0, 5, 6, 7, 8]]])
    names = {"crlm_in_remnant": 5, "remnant": 6, "resection": 7, "crlm_in_resection": 8}
    label = decode_label(array, names, "x")
    assert label.holds == set(Structure)
    assert label.masks[Structure.FLR].tolist() == [[[False, True, True, False, False]]]
    assert label.masks[Structure.LIVER].sum() == 4


def test_remnant_alone_never_says_the_liver() -> None:
    array = np.array([[[0, 1]]])
    with pytest.raises(LabelError, match="do not state any structure"):
        decode_label(array, {"remnant": 1}, "x")
    label = decode_label(array, {"remnant": 1, "crlm_in_remnant": 4}, "x")
    assert label.holds == {Structure.FLR}


def test_slicer_offers_all_names_and_what_is_painted_counts() -> None:
    names = {name: i for i, name in enumerate(KNOWN_LABEL_NAMES, 1)}
    liver_only = decode_label(np.array([[[0, names["liver"]]]]), names, "x")
    assert liver_only.holds == {Structure.LIVER}
    planned = decode_label(np.array([[[0, names["remnant"], names["resection"]]]]), names, "x")
    assert planned.holds == set(Structure)
    assert not planned.masks[Structure.CRLM].any()


@pytest.mark.parametrize(
    ("array", "names", "message"),
    [
        ([[[0, 1]]], {"lever": 1}, r"unknown label names \['lever'\]; known are liver, crlm"),
        ([[[0, 1]]], {}, "no label names came with it"),
        ([[[0, 1]]], {"liver": 1, "crlm": 1}, "an index of its own"),
        ([[[0, 1]]], {"liver": 0}, "an index of its own"),
        ([[[0, 2]]], {"liver": 1}, r"voxels of value \[2\] have no name"),
        ([[[1, 2]]], {"liver": 1, "remnant": 2}, r"both structures \(liver\) and compartments \(remnant\)"),
        ([[[1, 2]]], {"crlm": 1, "flr": 2}, "does not say on which side of the cut"),
        ([[[1, 2]]], {"crlm": 1, "lrs": 2}, "does not say on which side of the cut"),
    ],
)
def test_labels_that_would_be_a_guess(array: list[object], names: dict[str, int], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        decode_label(np.array(array), names, "case 3")


def test_names_are_known_in_any_case_and_by_their_titles() -> None:
    array = np.array([[[0, 1, 2, 3, 4]]])
    names = {"Remnant": 1, " RESECTION": 2, "CRLM in-resection": 3, "Metastasis in the remnant": 4}
    label = decode_label(array, names, "x")
    assert label.holds == set(Structure)
    assert label.masks[Structure.FLR].tolist() == [[[False, True, False, False, True]]]
    with pytest.raises(
        LabelError, match=r"x: two of its labels \['Liver', 'liver'\] are called the same; rename or delete one"
    ):
        decode_label(array, {"Liver": 1, "liver": 2}, "x")


def test_structures_in_layers_are_as_they_were_drawn() -> None:
    """A liver with a hole for the tumour of its own layer contains it; the remnant of the other layer is what was drawn."""
    liver, flr = np.array([[[1, 2, 1, 1, 0]]]), np.array([[[0, 0, 0, 1, 0]]])
    label = decode_layers([(liver, {"liver": 1, "crlm": 2}), (flr, {"flr": 1})], "x")
    assert label.masks[Structure.LIVER].tolist() == [[[True, True, True, True, False]]]
    assert label.masks[Structure.CRLM].tolist() == [[[False, True, False, False, False]]]
    assert label.masks[Structure.FLR].tolist() == [[[False, False, False, True, False]]]
    apart = decode_layers([(np.array([[[1, 1, 0]]]), {"liver": 1}), (np.array([[[0, 1, 1]]]), {"crlm": 1})], "x")
    assert apart.masks[Structure.LIVER].tolist() == [[[True, True, False]]], "nothing is added to a liver that was drawn whole"


def test_layers_that_contradict_each_other_are_an_error() -> None:
    one, two = np.array([[[1, 1, 0]]]), np.array([[[0, 1, 1]]])
    names = {"remnant": 1, "crlm_in_remnant": 2}
    with pytest.raises(LabelError, match=r"x: its compartments .* overlap in 1 voxels, and each voxel is in one at most"):
        decode_layers([(one, names), (two, {"crlm_in_resection": 1, "resection": 2})], "x")
    with pytest.raises(LabelError, match=r"two of its labels .* are called the same"):
        decode_layers([(one, {"liver": 1}), (two, {"liver": 1})], "x")
    with pytest.raises(LabelError, match=r"both structures \(liver\) and compartments \(remnant\)"):
        decode_layers([(one, {"liver": 1}), (two, {"remnant": 1})], "x")
