"""A few small cases, made once for all tests of the cohort."""

from __future__ import annotations

import pytest

from flrplan.cohort import SyntheticCase, make_case


@pytest.fixture(scope="session")
def small_cases() -> list[SyntheticCase]:
    return [make_case(3, index, "small") for index in range(24)]
