"""Predicted against measured peak memory: `python -m evaluation.proofs.memory.check`.

Every row is a run of two optimizer steps by the real trainer from the real configuration, in a process of its own. The
measured peak is that of resident memory during `Trainer.train`, less what is resident before a model is loaded. None of
these runs was used for the coefficients.
"""

import argparse
import json
import tempfile
from pathlib import Path

from evaluation.proofs.memory.resident import in_own_process, reset_peak, status, with_allocator

MODELS = {
    "31M": dict(hidden=512, heads=8, kv_heads=8, head_dim=64, intermediate=1536, layers=8, vocabulary=8192),
    "51M": dict(hidden=768, heads=12, kv_heads=4, head_dim=64, intermediate=2048, layers=6, vocabulary=16384),
    "20M-wide": dict(hidden=384, heads=6, kv_heads=2, head_dim=64, intermediate=1024, layers=4, vocabulary=36864),
}
LORA = ("++model.use_peft=true", "++model.lora_target_modules=[all-linear]", "++model.lora_r=16")
CHECKPOINTED = ("++args.gradient_checkpointing=true",)
PLAIN = ("++trainer.reward_funcs=[{_target_: evaluation.proofs.memory.check.Characters}]",)
# name of a model, algorithm, rows, tokens of a prompt and of a row, further overrides
RUNS = [
    ("31M", "sft", 4, 0, 256, ()),
    ("31M", "sft", 8, 0, 256, CHECKPOINTED),
    ("51M", "sft", 2, 0, 512, ("++args.gradient_accumulation_steps=2",)),
    ("51M", "sft", 4, 0, 256, LORA),
    ("20M-wide", "sft", 8, 0, 192, ()),
    ("31M", "sft", 4, 0, 256, ("++args.bf16=true",)),
    ("31M", "reward", 2, 0, 256, ()),
    ("51M", "reward", 3, 0, 192, LORA),
    ("31M", "dpo", 2, 0, 256, ()),
    ("51M", "dpo", 2, 0, 256, LORA),
    ("20M-wide", "dpo", 4, 0, 128, CHECKPOINTED),
    ("31M", "grpo", 8, 64, 112, ()),
    ("51M", "grpo", 8, 96, 128, (*LORA, *PLAIN)),
    ("20M-wide", "grpo", 16, 64, 96, (*PLAIN, "++args.beta=0.0")),
    ("31M", "ppo", 8, 64, 96, ()),
    ("51M", "ppo", 4, 96, 128, LORA),
]


class Characters:
    """A reward that needs no model: the number of different characters."""

    def __init__(self):
        self.__name__ = "characters"

    def __call__(self, completions, **kwargs):
        return [float(len(set(completion[0]["content"]))) for completion in completions]


def compose_run(folder: Path, run: tuple):
    """The configuration of a run, as `launchers.plan` and `launchers.train` get it."""
    from rlhf_trl_ext.configuration.composing import compose_config

    model, algorithm, rows, prompt, length, further = run
    settings = {"max_steps": 2, "per_device_train_batch_size": rows, "learning_rate": 1e-5, "save_strategy": "no"}
    settings |= {"disable_tqdm": True, "logging_steps": 1}
    if prompt:
        new = length - prompt
        settings |= {
            "max_completion_length": new,
            "num_generations": 2,
            "generation_kwargs": f"{{min_new_tokens:{new}}}",
        }
    else:
        settings["max_length"] = length
    overrides = [f"algorithm={algorithm}", f"++model.model_name_or_path={folder / model}"]
    overrides += [f"reward.path={folder / (model + '-reward')}", f"++plan.prompt_length={prompt}"]
    return compose_config("plan", [*overrides, *(f"++args.{key}={value}" for key, value in settings.items()), *further])


