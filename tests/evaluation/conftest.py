"""Small labelled cases with predictions of known errors.

Every case: 12 x 20 x 20 voxels of 5 x 1 x 1.25 mm (z, y, x). Liver 10 x 16 x 16 = 2560 voxels; FLR its first 10 columns in x
= 1600; CRLM two boxes in the resection, A = 2 x 4 x 4 = 32 and B = 1 x 2 x 2 = 4 voxels. A predicted lesion that is none:
2 x 8 x 8 = 128 voxels, in the remnant. A voxel has 6.25 mm3.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

SHAPE = (12, 20, 20)
SPACING_ZYX = (5.0, 1.0, 1.25)


def box(z: tuple[int, int], y: tuple[int, int], x: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[slice(*z), slice(*y), slice(*x)] = True
    return mask


LIVER = box((1, 11), (2, 18), (2, 18))
FLR = box((1, 11), (2, 18), (2, 12))
LESION_A, LESION_B = box((3, 5), (4, 8), (14, 18)), box((7, 8), (4, 6), (14, 16))
CRLM = LESION_A | LESION_B
FALSE_ALARM = box((8, 10), (8, 16), (3, 11))
EMPTY = np.zeros(SHAPE, bool)


def planning_map(liver=LIVER, crlm=CRLM, flr=FLR) -> np.ndarray:
    label = np.zeros(SHAPE, np.uint8)
    label[liver] = 2
    label[liver & flr] = 1
    label[crlm & ~flr] = 3
    label[crlm & flr] = 4
    return label


class Bench:
    """Writes labels, predictions and the split of a small benchmark into a folder."""

    LIVER, FLR, CRLM, EMPTY, LESION_A, LESION_B, SPACING_ZYX = LIVER, FLR, CRLM, EMPTY, LESION_A, LESION_B, SPACING_ZYX
    FOLDS, TEST = [["a1", "a2"], ["b1"]], ["t1", "t2"]
    ALL = ("t1", "t2", "a1", "a2", "b1")

    def __init__(self, root: Path) -> None:
        self.root = root
        self.labels, self.predictions, self.splits, self.out = (
            root / n for n in ("labels", "predictions", "splits.json", "out")
        )
        for folder in (self.labels, self.predictions):
            folder.mkdir()

    def write(self, path: Path, array: np.ndarray, spacing_zyx=SPACING_ZYX, origin=(0.0, 0.0, 0.0), direction=None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        image = sitk.GetImageFromArray(array.astype(np.uint8) if array.dtype == bool else array)
        image.SetSpacing(spacing_zyx[::-1])
        image.SetOrigin(origin)
        if direction is not None:
            image.SetDirection(direction)
        sitk.WriteImage(image, str(path))
        return path

    def label(self, case: str, array: np.ndarray | None = None, **kwargs) -> Path:
        return self.write(self.labels / f"{case}.nii.gz", planning_map() if array is None else array, **kwargs)

    def predict(self, architecture: str, column: str, case: str, mask: np.ndarray, **kwargs) -> Path:
        return self.write(self.predictions / architecture / column / f"{case}.nii.gz", mask, **kwargs)

    def split(self, folds: list[list[str]], test: list[str]) -> None:
        self.splits.write_text(json.dumps({"test": test, "folds": folds}))

    def arguments(self, *more: str) -> list[str]:
        given = {"labels": self.labels, "predictions": self.predictions, "splits": self.splits, "out": self.out}
        return [*(part for name, path in given.items() for part in (f"--{name}", str(path))), "--workers", "1", *more]

    def tables(self) -> list[str]:
        """What was written for people: Table 1, Table 2, the report."""
        return [(self.out / name).read_text() for name in ("table1.md", "table2.md", "report.html")]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def whole(bench: Bench) -> Bench:
    """A complete small benchmark of one architecture with one column."""
    for case in bench.ALL:
        bench.label(case)
        bench.predict("nnunet", "pipelined_flr", case, bench.FLR)
    bench.split(bench.FOLDS, bench.TEST)
    return bench


@pytest.fixture(scope="session")
def command():
    """``main`` of benchmark/evaluate.py."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("benchmark_evaluate", Path(__file__).parents[2] / "benchmark" / "evaluate.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory, command) -> Bench:
    """One evaluated benchmark for all tests that only read it, with unequal folds: a1 a2 a3 | b1; held out t1 to t4.

    nnunet has known errors in its FLR (shifted by a voxel, dilated, empty, the whole liver), misses lesion B where it is given
    the liver, and in its cascade misses all of t1 and adds a false alarm in t2. The architecture "own" is perfect in the one
    column that it has, ``cascaded_flr``.
    """
    bench = Bench(tmp_path_factory.mktemp("oracle"))
    folds, test = [["a1", "a2", "a3"], ["b1"]], ["t1", "t2", "t3", "t4"]
    bench.split(folds, test)
    shifted = np.roll(FLR, 1, axis=2)
    flr = {
        "t1": shifted,
        "t2": FLR | shifted,
        "t3": EMPTY,
        "t4": LIVER,
        "a1": shifted,
        "a2": FLR | shifted,
        "a3": EMPTY,
        "b1": FLR,
    }
    for case, mask in flr.items():
        bench.label(case)
        for column, predicted in (("pipelined_liver", LIVER), ("pipelined_crlm", LESION_A), ("pipelined_flr", mask)):
            bench.predict("nnunet", column, case, predicted)
    for case in test:
        bench.predict("nnunet", "cascaded_crlm", case, {"t1": EMPTY, "t2": CRLM | FALSE_ALARM}.get(case, CRLM))
        bench.predict("own", "cascaded_flr", case, FLR)
    assert command(bench.arguments()) == 0
    return bench


@pytest.fixture(scope="session")
def one_of_twelve(tmp_path_factory: pytest.TempPathFactory, command) -> Bench:
    """nnunet finds both lesions of all 12 held-out cases with a false alarm; swinunetr finds them in one case, and in the others nothing."""
    bench = Bench(tmp_path_factory.mktemp("one_of_twelve"))
    test = [f"t{k:02d}" for k in range(12)]
    bench.split([["a"], ["b"]], test)
    for case in [*test, "a", "b"]:
        bench.label(case)
        bench.predict("nnunet", "pipelined_crlm", case, CRLM | FALSE_ALARM)
        bench.predict("swinunetr", "pipelined_crlm", case, CRLM if case == "t00" else EMPTY)
    assert command(bench.arguments()) == 0
    return bench
