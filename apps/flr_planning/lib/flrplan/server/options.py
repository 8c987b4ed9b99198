"""What a client can choose per call: architecture, device, which masks are the annotator's own, and the kind of plan."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch

from flrplan.anatomy import Structure
from flrplan.errors import SettingsError
from flrplan.files.checked import require_number
from flrplan.hardware import choose_device
from flrplan.networks import ARCHITECTURES
from flrplan.planning import LiverState
from flrplan.planning.patient import Patient
from flrplan.server.settings import AppSettings


class Inputs(StrEnum):
    """Where the masks come from that a task takes beside the CT.

    ``predicted``: the paper's cascade. ``labels_liver``: the liver of the annotator's ``final`` label, the rest predicted.
    ``labels``: liver and CRLM of that label.
    """

    PREDICTED = "predicted"
    LABELS_LIVER = "labels_liver"
    LABELS = "labels"

    @property
    def structures(self) -> tuple[Structure, ...]:
        """What is taken from the annotator's label."""
        if self is Inputs.PREDICTED:
            return ()
        return (Structure.LIVER,) if self is Inputs.LABELS_LIVER else (Structure.LIVER, Structure.CRLM)


def inputs_for(needs: Iterable[Structure]) -> tuple[Inputs, ...]:
    """The choices that make sense for a task which takes these masks; ``predicted`` always does."""
    needed = set(needs)
    return tuple(choice for choice in Inputs if needed.issuperset(choice.structures))


def device_choices(first: str) -> list[str]:
    """Devices of this machine, the preferred one first."""
    count = torch.cuda.device_count()
    gpus = ["cuda"] if count == 1 else [f"cuda:{index}" for index in range(count)]
    return list(dict.fromkeys([first, "auto", *gpus, "cpu"]))


class PlanKind(StrEnum):
    """Which remnant an answer holds: the coherent plan's (:mod:`flrplan.planning.coherent`), or the network's own mask."""

    COHERENT = "coherent"
    RAW = "raw"


NOT_STATED = "not stated"


def client_config(settings: AppSettings, inputs: Sequence[Inputs], plans: bool = False) -> dict[str, list[str] | str]:
    """The options as the viewers show them: a list is a combo box whose first value is the default, a text a field to write in.

    plans: with the kind of plan, and what a client may know of the patient.
    """
    of_plans: dict[str, list[str] | str] = {
        "plan": [kind.value for kind in PlanKind],
        "height_cm": "",
        "weight_kg": "",
        "liver_state": [NOT_STATED, *(state.value for state in LiverState)],
    }
    return {
        **(of_plans if plans else {}),
        "architecture": list(dict.fromkeys([settings.architecture, *ARCHITECTURES])),
        "device": device_choices(settings.device),
        "inputs": [choice.value for choice in inputs],
    }


@dataclass(frozen=True)
class InferOptions:
    """The choices of one call, checked. patient: height and weight, as far as the client stated them; unknown otherwise."""

    architecture: str
    device: str
    inputs: Inputs
    plan: PlanKind
    patient: Patient = field(default_factory=Patient)
    liver_state: LiverState | None = None

    @classmethod
    def from_request(cls, request: Mapping[str, Any], config: Mapping[str, Any]) -> InferOptions:
        """Reads a request against what the task offers (:func:`client_config`); what is absent takes the default.

        A value may be a string or a list: viewers send the whole list of a combo box that nobody touched.
        Raises: SettingsError naming the known values.
        """
        device = chosen(request, "device", config["device"][0])
        choose_device(device)
        architecture = one_of(request, "architecture", config["architecture"])
        inputs = Inputs(one_of(request, "inputs", config["inputs"]))
        if "plan" not in config:
            return cls(architecture, device, inputs, PlanKind.RAW)
        state = one_of(request, "liver_state", config["liver_state"])
        return cls(
            architecture,
            device,
            inputs,
            PlanKind(one_of(request, "plan", config["plan"])),
            Patient(number_or_none(request, "height_cm"), number_or_none(request, "weight_kg")),
            None if state == NOT_STATED else LiverState(state),
        )


def number_or_none(request: Mapping[str, Any], name: str) -> float | None:
    """A number of a request, which viewers send as a text; None where it is absent or empty. Raises SettingsError for what is none."""
    value = request.get(name)
    if isinstance(value, str):
        with contextlib.suppress(ValueError):  # what is no number is told below
            value = float(value.replace(",", ".")) if value.strip() else None
    if value is None:
        return None
    try:
        return require_number(name, value)
    except SettingsError as error:
        raise SettingsError(f"{error}; leave it empty if it is unknown") from None


def chosen(request: Mapping[str, Any], name: str, default: str) -> str:
    """A text of a request, which may be a list whose first entry counts. Raises SettingsError for other values."""
    value = request.get(name)
    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    if value is None or value == "":
        return default
    if not isinstance(value, str):
        raise SettingsError(f"{name} must be a text, got {value!r}")
    return value


def one_of(request: Mapping[str, Any], name: str, known: Sequence[str]) -> str:
    """As :func:`chosen`, one of the known values, the first by default. Raises SettingsError naming them."""
    value = chosen(request, name, known[0])
    if value not in known:
        raise SettingsError(
            f"{name}={value!r} is not offered by model {request.get('model', '?')}; known are {', '.join(known)}"
        )
    return value
