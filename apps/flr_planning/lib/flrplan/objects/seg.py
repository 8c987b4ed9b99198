"""DICOM SEG (PS3.3, A.51), BINARY, of segments that may overlap, on the grid of the CT's own series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import highdicom
import numpy as np
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.color import CIELabColor
from highdicom.content import AlgorithmIdentificationSequence
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription, SegmentsOverlapValues
from highdicom.sr import CodedConcept as Code
from numpy.typing import NDArray
from pydicom.uid import generate_uid
from skimage.color import rgb2lab

from flrplan import __version__
from flrplan.anatomy import Appearance, CodedConcept
from flrplan.errors import GridError
from flrplan.image import CT
from flrplan.objects.source import (
    EQUIPMENT,
    MANUFACTURER,
    PLAN_CONTENT,
    PRIVATE_SCHEME,
    UTF_8,
    SourceSeries,
    source_series,
    without_highdicom_warnings,
)

Dataset = Any
"""pydicom's, which is untyped."""
ARTIFICIAL_INTELLIGENCE = CodedConcept("123110", "DCM", "Artificial Intelligence")
SERIES_NUMBER = 9001


@dataclass(frozen=True)
class Algorithm:
    """What made a mask: name, version (at most 64 characters each) and parameters in words."""

    name: str
    version: str
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Segment:
    """One segment. regions: the values of the partition whose union it is. algorithm: None for what a person gave (MANUAL).

    site: the organ that it lies in, where it is none itself. tracking_uid: of the same thing in a report.
    """

    label: str
    look: Appearance
    regions: frozenset[int]
    algorithm: Algorithm | None = None
    site: CodedConcept | None = None
    tracking_uid: str = field(default_factory=lambda: str(generate_uid(prefix=None)))


def segmentation(
    partition_zyx: NDArray[np.unsignedinteger[Any]],
    segments: Sequence[Segment],
    ct: CT,
    description: str,
    anonymize: bool = False,
    content: str = PLAN_CONTENT,
) -> Dataset:
    """The SEG of a partition ``(Z, Y, X)`` uint8 or uint16 on the CT's grid: values are disjoint regions, 0 is none.

    Only slices with voxels are stored. Segments are numbered from 1 in their order. anonymize: see :func:`source_series`. content: the ContentLabel.
    Raises: OutputError where the CT has no series to refer to; GridError for another shape.
    """
    if partition_zyx.shape != ct.geometry.shape_zyx:
        raise GridError(f"{ct.source}: a SEG of shape {partition_zyx.shape} on a CT of {ct.geometry.shape_zyx} (z, y, x)")
    series = source_series(ct, anonymize)
    stored = np.flatnonzero(partition_zyx.any(axis=(1, 2)))
    with without_highdicom_warnings():
        seg = _Segmentation(
            source_images=[series.images[z] for z in stored],
            partition_zyx=partition_zyx[stored],
            segments=segments,
            segmentation_type=SegmentationTypeValues.BINARY,
            segment_descriptions=[_description(number, segment) for number, segment in enumerate(segments, 1)],
            series_instance_uid=generate_uid(prefix=None),
            series_number=SERIES_NUMBER,
            sop_instance_uid=generate_uid(prefix=None),
            instance_number=1,
            **EQUIPMENT,
            content_label=content,
            content_description=description,
            content_creator_name=f"{MANUFACTURER}^",
            series_description=description,
            coding_schemes=[coding_scheme()],
        )
    seg.SpecificCharacterSet = UTF_8
    _refer_to_frames(seg, series, stored)
    return seg


def concept(code: CodedConcept) -> Code:
    """A code as highdicom takes it."""
    return Code(code.value, code.scheme, code.meaning)


def coding_scheme() -> CodingSchemeIdentificationItem:
    """Says what the private codes are."""
    return CodingSchemeIdentificationItem(
        PRIVATE_SCHEME, name="flrplan's own codes, for what no standard scheme has", version=__version__
    )


