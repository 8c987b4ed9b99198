from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monailabel.interfaces.datastore import DefaultLabelTag
from numpy.typing import NDArray

from flrplan.anatomy import Compartment, Structure, structure_mask
from flrplan.cohort import SyntheticCase
from flrplan.errors import EmptyLiverError, FlrError, GridError, LabelError
from flrplan.image import CT, Geometry, read_ct
from flrplan.server.annotations import given_masks
from flrplan.server.durable import DurableDatastore
from flrplan.server.options import Inputs
from flrplan.server.studies import PlanningLocalDatastore


@pytest.fixture
def studies(tmp_path: Path, make_studies: Callable[[Path], Path]) -> Path:
    return make_studies(tmp_path / "studies")


@pytest.fixture
def datastore(studies: Path) -> PlanningLocalDatastore:
    return PlanningLocalDatastore(str(studies))


@pytest.fixture
def ct(studies: Path, case: SyntheticCase) -> CT:
    return read_ct(studies / f"{case.case_id}.nii.gz")


@pytest.fixture
def save(
    datastore: PlanningLocalDatastore, case: SyntheticCase, tmp_path: Path, write_image: Callable[..., Path]
) -> Callable[..., None]:
    """Stores a ``final`` label unchecked, as the host and earlier versions did, under any name and suffix."""

    def store(
        label: NDArray[Any], names: dict[str, int] | None, geometry: Geometry = case.geometry, suffix: str = ".nii.gz"
    ) -> None:
        file = write_image(tmp_path / f"upload{suffix}", label.astype(np.uint8), geometry)
        info = {} if names is None else {"label_info": [{"name": n, "idx": i} for n, i in names.items()]}
        DurableDatastore.save_label(datastore, case.case_id, str(file), DefaultLabelTag.FINAL, info)

    return store


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".seg.nrrd"])
def test_a_liver_at_another_index_is_found(
    save: Callable[..., None],
    datastore: PlanningLocalDatastore,
    ct: CT,
    case: SyntheticCase,
    liver: NDArray[np.bool_],
    suffix: str,
) -> None:
    save(liver * 3, {"crlm": 1, "liver": 3}, suffix=suffix)
    given = given_masks(datastore, case.case_id, ct, Inputs.LABELS_LIVER)
    assert list(given) == [Structure.LIVER]
    assert np.array_equal(given[Structure.LIVER], liver)


def test_compartments_at_other_indices_give_liver_and_crlm(
    save: Callable[..., None], datastore: PlanningLocalDatastore, ct: CT, case: SyntheticCase
) -> None:
    indices = {
        Compartment.REMNANT: 9,
        Compartment.RESECTION: 2,
        Compartment.CRLM_IN_RESECTION: 5,
        Compartment.CRLM_IN_REMNANT: 6,
    }
    lookup = np.zeros(5, np.uint8)
    lookup[list(indices)] = list(indices.values())
    save(lookup[case.planning_zyx], {c.label_name: i for c, i in indices.items()})
    given = given_masks(datastore, case.case_id, ct, Inputs.LABELS)
    for structure in (Structure.LIVER, Structure.CRLM):
        assert np.array_equal(given[structure], structure_mask(case.planning_zyx, structure))


def test_an_empty_crlm_is_given_as_empty(
    save: Callable[..., None], datastore: PlanningLocalDatastore, ct: CT, case: SyntheticCase, liver: NDArray[np.bool_]
) -> None:
    save(liver * 1, {"liver": 1, "crlm": 2})
    given = given_masks(datastore, case.case_id, ct, Inputs.LABELS)
    assert not given[Structure.CRLM].any()


def test_predicted_reads_no_label(datastore: PlanningLocalDatastore, ct: CT, case: SyntheticCase) -> None:
    assert given_masks(datastore, case.case_id, ct, Inputs.PREDICTED) == {}
    assert datastore.final_label(case.case_id, ct) is None


def test_a_missing_label_says_what_to_do(datastore: PlanningLocalDatastore, ct: CT, case: SyntheticCase) -> None:
    expected = rf"inputs=labels_liver: image {case.case_id} has no final label. Draw the liver, name it 'liver' and submit"
    with pytest.raises(LabelError, match=expected):
        given_masks(datastore, case.case_id, ct, Inputs.LABELS_LIVER)


def test_a_file_has_no_label(datastore: PlanningLocalDatastore, ct: CT) -> None:
    with pytest.raises(LabelError, match="this image came as a file or a path"):
        given_masks(datastore, None, ct, Inputs.LABELS)


@pytest.mark.parametrize(
    ("names", "inputs", "error", "message"),
    [
        ({"liver": 1}, Inputs.LABELS, LabelError, r"does not hold crlm; it holds liver"),
        ({"flr": 1}, Inputs.LABELS_LIVER, LabelError, r"does not hold liver; it holds flr"),
        ({"remnant": 1}, Inputs.LABELS_LIVER, LabelError, r"the compartments remnant alone do not state any structure"),
        ({"spleen": 1}, Inputs.LABELS_LIVER, LabelError, r"unknown label names \['spleen'\]; known are liver, crlm"),
        ({"liver": 2}, Inputs.LABELS_LIVER, LabelError, r"voxels of value \[1\] have no name"),
        (None, Inputs.LABELS_LIVER, LabelError, r"no label names came with it"),
    ],
)
def test_a_label_that_does_not_fit_says_why(
    save: Callable[..., None],
    datastore: PlanningLocalDatastore,
    ct: CT,
    case: SyntheticCase,
    liver: NDArray[np.bool_],
    names: dict[str, int] | None,
    inputs: Inputs,
    error: type[FlrError],
    message: str,
) -> None:
    save(liver * 1, names)
    with pytest.raises(error, match=message):
        given_masks(datastore, case.case_id, ct, inputs)


def test_an_empty_liver_is_an_error(
    save: Callable[..., None], datastore: PlanningLocalDatastore, ct: CT, case: SyntheticCase, liver: NDArray[np.bool_]
) -> None:
    save(liver * 0, {"liver": 1})
    with pytest.raises(EmptyLiverError, match=r"the liver in the final label of .* has no voxels; draw it"):
        given_masks(datastore, case.case_id, ct, Inputs.LABELS_LIVER)


def test_a_label_on_another_grid_is_an_error(
    save: Callable[..., None], datastore: PlanningLocalDatastore, ct: CT, case: SyntheticCase, liver: NDArray[np.bool_]
) -> None:
    save(liver[:, :, :-1] * 1, {"liver": 1}, Geometry(tuple(reversed(liver[:, :, :-1].shape)), case.geometry.spacing_mm))  # type: ignore[arg-type]
    with pytest.raises(GridError, match="is not on the grid of"):
        given_masks(datastore, case.case_id, ct, Inputs.LABELS_LIVER)
