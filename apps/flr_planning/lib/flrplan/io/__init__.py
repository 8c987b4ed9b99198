"""Reading CTs and masks with checks that name the file, writing results whole or not at all, finding cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flrplan.lazy import import_at_first_use

if TYPE_CHECKING:
    from flrplan.io.cases import CHANNEL, case_name, case_names, find_cases, natural_key, without_channel
    from flrplan.io.ct import CT, ct_from_image, read_ct
    from flrplan.io.folder import exchange, make_writable, replace_folder
    from flrplan.io.masks import read_label_map, read_mask
    from flrplan.io.space import require_room
    from flrplan.io.text import read_json, read_table, read_text, read_yaml
    from flrplan.io.write import replacing, write_json, write_label_map, write_text, write_volume

__all__ = [
    "CHANNEL",
    "CT",
    "case_name",
    "case_names",
    "ct_from_image",
    "exchange",
    "find_cases",
    "make_writable",
    "natural_key",
    "read_ct",
    "read_json",
    "read_label_map",
    "read_mask",
    "read_table",
    "read_text",
    "read_yaml",
    "replace_folder",
    "replacing",
    "require_room",
    "without_channel",
    "write_json",
    "write_label_map",
    "write_text",
    "write_volume",
]

import_at_first_use(
    __name__,
    {
        "flrplan.io.cases": ("CHANNEL", "case_name", "case_names", "find_cases", "natural_key", "without_channel"),
        "flrplan.io.ct": ("CT", "ct_from_image", "read_ct"),
        "flrplan.io.folder": ("exchange", "make_writable", "replace_folder"),
        "flrplan.io.masks": ("read_label_map", "read_mask"),
        "flrplan.io.space": ("require_room",),
        "flrplan.io.text": ("read_json", "read_table", "read_text", "read_yaml"),
        "flrplan.io.write": ("replacing", "write_json", "write_label_map", "write_text", "write_volume"),
    },
)
