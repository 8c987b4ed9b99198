"""Variants: what a YAML may say of them, and which of them share prepared arrays."""

from __future__ import annotations

from pathlib import Path

import pytest

from flrplan.errors import SettingsError
from flrplan.method import Variant, variants_from


def test_a_variant_is_an_architecture_with_settings_over_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "w.model").touch()
    content = {
        "own_spacing": {"architecture": "swinunetr", "plan": {"spacing_zyx_mm": [2.0, 1.5, 1.5]}, "training": {"seed": 1}},
        "scratch_net": {"architecture": "stunet", "pretrained": "scratch"},
        "tuned": {"architecture": "stunet", "pretrained": "w.model", "input": None},
    }
    variants = variants_from(content, tmp_path)
    assert list(variants) == list(content)
    assert variants["own_spacing"].over == {"plan": {"spacing_zyx_mm": [2.0, 1.5, 1.5]}, "training": {"seed": 1}}
    assert variants["scratch_net"].pretrained == "scratch"
    assert variants["tuned"].pretrained == tmp_path / "w.model"
    assert variants["tuned"].to_json() == {"architecture": "stunet", "pretrained": "w.model"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], r"variants must be names with values, got \[\]"),
        (
            {"a": {}},
            "variants: a: architecture must be given",
        ),
        (
            {"a": {"architecture": "nnunet", "seed": 1}},
            "variants: a: unknown seed; known are name, architecture, pretrained, labels, stages, input, plan, training",
        ),
        ({"a": {"architecture": "unet"}}, "variants: a: unknown architecture 'unet'; known are nnunet"),
        ({"nnunet": {"architecture": "nnunet"}}, "'nnunet' cannot be a name: .* neither an architecture"),
        ({"crlm": {"architecture": "nnunet"}}, "'crlm' cannot be a name: .* nor a stage"),
        ({"a/b": {"architecture": "nnunet"}}, "'a/b' cannot be a name: expected small letters, digits and _"),
        ({"a": {"architecture": "nnunet", "training": {"sed": 1}}}, "variants: a: training: unknown sed; known are epochs"),
        ({"a": {"architecture": "nnunet", "training": 1}}, "a: training must be names with values, got 1"),
        ({"a": {"architecture": "nnunet", "plan": {"network_size": "huge"}}}, "a: nnunet has no network_size 'huge'"),
        ({"a": {"architecture": "stunet", "pretrained": "none.model"}}, "a: pretrained: no such file or folder"),
        ({"a": {"architecture": "nnunet", "stages": "multi"}}, "a: stages must be a list, got 'multi'"),
        (
            {"a": {"architecture": "nnunet", "stages": ["all"]}},
            r"a: stages\[0\] must be one of liver, crlm, flr, flr_e2e, multi, got 'all'",
        ),
        ({"a": {"architecture": "stunet", "labels": "nowhere"}}, "a: labels: no such file or folder"),
    ],
)
def test_a_mistake_is_told_with_variant_and_key(tmp_path: Path, content: object, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        variants_from(content, tmp_path)


def test_arrays_are_shared_exactly_where_they_are_the_same(tmp_path: Path) -> None:
    def preparation(**settings: object) -> str:
        return Variant("a", "nnunet", **settings).preparation  # type: ignore[arg-type]

    at_two_mm = preparation(plan={"spacing_zyx_mm": [2, 2, 2]})
    assert preparation(training={"seed": 1, "loss": "dice_bce"}, plan={"batch_size": 4}) == "", "the recipe's own arrays"
    assert at_two_mm.startswith("prepared_")
    assert at_two_mm == preparation(plan={"batch_size": 4, "spacing_zyx_mm": [2, 2, 2]}, training={"seed": 1})
    others = {
        at_two_mm,
        preparation(plan={"spacing_zyx_mm": [2, 2, 3]}),
        preparation(plan={"resampling": "torch"}),
        preparation(input={"mask_margin_mm": 5}),
        preparation(labels=tmp_path),
        preparation(labels=tmp_path, plan={"spacing_zyx_mm": [2, 2, 2]}),
    }
    assert len(others) == 6
