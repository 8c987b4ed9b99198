"""DICOM SR of measurements by TID 1500 (PS3.16), each of a segment of a SEG or of the whole series."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from highdicom.sr import (
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    ReferencedSegment,
    SourceSeriesForSegmentation,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.uid import generate_uid

from flrplan import __version__
from flrplan.anatomy import CodedConcept
from flrplan.image import CT
from flrplan.objects.seg import Dataset, coding_scheme, concept
from flrplan.objects.source import EQUIPMENT, MANUFACTURER, NO_SERIAL_NUMBER, UTF_8, source_series, without_highdicom_warnings

SERIES_NUMBER = 9002
_DECIMALS = 3
_DEVICE = CodedConcept("121007", "DCM", "Device")
_ENGLISH = CodedConcept("en", "RFC5646", "English")
_TITLE = CodedConcept("126001", "DCM", "Oncology Measurement Report")
"""Of CID 7021. OHIF shows a 126000 only as outlines on images, of which this report has none, and every other as text."""
_PROCEDURE = CodedConcept("25045-6", "LN", "CT unspecified body region")


@dataclass(frozen=True)
class Measured:
    """One number: what it is, in which unit (UCUM), and how it was derived, where that says more. NaN: it is not reported."""

    name: CodedConcept
    value: float
    unit: CodedConcept
    derivation: CodedConcept | None = None


@dataclass(frozen=True)
class MeasuredThing:
    """What was measured: a segment by its number in the SEG, or, without one, the plan as a whole. site: the organ that it lies in."""

    title: str
    finding: CodedConcept
    site: CodedConcept
    measured: Sequence[Measured]
    segment: int | None = None


def measurement_report(
    things: Sequence[MeasuredThing], seg: Dataset, ct: CT, description: str, anonymize: bool = False
) -> Dataset:
    """The SR of what was measured on a CT and the SEG of it. Raises: OutputError where the CT has no series to refer to."""
    series = source_series(ct, anonymize)
    with without_highdicom_warnings():
        content = MeasurementReport(
            observation_context=ObservationContext(
                observer_device_context=ObserverContext(
                    observer_type=concept(_DEVICE),
                    observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
                        uid=generate_uid(prefix=None),
                        name=f"{MANUFACTURER} {__version__}",
                        manufacturer_name=MANUFACTURER,
                        model_name=MANUFACTURER,
                        serial_number=NO_SERIAL_NUMBER,
                    ),
                )
            ),
            procedure_reported=concept(_PROCEDURE),
            imaging_measurements=[_group(thing, seg) for thing in things],
            title=concept(_TITLE),
            language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(concept(_ENGLISH)),
        )
        report = ComprehensiveSR(
            evidence=[seg, *series.images],
            content=content[0],
            series_instance_uid=generate_uid(prefix=None),
            series_number=SERIES_NUMBER,
            sop_instance_uid=generate_uid(prefix=None),
            instance_number=1,
            **EQUIPMENT,
            is_complete=True,
            is_final=False,
            is_verified=False,
            series_description=description,
            coding_schemes=[coding_scheme()],
        )
    report.SpecificCharacterSet = UTF_8
    return report


def _group(thing: MeasuredThing, seg: Dataset) -> Any:
    """TID 1411 with a segment, TID 1501 without."""
    common: dict[str, Any] = {
        "finding_type": concept(thing.finding),
        "finding_sites": [FindingSite(concept(thing.site))],
        "measurements": [_measurement(m) for m in thing.measured if not math.isnan(m.value)],
    }
    if thing.segment is None:
        return MeasurementsAndQualitativeEvaluations(
            tracking_identifier=TrackingIdentifier(generate_uid(prefix=None), thing.title), **common
        )
    described = seg.SegmentSequence[thing.segment - 1]
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(described.TrackingUID, thing.title),
        referenced_segment=ReferencedSegment(
            sop_class_uid=seg.SOPClassUID,
            sop_instance_uid=seg.SOPInstanceUID,
            segment_number=thing.segment,
            source_series=SourceSeriesForSegmentation(seg.ReferencedSeriesSequence[0].SeriesInstanceUID),
        ),
        **common,
    )


def _measurement(measured: Measured) -> Measurement:
    return Measurement(
        name=concept(measured.name),
        value=round(float(measured.value), _DECIMALS),
        unit=concept(measured.unit),
        derivation=None if measured.derivation is None else concept(measured.derivation),
    )
