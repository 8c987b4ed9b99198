"""Files of any kind: text that people write, folders listed, written whole or not at all. Knows nothing of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flrplan.lazy import import_at_first_use

if TYPE_CHECKING:
    from flrplan.files.digest import sha256_of_file, stamp_of
    from flrplan.files.folder import (
        alone_in,
        current_version,
        make_writable,
        publish_version,
        use_version,
        versions,
        writing_in,
    )
    from flrplan.files.listing import entries, files_below, is_junk, not_utf8, readable
    from flrplan.files.space import require_room
    from flrplan.files.text import plain_cell, read_json, read_table, read_text, read_yaml
    from flrplan.files.write import link, part_folder, replace_folder, replacing, sweep, write_json, write_text

__all__ = [
    "alone_in",
    "current_version",
    "entries",
    "files_below",
    "is_junk",
    "link",
    "make_writable",
    "not_utf8",
    "part_folder",
    "plain_cell",
    "publish_version",
    "read_json",
    "read_table",
    "read_text",
    "read_yaml",
    "readable",
    "replace_folder",
    "replacing",
    "require_room",
    "sha256_of_file",
    "stamp_of",
    "sweep",
    "use_version",
    "versions",
    "write_json",
    "write_text",
    "writing_in",
]

import_at_first_use(
    __name__,
    {
        "flrplan.files.digest": ("sha256_of_file", "stamp_of"),
        "flrplan.files.folder": (
            "alone_in",
            "current_version",
            "make_writable",
            "publish_version",
            "use_version",
            "versions",
            "writing_in",
        ),
        "flrplan.files.listing": (
            "entries",
            "files_below",
            "is_junk",
            "not_utf8",
            "readable",
        ),
        "flrplan.files.space": ("require_room",),
        "flrplan.files.text": (
            "plain_cell",
            "read_json",
            "read_table",
            "read_text",
            "read_yaml",
        ),
        "flrplan.files.write": (
            "link",
            "part_folder",
            "replace_folder",
            "replacing",
            "sweep",
            "write_json",
            "write_text",
        ),
    },
)
