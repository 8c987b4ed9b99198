"""The first half of benchmark/whole_day.py on two cases: the worst label first, cascade, click, submit, brush, back to the server."""

from __future__ import annotations

from pathlib import Path

import pytest

from flrplan.cohort import CaseSize
from flrplan.demo.ohif.background import is_port_free
from flrplan.demo.ohif.browser import find_chromium, require_playwright
from flrplan.demo.ohif.orthanc import find_orthanc
from flrplan.demo.ohif.server import OHIF_PORT
from flrplan.errors import ServiceError


@pytest.fixture
def drivable() -> None:
    for need in (find_orthanc, find_chromium, require_playwright):
        try:
            need()
        except ServiceError as error:
            pytest.skip(str(error).split(";")[0])
    if not is_port_free(OHIF_PORT):
        pytest.skip(f"port {OHIF_PORT} is in use")


@pytest.mark.usefixtures("drivable")
@pytest.mark.timeout(900)  # 40 s on two quiet cores
def test_the_worst_label_is_handed_out_corrected_in_ohif_and_sent_back(tmp_path: Path) -> None:
    from whole_day import FAULTS, begun, in_the_viewer

    assert FAULTS[1] == "left_right"  # the worse of the first two
    with begun(tmp_path, CaseSize.SMALL, 2, "") as day:
        case, seen = in_the_viewer(day, "label_faults", "clicks")
    assert case.name.endswith("0001")
    assert [seen[f"state_{when}"] for when in ("before", "submitted", "after")] == ["open", "drafted", "refined"]
    assert seen["dice_sent_back"]["liver"] > 0.7
    assert any(finding.startswith("swapped (error)") for finding in seen["findings_before"])
    assert not any(finding.startswith("swapped") for finding in seen["findings_after"])
    assert {"next-sample", "cascade", "submitted"} <= {p.stem.removeprefix("1-") for p in (tmp_path / "pictures").iterdir()}
