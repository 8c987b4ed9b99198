"""What a plans.json may name as a network and hand to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flrplan.errors import ModelError
from flrplan.method import LIVER, InputSettings
from flrplan.nnunet.model import ModelFolder
from flrplan.nnunet.model.architecture import check_architecture

STUNET: dict[str, Any] = {
    "network_class_name": "flrplan.networks.stunet.STUNet",
    "arch_kwargs": {"dims": [4, 8], "depths": [1, 1], "strides": [[1, 1, 1], [2, 2, 2]]},
    "_kw_requires_import": [],
}


def check(**changes: Any) -> None:
    plans = {"configurations": {"3d_fullres": {"architecture": {**STUNET, **changes}}}}
    check_architecture(ModelFolder(Path("model"), LIVER, InputSettings(), plans, {}, (0,)), "3d_fullres")


def test_networks_of_the_table_and_of_nnunet_pass() -> None:
    check()
    check(network_class_name="flrplan.networks.swinunetr.SwinUNETR", arch_kwargs={"feature_size": 48, "use_checkpoint": False})
    arguments = {"nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True}, "dropout_op": None, "pool_type": "conv"}
    own = "dynamic_network_architectures.architectures.residual_unet.ResidualEncoderUNet"
    check(network_class_name=own, arch_kwargs=arguments, _kw_requires_import=["nonlin", "dropout_op"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network_class_name": "os.system"}, "'os.system' as network_class_name"),
        ({"network_class_name": "flrplan.networks.table.architecture_named"}, "architecture_named' as network_class_name"),
        ({"network_class_name": ["flrplan.networks.stunet.STUNet"]}, "as network_class_name"),
        ({"arch_kwargs": {"dims": "os.system"}}, "'os.system' as dims, which is no plain value"),
        ({"arch_kwargs": {"dims": [4, {"deep": ["a b; c"]}]}}, "as dims, which is no plain value"),
        ({"arch_kwargs": {"act": "os.system"}, "_kw_requires_import": ["act"]}, "as act, which is no class of torch.nn"),
        ({"arch_kwargs": {"act": 3}, "_kw_requires_import": ["act"]}, "3 as act, which is no class of torch.nn"),
        ({"arch_kwargs": None}, "describes no network"),
    ],
)
def test_everything_else_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        check(**changes)
