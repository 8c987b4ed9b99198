"""Small annotated cases as files, and models to replace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from flrplan.anatomy import Compartment, decode_label
from flrplan.cohort import SyntheticCase, make_case
from flrplan.image import write_volume
from flrplan.learning import AnnotatedImage

PLANNING_NAMES = {c.label_name: int(c) for c in Compartment}


@pytest.fixture(scope="session")
def synthetic() -> list[SyntheticCase]:
    return [make_case(11, index, "small") for index in range(4)]


@pytest.fixture
def annotate(tmp_path: Path) -> Callable[..., AnnotatedImage]:
    """An image file with the given label map; the true planning map without one."""

    def make(
        case: SyntheticCase,
        names: Mapping[str, int] | None = None,
        label_zyx: NDArray[np.uint8] | None = None,
        case_id: str = "",
    ) -> AnnotatedImage:
        name = case_id or case.case_id
        path = tmp_path / "studies" / f"{name}.nii.gz"
        write_volume(path, case.hu_zyx, case.geometry)
        label = case.planning_zyx if label_zyx is None else label_zyx
        return AnnotatedImage(name, path, lambda ct: decode_label(label, names or PLANNING_NAMES, name))

    return make
