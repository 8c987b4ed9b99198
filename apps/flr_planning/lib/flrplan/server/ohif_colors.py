"""Our colours in the OHIF that MONAI Label 0.8.5 ships.

Its panel makes a colour out of a name's letters (the remnant nearly black, the resection nearly white) and has no place for the
server's. OHIF's own place for what a site configures is ``app-config.js``, so the app serves that file with a few lines more.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flrplan.anatomy import KNOWN_LABEL_NAMES
from flrplan.server.label_table import label_colors
from flrplan.server.ohif_clicks import ohif_clicks
from flrplan.server.ohif_export import ohif_export

CONFIG_PATH = "/ohif/app-config.js"

_PAINT = """
/* flrplan: segments take the colours that belong to their names. The panel sets its own one second after "Connect", so a
   segmentation is painted for the first seconds of its life only; colours that a person picks later stay. */
(() => {
  const wanted = %s, seconds = 6, since = {};
  setInterval(() => {
    const service = window.services?.segmentationService;
    const colors = window.cornerstoneTools?.segmentation?.config?.color;
    for (const found of (colors && service?.getSegmentations()) || []) {
      const id = found.segmentationId;
      since[id] ??= Date.now();
      if (Date.now() - since[id] > seconds * 1000) continue;
      for (const segment of Object.values(found.segments)) {
        const rgb = wanted[segment?.label];
        if (!rgb) continue;
        const listed = found.config?.segments?.[segment.segmentIndex];
        if (listed) listed.color = [...rgb, 255];
        for (const viewport of service.getViewportIdsWithSegmentation(id)) {
          const now = colors.getSegmentIndexColor(viewport, id, segment.segmentIndex) ?? [];
          if (rgb.some((c, i) => c !== now[i])) colors.setSegmentIndexColor(viewport, id, segment.segmentIndex, [...rgb, 255]);
        }
      }
    }
  }, 250);
})();
"""


def ohif_config(shipped: str) -> str:
    """OHIF's configuration as MONAI Label ships it, with our colours, an export of labels that works, and clicks that are drawn."""
    return shipped + _PAINT % json.dumps(label_colors(KNOWN_LABEL_NAMES)) + ohif_export() + ohif_clicks()


def serve_ohif_colors() -> None:
    """Puts a route for :data:`CONFIG_PATH` before the host's own; does nothing where its server or its OHIF is not there.

    Called once the server runs (``on_init_complete``): FastAPI has no other door for an app that MONAI Label loads itself.
    """
    host: Any = sys.modules.get("monailabel.app")
    if host is None:
        return
    file = Path(host.static_dir) / "ohif" / "app-config.js"
    if not file.is_file():
        return

    def answer(_: Request) -> Response:
        return Response(
            ohif_config(file.read_text(encoding="utf-8")),
            media_type="application/javascript",
            headers={"Cache-Control": "no-cache"},
        )

    prefix = str(host.settings.MONAI_LABEL_API_STR)
    host.app.router.routes.insert(0, Route(f"{prefix}{CONFIG_PATH}", answer, methods=["GET"]))
