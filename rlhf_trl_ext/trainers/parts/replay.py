"""A buffer of sampled groups (a prompt's completions): what is kept, how long, and which are drawn again.

A group is stored with everything that was true when it was sampled: log-probs of the policy that sampled it, rewards,
and advantages from its own mean and spread, which estimate the right baseline for that policy and no other (Mroueh et
al., arXiv:2505.22257). Nothing here knows a trainer; a buffer belongs to one process.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor
from torch.nn.functional import pad

STRATEGIES = ("recency_variance", "uniform", "recency", "variance", "reward")
AGAIN = "the replay buffer cannot be restored; copy the whole checkpoint again, or start a new run."
LEFT = ("prompt_ids", "prompt_mask")  # padded on the left, everything else with two dimensions on the right


@dataclass
class Group:
    """rows: tensors `(G, ...)`, trimmed, on the CPU, among them `rewards (G,)`, masks and log-probs.

    key: a number of its own, over all processes. step: the buffer's time when it was sampled, or None for data that
    this run did not sample, which does not grow stale. uses: how often it has been drawn.
    """

    rows: dict[str, Tensor]
    key: int
    step: int | None
    uses: int = 0

    def __post_init__(self):
        rewards = self.rows["rewards"]
        self.mean, self.std = rewards.mean().item(), rewards.std().item()
        # A comparison with NaN is false, so that a group with an unknown reward does not teach.
        self.teaches = bool(rewards.max() > rewards.min()) and bool(self.rows["completion_mask"].any())


class ReplayBuffer:
    """At most `size` groups; the oldest make room. Its time, `now`, counts generation batches: calls of `advance`.

    max_staleness: a group of time k is kept until time k + max_staleness. max_uses: draws of one group.
    strategy: drawn without replacement with probabilities `(std of rewards)^alpha rho^age` (recency_variance), its
    factors alone (variance, recency), `(mean reward - lowest mean)^alpha` (reward), or equal ones (uniform).
    seed: of the buffer's own generator; the global ones are never touched.
    """

    def __init__(self, size, max_staleness, max_uses, strategy="recency_variance", alpha=1.0, rho=0.8, seed=0):
        if strategy not in STRATEGIES:
            raise ValueError(f"strategy={strategy}: allowed are {', '.join(STRATEGIES)}.")
        self.size, self.max_staleness, self.max_uses = size, max_staleness, max_uses
        self.strategy, self.alpha, self.rho = strategy, alpha, rho
        self.groups: list[Group] = []
        self.now = 0
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.groups)

    def age(self, group: Group) -> int:
        """Generation batches since a group was sampled; max_staleness for one without a date."""
        return self.max_staleness if group.step is None else self.now - group.step

    def add(self, groups: list[Group]) -> None:
        """Keep those that can teach: rewards that are known and differ, and a token that counts."""
        teaching = [*self.groups, *(group for group in groups if group.teaches)]
        dated = sorted(teaching, key=lambda group: -1 if group.step is None else group.step)
        self.groups = dated[max(len(dated) - self.size, 0) :]

    def advance(self) -> None:
        """Time goes on by one generation batch; what is stale then is dropped."""
        self.now += 1
        self.groups = [group for group in self.groups if self.age(group) <= self.max_staleness]

    def sample(self, count: int) -> list[Group]:
        """Draw at most `count` different groups; each draw is a use, and the last one allowed drops the group."""
        count = min(count, len(self.groups))
        if count == 0:
            return []
        places = torch.multinomial(self._weights(), count, generator=self.generator).tolist()
        sampled = [self.groups[place] for place in places]
        for group in sampled:
            group.uses += 1
        self.groups = [group for group in self.groups if group.uses < self.max_uses]
        return sampled

    def put_back(self, groups: list[Group]) -> None:
        """Take back the use of groups that `sample` drew and that were not learnt from."""
        kept = {id(group) for group in self.groups}
        for group in groups:
            group.uses -= 1
        self.add([group for group in groups if id(group) not in kept])

    def _weights(self) -> Tensor:
        ages = torch.tensor([float(self.age(g)) for g in self.groups], dtype=torch.float64)
        means, stds = torch.tensor([[g.mean, g.std] for g in self.groups], dtype=torch.float64).T
        recency, variance = self.rho**ages, (stds + 1e-6) ** self.alpha
        if self.strategy == "reward":
            return (means - means.min() + 1e-6) ** self.alpha
        chosen = {"recency": recency, "variance": variance, "recency_variance": recency * variance}
        return chosen.get(self.strategy, torch.ones_like(ages))

    def save(self, folder: str | Path, rank: int, world_size: int) -> None:
        """Write this process's shard: `replay_<rank>.safetensors` and, with its digest and the generator, `.json`."""
        tensors = {
            f"{place}.{name}": v.contiguous() for place, g in enumerate(self.groups) for name, v in g.rows.items()
        }
        content = save(tensors)
        _file(folder, rank, "safetensors").write_bytes(content)
        record = {
            "world_size": world_size,
            "now": self.now,
            "generator": self.generator.get_state().numpy().tobytes().hex(),
            "groups": [{"key": g.key, "step": g.step, "uses": g.uses} for g in self.groups],
        }
        _file(folder, rank, "json").write_text(json.dumps({**record, "sha256": _digest(content, record)}))

    def load(self, folder: str | Path, rank: int, world_size: int) -> None:
        """Take over the shards of a checkpoint; of another number of processes, every `world_size`-th group by key.

        Raises ValueError for a shard that is missing or damaged.
        """
        files = sorted(Path(folder).glob("replay_*.json"))
        saved = _record(files[0])["world_size"] if files else world_size
        if saved == world_size:
            groups, record = _shard(folder, rank)
            state = bytearray.fromhex(record["generator"])
            self.generator.set_state(torch.frombuffer(state, dtype=torch.uint8))
        else:
            shards = [_shard(folder, other) for other in range(saved)]
            record = shards[0][1]
            groups = sorted((group for shard, _ in shards for group in shard), key=lambda group: group.key)
            groups = groups[rank::world_size]
        self.now, self.groups = record["now"], []
        self.add(groups)


