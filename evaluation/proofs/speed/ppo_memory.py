"""Peak memory of PPO: full fine-tuning, LoRA, LoRA on one base: `python -m evaluation.proofs.speed.ppo_memory`.

Every run is a process of its own with the same policy, reward model and batch. Reported: the peak resident memory above
that of the process before it loads a model, and the size of the parameters that it holds. Measured with 34 M parameters
in float32 on a CPU: 1397, 555 and 307 MB; parameters 516, 393 and 138 MB.
"""

import argparse
import json
import resource
import sys
import tempfile
from pathlib import Path

from evaluation.proofs.speed.processes import measure

WAYS = {"full": "full fine-tuning", "separate": "LoRA, a base for each model", "one": "LoRA, one base for four roles"}
SETTINGS = {"report_to": "none", "save_strategy": "no", "use_cpu": True, "bf16": False, "disable_tqdm": True}
SETTINGS |= {"gradient_checkpointing": False, "per_device_train_batch_size": 4, "steps_per_generation": 1}
SETTINGS |= {"max_completion_length": 16, "max_steps": 4, "num_iterations": 2, "learning_rate": 1e-5}


def lora(task_type: str):
    from peft import LoraConfig

    return LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type=task_type)


def build(folder: Path, hidden_size: int, layers: int) -> None:
    """A policy, a reward model, and a reward adapter on the policy's base."""
    from peft import get_peft_model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from rlhf_trl_ext.models.tiny import build_tiny

    build_tiny(folder / "policy", hidden_size=hidden_size, layers=layers, feed_forward_size=4 * hidden_size)
    reward = AutoModelForSequenceClassification.from_pretrained(folder / "policy", num_labels=1)
    reward.save_pretrained(folder / "reward")
    get_peft_model(reward, lora("SEQ_CLS")).save_pretrained(folder / "adapter")
    for name in ("reward", "adapter"):
        AutoTokenizer.from_pretrained(folder / "policy").save_pretrained(folder / name)


def resident() -> float:
    """This process's memory in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def work(way: str, folder: Path) -> None:
    """One run; prints its figures as one line of JSON."""
    from datasets import Dataset
    from transformers import AutoTokenizer

    from rlhf_trl_ext.trainers.parts.shared_base import AdapterReward
    from rlhf_trl_ext.trainers.ppo import PPOConfig, PPOTrainer

    shares = way == "one"
    critic = str(folder / ("adapter" if shares else "reward"))
    args = PPOConfig(output_dir=str(folder / way), critic_path=critic, critic_shares_base=shares, **SETTINGS)
    before = resident()
    trainer = PPOTrainer(
        str(folder / "policy"),
        AdapterReward(critic) if shares else critic,
        args,
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": "lamp"}]}] * 16),
        processing_class=AutoTokenizer.from_pretrained(folder / "policy"),
        peft_config=None if way == "full" else lora("CAUSAL_LM"),
    )
    trainer.train()
    models = [trainer.model, trainer.ref_model, *(getattr(f, "model", f) for f in trainer.reward_funcs)]
    held = {p.data_ptr(): p.numel() * p.element_size() for m in models if m is not None for p in m.parameters()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print("RESULT " + json.dumps({"peak_mb": peak - before, "parameters_mb": sum(held.values()) / 2**20}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden-size", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--work", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(options.work[0], Path(options.work[1]))
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), options.hidden_size, options.layers)
        for way, name in WAYS.items():
            command = [sys.executable, "-m", "evaluation.proofs.speed.ppo_memory", "--work", way, folder]
            row = measure(command)
            print(f"{name:<32} peak {row['peak_mb']:6.0f} MB   parameters {row['parameters_mb']:6.0f} MB", flush=True)


if __name__ == "__main__":
    main()
