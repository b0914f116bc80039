"""Passes without gradients, sorted by length against in order: `python -m evaluation.proofs.speed.padding`.

64 completions whose lengths are drawn geometrically (mean 60, at most 512, as a chat model's), by PPO's own methods on
the tiny model: log-probs of the policy and values of the critic, 8 rows at a time. Both ways take turns; reported is
processor time, and the largest relative difference where a completion has tokens.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rlhf_trl_ext.models.tiny import build_tiny
from rlhf_trl_ext.trainers.parts import length_sorting
from rlhf_trl_ext.trainers.ppo import PPOConfig, PPOTrainer

ROWS, SIZE, MEAN, CAP, PROMPT = 64, 8, 60, 512, 16


def trainer_in(folder: Path) -> PPOTrainer:
    """A trainer of the tiny model with a critic."""
    build_tiny(folder / "policy")
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy")
    reward = AutoModelForSequenceClassification.from_pretrained(folder / "policy", num_labels=1)
    reward.save_pretrained(folder / "reward")
    tokenizer.save_pretrained(folder / "reward")
    settings = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none"}
    settings |= {"per_device_train_batch_size": SIZE, "steps_per_generation": ROWS // SIZE}
    args = PPOConfig(str(folder / "run"), critic_path=str(folder / "reward"), **settings)
    data = Dataset.from_list([{"prompt": [{"role": "user", "content": "lamp"}]}] * ROWS)
    policy, reward = str(folder / "policy"), str(folder / "reward")
    return PPOTrainer(policy, reward, args, train_dataset=data, processing_class=tokenizer)


def geometric_batch(seed: int, vocabulary: int) -> dict[str, torch.Tensor]:
    """A batch as TRL hands it on: prompts of `PROMPT` tokens, completions padded to the longest."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.empty(ROWS).geometric_(1 / MEAN, generator=generator).clamp(max=CAP).long()
    width = int(lengths.max())
    mask = (torch.arange(width) < lengths[:, None]).long()
    prompts, ids = (torch.randint(3, vocabulary, (ROWS, size), generator=generator) for size in (PROMPT, width))
    return {
        "prompt_ids": prompts,
        "prompt_mask": torch.ones_like(prompts),
        "completion_ids": ids * mask,
        "completion_mask": mask,
    }


def compare(trainer: PPOTrainer, seeds: int) -> dict[str, dict[str, float]]:
    """Of log-probs and values: how many times faster, medians over batches of processor time, and the difference."""
    trainer.model.eval()
    trainer.critic.eval()
    figures = {}
    for name, function in (("log-probs", trainer.completion_logprobs), ("values", trainer.values_in_mini_batches)):
        ratios, difference = [], 0.0
        for seed in range(seeds):
            batch, seconds, results = geometric_batch(seed, len(trainer.processing_class)), [], []
            for worth in (0.0, length_sorting.WORTH):  # 0: nothing is ever worth sorting
                with mock.patch.object(length_sorting, "WORTH", worth):
                    begin = time.process_time()
                    results.append(function(batch))
                    seconds.append(time.process_time() - begin)
            ratios.append(seconds[0] / seconds[1])
            mask = batch["completion_mask"].bool()
            change = ((results[0] - results[1])[mask] / results[0][mask].abs().clamp(min=1)).abs()
            difference = max(difference, change.max().item())
        figures[name] = {"ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
        figures[name]["difference"] = difference
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=7, help="batches")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for name, gain in compare(trainer_in(Path(folder)), options.seeds).items():
            print(
                f"{name:<10} sorted is {gain['ratio']:.2f} times faster ({gain['low']:.2f} - {gain['high']:.2f}), "
                f"largest difference {gain['difference']:.1e}"
            )


if __name__ == "__main__":
    main()
