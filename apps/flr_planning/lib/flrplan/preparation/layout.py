"""Which file holds which structure of which case: glob patterns from a small YAML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from flrplan.anatomy import Structure
from flrplan.errors import SettingsError
from flrplan.files import files_below, read_yaml
from flrplan.files.checked import EmptyBlock, Whole, checked, settings_of
from flrplan.image.volume_file import image_suffix
from flrplan.preparation.glob_pattern import compile_pattern
from flrplan.preparation.sources import FileLabels, MaskFile

PLANNING_MAP = "planning_map"


@checked
class Pattern:
    """A glob pattern (:func:`compile_pattern`), and the values that count; None: every voxel that is not 0."""

    pattern: str
    values: Annotated[tuple[Whole, ...], Field(min_length=1)] | None = None

    def __post_init__(self) -> None:
        if "{case}" not in self.pattern and "{number}" not in self.pattern:
            raise SettingsError(f"pattern {self.pattern!r} holds neither {{case}} nor {{number}}, so it fits every case")
        compile_pattern(self.pattern, "case0")


_Pattern = Annotated[Pattern, BeforeValidator(lambda said: {"pattern": said} if isinstance(said, str) else said)]
_Patterns = Annotated[tuple[_Pattern, ...], BeforeValidator(lambda said: said if isinstance(said, list | tuple) else [said])]


@checked
class Layout:
    """Patterns by structure, and for planning maps (values 0..4). Of each list, the first that finds a file is used."""

    structures: Annotated[Mapping[Structure, _Patterns], EmptyBlock] = field(default_factory=dict)
    planning_map: _Patterns = ()


@dataclass(frozen=True)
class FoundLabels:
    """What a layout finds: labels by case id, problems by case id (one sentence each).

    unused: image files that nobody claimed, by their path below the folder of labels.
    """

    labels: Mapping[str, FileLabels]
    problems: Mapping[str, str] = field(default_factory=dict)
    unused: Mapping[str, Path] = field(default_factory=dict)


def _tree(*globs: str) -> tuple[Pattern, ...]:
    return tuple(Pattern(g) for g in globs)


FOLDER_LAYOUT = Layout(
    {s: _tree(f"masks/{{case}}/{s}{{ext}}", f"masks/{s}/{{case}}{{ext}}", f"masks/{{case}}_{s}{{ext}}") for s in Structure},
    _tree("labels/{case}{ext}"),
)
"""Any folder: ``masks/<case>/<structure>``, ``masks/<structure>/<case>``, ``masks/<case>_<structure>``, or planning maps."""


def read_layout(path: Path) -> Layout:
    """A layout file: ``structures: {liver: [pattern, {pattern: ..., values: [1, 2]}], ...}``, ``planning_map: [pattern]``.

    Raises: SettingsError naming the file and the key for anything else.
    """
    content = read_yaml(path, "a layout")
    if not content:
        raise SettingsError(f"{path}: expected the keys structures and {PLANNING_MAP}, found nothing")
    return settings_of(Layout, content, str(path))


def find_label_files(layout: Layout, root: Path, case_ids: Sequence[str]) -> FoundLabels:
    """The label files of each case below ``root``; several files for one structure are a problem of that case.

    Raises: SettingsError where ``root`` holds no image file.
    """
    files = {p.relative_to(root).as_posix(): p for p in files_below(root) if p.is_file() and image_suffix(p) is not None}
    if not files:
        raise SettingsError(f"{root}: no NIfTI, NRRD or MetaImage file below it; unpack the download first, or give its folder")
    labels, problems, used = {}, {}, set()
    for case in case_ids:
        slots: list[tuple[Structure | None, tuple[Pattern, ...]]] = [*layout.structures.items(), (None, layout.planning_map)]
        found: dict[Structure | None, MaskFile] = {}
        for slot, patterns in slots:
            pattern, hits = _first_hit(patterns, list(files), case)
            used |= set(hits)
            if pattern is None:
                continue
            if len(hits) > 1:
                problems[case] = (
                    f"{pattern.pattern!r} finds {len(hits)} files for {slot or PLANNING_MAP}: {', '.join(hits[:5])}"
                )
            else:
                found[slot] = MaskFile(files[hits[0]], pattern.values, pattern.pattern)
        labels[case] = FileLabels({s: f for s, f in found.items() if s is not None}, found.get(None))
    return FoundLabels(labels, problems, {name: p for name, p in files.items() if name not in used})


def _first_hit(patterns: Sequence[Pattern], names: Sequence[str], case: str) -> tuple[Pattern | None, list[str]]:
    for pattern in patterns:
        regex = compile_pattern(pattern.pattern, case)
        hits = [n for n in names if regex.fullmatch(n)]
        if hits:
            return pattern, hits
    return None, []
