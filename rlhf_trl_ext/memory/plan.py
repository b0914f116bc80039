"""From a configuration to a prediction, and sentences on whether a card holds it, which one, and by which command."""

from collections.abc import Sequence
from shlex import quote

from omegaconf import DictConfig

from rlhf_trl_ext.memory.advice import advise, remedy
from rlhf_trl_ext.memory.cards import CARDS, GIB, card_bytes
from rlhf_trl_ext.memory.phases import Prediction, Workload, predict
from rlhf_trl_ext.memory.workload import Reading

OWN = ("plan.", "plan=", "num_gpus=", "verbose=")  # what launchers.train does not read


def plan(config: DictConfig, overrides: Sequence[str] = ()) -> tuple[Prediction, list[str], str]:
    """The prediction for `config`, sentences on it with the verdict first, and a title.

    overrides: as they were typed, for the command that trains. Raises ConfigError or ValueError.
    """
    reading = Reading(config)
    load = reading.workload()
    prediction = predict(load)
    room = card_bytes(config.plan.card) - config.plan.reserved * GIB
    sentences = [verdict(load, prediction, room, config)]
    change = remedy(load, room, reading.per_row) if prediction.peak > room else ""
    if change is not None:
        sentences.append(f"run{', which fits' if change else ''}: {command(overrides, config.num_gpus, change)}")
    return prediction, [*sentences, *advise(load, room, reading.per_row)], title(config.name, load)


def verdict(load: Workload, prediction: Prediction, room: float, config: DictConfig) -> str:
    """Whether the card holds the run, how much of it is used and when, and the smallest cards that hold it."""
    peak, reserved, on_cpu = prediction.peak, config.plan.reserved * GIB, load.arithmetic.device == "cpu"
    size = f"{(room + reserved) / GIB:.0f} GiB"
    card = f"{config.plan.card} ({size})" if str(config.plan.card).lower() in CARDS else f"card of {size}"
    card = f"{size} of the host's memory" if on_cpu else f"each {card}" if config.num_gpus > 1 else f"one {card}"
    sentence = (
        f"{'fits' if peak <= room else 'does not fit'} {card}: {peak / GIB:.1f} of {room / GIB:.1f} GiB that are free, "
        f"at the peak ({prediction.peak_phase})."
    )
    if on_cpu or load.vllm:  # an engine takes a share of whatever card it is on
        return sentence
    smallest = min((size for size in CARDS.values() if size * GIB - reserved >= peak), default=None)
    names = ", ".join(sorted(name for name, size in CARDS.items() if size == smallest))
    return f"{sentence} {f'Smallest that holds it: {names} ({smallest} GiB).' if smallest else 'No known card does.'}"


def command(overrides: Sequence[str], gpus: int, change: str = "") -> str:
    """The command that trains with these overrides and, in place of theirs, a change."""
    key = change.partition("=")[0]
    typed = [word.removeprefix("++") for word in overrides]  # which the launchers add by themselves
    words = [word for word in typed if not word.startswith(OWN) and word.partition("=")[0] != key]
    start = f"accelerate launch --multi_gpu --num_processes {gpus}" if gpus > 1 else "python"
    return " ".join([start, "-m launchers.train", *map(quote, [*words, *([change] if change else [])])])


def title(name: str, load: Workload) -> str:
    """What is planned: algorithm, size, LoRA, precision, sharding and batch."""
    policy, sharding, rows = load.roles[0], load.sharding, load.batch.rows
    lora = "QLoRA" if policy.quantised else "LoRA"
    adapters = f"{lora}, {_count(policy.architecture.adapters)} of " if policy.lora else ""
    return (
        f"{name}: {adapters}{_count(policy.architecture.parameters)} parameters, {load.arithmetic.mode}, "
        f"{f'ZeRO-{sharding.stage}' if sharding.deepspeed else 'no ZeRO'}, {sharding.processes} "
        f"process{'es' * (sharding.processes > 1)}, {rows} row{'s' * (rows > 1)} of {load.batch.length} tokens"
    )


def _count(number: int) -> str:
    return f"{number / 1e9:.2f} B" if number >= 1e9 else f"{number / 1e6:.1f} M"
