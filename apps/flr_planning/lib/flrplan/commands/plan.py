"""``flrplan plan``: from CTs to liver, metastases, future liver remnant and their volumes, without a server."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flrplan.anatomy import Structure
from flrplan.commands.options import add_cascade_options, cascade_settings, model_store
from flrplan.commands.say import note, say
from flrplan.errors import FlrError, ImageError, OutputError, SettingsError
from flrplan.planning import LiverState

if TYPE_CHECKING:
    from flrplan.image import CT
    from flrplan.planning import Plan

logger = logging.getLogger(__name__)

GIVEN = (Structure.LIVER, Structure.CRLM)
OWN = ("flr", "resection", "cut")
OF_LIVER = {
    "hepatic_veins": "measured against the cut",
    "portal_veins": "the same",
    "liver_segments": "a map, 1 to 8 for Couinaud's segments I to VIII (such as TotalSegmentator -ta liver_segments --ml writes): in which of them "
    "each metastasis lies, and what of each is resected",
}
OF_ONE_PATIENT = ("height_cm", "weight_kg", "liver_state", "weeks")


def add_parser(commands: Any) -> None:
    """Adds ``plan`` to the command line."""
    parser = commands.add_parser("plan", help="segment CTs and measure the future liver remnant")
    parser.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        metavar="INPUT",
        help="CT: NIfTI, NRRD, DICOM folder, or a folder of these; a case is called after its file or PatientID, where that repeats after its folder",
    )
    parser.add_argument("--out", type=Path, required=True, help="one folder per case is written here")
    for structure in GIVEN:
        parser.add_argument(f"--{structure}", type=Path, metavar="MASK", help=f"take this {structure} mask (one INPUT only)")
    own = parser.add_argument_group("a resection of your own, the predicted one beside it (one INPUT only)")
    own.add_argument("--flr", type=Path, metavar="MASK", help="what stays")
    own.add_argument("--resection", type=Path, metavar="MASK", help="what is resected")
    own.add_argument(
        "--cut",
        metavar="FILE",
        help="a plane of 3D Slicer (.mrk.json), a mesh (.stl, .ply, .vtp), or --cut=x,y,z,nx,ny,nz: a point and the normal of a plane, LPS mm; "
        "the side with more metastases is resected",
    )
    own.add_argument("--other-side", action="store_true", help="of the cut: resect the other side")
    parser.add_argument(
        "--at-least",
        type=float,
        metavar="PERCENT",
        help="beside the plan: the largest resection that leaves so much of the parenchyma, its cut parallel to the plan's; arithmetic, not advice",
    )
    parser.add_argument("--series", help="SeriesInstanceUID, where a DICOM folder holds several")
    clinical = parser.add_argument_group("what is known of the patient (one INPUT only)")
    clinical.add_argument("--height-cm", type=float, metavar="CM", help="for sFLR; by default that of the DICOM header")
    clinical.add_argument("--weight-kg", type=float, metavar="KG", help="the same")
    clinical.add_argument("--liver-state", choices=[s.value for s in LiverState], help="which thresholds are judged")
    clinical.add_argument(
        "--prior", type=Path, metavar="PLAN.JSON", help="the volumetry before an embolisation of the portal vein"
    )
    clinical.add_argument("--weeks", type=float, metavar="N", help="from the embolisation to this CT")
    for name, said in OF_LIVER.items():
        clinical.add_argument(f"--{name.replace('_', '-')}", type=Path, metavar="MASK", help=said)
    parser.add_argument("--raw", action="store_true", help="keep the network's remnant as it is, with shell and crumbs")
    parser.add_argument(
        "--disagreement",
        action="store_true",
        help="also write where the models' folds differ, those of --also too, for a viewer",
    )
    parser.add_argument("--force", action="store_true", help="plan cases again that are already in --out")
    parser.add_argument(
        "--anonymize",
        action="store_true",
        help="no name, id, date or path of the patient in what is written and said; cases are called case-<digest>, and no DICOM is written",
    )
    many = parser.add_argument_group("many cases")
    many.add_argument(
        "--gpus", metavar="N|LIST", help="GPUs of this machine that share the cases (default: all), as for the benchmark"
    )
    many.add_argument(
        "--part", type=_part, default=(1, 1), metavar="K/N", help="only the K-th of N parts of the cases: one for each machine"
    )
    add_cascade_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Plans every input; one bad case does not stop the rest. Returns 1 if any failed."""
    from flrplan.hardware import collector_at_rest

    with collector_at_rest():
        return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    if not arguments.anonymize:
        return _plan_all(arguments, str)
    from flrplan.api.anonymous import Anonymizer, AnonymousLog, keep_headers_out_of_warnings

    with warnings.catch_warnings():
        keep_headers_out_of_warnings()
        files = [getattr(arguments, name) for name in (*(s.value for s in GIVEN), *OWN, *OF_LIVER, "prior")]
        clean = Anonymizer([Path(path) for path in (*arguments.inputs, *files) if path], [arguments.out])
        log = AnonymousLog(clean)
        handlers = logging.getLogger().handlers
        for handler in handlers:
            handler.addFilter(log)
        try:
            return _plan_all(arguments, clean)
        except FlrError as error:
            raise type(error)(clean(str(error))) from None
        finally:
            for handler in handlers:
                handler.removeFilter(log)