def texts(tokenizer, view: str, prompt: int, length: int):
    """Rows of one view that are `length` tokens long (prompts: `prompt`), every third one a token less."""
    from datasets import Dataset

    def chat(role, count):
        return [{"role": role, "content": " ".join(["lamp"] * count)}]

    def row(index):
        less = index % 3 == 2
        if view == "prompts":
            return {"prompt": chat("user", prompt - around(True) - less)}
        question, rest = chat("user", 8), length - around(False) - 8 - less
        if view == "demonstrations":
            return {"prompt": question, "completion": chat("assistant", rest)}
        return {"prompt": question, "chosen": chat("assistant", rest), "rejected": chat("assistant", rest)}

    def around(generates):
        messages = chat("user", 1) + ([] if generates else chat("assistant", 1))
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=generates, return_dict=False)
        return len(ids) - len(messages)

    return Dataset.from_list([row(index) for index in range(96)])


def trainer_of(folder: Path, run: tuple):
    """The trainer of a run, made as `launchers.train` makes it, with rows of the run's lengths."""
    from rlhf_trl_ext.configuration.checks import build

    config = compose_run(folder, run)
    model = build(config.model, "model")
    tokenizer = model.tokenizer(str(folder / run[0]))
    args = build(config.args, "args", output_dir=str(folder / "run"))
    args.model_init_kwargs = model.load_arguments()
    return build(config.trainer, "trainer")(
        model=str(folder / run[0]),
        args=args,
        train_dataset=texts(tokenizer, config.view, run[3], run[4]),
        processing_class=tokenizer,
        **model.trainer_arguments(),
    )


def measure(folder: Path, run: tuple) -> float:
    """MiB of a run's peak above what is resident before its model is loaded."""
    warm_up()
    before = status("VmRSS")
    trainer = trainer_of(folder, run)
    reset_peak()
    trainer.train()
    if trainer.state.global_step != 2:
        raise AssertionError(f"{run}: {trainer.state.global_step} steps were taken, not 2")
    return status("VmHWM") - before


def warm_up() -> None:
    """A step of a tiny model, so that the code of torch's kernels is resident before anything is measured."""
    import torch
    from transformers import LlamaForCausalLM

    from evaluation.proofs.memory.shapes import Shape

    model = LlamaForCausalLM(Shape(64, 2, 2, 32, 128).config())
    ids = torch.randint(2, 64, (2, 16))
    model(input_ids=ids, labels=ids).loss.backward()
    torch.optim.AdamW(model.parameters(), fused=True).step()
    model.generate(ids, max_new_tokens=4, do_sample=True)


def check(chosen: list[int] | None = None) -> list[dict]:
    """Predict and measure the chosen rows of `RUNS` (all); yields a dictionary for each."""
    from evaluation.proofs.memory.shapes import build_shape
    from rlhf_trl_ext.memory.plan import plan

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for index in range(len(RUNS)) if chosen is None else chosen:
            run = RUNS[index]
            if not (folder / run[0]).exists():
                build_shape(folder / run[0], **MODELS[run[0]])
                build_shape(folder / f"{run[0]}-reward", labels=1, **MODELS[run[0]])
            prediction, _, _ = plan(compose_run(folder, run))
            measured = in_own_process(measure, folder, run)
            row = {"model": run[0], "algorithm": run[1], "rows": run[2], "tokens": run[4], "further": " ".join(run[5])}
            row |= {"predicted": prediction.peak / 2**20, "measured": measured, "phase": prediction.peak_phase}
            yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=int, nargs="*", help="rows of the table, from 0")
    parser.add_argument("--output", type=Path, help="a JSON file for the rows")
    options = parser.parse_args()
    with_allocator()
    import trl  # noqa: F401  imported once, for all processes

    rows = []
    for row in check(options.only):
        error = row["predicted"] / row["measured"] - 1
        print(
            f"{row['algorithm']:<7}{row['model']:<10} {row['rows']:>3} x {row['tokens']:<4} predicted "
            f"{row['predicted']:6.0f} MiB measured {row['measured']:6.0f} MiB {error:+7.1%}  {row['phase']:<22} "
            f"{row['further']}",
            flush=True,
        )
        rows.append(row)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
