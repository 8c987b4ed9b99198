"""Names in a studies folder: ids of images, tags of labels, and the file names that are made of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from flrplan.errors import LabelError

FINAL, ORIGINAL = "final", "original"
"""Tags of MONAI Label: what a person submits, and what a model predicted."""

IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
LABEL_ENDINGS = (".seg.nrrd", *IMAGE_ENDINGS)
"""Kinds of image that are one file; ``.seg.nrrd`` is 3D Slicer's segmentation, never an image."""

VERSION = "version_"
_NAME = re.compile(r"""(?![.~\s])[^/\\:*?"<>|\x00-\x1f\x7f\ud800-\udfff]{1,200}(?<![.\s])""")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
LONGEST_ID = 200
"""Bytes; with what is put before and behind it, a file system takes no more than 255."""


def split_name(name: str, endings: Sequence[str] = LABEL_ENDINGS) -> tuple[str, str] | None:
    """Id and ending of a file name, whatever the case of its letters; dots of the id stay. None for other files.

    >>> split_name("1.2.840.113.nii.gz")
    ('1.2.840.113', '.nii.gz')
    """
    ending = next((e for e in endings if name.lower().endswith(e)), None)
    return None if ending is None or len(name) == len(ending) else (name[: -len(ending)], name[-len(ending) :])


def check_id(image_id: str) -> str:
    """The id itself where it can name a file in the studies folder, and nothing outside it. Raises: LabelError."""
    if not is_id(image_id):
        raise LabelError(f"{image_id!r:.80} is no id of an image: expected a file name without its ending, and no path")
    return image_id


def is_id(name: str) -> bool:
    """Whether it can name a file in the studies folder, and nothing outside it."""
    return _NAME.fullmatch(name) is not None and len(name.encode(errors="replace")) <= LONGEST_ID


def is_tag(name: str) -> bool:
    """Whether it can name a folder of labels."""
    return _TAG.fullmatch(name) is not None


def check_tag(tag: str) -> str:
    """The tag itself where it can name a folder of labels. Raises: LabelError."""
    if not is_tag(tag):
        raise LabelError(f"{tag!r:.80} is no tag of a label: expected letters, digits, '-' and '_', such as final or version_2")
    return tag


def version_number(tag: str) -> int | None:
    """N of a tag ``version_N``, else None."""
    number = tag.removeprefix(VERSION)
    return int(number) if tag.startswith(VERSION) and number.isdecimal() else None


def next_version(tags: Iterable[str]) -> str:
    """The ``version_N`` after all of these tags."""
    return f"{VERSION}{max((version_number(tag) or 0 for tag in tags), default=0) + 1}"


def tag_order(tag: str) -> tuple[int, int, str]:
    """Sorts tags as MONAILabelReviewer needs them: the last one says which number comes next."""
    number = version_number(tag)
    return (2, number, tag) if number is not None else (0 if tag in (ORIGINAL, FINAL) else 1, 0, tag)
