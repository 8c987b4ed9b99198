"""OHIF's own "Export DICOM SEG", mended.

OHIF 3.10.0-beta.5, which MONAI Label 0.8.5 ships, runs its command ``storeSegmentation`` without the data source that the command needs, so
the button fails. Its configuration does not reach that; its commands manager does: the command is registered anew with the active data
source, and one that is given one, as later versions do, keeps it. What is stored is marked as a person's work: who (asked once, kept in the
browser, checked by nobody), and by each segment's name the DICOM codes that the brush forgets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flrplan.anatomy import KNOWN_LABEL_NAMES, CodedConcept
from flrplan.server.label_table import APPEARANCE_OF_NAME

OHIF_VERSION = "3.10.0-beta.5"
"""The version in which this was tried."""

_STORE = """
/* flrplan: "Export DICOM SEG" gets the data source that it lacks, and what it stores says who drew it and what each segment is. */
(() => {
  const codes = %s, context = 'SEGMENTATION', name = 'storeSegmentation', key = 'flrplan.reader';
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
  setInterval(() => {
    const commands = window.commandsManager, known = commands?.getCommand(name, context);
    if (!known || known.flrplan) return;
    const commandFn = given => known.commandFn({...given, dataSource: marked(given.dataSource ?? window.extensionManager.getActiveDataSource()[0])});
    commands.registerCommand(context, name, {...known, commandFn, flrplan: true});
  }, 250);
})();
"""


def ohif_export() -> str:
    """The lines for OHIF's ``app-config.js``."""
    return _STORE % json.dumps({name: _codes(name) for name in KNOWN_LABEL_NAMES})


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
