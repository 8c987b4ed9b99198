"""What is segmented: structures, the disjoint compartments that viewers exchange, and the lossless way between them."""

from flrplan.anatomy.planning_map import (
    KNOWN_LABEL_NAMES,
    MANY_VALUES,
    NestingReport,
    PlanningLabel,
    check_planning_map,
    decode_label,
    decode_layers,
    label_name,
    resemblance,
    structure_mask,
    to_compartments,
)
from flrplan.anatomy.structures import (
    APPEARANCE,
    COMPARTMENTS_OF,
    STRUCTURES,
    Appearance,
    CodedConcept,
    Compartment,
    Mask,
    Structure,
    StructureInfo,
)

__all__ = [
    "APPEARANCE",
    "COMPARTMENTS_OF",
    "KNOWN_LABEL_NAMES",
    "MANY_VALUES",
    "STRUCTURES",
    "Appearance",
    "CodedConcept",
    "Compartment",
    "Mask",
    "NestingReport",
    "PlanningLabel",
    "Structure",
    "StructureInfo",
    "check_planning_map",
    "decode_label",
    "decode_layers",
    "label_name",
    "resemblance",
    "structure_mask",
    "to_compartments",
]
