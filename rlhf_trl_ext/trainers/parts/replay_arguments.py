"""What can be set of replay, and which values are allowed."""

import math
from dataclasses import dataclass, field, fields

from rlhf_trl_ext.functional.importance import BOUNDS, LEVELS
from rlhf_trl_ext.trainers.parts.replay import STRATEGIES

MODES = ("add", "fill")


def number(default, low: float, high: float, told: str):
    """A field whose value lies between low and high."""
    return field(default=default, metadata={"help": told, "range": (low, high)})


def choice(allowed: tuple[str, ...], told: str):
    """A field with a closed set of values, the first of which is the default."""
    return field(default=allowed[0], metadata={"help": told, "choices": allowed})


@dataclass
class ReplayArguments:
    """Arguments of every algorithm with a replay buffer; mixed into a subclass of `trl.GRPOConfig`."""

    replay_ratio: float = number(1.0, 0, 8, "Groups replayed for each fresh one; 0 is TRL's GRPO.")
    replay_mode: str = choice(MODES, "add: to the batch. fill: in place of fresh groups whose rewards are equal.")
    buffer_size: int = number(512, 1, math.inf, "Groups kept by each process, at most.")
    min_buffer: int = number(1, 1, math.inf, "Groups that a process keeps before any is replayed.")
    max_staleness: int = number(4, 1, math.inf, "Age after which a group is dropped, in generation batches.")
    max_uses: int = number(2, 1, math.inf, "How often one group is replayed.")
    replay_strategy: str = choice(STRATEGIES, "Which groups are likely to be drawn, see ReplayBuffer.")
    replay_alpha: float = number(1.0, 0, math.inf, "Power of the spread, or of the reward, in replay_strategy.")
    replay_rho: float = number(0.8, 0.01, 1, "Factor for each generation batch of age in replay_strategy.")
    is_level: str = choice(LEVELS, "Importance weights of tokens, of sequences, or their geometric mean.")
    is_mode: str = choice(BOUNDS, "Weights outside the bounds are moved to them, or set to 0.")
    is_cap: float | None = number(None, 1, math.inf, "Largest weight; null: 2, for sequences 5.")
    is_floor: float | None = number(None, 0, 1, "Smallest weight; null: 0, with is_mode=mask 0.5.")
    decoupled: bool = field(default=True, metadata={"help": "false: clip around the policy that sampled, weight 1."})
    topr_positives: bool = field(default=False, metadata={"help": "Weights 1 for A >= 0, at most 1 for the others."})
    replay_data: str | None = field(
        default=None, metadata={"help": "File of past completions with rewards, put in the buffer before step 1."}
    )
    replay_data_policy: str | None = field(
        default=None, metadata={"help": "The model that sampled replay_data, where that holds no logprobs."}
    )
    ess_min: float = number(0.3, 0, 1, "Effective share of samples below which drawn groups are turned away.")

    def __post_init__(self):
        super().__post_init__()
        for entry in fields(ReplayArguments):
            value, allowed = getattr(self, entry.name), entry.metadata.get("choices")
            if "range" in entry.metadata and value is not None:
                low, high = entry.metadata["range"]
                if not low <= value <= high:
                    raise ValueError(f"{entry.name}={value}: {low} to {high} is allowed.")
            if isinstance(allowed, tuple) and value not in allowed:
                raise ValueError(f"{entry.name}={value}: allowed are {', '.join(allowed)}.")
        if self.replay_data is not None and self.replay_ratio == 0:
            raise ValueError(f"replay_data={self.replay_data} with replay_ratio=0: give a ratio above 0, or no data.")
        if self.is_cap is None:
            self.is_cap = 5.0 if self.is_level == "sequence" else 2.0
        if self.is_floor is None:
            self.is_floor = 0.5 if self.is_mode == "mask" else 0.0
