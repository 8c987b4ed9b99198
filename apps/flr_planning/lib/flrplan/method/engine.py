"""How networks are run: exactly as nnU-Net runs them, or faster. What each setting gains and costs: docs/speed.md."""

from __future__ import annotations

from dataclasses import fields

from flrplan.errors import SettingsError
from flrplan.files.checked import Flag, checked, settings_of


@checked
class Engine:
    """The ideas that make a prediction faster, each a setting of its own. Without any, PyTorch runs nnU-Net's own tiles.

    openvino: on a CPU, OpenVINO runs the networks, in float32; PyTorch where it is not installed, on a GPU, and for networks so small
        that converting them takes longer than running them.
    bfloat16: it runs them in bfloat16 where the CPU has instructions for it.
    region: a stage that is shown the whole CT is searched by its first fold, and by the others near what that one found, or everywhere where
        that is in doubt. Of a stage that is shown the liver, tiles are left out that it does not need.
    """

    openvino: Flag = False
    bfloat16: Flag = False
    region: Flag = False

    def __str__(self) -> str:
        """Its name, or what is on."""
        named = [name for name, engine in ENGINES.items() if engine == self]
        return named[0] if named else " and ".join(f.name for f in fields(self) if getattr(self, f.name))


ENGINES = {
    "nnunet": Engine(),
    "exact": Engine(openvino=True),
    "fast": Engine(openvino=True, bfloat16=True, region=True),
}
"""Engines by name. ``exact`` differs from ``nnunet`` by rounding only."""


APP_ENGINE = "exact"
"""What the app runs: its masks are nnU-Net's but for rounding. ``fast`` changes small metastases by more (docs/speed.md)."""


def engine_named(text: str) -> Engine:
    """``fast``, or a name and changes of it: ``fast,bfloat16=false``. Raises SettingsError naming what is known."""
    name, *changes = text.split(",")
    if name not in ENGINES:
        raise SettingsError(f"unknown engine {name!r}; known are {', '.join(ENGINES)}")
    values: dict[str, object] = {f.name: getattr(ENGINES[name], f.name) for f in fields(Engine)}
    for change in changes:
        key, _, value = change.partition("=")
        if value not in ("true", "false"):
            raise SettingsError(f"engine {text!r}: expected SETTING=true or SETTING=false, found {change!r}")
        values[key] = value == "true"
    return settings_of(Engine, values)
