"""Predictions where nothing can be measured here: `python -m evaluation.proofs.memory.scale`.

First two published runs (huggingface/trl#3456: GRPO on an 80 GiB A100, batch 4, 2,048 + 1,024 tokens, from nvidia-smi,
TRL of May 2025). The report states no more; assumed are float32 weights under bfloat16 autocast, no gradient
checkpointing, a reference model, and logits built whole in float32. Then full fine-tuning by GRPO of models up to 70 B
parameters on up to 512 GPUs, in bfloat16 with gradient checkpointing, one row of 512 + 512 tokens. As all weights are
gathered to generate, ZeRO-3 does not fall below their size.
"""

import argparse
import os

from omegaconf import DictConfig

from rlhf_trl_ext.configuration.composing import compose_config
from rlhf_trl_ext.memory.cards import GIB
from rlhf_trl_ext.memory.plan import plan

PUBLISHED = {"Qwen/Qwen3-0.6B": 49_273, "Qwen/Qwen3-1.7B": 78_147}  # MiB
AS_PUBLISHED = ["++model.dtype=float32", "++args.per_device_train_batch_size=4", "++args.num_generations=4"]
AS_PUBLISHED += ["plan.prompt_length=2048", "++args.max_completion_length=1024", "plan.logits=whole"]
AS_PUBLISHED += ["++args.gradient_checkpointing=false"]
SCALED = ["Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-32B-Instruct"]
SCALED += ["meta-llama/Llama-3.1-70B-Instruct"]
AS_SCALED = ["++args.per_device_train_batch_size=1", "++args.gradient_accumulation_steps=8"]
AS_SCALED += ["plan.prompt_length=512", "++args.max_completion_length=512"]
SHARDINGS = ("zero2", "zero3", "zero3_offload")


def configuration(model: str, *overrides: str) -> DictConfig:
    """GRPO with a reward that is no model."""
    chosen = ["algorithm=grpo", "model=0.5b", "reward=gold", f"model.model_name_or_path={model}", *overrides]
    return compose_config("plan", chosen)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for model, published in PUBLISHED.items():
        predicted = plan(configuration(model, *AS_PUBLISHED))[0].peak / 2**20
        print(f"{model}: predicted {predicted:,.0f} MiB, published {published:,} MiB, {predicted / published - 1:+.1%}")
    print(f"\n{'GiB per GPU':<38}" + "".join(f"{gpus:>8}" for gpus in (1, 8, 64, 512)))
    for model in SCALED:
        for sharding in SHARDINGS:
            sizes = [
                plan(configuration(model, *AS_SCALED, f"deepspeed={sharding}", f"num_gpus={gpus}"))[0].peak / GIB
                for gpus in (1, 8, 64, 512)
            ]
            print(f"{model.split('/')[1]:<24}{sharding:<14}" + "".join(f"{size:8.1f}" for size in sizes), flush=True)


if __name__ == "__main__":
    main()
