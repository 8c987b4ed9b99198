"""Which masks a stage of the cascade is trained on: the true ones (the paper), spoilt ones, or predicted ones.

The paper trains the stages after the liver on ground truth and feeds them predictions; :class:`flrplan.method.stage_input.InputMasks`
names the choice. Read in this order: :mod:`mask_errors` (how predictions differ from the truth, as numbers), :mod:`measure` (those
numbers from predictions), :mod:`perturb` (a true mask with such errors), :mod:`predictions` (out-of-fold predictions beside the cases),
:mod:`choose` (the masks of one case). Never imports torch.
"""

from flrplan.input_masks.choose import masks_for_training
from flrplan.input_masks.mask_errors import DEFAULT_ERRORS, LesionErrors, LiverErrors, MaskErrors
from flrplan.input_masks.measure import errors_of_predictions
from flrplan.input_masks.predictions import with_predictions

__all__ = [
    "DEFAULT_ERRORS",
    "LesionErrors",
    "LiverErrors",
    "MaskErrors",
    "errors_of_predictions",
    "masks_for_training",
    "with_predictions",
]
