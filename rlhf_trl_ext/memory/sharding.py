"""Weights, gradients and optimizer states: what a process holds of them, alone, under DDP and under ZeRO."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rlhf_trl_ext.memory.architecture import Architecture

# Bytes per parameter of the optimizer's moments; None: two of the parameter's own size.
OPTIMIZERS = {"adamw_torch": None, "adamw_torch_fused": None, "adamw_8bit": 2, "adamw_bnb_8bit": 2}
OPTIMIZERS |= {"paged_adamw_8bit": 0, "sgd": 0}  # paged: in host memory where the GPU has none left
# NF4 in blocks of 64 with a float32 scale; nested: the scales are 8-bit, in blocks of 256.
QUANTISED = {"4bit": 0.5 + 4 / 64, "4bit_nested": 0.5 + 1 / 64 + 4 / (64 * 256), "8bit": 1.0}


@dataclass(frozen=True)
class Sharding:
    """How weights and states are spread over `processes`; ZeRO's stage and options as its JSON says.

    bucket, live: elements of a gradient bucket and of gathered weights at most. buckets: two with overlap. lazily:
    memory that is allocated counts only once it is written, as on a CPU.
    """

    processes: int = 1
    stage: int = 0
    deepspeed: bool = False
    offload_optimizer: bool = False
    offload_weights: bool = False
    bucket: int = 0
    buckets: int = 1
    live: int = 10**9
    lazily: bool = False

    @classmethod
    def read(cls, config: str | Path | Mapping | None, processes: int, hidden: int, lazily: bool = False) -> "Sharding":
        """From a DeepSpeed configuration or the file of one; null: DDP, or nothing for one process."""
        if config is None:
            return cls(processes)
        content = config if isinstance(config, Mapping) else json.loads(Path(config).read_text())
        zero = content.get("zero_optimization", {})
        bucket = zero.get("reduce_bucket_size", 500_000_000)
        offloaded = [zero.get(f"offload_{what}", {}).get("device", "none") != "none" for what in ("optimizer", "param")]
        return cls(
            processes,
            zero.get("stage", 0),
            True,
            *offloaded,
            bucket=hidden**2 if bucket == "auto" else int(bucket),
            buckets=2 if zero.get("overlap_comm") else 1,
            live=int(zero.get("stage3_max_live_parameters", 10**9)),
            lazily=lazily,
        )


@dataclass(frozen=True)
class Role:
    """One model of a run. weight_bytes: of an unquantised parameter. shares_base: only its adapters are its own."""

    name: str
    architecture: Architecture
    weight_bytes: int
    trains: bool = False
    lora: bool = False
    quantised: str | None = None
    shares_base: bool = False
    moment_bytes: int | None = None  # of both moments of one parameter; None: twice that of the parameter

    @property
    def trainable(self) -> int:
        return 0 if not self.trains else self.architecture.adapters if self.lora else self.architecture.parameters

    @property
    def weights(self) -> float:
        """Bytes of the frozen or whole model, adapters left out."""
        sizes = self.architecture
        if self.shares_base:
            return 0.0
        packed = sizes.linear_weights * QUANTISED[self.quantised] if self.quantised else 0.0
        return packed + (sizes.parameters - (sizes.linear_weights if self.quantised else 0)) * self.weight_bytes


def held(role: Role, sharding: Sharding) -> dict[str, float]:
    """Bytes on a GPU, and on the host of a process, by kind: weights, gradients, optimizer, buckets, host.

    With N processes and P trainable parameters of b bytes: alone P (b + b + 2b); DDP has its gradient buckets besides.
    ZeRO (arXiv:1910.02054) splits the optimizer's 12 P bytes, float32 weights and two moments, by N from stage 1,
    gradients from stage 2 (but for those of one bucket, which wait there whole) and weights, frozen ones as well, from
    stage 3.
    """
    count, stage, trained = sharding.processes, sharding.stage, role.trainable
    size = 4 if role.lora and role.quantised is None and stage < 3 else role.weight_bytes  # PEFT's adapters
    weights = (role.weights + (trained * size if role.lora else 0.0)) / (count if stage == 3 else 1)
    bucket = min(sharding.bucket, trained) if sharding.lazily else sharding.bucket
    gradients = max(trained / count, min(bucket, trained)) * size if stage >= 2 else trained * size
    if sharding.deepspeed:
        optimizer = trained * 12 / (count if stage else 1)
        buckets = sharding.buckets * bucket * size if trained and stage else 0
    else:
        optimizer = trained * (2 * size if role.moment_bytes is None else role.moment_bytes)
        buckets = trained * size if count > 1 else 0
    kinds = {"weights": weights, "gradients": gradients, "optimizer": optimizer, "buckets": buckets, "host": 0.0}
    moved = ["optimizer", "gradients"] if sharding.offload_optimizer and trained else []
    moved += ["weights"] if sharding.offload_weights else []
    for kind in moved:
        kinds["host"] += kinds[kind]
        kinds[kind] = 0.0
    return kinds


def gathered(role: Role, sharding: Sharding) -> float:
    """Bytes of weights that ZeRO-3 has put together at once in a pass; 0 in other stages."""
    if sharding.stage < 3 or (sharding.processes == 1 and not sharding.offload_weights):
        return 0.0
    return min(role.architecture.parameters, sharding.live) * role.weight_bytes
