"""Predictions kept for the next request: a stage whose CT, masks, model and settings did not change is not predicted again.

A prediction is kept under the digest of all that it depends on, so nothing has to say what changed: an edited mask, another CT or a
retrained model is another key.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # parsers ask where models lie, which imports this
    from flrplan.anatomy import Mask, Structure
    from flrplan.method import Probability, StageInput

logger = logging.getLogger(__name__)

CACHE_MB = 256
"""Megabytes of predictions that a store keeps by default; docs/speed.md says what a case takes."""


class Detail(IntEnum):
    """What of a prediction is asked for; each holds those before it."""

    MASK = 0
    PROBABILITY = 1
    FOLDS = 2


@dataclass(frozen=True)
class StagePrediction:
    """What the network of a stage answered, on the grid of its input, which ``place.restore`` brings to the CT's.

    targets: mask ``(Z, Y, X) bool``, and of what was asked for the probability and that of each fold. said: what a reader of them should know.
    """

    place: StageInput
    targets: Mapping[Structure, tuple[Mask, Probability | None, tuple[Probability, ...]]]
    said: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Kept:
    """A prediction as it is kept: masks as bits, probabilities as bytes, both deflated."""

    place: StageInput
    detail: Detail
    targets: Mapping[Structure, tuple[bytes, bytes, tuple[bytes, ...]]]
    said: tuple[str, ...]

    @classmethod
    def of(cls, found: StagePrediction, detail: Detail) -> _Kept:
        packed = {
            target: (
                _deflated(np.packbits(mask)),
                b"" if probability is None else _deflated(probability),
                tuple(_deflated(fold) for fold in folds),
            )
            for target, (mask, probability, folds) in found.targets.items()
        }
        return cls(found.place.without_channels(), detail, packed, found.said)

    @property
    def size_bytes(self) -> int:
        return sum(len(mask) + len(p) + sum(map(len, folds)) for mask, p, folds in self.targets.values())

    def unpacked(self, detail: Detail) -> StagePrediction:
        shape = self.place.geometry.shape_zyx
        targets = {}
        for target, (mask, probability, folds) in self.targets.items():
            bits = np.unpackbits(_inflated(mask), count=int(np.prod(shape)))
            targets[target] = (
                bits.view(bool).reshape(shape),
                _inflated(probability).reshape(shape) if detail >= Detail.PROBABILITY else None,
                tuple(_inflated(fold).reshape(shape) for fold in folds) if detail == Detail.FOLDS else (),
            )
        return StagePrediction(self.place, targets, self.said)


class PredictionCache:
    """Predictions by the digest of what they depend on, ``most_bytes`` of them at most; the one that was used longest ago leaves first.

    most_bytes: 0 keeps none. Threads may share it: of two that ask for the same, one computes and the other waits for it.
    """

    def __init__(self, most_bytes: int = CACHE_MB * 10**6) -> None:
        self.most_bytes = most_bytes
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._computing: WeakValueDictionary[bytes, Any] = WeakValueDictionary()

    @property
    def size_bytes(self) -> int:
        """Of all that is kept."""
        with self._lock:
            return sum(kept.size_bytes for kept in self._kept.values())

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._kept.clear()

    def get(self, key: bytes, detail: Detail, compute: Callable[[], StagePrediction]) -> StagePrediction:
        """The prediction of a key with this detail: a kept one with as much or more, else what ``compute`` gives, which is kept.

        What ``compute`` raises is raised, and nothing is kept.
        """
        with self._lock:
            one = self._computing.setdefault(key, threading.Lock())  # gone as soon as nobody holds it
        with one:
            with self._lock:
                kept = self._kept.get(key)
                if kept is not None and kept.detail >= detail:
                    self._kept.move_to_end(key)
            if kept is not None and kept.detail >= detail:
                logger.info("stage %s: nothing that it depends on has changed, so it was not predicted again", kept.place.stage)
                return kept.unpacked(detail)
            found = compute()
            self._keep(key, _Kept.of(found, detail))
            return found

    def _keep(self, key: bytes, kept: _Kept) -> None:
        if kept.size_bytes > self.most_bytes:
            return  # nothing else would stay for it
        with self._lock:
            self._kept.pop(key, None)
            self._kept[key] = kept
            total = sum(k.size_bytes for k in self._kept.values())
            while total > self.most_bytes:
                total -= self._kept.popitem(last=False)[1].size_bytes


def digest_of_array(array: NDArray[Any], *more: object) -> bytes:
    """SHA-256 of an array's type, shape and values, and of what else is told by its ``repr``; masks as bits. 0.1 s for 512 x 512 x 240."""
    found = hashlib.sha256(repr((array.dtype.str, array.shape, more)).encode())
    found.update((np.packbits(array) if array.dtype == bool else np.ascontiguousarray(array)).data)
    return found.digest()


def _deflated(array: NDArray[np.uint8]) -> bytes:
    return zlib.compress(np.ascontiguousarray(array).data, 1)


def _inflated(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(zlib.decompress(data), np.uint8)
