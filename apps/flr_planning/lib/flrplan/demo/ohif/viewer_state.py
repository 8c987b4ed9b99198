"""What OHIF 3.10 holds and shows, asked from its page. OHIF offers its services as ``window.services``."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flrplan.image import Geometry
from flrplan.image.dicom_write import LIVER_WINDOW_HU

if TYPE_CHECKING:
    from playwright.sync_api import Page

AXIAL = "mpr-axial"
"""Name of the axial viewport in the MONAI Label mode."""
ALL_VIEWPORTS_HAVE_SLICES = """() => {
  const views = (window.cornerstone?.getEnabledElements() ?? []).map(e => e.viewport);
  return views.length >= 3 && views.every(v => v.getImageData?.()?.dimensions?.[2] > 1
    && window.cornerstone.cache.getVolume(v.getVolumeId())?.loadStatus?.loaded);
}"""
"""True once all slices of the MONAI Label mode are loaded."""
_SEGMENTATION = "1"
"""The panel's own segmentation has this id."""

_SEGMENTS = f"""() => {{
  const service = window.services.segmentationService;
  const colors = window.cornerstoneTools.segmentation.config.color;
  const found = service.getSegmentation('{_SEGMENTATION}');
  if (!found) return [];
  return Object.values(found.segments).map(s => ({{
    name: s.label, index: s.segmentIndex, rgba: [...colors.getSegmentIndexColor('{AXIAL}', '{_SEGMENTATION}', s.segmentIndex)],
  }}));
}}"""

_LABELMAP = f"""() => {{
  const volume = window.services.segmentationService.getLabelmapVolume('{_SEGMENTATION}');
  if (!volume) return null;
  const data = volume.voxelManager.getCompleteScalarDataArray();
  let text = '';
  for (let i = 0; i < data.length; i += 32768) text += String.fromCharCode(...data.slice(i, i + 32768));
  return {{size: [...volume.dimensions], spacing: [...volume.spacing], origin: [...volume.origin],
           direction: [...volume.direction], data: btoa(text)}};
}}"""

_VIEWPORT = (
    """const viewport = name => window.cornerstone.getEnabledElements().map(e => e.viewport).find(v => v.id === name);"""
)

_PICTURE = f"""() => {{
  {_VIEWPORT}
  const view = viewport('{AXIAL}');
  const canvas = view.canvas, ratio = canvas.width / canvas.clientWidth;
  const at = (x, y) => [...view.canvasToWorld([x / ratio, y / ratio])];
  return {{png: canvas.toDataURL('image/png').split(',')[1], origin: at(0, 0), x: at(1000, 0), y: at(0, 1000)}};
}}"""

_SHOW = f"""([target, lower, upper]) => {{
  {_VIEWPORT}
  for (const name of window.services.viewportGridService.getState().viewports.keys()) {{
    const view = viewport(name), camera = view.getCamera(), normal = camera.viewPlaneNormal;
    const step = normal.reduce((sum, n, i) => sum + n * (target[i] - camera.focalPoint[i]), 0);
    const moved = point => point.map((p, i) => p + step * normal[i]);
    view.setCamera({{focalPoint: moved(camera.focalPoint), position: moved(camera.position)}});
    view.setProperties({{voiRange: {{lower, upper}}}});
    view.render();
  }}
}}"""


@dataclass(frozen=True)
class Segment:
    """A segment as OHIF holds it; ``rgb`` (0..255) is the colour that it is drawn in."""

    name: str
    index: int
    rgb: tuple[int, int, int]


@dataclass(frozen=True)
class AxialPicture:
    """The axial viewport: ``rgb (H, W, 3) uint8`` without text, and the place of each pixel's centre, ``world_mm (H, W, 3)`` LPS."""

    rgb: NDArray[np.uint8]
    world_mm: NDArray[np.float64]


def read_segments(page: Page) -> list[Segment]:
    """The segments of the panel's segmentation; empty before "Connect"."""
    return [Segment(s["name"], int(s["index"]), tuple(int(c) for c in s["rgba"][:3])) for s in page.evaluate(_SEGMENTS)]  # type: ignore[arg-type]


def read_labelmap(page: Page) -> tuple[NDArray[np.uint8], Geometry] | None:
    """The label map ``(Z, Y, X) uint8`` of segment indices that OHIF draws, and its grid."""
    held: dict[str, Any] | None = page.evaluate(_LABELMAP)
    if held is None:
        return None
    # OHIF's direction lists the axes one after the other; Geometry has them as columns.
    direction = np.array(held["direction"], float).reshape(3, 3).T
    x, y, z = (int(n) for n in held["size"])
    geometry = Geometry((x, y, z), tuple(held["spacing"]), tuple(held["origin"]), tuple(direction.ravel().tolist()))
    return np.frombuffer(base64.b64decode(held["data"]), np.uint8).reshape(z, y, x), geometry


def show_place(page: Page, world_mm: Sequence[float] | NDArray[np.float64]) -> None:
    """Moves the slices of all viewports through a place (LPS mm), in the window of the liver, whatever the series asks for."""
    centre, width = LIVER_WINDOW_HU
    page.evaluate(_SHOW, [[float(c) for c in world_mm], centre - width / 2, centre + width / 2 - 1])  # both ends count


def read_axial_picture(page: Page) -> AxialPicture:
    """What the axial viewport shows now."""
    seen: dict[str, Any] = page.evaluate(_PICTURE)
    rgb = np.asarray(Image.open(io.BytesIO(base64.b64decode(seen["png"]))).convert("RGB"))
    origin = np.array(seen["origin"], float)
    along_x, along_y = ((np.array(seen[axis], float) - origin) / 1000 for axis in ("x", "y"))
    rows, columns = np.mgrid[: rgb.shape[0], : rgb.shape[1]] + 0.5
    return AxialPicture(rgb, origin + columns[..., None] * along_x + rows[..., None] * along_y)
