"""The README.md of a trained model: TRL's card with base, data, settings and numbers of the run."""

from pathlib import Path

from huggingface_hub import ModelCard
from omegaconf import DictConfig

SETTINGS = ("learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps", "beta", "kl_coef")


def write_card(trainer, config: DictConfig, base: str, rows: int, record: dict) -> None:
    """Write `README.md` into the trainer's output folder. base: folder or hub id; rows: of the training data.

    record: steps, metrics and what else the stage records.
    """
    data = config.dataset.get("path") or config.dataset.get("hub") or config.dataset.get("_target_", "").split(".")[-1]
    trainer.create_model_card(model_name=config.name)
    path = Path(trainer.args.output_dir, "README.md")
    if not trainer.is_world_process_zero() or not path.is_file():
        return
    card = ModelCard.load(path)
    if not config.dataset.get("path") and isinstance(config.dataset.get("hub"), str):
        card.data.datasets = [data]
    link = f"[{base}](https://huggingface.co/{base})" if card.data.base_model else f"`{base}`"
    lines = [line for line in card.text.splitlines() if not line.startswith("This model is a fine-tuned version of")]
    at = next((number + 1 for number, line in enumerate(lines) if line.startswith("# ")), 0)
    args = ", ".join(f"{key} {getattr(trainer.args, key)}" for key in SETTINGS if hasattr(trainer.args, key))
    numbers = ", ".join(f"{key} {value:.4g}" for key, value in sorted(_numbers(record).items()))
    table = {
        "base": link,
        "data": f"`{data}`, {rows:,} rows of {config.view}",
        "algorithm": f"`algorithm={config.name}`, seed {config.seed}; {args}",
        "training": f"{record['steps']} steps in {record['train_seconds']} s on {record['world_size']} process(es)",
        "on held-out rows": numbers or "not measured",
        "to make it again": "`python -m launchers.train --config-dir <this folder> --config-name config`",
    }
    lines[at:at] = ["", "| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in table.items()), ""]
    card.text = "\n".join(lines).replace('model="None"', f'model="{trainer.args.output_dir}"')
    card.save(path)


def _numbers(record: dict) -> dict[str, float]:
    unit = ("_runtime", "_per_second", "epoch")
    return {key: value for key, value in record["metrics"].items() if not key.endswith(unit)}
