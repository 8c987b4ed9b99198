"""What the weights that a training starts from have learned: such cases can neither test nor validate the new model."""

from __future__ import annotations

from collections.abc import Collection

from flrplan.errors import SettingsError

INHERITED = "inherited_train_ids"
"""Key of ``run.json``, beside ``train_ids``: what the weights had learned from before, over all models they began as."""


def require_unseen(seen: Collection[str], source: str, held_out: Collection[str], validation: Collection[str] = ()) -> None:
    """Raises SettingsError where weights trained on a held-out case, or on one that validates the fold.

    seen: ids that trained the weights of ``source``, its predecessors included.
    """
    for ids, role in ((held_out, "which the split calls test"), (validation, "which validate this fold")):
        known = sorted(set(seen) & set(ids))
        if known:
            raise SettingsError(
                f"{source} was trained on {known[:5]}, {role}: a model that starts from it could not be judged on them. Start from a "
                "model of the same split and fold, or anew"
            )
