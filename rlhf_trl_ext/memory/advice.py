"""What fits a card: the largest batch and length of a run, and the mildest change that makes it fit."""

from collections.abc import Callable
from dataclasses import replace

from rlhf_trl_ext.memory.phases import Workload, predict
from rlhf_trl_ext.memory.sharding import Sharding

Change = Callable[[Workload, int], Workload]
LARGEST = {"rows": 4096, "length": 1 << 20}
NO_CHANGE = "fits with no ZeRO stage on these GPUs: use more, a smaller model, LoRA or QLoRA"


def fits(load: Workload, room: float) -> bool:
    """Whether the predicted peak is at most `room` bytes."""
    return predict(load).peak <= room


def with_rows(load: Workload, rows: int) -> Workload:
    """Another batch; what a process samples at a time grows with it, as TRL's generation batch does."""
    passes = load.generated / load.batch.rows
    return replace(load, batch=replace(load.batch, rows=rows), generated=round(passes * rows))


def with_length(load: Workload, length: int) -> Workload:
    """Another length of a row: prompts stay, completions (offline: the whole row) change."""
    scored = length - load.prompt if load.generated else length if load.batch.scored else 0
    return replace(load, batch=replace(load.batch, length=length, scored=scored))


def largest(
    change: Callable[[Workload, int], Workload], load: Workload, room: float, step: int, most: int
) -> int | None:
    """The largest multiple of `step` with which `load` fits, by bisection (memory never falls with it); None: none."""
    low, high = 0, most // step
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(change(load, middle * step), room) else (low, middle - 1)
    return low * step or None


def advise(load: Workload, room: float, rows_step: int = 1) -> list[str]:
    """Sentences on the largest batch and row that fit, or on what else would make the run fit.

    rows_step: what the batch must be a multiple of (two rows for a pair). A row is never longer than the model's
    context. What does not fit is told the largest batch and row that do, and the mildest change that keeps both.
    """
    most = load.context or LARGEST["length"]
    if fits(load, room):
        rows = largest(with_rows, load, room, rows_step, LARGEST["rows"])
        length = largest(with_length, load, room, 64, most) or load.batch.length
        whole = " (the model's context)" if length + 64 > most else ""
        batch = f"args.per_device_train_batch_size={rows // rows_step}"
        return [f"room for {batch}, or for rows of {max(length, load.batch.length)} tokens{whole}"]
    sentences = []
    if rows := largest(with_rows, load, room, rows_step, load.batch.rows):
        sentences.append(f"fits with args.per_device_train_batch_size={rows // rows_step}")
    length = largest(with_length, load, room, 64, load.batch.length)
    if length and length > load.prompt:
        sentences.append(f"fits with rows of at most {length} tokens")
    change = next((name for name, changed in milder(load) if fits(changed, room)), None)
    return [*sentences, f"fits with {change}" if change else NO_CHANGE]


def remedy(load: Workload, room: float, rows_step: int = 1) -> str | None:
    """The override with which a run fits that does not: a smaller batch, else the mildest change; None: none does."""
    if rows := largest(with_rows, load, room, rows_step, load.batch.rows):
        return f"args.per_device_train_batch_size={rows // rows_step}"
    return next((name for name, changed in milder(load) if fits(changed, room)), None)


def milder(load: Workload) -> list[tuple[str, Workload]]:
    """Changes from the cheapest in speed to the dearest, each with what it is called in the configuration."""
    arithmetic = replace(load.arithmetic, checkpointing=True)
    options = []
    if not load.arithmetic.checkpointing:
        options.append(("args.gradient_checkpointing=true", replace(load, arithmetic=arithmetic)))
    mixed = arithmetic if arithmetic.mode == "float32" else replace(arithmetic, mode="bfloat16")  # what DeepSpeed does
    roles = load.roles if mixed.mode == "float32" else tuple(replace(role, weight_bytes=2) for role in load.roles)
    count = load.sharding.processes
    for stage in (1, 2, 3):
        if stage > load.sharding.stage and count > 1:
            bucket = 500_000_000 if stage < 3 else load.roles[0].architecture.hidden ** 2  # of deepspeed_configs
            sharding = Sharding(count, stage, True, bucket=bucket, buckets=2, lazily=load.sharding.lazily)
            options.append((f"deepspeed=zero{stage}", replace(load, sharding=sharding, arithmetic=mixed, roles=roles)))
    bucket = load.roles[0].architecture.hidden ** 2
    sharding = Sharding(count, 3, True, True, True, bucket=bucket, buckets=2, lazily=load.sharding.lazily)
    options.append(("deepspeed=zero3_offload", replace(load, sharding=sharding, arithmetic=mixed, roles=roles)))
    return options