def _plan_all(arguments: argparse.Namespace, clean: Callable[[str], str]) -> int:
    """The same. clean: what is done to every text that may name an input."""
    from flrplan.api.anonymous import anonymous_request, pseudonym
    from flrplan.api.many import overlapped, part_of, run_on_gpus
    from flrplan.api.plan import plan
    from flrplan.api.request import asked_also, is_planned, options_of, request_of
    from flrplan.engine import Cascade
    from flrplan.files import make_writable
    from flrplan.hardware import keep_freed_memory, wake_collector
    from flrplan.image import case_names, read_ct
    from flrplan.planning.cut_file import plane_of_text
    from flrplan.planning.plan import require_kept

    keep_freed_memory()
    failed: dict[Path, str] = {}
    cases = _cases(arguments.inputs, arguments.series, failed, clean)
    names = (*(s.value for s in GIVEN), *OWN, *OF_LIVER, "prior")
    files = {name: getattr(arguments, name) for name in names if getattr(arguments, name)}
    known = {name: getattr(arguments, name) for name in OF_ONE_PATIENT}
    plane = None if arguments.cut is None else plane_of_text(arguments.cut)
    if arguments.cut is not None:
        files["cut"] = Path(arguments.cut)
    other_side, at_least = arguments.other_side or None, arguments.at_least
    switches = {"other_side": other_side, "at_least": at_least, "disagreement": arguments.disagreement or None}
    single = [*files, *(name for name in OF_ONE_PATIENT if known[name] is not None)]
    if single and len(cases) != 1:
        option = single[0].replace("_", "-")
        raise SettingsError(f"--{option} fits one CT, but the inputs hold {len(cases)}; run them one by one")
    if plane is not None:
        del files["cut"]
    cascade = Cascade(model_store(arguments), cascade_settings(arguments))
    options = options_of(plane, raw=arguments.raw, **known, **switches, also=asked_also(cascade.settings))
    if arguments.anonymize:
        folders = {path: pseudonym(request_of(path, {}, {})["ct"]) for path in cases}
    else:
        folders = case_names(cases, arguments.series)
    gpus = _gpus(arguments) if len(part_of(cases, arguments.part)) > 1 else ()
    if len(gpus) > 1:
        end = [*arguments.words, "--"].index("--")

        def command(part: str) -> list[str]:
            own = [*arguments.words[:end], "--part", part, "--gpus", "1", *arguments.words[end:]]
            return [sys.executable, "-m", "flrplan.cli", *own]

        status = run_on_gpus(command, gpus[: len(part_of(cases, arguments.part))], arguments.part)
        _write_index(arguments.out, clean)
        return status
    if cases and not part_of(cases, arguments.part):
        note(f"part {arguments.part[0]} of {arguments.part[1]} holds none of the {len(cases)} cases")
    todo, numbers = [], {path: f"[{number}/{len(cases)}] " for number, path in enumerate(cases, 1)}
    for path in part_of(cases, arguments.part):
        folder = arguments.out / folders[path]
        request = request_of(path, files, options)
        request = anonymous_request(request) if arguments.anonymize else request
        try:
            kept = not arguments.force and is_planned(folder, request, cascade)
            if not kept:
                require_kept(folder, [path, *files.values()])
        except FlrError as error:
            failed[path] = clean(str(error))
            note(f"{numbers[path]}{folder.name}: failed: {failed[path]}")
            continue
        if kept:
            note(f"{numbers[path]}{folder.name}: already planned, kept (--force plans it again)")
        else:
            todo.append(path)
    telling = threading.Lock()  # one case is told of to its end, though the next is computed meanwhile

    def tell_step(step: str) -> None:
        with telling:
            note(f"  {step}")

    def compute(path: Path, read: Callable[[], CT]) -> Plan | None:
        name = folders[path]
        if path is not todo[0]:
            wake_collector()
        with telling:
            note(f"{numbers[path]}{name}")
        try:
            return plan(
                path,
                series=arguments.series,
                name=name,
                cascade=cascade,
                on_step=tell_step,
                raw=arguments.raw,
                disagreement=arguments.disagreement,
                other_side=arguments.other_side,
                anonymize=arguments.anonymize,
                at_least=at_least,
                read=lambda *_: read(),
                **{**files, **({} if plane is None else {"cut": plane})},
                **known,
            )
        except OutputError:
            raise  # a full disk fails every case after it as well
        except Exception as error:
            failed[path] = clean(_reason(error))
            with telling:
                note(f"  failed: {failed[path]}")
            return None

    def write(path: Path, planned: Plan) -> None:
        try:
            planned.save(arguments.out / folders[path])
        except OutputError:
            raise
        except Exception as error:
            failed[path] = clean(_reason(error))
            with telling:
                note(f"{numbers[path]}{folders[path]}: failed: {failed[path]}")
            return
        with telling:
            if len(cases) > 1:
                note(f"{numbers[path]}{folders[path]}: planned")
            _tell(folders[path], planned)

    if todo:
        make_writable(arguments.out, "give another --out")  # before the first of them is computed
    overlapped(todo, lambda path: read_ct(path, arguments.series), compute, write)
    if arguments.part == (1, 1):
        _write_index(arguments.out, clean)
    if failed:
        note(f"{len(failed)} of {len({*part_of(cases, arguments.part), *failed})} cases failed:")
        for path, message in failed.items():
            note(clean(f"  {path}: {message.splitlines()[0]}"))
        return 1
    return 0


