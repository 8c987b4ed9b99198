from __future__ import annotations

from typing import Any

import pytest

from flrplan.anatomy import KNOWN_LABEL_NAMES
from flrplan.errors import LabelError
from flrplan.server.label_table import AUTOMATIC, label_colors, names_sent, segment_entry


def test_every_known_name_has_a_colour() -> None:
    colors = label_colors(KNOWN_LABEL_NAMES)
    assert set(colors) == set(KNOWN_LABEL_NAMES)
    assert colors["remnant"] == [0, 170, 80]


@pytest.mark.parametrize(
    ("info", "names"),
    [
        ({"label_info": [{"name": "liver", "idx": 3}, {"name": "crlm", "idx": 7}]}, {"liver": 3, "crlm": 7}),
        ({"label_info": [{"name": "background", "idx": 0}, {"name": "liver", "idx": "2"}]}, {"liver": 2}),
        ({"model": "liver", "params": {"label_names": {"liver": 1}}}, {"liver": 1}),
        ({"params": {}}, {}),
        ({"ts": 12, "name": "a.nii.gz"}, {}),
        ({"label_info": []}, {}),
    ],
)
def test_names_that_came_with_a_label(info: dict[str, Any], names: dict[str, int]) -> None:
    assert names_sent(info, "a label") == names


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"name": "liver"}], r"a label: each entry of label_info needs a name and an idx"),
        (["liver"], r"each entry of label_info needs a name and an idx"),
        ([{"name": "liver", "idx": "one"}], r"each entry of label_info needs a name and an idx"),
        ([{"name": "liver", "idx": 1}, {"name": "liver", "idx": 2}], r"label_info names 'liver' twice"),
    ],
)
def test_a_list_that_cannot_be_read_is_an_error(entries: list[Any], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        names_sent({"label_info": entries}, "a label")


def test_a_segment_carries_our_codes() -> None:
    attribute = segment_entry("remnant", 1, AUTOMATIC)["segmentAttribute"]
    assert (attribute["labelID"], attribute["SegmentAlgorithmType"]) == (1, "AUTOMATIC")
    assert attribute["SegmentedPropertyTypeCodeSequence"]["CodeValue"] == "10200004"
    assert attribute["SegmentedPropertyTypeModifierCodeSequence"]["CodingSchemeDesignator"] == "99FLRPLAN"
    assert "segmentAttribute" not in segment_entry("spleen", 5, AUTOMATIC)
