"""What ``monailabel start_server --conf KEY VALUE`` can set, checked at start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from flrplan.engine.cache import CACHE_MB
from flrplan.errors import SettingsError
from flrplan.files.checked import checked, one_of, settings_of
from flrplan.hardware import choose_device
from flrplan.learning import RetrainingSettings
from flrplan.learning.settings import UserPath
from flrplan.method.engine import APP_ENGINE, engine_named
from flrplan.networks import ARCHITECTURES, names_in, require_second_opinions
from flrplan.server.label_table import names_in_setting
from flrplan.studies.review import LabelUse

HOST_CONF_KEYS: tuple[str, ...] = ("server_mode",)
"""Keys that MONAI Label 0.8.5 itself reads from conf (``MONAILabelApp.__init__``); left to it. Its other keys (``preload``,
``zoo_source``, ``zoo_repo``, ``auth_token``) belong to model bundles, which this app does not host."""

_TRAIN = "train_"
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def parse_bool(value: object, name: str) -> bool:
    """A yes or no as clients and the command line send it. Raises SettingsError naming the setting."""
    text = str(value).strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise SettingsError(f"{name} must be true or false, got {value!r}")


@checked
class AppSettings:
    """Settings of the server.

    models: folder with ``<stage>/<architecture>/`` of trained models; None is the app's own ``model/``. Where it has none,
        the demo models serve.
    architecture, device: offered first by the tasks; a client may choose others.
    train_labels: which labels train; ``all``: the confirmed one of a case, else the newest that was not sent back; ``approved``: only
        labels that a second reader confirmed.
    lease_minutes: how long a case that was handed out as the next sample is not handed to another annotator; 0: not at all.
    label_names: what the values of label files mean that somebody copies into ``labels/final``: ``liver=1,crlm=2``.
    cache_mb: megabytes of predictions that are kept, so that only what changed is predicted again; 0: none.
    mirroring, largest_liver: see :class:`flrplan.engine.cascade.CascadeSettings`.
    engine: see :func:`flrplan.method.engine.engine_named`.
    also: architectures that give a second opinion on a predicted remnant (``swinunetr,stunet`` in conf); the one that a client chooses gives none.
    training: see :class:`flrplan.learning.settings.RetrainingSettings`; ``train_recipe, train_split, train_kept_share,
        train_margin`` in conf.
    """

    models: UserPath | None = None
    architecture: Annotated[str, one_of(ARCHITECTURES)] = ARCHITECTURES[0]
    device: str = "auto"
    mirroring: bool = False
    largest_liver: bool = True
    engine: str = APP_ENGINE
    also: Annotated[tuple[str, ...], BeforeValidator(lambda v: names_in(v) if isinstance(v, str) else v)] = ()
    cache_mb: Annotated[float, Field(ge=0, allow_inf_nan=False)] = CACHE_MB
    train_labels: LabelUse = LabelUse.ALL
    lease_minutes: Annotated[float, Field(ge=0)] = 120
    label_names: str = ""
    training: RetrainingSettings = field(default_factory=RetrainingSettings)

    def __post_init__(self) -> None:
        if self.models is not None and not self.models.is_dir():
            raise SettingsError(f"models: no folder {self.models}; expected one with <stage>/<architecture>/ in it")
        if self.models is not None and (self.models / "plans.json").is_file():
            raise SettingsError(
                f"models: {self.models} is one model, expected a folder with <stage>/<architecture>/ in it; take it up with: "
                f"flrplan models import {self.models} --stage STAGE"
            )
        require_second_opinions(self.architecture, self.also)
        choose_device(self.device)
        engine_named(self.engine)
        names_in_setting(self.label_names)

    @classmethod
    def from_conf(cls, conf: Mapping[str, Any] | None) -> AppSettings:
        """The settings of ``--conf``, whose values are strings. Raises SettingsError for unknown keys and bad values."""
        own = {key: value for key, value in (conf or {}).items() if key not in HOST_CONF_KEYS}
        known_here = [f.name for f in fields(cls) if f.name != "training"]
        known = known_here + [_TRAIN + f.name for f in fields(RetrainingSettings)]
        if unknown := sorted(set(own) - set(known)):
            raise SettingsError(f"unknown --conf {', '.join(unknown)}; known are {', '.join((*known, *HOST_CONF_KEYS))}")
        of_training = [key for key in own if key.startswith(_TRAIN) and key not in known_here]
        training = {key.removeprefix(_TRAIN): own.pop(key) for key in of_training}
        return settings_of(cls, {**own, "training": settings_of(RetrainingSettings, training, "conf train_*")}, "conf")
