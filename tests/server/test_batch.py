"""What a batch is asked for is checked before the first image; that it runs is tested with the app."""

from __future__ import annotations

import pytest

from flrplan.errors import SettingsError
from flrplan.server.batch import PlanningBatch


class Studies:
    """A datastore with three images and no label."""

    def list_images(self) -> list[str]:
        return ["a", "b", "c"]

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        return {}


def infer(request: dict[str, object], datastore: Studies) -> dict[str, str]:
    raise SettingsError("no model")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"images": "unlabelled"}, "no choice of images 'unlabelled' here; known are all, labeled, unlabeled"),
        ({"images": 7}, "expected all, labeled, unlabeled or a list of ids, got 7"),
        ({"max_batch_size": -1}, "max_batch_size must be a whole number from 1 up, or 0 for all; got -1"),
        ({"max_batch_size": "many"}, "got 'many'"),
        ({"max_batch_size": True}, "got True"),
    ],
)
def test_a_batch_that_asks_for_nothing_that_is_known_does_not_start(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        PlanningBatch()(wrong, Studies(), infer)


@pytest.mark.parametrize(
    ("asked", "tried"),
    [({}, ["a", "b", "c"]), ({"max_batch_size": "2"}, ["a", "b"]), ({"max_batch_size": 0, "images": ["c"]}, ["c"])],
)
def test_as_many_images_as_asked_for_are_tried(asked: dict[str, object], tried: list[str]) -> None:
    assert list(PlanningBatch()(asked, Studies(), infer)["failed"]) == tried
