"""Which labels of a foreign model are a stage's target: asked where names leave a doubt, never guessed.

nnU-Net's plain labels exclude each other: where a tumour has a label of its own, the label "liver" is the liver without it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flrplan.anatomy import Structure
from flrplan.errors import ModelError
from flrplan.method import Stage

_LIVER = r"liver|hepa|foie|leber|h[ií]gado|fegato|figado|fígado|печень|肝"
_TUMOUR = (
    r"tumou?r|tumeur|tumore|cancer|carcinom|malign|neoplas|lesi[oó]n|l[ée]sion|l[äa]e?sion|metas|m[ée]tas|crlm|hcc|"
    r"nodul|gtv|\bmass(es)?\b|опухол|瘤|癌"
)
_PART = {
    Structure.LIVER: rf"{_TUMOUR}|vessel|gef[äa]|segment|lobe|cyst|necro|ablat|remnant|resect|parenchym|\bflr\b|\blrs\b",
    Structure.CRLM: r"necro|\bcore\b|\brim\b|viable|enhanc|in resection|in remnant",
    Structure.FLR: rf"{_TUMOUR}|vessel|gef[äa]|cyst|necro|ablat|remnant",
}
"""How labels are called that belong to a target, in words that people use; of another target nothing is known."""
_ELSEWHERE = (
    r"lung|pulmo|kidney|renal|niere|pancrea|spleen|splen|colon\b|bowel|\brect(um|al)|duoden|stomach|gastr|gallbl|adren|brain|heart|"
    r"cardi|aort|cava|brachio|iliac|carot|prostat|bladder|breast|bone|verteb|\bribs?\b|thyroid|oesoph|esoph"
)


@dataclass(frozen=True)
class ChosenLabels:
    """names: labels of ``dataset.json`` whose union is the target. apart: labels named like a part of it that are not in it."""

    names: tuple[str, ...]
    apart: tuple[str, ...]


def choose_labels(
    dataset: Mapping[str, Any], stage: Stage, asked: str | None, source: str, command: str = "flrplan models import SOURCE"
) -> ChosenLabels:
    """The labels that are the stage's target.

    asked: names with commas between them, in any case; None: the target's own name, if no other label is named like a part of it.
    source, command: what was given, for messages.
    Raises: ModelError with the option to give, where a name is unknown, none is asked and there is a doubt, or the label is of
    another structure.
    """
    labels = _labels(dataset, source)
    command = f"{command} --stage {stage} --label"
    names = tuple(dict.fromkeys(_asked(labels, asked, stage, source, command)))
    held = {value for name in names for value in _values(labels[name])}
    others = [name for name in labels if name not in names and not _values(labels[name]) <= held]
    apart = tuple(name for name in others if _is_part(name, stage.target))
    if apart and asked is None:
        raise ModelError(
            f"{source}: the label {names[0]!r} is only what no other label covers, and {' and '.join(map(repr, apart))} stands beside it; "
            f"the {stage.target} of stage {stage} holds all its parts. Give all labels that are part of it: "
            f"{command} {_quoted([*names, *apart])}, or, where {'it is' if len(apart) == 1 else 'they are'} no part of it, --label {_quoted(names)}"
        )
    _require_target(names, stage, source)
    _require_written(dataset, labels, names, source)
    return ChosenLabels(names, apart)


def _labels(dataset: Mapping[str, Any], source: str) -> dict[str, Any]:
    labels = dataset.get("labels")
    if not isinstance(labels, Mapping) or not labels:
        raise ModelError(f"{source}: dataset.json has no labels; copy it from where the model was trained")
    if all(str(name).isdigit() for name in labels):
        raise ModelError(
            f"{source}: dataset.json has labels as nnU-Net 1 writes them (number: name); nnU-Net 2 has name: number"
        )
    try:
        return {name: value for name, value in labels.items() if name != "ignore" and _values(value) != {0}}
    except (TypeError, ValueError) as error:
        raise ModelError(f"{source}: dataset.json has labels that are no numbers: {error}") from error


def _values(value: Any) -> set[int]:
    return {int(v) for v in value} if isinstance(value, list | tuple) else {int(value)}


def _asked(labels: Mapping[str, Any], asked: str | None, stage: Stage, source: str, command: str) -> list[str]:
    wanted = [str(stage.target)] if asked is None else [asked]
    if asked is not None and _found(labels, asked) is None:
        wanted = [part.strip() for part in asked.split(",") if part.strip()] or [asked]
    names = []
    for name in wanted:
        found = _found(labels, name)
        if found is None:
            likely = [n for n in labels if _is_part(n, stage.target) or _is_target(n, stage.target)]
            advice = f": {command} {_quoted(likely)}" if likely else ""
            raise ModelError(
                f"{source}: dataset.json has no label {name!r}; choose with --label one of {sorted(labels)}, or several with commas "
                f"between them{advice}"
            )
        names.append(found)
    return names


def _found(labels: Mapping[str, Any], name: str) -> str | None:
    """The label of that name, else the only one that differs in case, blanks, hyphens and underscores."""
    alike = [label for label in labels if label == name] or [label for label in labels if _words(label) == _words(name)]
    return alike[0] if len(alike) == 1 else None


def _words(name: str) -> str:
    return re.sub(r"[\s_.-]+", " ", name).strip().casefold()


def _is_target(name: str, target: Structure) -> bool:
    pattern = {Structure.LIVER: _LIVER, Structure.CRLM: _TUMOUR}.get(target, re.escape(str(target)))
    return re.search(pattern, _words(name)) is not None and not _is_elsewhere(name)


def _is_elsewhere(name: str) -> bool:
    return re.search(_ELSEWHERE, _words(name)) is not None


def _is_part(name: str, target: Structure) -> bool:
    words = _words(name)
    inside = re.search(_PART.get(target, "(?!)"), words) or (
        target is Structure.LIVER and re.search(_LIVER, words) and not _is_liver(name)
    )
    return bool(inside) and not _is_elsewhere(name)


def _is_liver(name: str) -> bool:
    return re.fullmatch(rf"(whole |total )?({_LIVER})[^\W\d]{{0,2}}( whole| total)?", _words(name)) is not None


def _require_target(names: Sequence[str], stage: Stage, source: str) -> None:
    """Names of another structure: asked for by mistake. Several may make up a liver (flr and lrs)."""
    other = {Structure.CRLM: (Structure.LIVER, Structure.FLR, Structure.LRS), Structure.FLR: (Structure.LIVER, Structure.LRS)}
    wrong = other.get(stage.target, (Structure.CRLM, Structure.FLR, Structure.LRS) if len(names) == 1 else ())
    for name in names:
        for structure in wrong:
            if _words(name) == structure.value or (structure is Structure.LIVER and _is_liver(name)):
                raise ModelError(
                    f"{source}: the label {name!r} is the {structure}, but stage {stage} looks for the {stage.target}; choose another one"
                )


def _require_written(dataset: Mapping[str, Any], labels: Mapping[str, Any], names: tuple[str, ...], source: str) -> None:
    """Of regions (labels that overlap), nnU-Net writes what ``regions_class_order`` says; that must be a value of the region."""
    if not any(isinstance(value, list | tuple) and len(value) > 1 for value in labels.values()):
        return
    order = dataset.get("regions_class_order")
    if not isinstance(order, list) or len(order) != len(labels):
        raise ModelError(
            f"{source}: dataset.json has {len(labels)} regions, but regions_class_order is {order!r}; copy it again"
        )
    for name, written in zip(labels, order, strict=True):
        if name in names and written not in _values(labels[name]):
            raise ModelError(
                f"{source}: the region {name!r} holds the values {sorted(_values(labels[name]))}, but regions_class_order has it written "
                f"as {written}; correct dataset.json"
            )


def _quoted(names: Sequence[str]) -> str:
    text = ",".join(names)
    return text if re.fullmatch(r"[\w,.-]+", text) else f'"{text}"'
