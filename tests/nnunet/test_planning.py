"""A process that dies while nnU-Net takes its fingerprint costs time, not the preparation."""

from __future__ import annotations

import inspect
import logging

import pytest
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

from flrplan.nnunet.prepare import planning

DIED = f"Some {planning._DEATH_NOTICE} is 6 feet under. Yuck."


def test_nnunet_says_so_in_these_words() -> None:
    assert planning._DEATH_NOTICE in inspect.getsource(DatasetFingerprintExtractor.run)


@pytest.mark.parametrize(("workers", "enough", "tried"), [(8, 2, [8, 4, 2]), (5, 1, [5, 2, 1]), (3, 3, [3]), (1, 1, [1])])
def test_a_process_that_dies_leaves_the_work_to_half_as_many(
    workers: int, enough: int, tried: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def work(n: int) -> None:
        asked.append(n)
        if n > enough:
            raise RuntimeError(DIED)

    with caplog.at_level(logging.WARNING):
        planning._with_fewer(work, workers)
    assert asked == tried
    assert len(caplog.records) == len(tried) - 1


@pytest.mark.parametrize(("message", "tries"), [(DIED, 3), ("the fingerprint is wrong", 1)])
def test_one_that_dies_alone_and_every_other_error_is_raised(message: str, tries: int) -> None:
    asked = []

    def work(n: int) -> None:
        asked.append(n)
        raise RuntimeError(message)

    with pytest.raises(RuntimeError, match=message):
        planning._with_fewer(work, 4)
    assert len(asked) == tries
