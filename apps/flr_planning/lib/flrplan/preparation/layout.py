"""Which file holds which structure of which case: glob patterns from a small YAML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flrplan.anatomy import Structure
from flrplan.errors import SettingsError
from flrplan.files import files_below, read_yaml
from flrplan.image.volume_file import image_suffix
from flrplan.preparation.glob_pattern import compile_pattern
from flrplan.preparation.sources import FileLabels, MaskFile

PLANNING_MAP = "planning_map"


@dataclass(frozen=True)
class Pattern:
    """A glob pattern (:func:`compile_pattern`), and the values that count; None: every voxel that is not 0."""

    glob: str
    values: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Layout:
    """Patterns by structure, and for planning maps (values 0..4). Of each list, the first that finds a file is used."""

    structures: Mapping[Structure, tuple[Pattern, ...]]
    planning_map: tuple[Pattern, ...] = ()


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
    if not isinstance(content, dict) or set(content) - {"structures", PLANNING_MAP} or not content:
        raise SettingsError(f"{path}: expected the keys structures and {PLANNING_MAP}, found {content!r:.200}")
    structures = content.get("structures") or {}
    known = {s.value: s for s in Structure}
    if not isinstance(structures, dict) or set(structures) - set(known):
        raise SettingsError(f"{path}: structures are {', '.join(known)}, found {structures!r:.200}")
    layout = Layout(
        {known[name]: _patterns(value, f"{path}: {name}") for name, value in structures.items()},
        _patterns(content.get(PLANNING_MAP) or [], f"{path}: {PLANNING_MAP}"),
    )
    for pattern in (*layout.planning_map, *(p for ps in layout.structures.values() for p in ps)):
        if "{case}" not in pattern.glob and "{number}" not in pattern.glob:
            raise SettingsError(
                f"{path}: pattern {pattern.glob!r} holds neither {{case}} nor {{number}}, so it fits every case"
            )
        compile_pattern(pattern.glob, "case0")
    return layout


def _patterns(value: Any, what: str) -> tuple[Pattern, ...]:
    entries = value if isinstance(value, list) else [value]
    patterns = []
    for entry in entries:
        if isinstance(entry, str):
            patterns.append(Pattern(entry))
            continue
        good = isinstance(entry, dict) and set(entry) == {"pattern", "values"} and isinstance(entry["pattern"], str)
        values = entry["values"] if good else None
        if not isinstance(values, list) or not values or not all(type(v) is int for v in values):
            raise SettingsError(f"{what}: expected a pattern or {{pattern: ..., values: [integers]}}, found {entry!r}")
        patterns.append(Pattern(entry["pattern"], tuple(values)))
    return tuple(patterns)


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
            if len(hits) > 1:
                problems[case] = f"{pattern.glob!r} finds {len(hits)} files for {slot or PLANNING_MAP}: {', '.join(hits[:5])}"
            elif hits:
                found[slot] = MaskFile(files[hits[0]], pattern.values, pattern.glob)
        labels[case] = FileLabels({s: f for s, f in found.items() if s is not None}, found.get(None))
    return FoundLabels(labels, problems, {name: p for name, p in files.items() if name not in used})


def _first_hit(patterns: Sequence[Pattern], names: Sequence[str], case: str) -> tuple[Pattern, list[str]]:
    for pattern in patterns:
        regex = compile_pattern(pattern.glob, case)
        hits = [n for n in names if regex.fullmatch(n)]
        if hits:
            return pattern, hits
    return Pattern(""), []
