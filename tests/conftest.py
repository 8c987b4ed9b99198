"""Shared fixtures: no nnU-Net variable leaks in, small synthetic cases, the demo models, the real CTs where they are."""

from __future__ import annotations

import errno
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from flrplan.anatomy import Mask, Structure, structure_mask
from flrplan.cohort import SyntheticCase, make_case
from flrplan.engine import MODEL_ROOT, ModelStore
from flrplan.files import write
from flrplan.image import CT

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def no_nnunet_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("nnUNet_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def full_while(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """From the call on, the disk has no room for any file as long as the given folder exists."""
    flush = write._flush

    def use(folder: Path) -> None:
        def flush_with_room(path: Path) -> None:
            if folder.exists():
                raise OSError(errno.ENOSPC, "No space left on device")
            flush(path)

        monkeypatch.setattr(write, "_flush", flush_with_room)

    return use


@pytest.fixture
def use_gpu() -> Callable[[Path, int], str]:
    """A shell job that fails where its pretended GPU is in use, or where ``at_once`` of them never are; it says which it was given.

    One in use has a folder, which only one job can make.
    """

    def script(folder: Path, at_once: int) -> str:
        return (
            f"cd {folder}; d=use-$(echo $CUDA_VISIBLE_DEVICES | tr / _); mkdir $d || exit 3; n=0; "
            f"until [ -e all ]; do [ $(ls -d use-* | wc -l) -ge {at_once} ] && touch all; "
            "n=$((n+1)); [ $n -lt 1200 ] || exit 4; sleep 0.05; done; sleep 0.2; rmdir $d; echo $CUDA_VISIBLE_DEVICES"
        )

    return script


@pytest.fixture(scope="session")
def small_case() -> SyntheticCase:
    """One synthetic case, about 96 x 96 x 40 voxels, that no demo model was trained on."""
    return make_case(seed=4, index=1, size="small")


@pytest.fixture(scope="session")
def small_ct(small_case: SyntheticCase) -> CT:
    return CT(small_case.hu_zyx, small_case.geometry, small_case.case_id, "synthetic", ())


@pytest.fixture(scope="session")
def small_truth(small_case: SyntheticCase) -> dict[Structure, Mask]:
    return {s: structure_mask(small_case.planning_zyx, s) for s in Structure}


@pytest.fixture(scope="session")
def demo_store() -> ModelStore:
    """The demo models of the repository, kept warm for the whole session, whatever models a developer has beside them."""
    return ModelStore(REPOSITORY / "no-models-of-ours", demo=MODEL_ROOT / "demo")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the public CTs (not in the repository); skips where it is absent."""
    folder = Path(os.environ.get("FLRPLAN_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "lidc0001").is_dir():
        pytest.skip(f"no real CTs in {folder}; set FLRPLAN_TEST_DATA to a folder with lidc0001/ and totalseg/")
    return folder


@pytest.fixture(scope="session")
def lidc_series(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the 133 DICOM slices of LIDC-IDRI-0001."""
    folder = tmp_path_factory.mktemp("series") / "lidc"
    with tarfile.open(real_data / "lidc0001" / "LIDC-IDRI-0001_dicom133.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder
