"""The requests of 3D Slicer's MONAILabelReviewer (MONAI Label's repository, plugins/slicer), in its order, on the real server."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import numpy as np
import pytest
import requests
from monailabel.client import MONAILabelClient

from flrplan.anatomy import Compartment
from flrplan.cohort import SyntheticCase
from flrplan.image import read_ct
from flrplan.server.annotations import annotated_images, given_masks
from flrplan.server.options import Inputs
from flrplan.server.studies import PlanningLocalDatastore
from flrplan.studies.review import CaseReview, LabelUse, State

pytestmark = pytest.mark.timeout(300)
SECONDS = 5
"""The module's own time-out."""


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, make_studies: Callable[[Path], Path], start_server: Callable[[str, Path], Any]
) -> Any:
    folder = tmp_path_factory.mktemp("reviewer")
    return start_server(str(make_studies(folder / "studies")), folder)


class Reviewer:
    """``MonaiServerREST``, ``JsonParser`` and ``ImageData`` of the module, as far as they make requests and read answers."""

    def __init__(self, url: str, name: str) -> None:
        self.url, self.name = url, name

    def connect(self) -> dict[str, Any]:
        """``checkServerConnection``, then ``requestDataStoreInfo``: every image's labels and reviews."""
        assert requests.get(self.url, timeout=SECONDS).status_code == 200
        answer = requests.get(f"{self.url}/datastore/?output=all", timeout=SECONDS)
        assert answer.status_code == 200
        objects: dict[str, Any] = answer.json()["objects"]
        for entry in objects.values():
            _ = entry["image"]["info"]["name"], entry["image"]["info"]["ts"]
            for tag, label in entry["labels"].items():
                meta = label["info"].get("segmentationMeta")
                if meta:
                    _ = [meta[key] for key in ("status", "level", "approvedBy", "comment", "editTime")]
                    _ = 0 if tag in ("final", "original") else int(tag[tag.index("_") + 1 :])
        return objects

    def open(self, image: str, tag: str) -> bytes:
        """``requestDicomImage`` and ``requestSegmentation``: what the reviewer sees."""
        assert requests.get(f"{self.url}/datastore/image?image={quote_plus(image)}", timeout=30).status_code == 200
        url = f"{self.url}/datastore/label?label={quote_plus(image)}&tag={quote_plus(tag)}"
        answer = requests.get(url, timeout=SECONDS)
        assert answer.status_code == 200
        return answer.content

    def decide(self, image: str, tag: str, status: str, comment: str = "", level: str = "medium") -> None:
        """``updateLabelInfoOfAllVersionTags``: this version's review, then the approval taken from all others that were reviewed."""
        labels = self.connect()[image]["labels"]
        self.update(image, tag, self.meta(status, comment, level))
        for other, label in labels.items():
            meta = label["info"].get("segmentationMeta")
            if other != tag and meta:
                kept = {key: meta[key] for key in ("status", "approvedBy", "level", "comment", "editTime")}
                self.update(
                    image, other, {**kept, "status": "" if meta["status"] == "approved" else meta["status"], "level": level}
                )

    def meta(self, status: str, comment: str, level: str) -> dict[str, Any]:
        """``SegmentationMeta.getMeta``."""
        return {"status": status, "approvedBy": self.name, "level": level, "comment": comment, "editTime": int(time.time())}

    def update(self, image: str, tag: str, meta: dict[str, Any]) -> None:
        """``updateLabelInfo``."""
        url = f"{self.url}/datastore/updatelabelinfo?label={quote_plus(image)}&tag={quote_plus(tag)}"
        headers = {"Content-Type": "application/x-www-form-urlencoded", "accept": "application/json"}
        data = {"params": json.dumps({"segmentationMeta": meta})}
        assert requests.put(url, headers=headers, data=data, timeout=30).status_code == 200

    def save(self, image: str, file: Path, tag: str, label_info: list[dict[str, Any]], meta: dict[str, Any]) -> None:
        """``saveLabel``: an edited segmentation as a new version."""
        data = {"params": json.dumps({"label_info": label_info, "segmentationMeta": meta})}
        with file.open("rb") as f:
            answer = requests.put(
                f"{self.url}/datastore/label?image={image}&tag={tag}",
                data=data,
                files={"label": (f"{image}.nrrd", f)},
                timeout=30,
            )
        assert answer.status_code == 200, answer.text

    def delete(self, image: str, tag: str) -> None:
        """``deleteLabelByVersionTag``."""
        assert requests.delete(f"{self.url}/datastore/label?id={image}&tag={tag}", timeout=30).status_code == 200


COMPARTMENTS = [{"name": c.label_name, "idx": int(c)} for c in Compartment]


def store_of(server: Any) -> PlanningLocalDatastore:
    """The studies as a training, in a process of its own, opens them."""
    return PlanningLocalDatastore(str(server.folder / "studies"))


def review_of(server: Any, image: str) -> CaseReview:
    return store_of(server).submitted(image)


