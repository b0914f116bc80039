"""What a full replay buffer costs: `python -m evaluation.proofs.speed.replay`.

Off-policy GRPO runs with a buffer of `--groups` groups of which it draws as many as it samples. Timed within it: the
step, the forward passes that replay needs (log-probs of fresh and drawn rows, and the larger training step), and the
rest of replay: drawing, joining, weighing, storing, metrics. Printed: that rest as a share of the step, and
the bytes that the buffer holds against `groups x bytes of a group`.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

SETTINGS = {"report_to": "none", "save_strategy": "no", "use_cpu": True, "bf16": False, "disable_tqdm": True}
SETTINGS |= {"gradient_checkpointing": False, "steps_per_generation": 1, "logging_steps": 1, "num_generations": 8}


def trainer_of(folder: Path, options: argparse.Namespace):
    """A trainer whose buffer is full before it starts."""
    from datasets import Dataset
    from transformers import AutoTokenizer

    from rlhf_trl_ext.models.tiny import build_tiny
    from rlhf_trl_ext.trainers.grpo_offpolicy import OffPolicyGRPOConfig, OffPolicyGRPOTrainer

    build_tiny(folder / "policy")
    args = OffPolicyGRPOConfig(
        output_dir=str(folder / "run"),
        per_device_train_batch_size=options.rows,
        max_completion_length=options.tokens,
        max_steps=options.steps,
        buffer_size=options.groups,
        max_staleness=10**6,
        max_uses=10**6,
        ess_min=0,
        **SETTINGS,
    )
    prompts = [{"prompt": [{"role": "user", "content": f"lamp {i} " + "desk " * (i % 4)}]} for i in range(64)]
    return OffPolicyGRPOTrainer(
        str(folder / "policy"),
        lambda completions, **kwargs: [float(len(set(c[0]["content"]))) for c in completions],
        args,
        train_dataset=Dataset.from_list(prompts),
        processing_class=AutoTokenizer.from_pretrained(folder / "policy"),
    )


def fill(trainer, groups: int) -> None:
    """Put copies of the first batch's groups in the buffer until it is full."""
    add = trainer.buffer.add

    def once(fresh):
        from rlhf_trl_ext.trainers.parts.replay import Group

        trainer.buffer.add = add
        rows = [{name: value.clone() for name, value in fresh[i % len(fresh)].rows.items()} for i in range(groups)]
        add([Group(row, 10**6 + i, trainer.buffer.now) for i, row in enumerate(rows)])

    trainer.buffer.add = once


def measure(options: argparse.Namespace) -> dict:
    """Processor seconds per step, by kind, without the first two steps."""
    clock = {"step": [], "replay": [], "forward": [], "loss": []}
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(Path(folder), options)
        fill(trainer, options.groups)

        def timed(owner, name, kind):
            function = getattr(owner, name)

            def run(*arguments, **keywords):
                begin = time.process_time()
                result = function(*arguments, **keywords)
                clock[kind].append(time.process_time() - begin)
                return result

            setattr(owner, name, run)

        timed(trainer, "training_step", "step")
        timed(trainer, "_with_replay", "replay")
        timed(trainer, "_logprobs", "forward")
        timed(trainer, "record_loss", "loss")
        trainer.train()
        held = sum(v.numel() * v.element_size() for g in trainer.buffer.groups for v in g.rows.values())
        largest = max(sum(v.numel() * v.element_size() for v in g.rows.values()) for g in trainer.buffer.groups)
        assert len(trainer.buffer) == options.groups
    skipped = 2
    step = sum(clock["step"][skipped:])
    forward = sum(clock["forward"][1 + 2 * (skipped - 1) :])  # the first step has no drawn rows
    rest = sum(clock["replay"][skipped:]) - forward + sum(clock["loss"][skipped:])
    steps = len(clock["step"]) - skipped
    shares = {"rest_share": rest / step, "forward_share": forward / step}
    times = {"milliseconds_per_step": 1000 * step / steps, "rest_milliseconds": 1000 * rest / steps}
    return {**shares, **times, "buffer_mib": held / 2**20, "bound_mib": options.groups * largest / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=512)
    parser.add_argument("--rows", type=int, default=64, help="completions sampled a step")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = measure(options)
    print(json.dumps(result, indent=2))
    print(f"replay without its forward passes takes {result['rest_share']:.1%} of a step, {options.groups} groups kept")


if __name__ == "__main__":
    main()
