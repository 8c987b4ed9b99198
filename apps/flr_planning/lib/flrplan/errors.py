"""The one error tree. A message says what was expected, what was found, in which file or case, and what to do."""

from __future__ import annotations


class FlrError(Exception):
    """Base of every error that this package raises on purpose; its message is meant for the user."""


class ImageError(FlrError, ValueError):
    """An image that cannot be used: unreadable, not a CT, broken geometry, NaN, gaps between slices."""


class GridError(FlrError, ValueError):
    """Two arrays that must lie on the same voxel grid do not."""


class LabelError(FlrError, ValueError):
    """A label that cannot be read as structures or compartments, or a mask that is not binary."""


class EmptyLiverError(FlrError, ValueError):
    """No liver: nothing downstream can be computed. An empty CRLM, in contrast, is an answer."""


class SettingsError(FlrError, ValueError):
    """An unknown setting, or one out of range; the message names the known ones."""


class ModelError(FlrError, RuntimeError):
    """A trained-model folder that is incomplete, damaged, of another stage, or unsafe to open."""


class DeviceMemoryError(ModelError):
    """A prediction that did not fit into the memory of an accelerator; on the CPU it may."""


class TrainingError(FlrError, RuntimeError):
    """A training that cannot go on: a batch that cannot be made, no memory for one patch, a preprocessing that failed."""


class OutputError(FlrError, OSError):
    """A result that could not be written; nothing half written is left behind."""


class CohortError(FlrError, ValueError):
    """A cohort folder that cannot be written to or continued."""


class ServiceError(FlrError, RuntimeError):
    """A program beside Python (Orthanc, MONAI Label's server, a browser) that is absent, does not start or does not answer."""