def test_a_case_is_drafted_sent_back_refined_and_confirmed(
    server: Any,
    case: SyntheticCase,
    write_image: Callable[..., Path],
    tmp_path: Path,
    show_log_on_failure: Callable[[Any], None],
) -> None:
    show_log_on_failure(server)
    image, planning = case.case_id, case.planning_zyx
    smaller = np.where(np.arange(planning.shape[0])[:, None, None] % 2, planning, 0).astype(np.uint8)
    draft = write_image(tmp_path / "draft.nii.gz", smaller, case.geometry)
    whole = write_image(tmp_path / "whole.nrrd", planning, case.geometry)
    anna = MONAILabelClient(server.url, tmpdir=str(tmp_path), client_id="anna")
    ben = Reviewer(server.url, "ben")

    assert "final" not in ben.connect()[image]["labels"]
    anna.save_label(image, str(draft), params={"label_info": COMPARTMENTS, "model": "cascade"})
    assert review_of(server, image).state is State.DRAFTED

    assert ben.open(image, "final") == draft.read_bytes()
    ben.decide(image, "final", "flagged", comment="the dome is missing")
    case_now = review_of(server, image)
    assert case_now.state_in_words == "sent back by ben: the dome is missing"
    with pytest.raises(Exception, match=r"was sent back by ben: the dome is missing\. Correct it and submit it again"):
        anna.infer("cascade", image, {"inputs": "labels"})
    images, _ = annotated_images(store_of(server), LabelUse.ALL)
    with pytest.raises(Exception, match="sent back by ben"):
        images[0].label(read_ct(images[0].image))

    anna.save_label(image, str(whole), params={"label_info": COMPARTMENTS})
    labels = ben.connect()[image]["labels"]
    assert list(labels) == ["final", "version_1"]
    assert labels["version_1"]["info"]["segmentationMeta"]["status"] == "flagged"
    assert labels["final"]["info"]["segmentationMeta"]["outdated"] is True
    changes = labels["final"]["info"]["submission"]["changes"]["liver"]
    assert changes["ml"] == pytest.approx((planning > 0).sum() * case.geometry.voxel_volume_ml, abs=0.01)
    assert changes["ml_before"] < changes["ml"]
    assert review_of(server, image).state is State.REFINED

    assert ben.open(image, "final") == whole.read_bytes()
    ben.decide(image, "final", "approved")
    assert review_of(server, image).state_in_words == "confirmed by ben (name not verified)"
    _, params = anna.infer("cascade", image, {"inputs": "labels_liver"})
    assert params["label"] == {"tag": "final", "case": "confirmed by ben (name not verified)"}
    assert ben.open(image, "version_1") == draft.read_bytes()


def test_the_reviewers_own_version_is_used_once_it_is_approved(
    server: Any, cases: list[SyntheticCase], write_image: Callable[..., Path], tmp_path: Path
) -> None:
    case, image = cases[1], cases[1].case_id
    smaller = np.where(np.arange(case.planning_zyx.shape[0])[:, None, None] % 2, case.planning_zyx, 0).astype(np.uint8)
    anna = MONAILabelClient(server.url, tmpdir=str(tmp_path), client_id="anna")
    draft = write_image(tmp_path / "draft.nii.gz", smaller, case.geometry)
    anna.save_label(image, str(draft), params={"label_info": COMPARTMENTS})
    ben = Reviewer(server.url, "ben")
    ben.decide(image, "final", "flagged", comment="every second slice")
    edited = write_image(tmp_path / "edited.nrrd", case.planning_zyx, case.geometry)
    ben.save(image, edited, "version_1", COMPARTMENTS, ben.meta("", "", "easy"))
    assert review_of(server, image).state is State.REFINED
    ben.decide(image, "version_1", "approved")
    store = store_of(server)
    assert store.submitted(image).choose(LabelUse.APPROVED).tag == "version_1"
    liver = next(iter(given_masks(store, image, read_ct(Path(store.get_image_uri(image))), Inputs.LABELS_LIVER).values()))
    assert np.array_equal(liver, case.planning_zyx > 0)

    anna.save_label(image, str(draft), params={"label_info": [*COMPARTMENTS], "note": "again"})
    case_now = review_of(server, image)
    assert (case_now.state_in_words, case_now.choose(LabelUse.ALL).tag) == ("confirmed by ben (name not verified)", "version_1")
    ben.delete(image, "version_1")
    assert list(ben.connect()[image]["labels"]) == ["final"]
    assert review_of(server, image).state is State.SENT_BACK


def test_an_upload_without_an_id_is_called_as_its_file(
    server: Any, case: SyntheticCase, write_image: Callable[..., Path]
) -> None:
    file = write_image(server.folder / "1.2.840.113.nii.gz", case.hu_zyx, case.geometry)
    for path, named, image in (("image", "1.2.840.113.nii.gz", "1.2.840.113"), ("", "1.2.840.114.nii.gz", "1.2.840.114")):
        with file.open("rb") as f:
            answer = requests.put(f"{server.url}/datastore/{path}", files={"file": (named, f)}, timeout=30)
        assert answer.json() == {"image": image}
        assert (server.folder / "studies" / named).is_file()
    refused = requests.put(f"{server.url}/datastore/image", files={"file": ("junk.nii.gz", b"junk")}, timeout=30)
    assert refused.status_code == 400
    assert "junk.nii.gz" not in [p.name for p in (server.folder / "studies").iterdir()]


def test_two_clients_get_two_cases_and_the_work_list_says_so(server: Any, tmp_path: Path) -> None:
    """The images that were uploaded are the ones without a label."""
    given = {}
    for name in ("dora", "emil"):
        client = MONAILabelClient(server.url, tmpdir=str(tmp_path), client_id=name)
        given[name] = client.next_sample("first", {})["id"]
        assert client.next_sample("first", {})["id"] == given[name]
    assert given == {"dora": "1.2.840.113", "emil": "1.2.840.114"}
    table = requests.get(f"{server.url}/worklist.csv", timeout=30)
    assert table.headers["content-type"].startswith("text/csv")
    held = {line["case"]: line["held by"] for line in csv.DictReader(io.StringIO(table.text))}
    assert (held["1.2.840.113"], held["1.2.840.114"]) == ("dora", "emil")
    page = requests.get(f"{server.url}/worklist", timeout=30)
    assert page.headers["content-type"].startswith("text/html")
    assert "4 cases" in page.text
