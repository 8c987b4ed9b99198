"""Reading CTs and masks with checks that name the file, writing results whole or not at all, finding cases."""

from __future__ import annotations

from flrplan.io.cases import case_name, case_names, find_cases, natural_key
from flrplan.io.ct import CT, ct_from_image, read_ct
from flrplan.io.folder import exchange, make_writable, replace_folder
from flrplan.io.masks import read_label_map, read_mask
from flrplan.io.space import require_room
from flrplan.io.write import replacing, write_json, write_label_map, write_text, write_volume

__all__ = [
    "CT",
    "case_name",
    "case_names",
    "ct_from_image",
    "exchange",
    "find_cases",
    "make_writable",
    "natural_key",
    "read_ct",
    "read_label_map",
    "read_mask",
    "replace_folder",
    "replacing",
    "require_room",
    "write_json",
    "write_label_map",
    "write_text",
    "write_volume",
]
