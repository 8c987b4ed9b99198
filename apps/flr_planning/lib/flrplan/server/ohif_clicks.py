"""The answer to clicks, drawn whole by the OHIF that MONAI Label 0.8.5 ships.

Its panel draws of an answer to "Point Prompts" only the labels that were clicked, and those only over voxels that are empty or theirs: a new
metastasis stays hidden beneath the remnant, one that is gone stays drawn. It has no word for what the server said of an error either. So
OHIF's own place for what a site configures (:mod:`flrplan.server.ohif_colors`) gets a few lines more, which read the same answer.
"""

from __future__ import annotations

import json

from flrplan.server.label_table import COMPARTMENT_NAMES

CLICKS = "clicks"
"""The name of the task that OHIF's point prompts call."""

_DRAW = """
/* flrplan: the answer to clicks is a whole plan, and is drawn as one; why there is none is shown in words. */
(() => {
  const names = %s, id = '1', open = XMLHttpRequest.prototype.open;
  const show = message => window.services?.uiNotificationService?.show({title: 'Clicks', message, type: 'error', duration: 15000});
  const draw = map => {
    const service = window.services.segmentationService, index = {};
    for (const segment of Object.values(service.getSegmentation(id).segments)) index[segment.label] = segment.segmentIndex;
    const to = new Uint8Array(256);
    for (const [name, value] of Object.entries(names)) to[value] = index[name] ?? 0;
    const volume = service.getLabelmapVolume(id);
    volume.voxelManager.setCompleteScalarDataArray(map.map(value => to[value]));
    window.cornerstone.triggerEvent(
      window.cornerstone.eventTarget, window.cornerstoneTools.Enums.Events.SEGMENTATION_DATA_MODIFIED, {segmentationId: id});
  };
  XMLHttpRequest.prototype.open = function (method, url, ...rest) {
    if (/\\/infer\\/%s(\\?|$)/.test(url)) {
      this.addEventListener('load', () => {
        const body = new Uint8Array(this.response);
        if (this.status !== 200) {
          const text = new TextDecoder().decode(body);
          let reason = text;
          try { reason = JSON.parse(text).detail; } catch { /* no JSON: the text itself */ }
          setTimeout(() => show(reason), 500);  // above the panel's own notice
          return;
        }
        const start = body.findIndex((c, i) => c === 10 && body[i + 1] === 10) + 2;  // the header of an NRRD ends with an empty line
        const map = body.slice(start);
        setTimeout(() => draw(map), 0);  // after the panel, which draws in the promise of this request
      });
    }
    return open.call(this, method, url, ...rest);
  };
})();
"""


def ohif_clicks() -> str:
    """The lines for OHIF's ``app-config.js``."""
    return _DRAW % (json.dumps(dict(COMPARTMENT_NAMES)), CLICKS)