def _file(folder: str | Path, rank: int, suffix: str) -> Path:
    return Path(folder) / f"replay_{rank}.{suffix}"


def _digest(content: bytes, record: dict) -> str:
    fields = {name: value for name, value in record.items() if name != "sha256"}
    return hashlib.sha256(content + json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _record(path: Path) -> dict:
    if not path.exists():
        raise ValueError(f"{path} is missing: {AGAIN}")
    try:
        record = json.loads(path.read_text())
    except ValueError:
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("world_size"), int):
        raise ValueError(f"{path} is damaged: {AGAIN}")
    return record


def _shard(folder: str | Path, rank: int) -> tuple[list[Group], dict]:
    """The groups of one process, and what its JSON file says."""
    record, path = _record(_file(folder, rank, "json")), _file(folder, rank, "safetensors")
    if not path.exists():
        raise ValueError(f"{path} is missing: {AGAIN}")
    content = path.read_bytes()
    if record.get("sha256") != _digest(content, record):
        raise ValueError(f"{path}, or the .json beside it, is damaged: {AGAIN}")
    rows = [{} for _ in record["groups"]]
    for name, value in load(content).items():
        place, key = name.split(".")
        rows[int(place)][key] = value
    return [Group(r, **kept) for r, kept in zip(rows, record["groups"], strict=True)], record


def trimmed(rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rows without the columns that no row's mask counts, copied to the CPU; `join` is the way back.

    rows: `(G,)` or `(G, P)` on the left, `(G, T)` on the right, with `prompt_mask` and `completion_mask` among them.
    """
    prompt = int(rows["prompt_mask"].any(dim=0).int().argmax()) if rows["prompt_mask"].any() else 0
    used = rows["completion_mask"].any(dim=0).nonzero()
    width = int(used[-1]) + 1 if len(used) else 0

    def cut(name: str, value: Tensor) -> Tensor:
        if value.dim() == 2:
            value = value[:, prompt:] if name in LEFT else value[:, :width]
        return value.detach().cpu().clone()

    return {name: cut(name, value) for name, value in rows.items()}


def join(parts: list[dict[str, Tensor]], padding: dict[str, float]) -> dict[str, Tensor]:
    """Concatenate rows of different widths: prompts padded on the left, the others on the right.

    padding: the value for each name, 0 where it has none. Only names that all parts have are kept.
    """
    joined = {}
    for name in parts[0]:
        if not all(name in part for part in parts):
            continue
        values = [part[name] for part in parts]
        if values[0].dim() == 2:
            width = max(value.shape[1] for value in values)
            short = [width - value.shape[1] for value in values]
            sides = [(lack, 0) if name in LEFT else (0, lack) for lack in short]
            filled = zip(values, sides, strict=True)
            values = [pad(value, side, value=padding.get(name, 0)) for value, side in filled]
        joined[name] = torch.cat(values)
    return joined
