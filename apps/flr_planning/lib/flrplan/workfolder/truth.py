"""The truth of one case on disk, and the one way to read it: training, evaluation and retraining call this."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flrplan.anatomy import COMPARTMENTS_OF, PLANNED, Mask, Structure, check_planning_map, structure_mask
from flrplan.errors import LabelError
from flrplan.image import Geometry, read_label_map, require_same_grid
from flrplan.image.masks import read_mask_on
from flrplan.metrics.region import Region
from flrplan.workfolder.folder import IMAGE_SUFFIX
from flrplan.workfolder.instances import read_instances, union_of

TRUTH: tuple[Structure, ...] = PLANNED
"""The structures that every case of the benchmark states, be they empty or not."""


@dataclass(frozen=True)
class TruthFiles:
    """A planning map, a binary file per structure, or both: then the binary file is the truth.

    instances: the layers that tell its lesions apart (:mod:`flrplan.workfolder.instances`); none: nobody tells them.
    """

    planning_map: Path | None = None
    masks: Mapping[Structure, Path] = field(default_factory=dict)
    instances: tuple[Path, ...] = ()

    def __bool__(self) -> bool:
        return self.planning_map is not None or bool(self.masks)

    @property
    def first(self) -> Path:
        """A file whose grid is the case's grid."""
        return self.planning_map or next(iter(self.masks.values()))

    def named(self) -> Iterator[tuple[str, Path]]:
        """What each file is, and the file; masks by name."""
        if self.planning_map is not None:
            yield "label", self.planning_map
        yield from sorted((str(structure), path) for structure, path in self.masks.items())

    def file_of(self, structure: Structure) -> Path | None:
        """The file that states a structure."""
        return self.masks.get(structure, self.planning_map if structure in COMPARTMENTS_OF else None)

    def read(
        self, structures: Collection[Structure], case: str, grid: Geometry | None = None, grid_of: str = ""
    ) -> tuple[dict[Structure, Mask], Geometry]:
        """The masks ``(Z, Y, X) bool`` of the structures on one grid, that of the CT where it is given. Each may be empty.

        grid_of: whose grid it is, for messages.
        Raises: LabelError where a structure is stated nowhere (absent is not empty), or a file is neither binary nor a planning map;
            GridError where the files lie on different grids; ImageError for an unreadable file.
        """
        planning: NDArray[np.uint8] | None = None
        masks: dict[Structure, Mask] = {}
        if self.planning_map is not None and not all(s in self.masks for s in structures):
            array, found = read_label_map(self.planning_map)
            if grid is not None:
                require_same_grid(grid, found, grid_of, str(self.planning_map))
            planning = check_planning_map(array, str(self.planning_map))
            grid, grid_of = found if grid is None else grid, grid_of or str(self.planning_map)
        for structure in structures:
            if structure in self.masks:
                masks[structure], found = read_mask_on(self.masks[structure], structure, grid, grid_of)
                grid, grid_of = found if grid is None else grid, grid_of or str(self.masks[structure])
            elif planning is not None and structure in COMPARTMENTS_OF:
                masks[structure] = structure_mask(planning, structure)
            else:
                raise LabelError(self._absent(structure, case))
        if grid is None:
            raise LabelError(f"case {case}: no label file")
        return masks, grid

    def _absent(self, structure: Structure, case: str) -> str:
        found = ", ".join(str(path) for _, path in self.named()) or "nothing"
        beside = self.planning_map.parent.parent if self.planning_map else Path()
        folder = next(iter(self.masks.values())).parent if self.masks else beside / "masks" / case
        return (
            f"no file states {structure}: expected {folder / f'{structure}{IMAGE_SUFFIX}'} or a planning map, found {found}. "
            f"Add one of them (an empty mask where there is no {structure}), or take the case out of the split"
        )

    def read_lesions(self, crlm: Mask, geometry: Geometry) -> dict[int, Region] | None:
        """The lesions of the truth by number, as its instances tell them apart; None without instances.

        Raises: LabelError where they are not together the CRLM of the truth (instances of other labels); GridError; ImageError.
        """
        if not self.instances:
            return None
        lesions = read_instances(self.instances, geometry, str(self.first))
        differ = int(np.count_nonzero(union_of(lesions, geometry) ^ crlm))
        if differ:
            raise LabelError(
                f"{self.instances[0].parent}: its lesions together differ from the CRLM of {self.first} in {differ} voxels; they are of "
                "other labels. Prepare them anew, or remove them to count components"
            )
        return lesions
