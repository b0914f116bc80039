"""The resolver `${deepspeed_file:zero3}`: the contents of deepspeed_configs/zero3.json, whatever the working directory.

Hydra imports every module of this package before it composes. A run's configuration so holds what its DeepSpeed file
said, and its fingerprint does not depend on where the file lies.
"""

import json

from omegaconf import OmegaConf

from rlhf_trl_ext.configuration.folders import DEEPSPEED_CONFIGS


def read(name: str) -> dict:
    """Contents of `deepspeed_configs/<name>.json`."""
    return json.loads((DEEPSPEED_CONFIGS / f"{name}.json").read_text())


OmegaConf.register_new_resolver("deepspeed_file", read, replace=True)