def _description(number: int, segment: Segment) -> SegmentDescription:
    look, algorithm = segment.look, segment.algorithm
    kind = SegmentAlgorithmTypeValues.MANUAL if algorithm is None else SegmentAlgorithmTypeValues.AUTOMATIC
    made_by = None
    if algorithm is not None:
        family = concept(ARTIFICIAL_INTELLIGENCE)
        made_by = AlgorithmIdentificationSequence(
            algorithm.name, family, algorithm.version, MANUFACTURER, dict(algorithm.parameters)
        )
    description = SegmentDescription(
        segment_number=number,
        segment_label=segment.label,
        segmented_property_category=concept(look.category),
        segmented_property_type=concept(look.type),
        algorithm_type=kind,
        algorithm_identification=made_by,
        tracking_id=segment.label,
        tracking_uid=segment.tracking_uid,
        anatomic_regions=None if segment.site is None else [concept(segment.site)],
    )
    description.SegmentDescription = look.title
    if look.modifier is not None:
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [concept(look.modifier)]
    lab = rgb2lab(np.array([[look.rgb]], np.uint8))[0, 0]
    description.RecommendedDisplayCIELabValue = list(CIELabColor(*(float(v) for v in lab)).value)
    return description


class _Segmentation(highdicom.seg.Segmentation):
    """highdicom 0.22.0 takes overlapping segments only as a dense ``(Z, Y, X, segments)``, 2 GB at 512 x 512 x 240 and 30 metastases.

    Here each frame is looked up in a partition when it is needed, one byte a voxel.
    """

    def __init__(self, partition_zyx: NDArray[Any], segments: Sequence[Segment], **other: Any) -> None:
        table = np.zeros((len(segments), int(partition_zyx.max()) + 1), np.uint8)
        for row, segment in zip(table, segments, strict=True):
            row[[value for value in segment.regions if value < len(row)]] = 1
        self._is_in_segment = table
        used = partition_zyx.any(axis=0)
        rows, columns = (np.flatnonzero(used.any(axis=axis)) for axis in (1, 0))
        self._box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        super().__init__(pixel_array=partition_zyx, **other)

    def _check_and_cast_pixel_array(  # type: ignore[override]  # static there, and called on the object
        self, pixel_array: NDArray[Any], number_of_segments: int, segmentation_type: Any
    ) -> tuple[NDArray[Any], SegmentsOverlapValues]:
        overlap = (self._is_in_segment[:, 1:].sum(axis=0) > 1).any()
        return pixel_array, SegmentsOverlapValues.YES if overlap else SegmentsOverlapValues.NO

    def _get_segment_pixel_array(  # type: ignore[override]
        self, pixel_array: NDArray[Any], segment_number: int, **_: Any
    ) -> NDArray[np.uint8]:
        inside: NDArray[np.uint8] = self._is_in_segment[segment_number - 1][pixel_array[self._box]]
        if not inside.any():
            return inside  # empty frames are not stored
        frame = np.zeros(pixel_array.shape, np.uint8)
        frame[self._box] = inside
        return frame


def _refer_to_frames(seg: Dataset, series: SourceSeries, stored: NDArray[np.intp]) -> None:
    """Adds the frame numbers of an enhanced CT, of one file or several, which highdicom was given as slices."""
    frames = [series.frames[z] for z in stored]
    if frames[0] is None:
        return
    of_position = {tuple(series.images[z].ImagePositionPatient): frame for z, frame in zip(stored, frames, strict=True)}
    for item in seg.PerFrameFunctionalGroupsSequence:
        source = item.DerivationImageSequence[0].SourceImageSequence[0]
        source.ReferencedFrameNumber = of_position[tuple(item.PlanePositionSequence[0].ImagePositionPatient)]
    once = list({ref.ReferencedSOPInstanceUID: ref for ref in seg.SourceImageSequence}.values())
    seg.SourceImageSequence = once
    seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence = once
