"""What OHIF lacks to send a label back: its own "Export DICOM SEG", mended, and "Submit label" in the MONAI Label mode.

OHIF 3.10.0-beta.5, which MONAI Label 0.8.5 ships, runs its command ``storeSegmentation`` without the data source that the command needs, so
the button fails. Its configuration does not reach that; its commands manager does: the command is registered anew with the active data
source, and one that is given one, as later versions do, keeps it. What is stored is marked as a person's work: who (asked once, kept in the
browser, checked by nobody), and by each segment's name the DICOM codes that the brush forgets.

The MONAI Label mode of that version answers clicks and has no way to keep the result. Its panel gets the button of 3D Slicer's module,
"Submit label": what is drawn goes to the planning server as ``final``, as a label map on its own grid. Its list of strategies works.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flrplan.anatomy import KNOWN_LABEL_NAMES, CodedConcept, Compartment
from flrplan.server.label_table import APPEARANCE_OF_NAME

OHIF_VERSION = "3.10.0-beta.5"
"""The version in which this was tried."""

READER_KEY = "flrplan.reader"
"""Under this key the browser keeps who stores labels."""

_STORE = """
/* flrplan: "Export DICOM SEG" gets the data source that it lacks, and what it stores says who drew it and what each segment is. */
(() => {
  const codes = %s, context = 'SEGMENTATION', name = 'storeSegmentation', key = '%s';
  const reader = () => {
    const known = localStorage.getItem(key) || (window.prompt('Your name, kept with the labels that you store (nobody checks it):') || '').trim();
    if (known) localStorage.setItem(key, known);
    return known;
  };
  const show = (title, message, type) => window.services?.uiNotificationService?.show({title, message, type, duration: 8000});
  const marked = source => ({...source, store: {...source.store, dicom: async dataset => {
    const now = new Date(), two = n => String(n).padStart(2, '0');
    dataset.ContentCreatorName = reader();
    dataset.ContentDate = `${now.getFullYear()}${two(now.getMonth() + 1)}${two(now.getDate())}`;  // local, as other programs have it
    dataset.ContentTime = `${two(now.getHours())}${two(now.getMinutes())}${two(now.getSeconds())}`;
    for (const segment of [dataset.SegmentSequence].flat()) {
      if (segment.SegmentAlgorithmType === 'AUTOMATIC') segment.SegmentAlgorithmType = 'SEMIAUTOMATIC';
      Object.assign(segment, codes[segment.SegmentLabel]);
    }
    try {
      const stored = await source.store.dicom(dataset);
      show('Label stored', 'The planning server uses it from now on.', 'success');
      return stored;
    } catch (error) {
      show('The label was not stored', `${error?.message || error}. Keep this page open and try again.`, 'error');
      throw error;
    }
  }}});
  /* dcmjs, which writes the SEG, takes the slices from the head (along the normal) down, and OHIF hands it the voxels as the series lists them:
     of a series that begins at the feet, the label was stored upside down. */
  const inItsOrder = async (id, write) => {
    const held = window.cornerstoneTools.segmentation.state.getSegmentation(id).representationData.Labelmap, before = held.imageIds;
    const plane = image => window.cornerstone.metaData.get('imagePlaneModule', window.cornerstone.cache.getImage(image).referencedImageId);
    const {rowCosines: r, columnCosines: c} = plane(before[0]);
    const normal = [r[1] * c[2] - r[2] * c[1], r[2] * c[0] - r[0] * c[2], r[0] * c[1] - r[1] * c[0]];
    const along = image => plane(image).imagePositionPatient.reduce((sum, mm, k) => sum + mm * normal[k], 0);
    held.imageIds = [...before].sort((a, b) => along(b) - along(a));
    try { return await write(); } finally { held.imageIds = before; }
  };
  setInterval(() => {
    const commands = window.commandsManager, known = commands?.getCommand(name, context);
    if (!known || known.flrplan) return;
    const commandFn = given => inItsOrder(given.segmentationId,
      () => known.commandFn({...given, dataSource: marked(given.dataSource ?? window.extensionManager.getActiveDataSource()[0])}));
    commands.registerCommand(context, name, {...known, commandFn, flrplan: true});
  }, 250);

  /* flrplan: "Submit label" in the MONAI Label mode. */
  const compartments = %s;
  const submit = async () => {
    const services = window.services, drawn = services.segmentationService, volume = drawn.getLabelmapVolume('1');
    const {viewports, activeViewportId} = services.viewportGridService.getState();
    const [shown] = viewports.get(activeViewportId).displaySetInstanceUIDs;
    const series = services.displaySetService.getDisplaySetByUID(shown).SeriesInstanceUID;
    const voxels = new Uint8Array(volume.voxelManager.getCompleteScalarDataArray()), there = new Set(voxels);
    const segments = Object.values(drawn.getSegmentation('1').segments);
    const planned = segments.some(s => compartments.includes(s.label) && there.has(s.segmentIndex));  // one that is missing is empty
    const names = segments.filter(s => there.has(s.segmentIndex) || (planned && compartments.includes(s.label)));
    const axis = i => `(${[0, 1, 2].map(k => volume.direction[3 * i + k] * volume.spacing[i])})`;
    const header = ['NRRD0004', 'type: uint8', 'dimension: 3', 'space: left-posterior-superior', `sizes: ${[...volume.dimensions].join(' ')}`,
      `space directions: ${[0, 1, 2].map(axis).join(' ')}`, 'kinds: domain domain domain', 'encoding: raw',
      `space origin: (${[...volume.origin]})`, '', ''].join('\\n');
    const form = new FormData(), info = names.map(s => ({name: s.label, idx: s.segmentIndex}));
    form.append('params', JSON.stringify({label_info: info, client_id: reader()}));
    form.append('label', new Blob([header, voxels]), 'label.nrrd');
    const cookie = document.cookie.match(/(?:^|; ?)MONAILABEL_SERVER_URL=([^;]*)/), url = cookie ? unescape(cookie[1]) : location.origin;
    const to = new URL(`datastore/label?image=${series}`, url.endsWith('/') ? url : url + '/');
    try {
      const answer = await fetch(to, {method: 'PUT', body: form}), said = await answer.json();
      if (!answer.ok) throw new Error(said.detail);
      show('Label stored', (said.warnings || []).join('; ') || 'The planning server uses it from now on.', 'success');
    } catch (error) {
      show('The label was not stored', `${error?.message || error}`, 'error');
    }
  };
  setInterval(() => {
    const place = document.querySelector('#monailabelServerURL')?.closest('table');
    if (!place || document.getElementById('flrplan-submit') || !window.services?.segmentationService?.getLabelmapVolume?.('1')) return;
    const button = Object.assign(document.createElement('button'), {id: 'flrplan-submit', className: 'actionInput', textContent: 'Submit label'});
    Object.assign(button.style, {backgroundColor: 'lightgray', margin: '4px 0'});
    button.onclick = async () => { button.disabled = true; try { await submit(); } finally { button.disabled = false; } };
    place.after(button);
  }, 500);

  /* flrplan: the list of strategies of the MONAI Label mode changes nothing by itself (its handler is missing, so "random" is asked always). */
  document.addEventListener('change', event => {
    let fiber = event.target[Object.keys(event.target).find(key => key.startsWith('__reactFiber$'))];
    while (fiber && !fiber.stateNode?.state?.strategy) fiber = fiber.return;
    fiber?.stateNode.setState({strategy: event.target.value});
  });
})();
"""


def ohif_export() -> str:
    """The lines for OHIF's ``app-config.js``."""
    codes = {name: _codes(name) for name in KNOWN_LABEL_NAMES}
    return _STORE % (json.dumps(codes), READER_KEY, json.dumps([c.label_name for c in Compartment]))


def _codes(name: str) -> Mapping[str, Any]:
    look = APPEARANCE_OF_NAME[name]
    codes = {
        "SegmentedPropertyCategoryCodeSequence": [_code(look.category)],
        "SegmentedPropertyTypeCodeSequence": [_code(look.type)],
    }
    if look.modifier is not None:
        codes["SegmentedPropertyTypeCodeSequence"][0]["SegmentedPropertyTypeModifierCodeSequence"] = [_code(look.modifier)]
    return codes


def _code(concept: CodedConcept) -> dict[str, Any]:
    return {"CodeValue": concept.value, "CodingSchemeDesignator": concept.scheme, "CodeMeaning": concept.meaning}
