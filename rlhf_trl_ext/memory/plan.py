"""From a configuration to a prediction and advice."""

from omegaconf import DictConfig

from rlhf_trl_ext.memory.advice import advise
from rlhf_trl_ext.memory.cards import GIB, card_bytes
from rlhf_trl_ext.memory.phases import Prediction, predict
from rlhf_trl_ext.memory.workload import Reading


def plan(config: DictConfig) -> tuple[Prediction, list[str], str]:
    """The prediction for `config`, sentences on what fits the card, and a title. Raises ConfigError or ValueError."""
    reading = Reading(config)
    load = reading.workload()
    prediction = predict(load)
    card = card_bytes(config.plan.card)
    room = card - config.plan.reserved * GIB
    zero = f"ZeRO-{load.sharding.stage}" if load.sharding.deepspeed else "no ZeRO"
    title = (
        f"{config.name}: {load.roles[0].architecture.parameters / 1e9:.2f} B parameters, {load.arithmetic.mode}, "
        f"{config.num_gpus} x {card / GIB:.0f} GiB, {zero}, {load.batch.rows} rows of {load.batch.length} tokens"
    )
    return prediction, advise(load, room, reading.per_row), title
