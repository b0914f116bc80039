"""DeepSpeed ZeRO where TRL and accelerate leave something out: its start, and models that it shall not split."""

import contextlib
import os
import socket
from datetime import timedelta

from omegaconf import DictConfig
from transformers.integrations import deepspeed as integration

from rlhf_trl_ext.zero.ops import remove_stale_locks


def start(args: DictConfig) -> None:
    """Make `args.deepspeed` work however this process was started; call it before `args` is built.

    `python -m` gives no process group, which DeepSpeed needs also for one process. On CPU, `TrainingArguments` makes
    one that DeepSpeed does not know of, unless accelerate was told of DeepSpeed as well.
    """
    if not args.get("deepspeed"):
        return
    remove_stale_locks()
    if "RANK" not in os.environ:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            alone = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1, "MASTER_ADDR": "localhost"}
            os.environ.update({name: str(value) for name, value in alone.items()})
            os.environ.setdefault("MASTER_PORT", str(free.getsockname()[1]))
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    if args.get("use_cpu"):
        import deepspeed

        deepspeed.init_distributed(dist_backend="gloo", timeout=timedelta(seconds=args.get("ddp_timeout", 1800)))


@contextlib.contextmanager
def whole_weights():
    """Models that are loaded inside are not split by ZeRO-3: every process has all of their weights."""
    kept = integration._hf_deepspeed_config_weak_ref
    integration.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        integration._hf_deepspeed_config_weak_ref = kept
