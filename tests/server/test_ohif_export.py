"""OHIF's mended export; test_ohif.py drives it in Chromium."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import monailabel
import pytest

from flrplan.anatomy import KNOWN_LABEL_NAMES
from flrplan.server.ohif_colors import ohif_config
from flrplan.server.ohif_export import OHIF_VERSION

OHIF = Path(monailabel.__file__).parent / "endpoints" / "static" / "ohif"


def test_the_viewer_that_the_host_ships_is_the_one_that_the_export_was_mended_in() -> None:
    """If this fails, MONAI Label ships another OHIF: see whether its own export works, and drop ours if it does."""
    (bundle,) = OHIF.glob("app.bundle.*.js")
    assert f'"{OHIF_VERSION}"' in bundle.read_text(encoding="utf-8")
    commands = [p.read_text(encoding="utf-8") for p in OHIF.glob("*.bundle.*.js")]
    assert any("await dataSource.store.dicom(naturalizedReport)" in text for text in commands)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node, which reads JavaScript; Chromium runs it in test_ohif.py")
def test_what_is_added_to_the_configuration_can_be_read(tmp_path: Path) -> None:
    """A slip there would leave OHIF a black page."""
    (tmp_path / "app-config.js").write_text(ohif_config((OHIF / "app-config.js").read_text(encoding="utf-8")), encoding="utf-8")
    subprocess.run(["node", "--check", tmp_path / "app-config.js"], check=True, timeout=60)


def test_each_segment_gets_its_codes_by_name() -> None:
    codes = json.loads(re.search(r"const codes = (\{.*?\}), context", ohif_config("")).group(1))  # type: ignore[union-attr]
    assert set(codes) == set(KNOWN_LABEL_NAMES)
    (kind,) = codes["flr"]["SegmentedPropertyTypeCodeSequence"]
    assert (kind["CodeMeaning"], kind["SegmentedPropertyTypeModifierCodeSequence"][0]["CodeValue"]) == ("Liver", "FLR")
    assert codes["crlm"]["SegmentedPropertyTypeCodeSequence"][0]["CodingSchemeDesignator"] == "SCT"
