"""Who gets which case next, and ``GET /worklist``: MONAI Label 0.8.5 hands the same image to everybody who asks."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import Depends
from fastapi.responses import Response
from fastapi.routing import APIRoute
from monailabel.config import settings as host_settings
from monailabel.endpoints.user.auth import RBAC
from monailabel.interfaces.tasks.strategy import Strategy

from flrplan.errors import FlrError
from flrplan.image.volume_file import image_suffix, read_volume
from flrplan.server.studies import PlanningDatastore
from flrplan.server.user import current_user
from flrplan.studies.review import UNNAMED
from flrplan.studies.submission import LEASE
from flrplan.studies.worklist import DOUBLE, Lease, Row, as_csv, as_page

logger = logging.getLogger(__name__)

PATH = "/worklist"
_ONE_AT_A_TIME = threading.Lock()


class HandOut(Strategy):  # type: ignore[misc]  # monailabel is untyped
    """One of MONAI Label's strategies among the cases that nobody else has. What it gives is the asking annotator's for some time.

    An annotator is who has signed in, else the client id; one who asks again gives back what was not submitted. A client without a name
    is given another case each time, as long as there is one. A case that is marked for double reading goes to a second annotator, who is
    shown the image alone.

    minutes: how long; 0: cases are not held at all.
    """

    def __init__(self, strategy: Strategy, minutes: float) -> None:
        super().__init__(strategy.description)
        self._strategy = strategy
        self._minutes = minutes

    def __call__(self, request: dict[str, Any], datastore: Any) -> dict[str, Any] | None:
        """What the strategy answers; None where no case is left for this annotator."""
        who = current_user() or str(request.get("client_id") or "")
        who = "" if who in UNNAMED else who
        with _ONE_AT_A_TIME:
            now = time.time()
            for pool in self._pools(request, datastore, who, now):
                while pool:
                    sample: dict[str, Any] | None = self._strategy(request, _Among(datastore, pool))
                    if not sample or not sample.get("id"):
                        break
                    image_id = str(sample["id"])
                    if _opens(datastore, image_id):
                        self._hold(datastore, image_id, who, now)
                        return sample
                    pool.remove(image_id)
            return None

    def _pools(self, request: dict[str, Any], datastore: Any, who: str, now: float) -> list[list[str]]:
        """Cases to choose from; the next pool where none of one can be opened."""
        cases = list(datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels")))
        info = {i: datastore.get_image_info(i) for i in datastore.list_images()}
        cases += [i for i, kept in info.items() if who and kept.get(DOUBLE) is True and _wants_second(datastore, i, who)]
        if not self._minutes:
            return [cases]
        leases = {i: Lease.of(info.get(i) or {}, now) for i in cases}
        free = [i for i, lease in leases.items() if lease is None or (who and lease.to == who)]
        nobodys = sorted((lease.since, i) for i, lease in leases.items() if lease is not None and not lease.to)
        return [free, *([i] for _, i in nobodys if not who)]

    def _hold(self, datastore: Any, image_id: str, who: str, now: float) -> None:
        if not self._minutes:
            return
        for other in datastore.list_images() if who else ():
            lease = Lease.of(datastore.get_image_info(other), now)
            if other != image_id and lease is not None and lease.to == who:
                datastore.update_image_info(other, {LEASE: None})
        kept = Lease.of(datastore.get_image_info(image_id), now)
        since = kept.since if kept is not None and who and kept.to == who else now
        datastore.update_image_info(image_id, {LEASE: {"to": who, "since": since, "until": now + 60 * self._minutes}})


class _Among:
    """A datastore of which a strategy sees these images alone, all of them without a label."""

    def __init__(self, datastore: Any, images: Sequence[str]) -> None:
        self._datastore = datastore
        self._images = list(images)

    def get_unlabeled_images(self, *_: Any) -> list[str]:
        return list(self._images)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._datastore, name)


def _wants_second(datastore: PlanningDatastore, image_id: str, who: str) -> bool:
    authors = {version.by for version in datastore.submitted(image_id).versions}
    return len(authors) == 1 and who not in authors


def _opens(datastore: Any, image_id: str) -> bool:
    """False for a file that is no image: an annotator could do nothing with it. A DICOM series is taken as it is."""
    path = Path(datastore.get_image_uri(image_id))
    if image_suffix(path) is None or not path.is_file():
        return path.exists()
    stat = path.stat()
    return _reads(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4096)
def _reads(path: Path, *_stamp: int) -> bool:
    try:
        read_volume(path)
    except FlrError as error:
        logger.warning("%s is not handed out: %s", path.name, error)
        return False
    return True


def rows(datastore: PlanningDatastore) -> list[Row]:
    """The work list of a datastore, by id."""
    now = time.time()
    return [Row.of(i, datastore.get_image_info(i), datastore.submitted(i), now) for i in sorted(datastore.list_images())]


def serve_worklist(datastore: Callable[[], PlanningDatastore]) -> None:
    """Puts ``GET /worklist`` (HTML) and ``GET /worklist.csv`` before the host's routes; does nothing where its server does not run."""
    host: Any = sys.modules.get("monailabel.app")
    if host is None:
        return

    def page() -> Response:
        return Response(as_page(rows(datastore()), "Work list", "worklist.csv"), media_type="text/html", headers=_FRESH)

    def table() -> Response:
        return Response(as_csv(rows(datastore())), media_type="text/csv", headers=_FRESH)

    for path, answer in ((PATH, page), (f"{PATH}.csv", table)):
        for_users = [Depends(RBAC(host_settings.MONAI_LABEL_AUTH_ROLE_USER))]
        route = APIRoute(
            f"{host_settings.MONAI_LABEL_API_STR}{path}", answer, methods=["GET"], dependencies=for_users, response_model=None
        )
        host.app.router.routes.insert(0, route)


_FRESH = {"Cache-Control": "no-store"}
