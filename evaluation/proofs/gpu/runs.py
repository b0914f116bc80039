"""One measured run in a process of its own: `python -m evaluation.proofs.gpu.runs NAME FOLDER SIZE-AS-JSON`.

Reads `<folder>/{policy,reward}` and prints one line of JSON after "RESULT ": seconds of a batch (median without the
first), those of the first, tokens per second, peak memory, and what share of the time each part of a batch takes.
"""

import importlib
import json
import statistics
import sys
import time
from pathlib import Path

from evaluation.proofs.speed.ppo import Clock, Size, chats, ours, stamps, trl112

ONLINE = {
    "grpo": ("rlhf_trl_ext.trainers.grpo", "GRPOTrainer", "GRPOConfig"),
    "grpo_trl": ("trl", "GRPOTrainer", "GRPOConfig"),
    "grpo_vi": ("rlhf_trl_ext.trainers.grpo_vi", "GRPOVITrainer", "GRPOVIConfig"),
    "grpo_qlora": ("rlhf_trl_ext.trainers.grpo", "GRPOTrainer", "GRPOConfig"),
}
PARTS = {
    "_generate_single_turn": "sampling",
    "_get_per_token_logps_and_entropies": "forward",
    "values": "forward",
    "_calculate_rewards": "rewards",
}


def characters(completions, **kwargs) -> list[float]:
    """A reward that costs nothing: the number of different characters."""
    return [float(len(set(completion[0]["content"]))) for completion in completions]


def group_trainer(name: str, folder: Path, updates: int, clock: Clock, size: Size):
    """A trainer of groups of eight, with TRL's gradient checkpointing, and its callback."""
    from datasets import Dataset
    from transformers import AutoTokenizer

    module, trainer_name, args_name = ONLINE[name]
    module, own = importlib.import_module(module), {}
    if name != "grpo_trl":
        own["compiled_generation"] = size.compiled
    loading, more = size.loading(), {}
    if name == "grpo_qlora":
        loading, more = loading | {"quantization_config": four_bits()}, {"peft_config": lora()}
    args = getattr(module, args_name)(
        output_dir=str(folder / name),
        max_steps=updates,
        num_generations=8,
        steps_per_generation=1,
        max_completion_length=size.tokens,
        beta=0.04,
        logging_steps=1,
        model_init_kwargs=loading,
        **{**size.arguments(), "gradient_checkpointing": True},
        **own,
    )
    noted = stamps(1, clock)
    trainer = getattr(module, trainer_name)(
        str(folder / "policy"),
        characters,
        args,
        train_dataset=Dataset.from_list([{"prompt": chat} for chat in chats(size.rows)]),
        processing_class=AutoTokenizer.from_pretrained(folder / "policy"),
        callbacks=[noted],
        **more,
    )
    return trainer, noted


def four_bits():
    """Four-bit weights as QLoRA has them."""
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)


def lora():
    """Adapters on all linear layers."""
    from peft import LoraConfig

    return LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")


def build(name: str, folder: Path, updates: int, clock: Clock, size: Size):
    """The trainer of a run and its callback, the parts of a batch timed."""
    if name in ONLINE:
        trainer, noted = group_trainer(name, folder, updates, clock, size)
    else:
        trainer, noted = {"ppo": ours, "ppo_trl112": trl112}[name](folder, updates, clock, size)
    already = name == "ppo"
    for method, kind in {} if already else PARTS.items():
        if hasattr(trainer, method):
            clock.wrap(trainer, method, kind)
    if not already:
        clock.wrap(trainer.accelerator, "backward", "backward")
    return trainer, noted


def measure(name: str, folder: Path, size: Size, updates: int) -> dict:
    """Figures of a run of `updates` batches."""
    import torch

    if size.cuda:
        torch.cuda.reset_peak_memory_stats()
    clock = Clock(torch.cuda.synchronize if size.cuda else lambda: None)
    trainer, noted = build(name, folder, updates, clock, size)
    begin = time.perf_counter()
    trainer.train()
    seconds = [b - a for a, b in zip(noted.times, noted.times[1:], strict=False)]
    batch, total = statistics.median(seconds), noted.times[-1] - noted.times[0]
    figures = {"seconds": batch, "first": noted.times[0] - begin, "tokens_per_second": size.rows * size.tokens / batch}
    if size.cuda:
        figures["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
    else:
        from evaluation.proofs.memory.resident import status

        figures["peak_mib"] = status("VmHWM")
    return {**figures, "shares": {kind: value / total for kind, value in clock.seconds.items()}}


def main() -> None:
    name, folder, arguments = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    updates = arguments.pop("updates")
    print("RESULT " + json.dumps(measure(name, folder, Size(**arguments), updates)), flush=True)


if __name__ == "__main__":
    main()
