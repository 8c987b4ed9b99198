"""What a client may name, checked wherever a name comes from: ids and tags never lead out of the studies, paths only to its own upload."""

from __future__ import annotations

import functools
import inspect
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from monailabel.interfaces.datastore import Datastore

from flrplan.errors import ImageError, LabelError, SettingsError
from flrplan.server.client_error import errors_for_client
from flrplan.studies.names import is_id, is_tag

_UPLOAD = re.compile(r"tmp[a-z0-9_]{8}(\..*)?")
_Class = TypeVar("_Class", bound=type)


def require_id(image_id: object) -> str:
    """The id of an image or label (:mod:`flrplan.studies.names`). Raises ImageError for anything that a path could hide in."""
    if isinstance(image_id, str) and is_id(image_id):
        return image_id
    raise ImageError(
        f"{image_id!r:.80} is no image id: expected the name of one image, without a folder, such as case-1; ask /datastore/?output=all "
        "for the ids"
    )


def require_tag(tag: object) -> str:
    """The tag of a label, such as ``final``. Raises LabelError."""
    if isinstance(tag, str) and is_tag(tag):
        return tag
    raise LabelError(f"{tag!r:.80} is no tag: expected letters, digits, - and _, such as final, original or version_1")


def require_known(what: str, name: object, known: Iterable[str]) -> None:
    """Raises SettingsError naming what there is. what: such as ``model``."""
    if not isinstance(name, str) or name not in known:
        raise SettingsError(f"no {what} {name!r:.80} here; known are {', '.join(known) or 'none'}")


_CHECKS: dict[str, Callable[[object], str]] = {"image_id": require_id, "label_id": require_id, "label_tag": require_tag}


def ids_checked(store: _Class) -> _Class:
    """A class decorator: every method of MONAI Label's datastore checks the ids and tags it is given before anything else.

    They raise ClientError (400), whose message says what was expected.
    """
    for name, method in inspect.getmembers(Datastore, inspect.isfunction):
        if not name.startswith("_") and _CHECKS.keys() & inspect.signature(method).parameters.keys():
            setattr(store, name, _checked(getattr(store, name)))
    return store


def _checked(method: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(method)

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with errors_for_client():
            for name, value in signature.bind(*args, **kwargs).arguments.items():
                if name in _CHECKS and value is not None and (value != "" or name != "label_id"):
                    _CHECKS[name](value)
        return method(*args, **kwargs)

    return call


def is_own_file(path: str, sessions: str | None) -> bool:
    """True for a path that this server itself gave out: an upload in its temporary folder, or what a session holds.

    sessions: the folder of all sessions, one folder each.
    """
    given = Path(path)
    if not given.is_absolute() or "\0" in path:
        return False
    place = given.resolve()
    uploads = Path(tempfile.gettempdir()).resolve()
    if place.parent == uploads and given.parent.resolve() == uploads and _UPLOAD.fullmatch(given.name):
        return place.is_file()
    store = None if sessions is None else Path(sessions).resolve()
    return store is not None and place.is_relative_to(store) and len(place.relative_to(store).parts) > 1


def require_image(image: object, sessions: str | None) -> str | None:
    """The id that a request names as its image, or None where it is a file of :func:`is_own_file`. Raises ImageError for all else."""
    if isinstance(image, str) and is_own_file(image, sessions):
        return None
    return require_id(image)
