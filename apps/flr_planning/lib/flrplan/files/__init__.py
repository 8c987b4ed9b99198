"""Files of any kind: text that people write, folders listed, written whole or not at all. Knows nothing of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flrplan.lazy import import_at_first_use

if TYPE_CHECKING:
    from flrplan.files.folder import exchange, make_writable, replace_folder
    from flrplan.files.space import require_room
    from flrplan.files.text import read_json, read_table, read_text, read_yaml
    from flrplan.files.write import replacing, write_json, write_text

__all__ = [
    "exchange",
    "make_writable",
    "read_json",
    "read_table",
    "read_text",
    "read_yaml",
    "replace_folder",
    "replacing",
    "require_room",
    "write_json",
    "write_text",
]

import_at_first_use(
    __name__,
    {
        "flrplan.files.folder": ("exchange", "make_writable", "replace_folder"),
        "flrplan.files.space": ("require_room",),
        "flrplan.files.text": ("read_json", "read_table", "read_text", "read_yaml"),
        "flrplan.files.write": ("replacing", "write_json", "write_text"),
    },
)