def _reason(error: Exception) -> str:
    """Why a case failed. What nobody thought of, memory that ran out among it, costs its case and not the others; the log says where."""
    if isinstance(error, FlrError):
        return str(error)
    logger.debug("unexpected", exc_info=error)
    return f"unexpected {type(error).__name__}: {error} (flrplan --verbose says where)"


def _tell(name: str, planned: Plan) -> None:
    if not planned.ct.slices:  # of a series that cannot be referred to, a warning says so
        note(f"  no DICOM SEG and SR: {planned.why_no_dicom}")
    for warning in planned.warnings:
        note(f"  warning: {warning}")
    say(f"{name}: {planned.volumes.describe()}")
    for line in planned.assessment.describe():
        say(f"  {line}")
    if planned.interval is not None:
        say(f"  {planned.interval.describe()}")
    if planned.segments is not None:
        from flrplan.planning.segments import describe_resected

        say(f"  segments resected: {describe_resected(planned.parts.segments or ())}")
    for beside, other in planned.compared.items():
        opinions = f"; FLR of each architecture's own plan: {other.by_architecture}" if other.by_architecture else ""
        say(f"  beside it, {beside}: {other.volumes.describe()}{f' ({other.remark})' if other.remark else ''}{opinions}")


def _write_index(out: Path, clean: Callable[[str], str]) -> None:
    from flrplan.planning.index import write_index  # matplotlib, a second of imports that nothing before needs

    index = write_index(out)
    if index is not None:
        note(f"all plans of the folder: {clean(str(index))}")


def _gpus(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The GPUs that share the cases; by default all that are there, where the device is not one of them or the CPU."""
    from flrplan.hardware import choose_device, choose_gpus, visible_gpus

    if arguments.gpus is None:
        device = choose_device(arguments.device)
        return visible_gpus() if device.type == "cuda" and device.index is None else ()
    return choose_gpus(arguments.gpus, visible_gpus())


def _part(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"expected K/N with K from 1 to N, such as 2/4, got {text!r}")
    return int(number), int(count)


def _cases(inputs: Sequence[Path], series: str | None, failed: dict[Path, str], clean: Callable[[str], str]) -> list[Path]:
    """The cases of the inputs; an input that is none goes into ``failed``. Raises ImageError where two share a name."""
    from flrplan.image import find_cases

    usable = []
    for path in inputs:
        try:
            find_cases([path])
            usable.append(path)
        except ImageError as error:
            failed[path] = clean(str(error))
            note(f"failed: {failed[path]}")
    return find_cases(usable, series) if usable else []
