"""Checks for combinations of settings that cannot work, before weights load; each names the remedy.

Each check is a function of a `Run` that returns a sentence, or None where all is well. What TRL itself refuses in a
sentence of its own is left to TRL.
"""

import os
import re
import shutil
from pathlib import Path

import torch
from omegaconf import DictConfig

from rlhf_trl_ext.configuration import handed_on
from rlhf_trl_ext.configuration.checks import ConfigError, listed, problems
from rlhf_trl_ext.configuration.packages import attention, generation_words, kernels, trackers
from rlhf_trl_ext.configuration.training_run import Run
from rlhf_trl_ext.configuration.vllm_arguments import vllm_sampling, vllm_server, vllm_version
from rlhf_trl_ext.data.reading import local_files


def preflight(config: DictConfig) -> None:
    """Run every check of `CHECKS` on a training configuration; ConfigError with all that is found."""
    errors = [error for key in ("args", "trainer", "model", "dataset") for error in problems(config[key], key)]
    if not errors:
        run = Run(config)
        errors = [error for find in (*CHECKS, *handed_on.CHECKS) if (error := find(run)) is not None]
    if errors:
        raise ConfigError(listed(errors))


def fewer_processes(run: Run) -> str | None:
    """Fewer processes than requested: `accelerate launch --cpu --num_processes 2` silently runs one."""
    requested, by = run.config.get("num_processes"), "num_processes"
    if requested is None:
        requested, by = _accelerate_processes(), "accelerate launch --num_processes"
    if requested is None or int(requested) == run.processes:
        return None
    return (
        f"{by}={requested}: {run.processes} of them run; start with `accelerate launch --multi_gpu --num_processes "
        f"{requested}`, without --cpu (on CPUs too, with args.use_cpu=true)."
    )


def _accelerate_processes() -> int | None:
    """The number of processes in the command line of the process that started this one, where that is accelerate."""
    line = Path(f"/proc/{os.getppid()}/cmdline")
    words = line.read_bytes().decode(errors="replace").split("\0") if line.exists() else []
    if not any("accelerate" in word for word in words[:4]):
        return None
    match = re.search(r"--num_processes[= ](\d+)", " ".join(words))
    return int(match.group(1)) if match else None


def group_size(run: Run) -> str | None:
    """Of a generation batch, every prompt needs all of its completions."""
    if not run.online:
        return None
    rows, accumulated = run.argument("per_device_train_batch_size", 8), run.argument("gradient_accumulation_steps", 1)
    steps = run.argument("steps_per_generation") or accumulated
    batch = run.argument("generation_batch_size") or rows * run.processes * steps
    size = run.argument("num_generations", 8)
    if size < 2 or batch % size == 0:
        return None
    return (
        f"args.num_generations={size}: the generation batch of {batch} (per_device_train_batch_size={rows} x "
        f"{run.processes} processes x steps_per_generation={steps}) must be a multiple of it; "
        f"give args.gradient_accumulation_steps or a batch that makes it one."
    )


def evaluation_groups(run: Run) -> str | None:
    """Evaluation batches of whole groups; TRL checks this only with eval_strategy, not for `evaluate=true`."""
    if not run.online or not run.config.get("evaluate"):
        return None
    rows = run.argument("per_device_eval_batch_size", 8)
    name = "num_generations_eval" if run.argument("num_generations_eval") else "num_generations"
    size = run.argument(name, 8)
    if size < 2 or rows * run.processes % size == 0:
        return None
    return (
        f"evaluate=true with args.{name}={size}: args.per_device_eval_batch_size={rows} x {run.processes} processes "
        "must be a multiple of it; give a multiple, or evaluate=false."
    )


def no_reward(run: Run) -> str | None:
    """A policy that is trained on its own samples learns from their rewards."""
    functions = run.config.trainer.get("reward_funcs", "none")
    if not run.online or functions == "none" or functions:
        return None
    return "reward.functions=[]: this algorithm learns from rewards; give reward=model, reward=gold or one of your own."


def past_samples(run: Run) -> str | None:
    """Samples of others that are replayed are a file, or a folder of files."""
    path = run.argument("replay_data")
    try:
        if path is not None:
            local_files(path, "args.replay_data")
    except ValueError as error:
        return str(error)
    return None


def sharded_generation(run: Run) -> str | None:
    """Every decoded token would gather all weights: step 0 took ten hours (huggingface/trl#3858)."""
    if not run.online or run.stage != 3 or run.argument("ds3_gather_for_generation", True):
        return None
    instead = "vLLM cannot be given split weights" if run.argument("use_vllm") else "every token gathers all weights"
    return (
        f"args.ds3_gather_for_generation=false with ZeRO-3: {instead}; leave it true, and if the whole model does "
        "not fit a GPU, generate with args.use_vllm=true."
    )


def quantised_and_split(run: Run) -> str | None:
    """ZeRO-3 cannot split a base that bitsandbytes has packed."""
    packed = next((name for name in ("load_in_4bit", "load_in_8bit") if run.model(name)), None)
    if packed is None or run.stage != 3:
        return None
    return f"model.{packed}=true with ZeRO-3: a quantised base cannot be split; give deepspeed=zero2."


def quantised_without_adapters(run: Run) -> str | None:
    packed = next((name for name in ("load_in_4bit", "load_in_8bit") if run.model(name)), None)
    if packed is None or run.model("use_peft"):
        return None
    return f"model.{packed}=true: packed weights cannot be trained; give model.use_peft=true."


def controller_without_reference(run: Run) -> str | None:
    """TRL loads the reference only where the coefficient is above 0 at the start."""
    target = run.argument("kl_target")
    name = "kl_coef" if "kl_coef" in run._defaults else "beta"
    if target is None or run.argument(name, 0.0):
        return None
    return f"args.kl_target={target} with args.{name}=0: there is no reference to measure it by; give {name} above 0."


def longer_warmup(run: Run) -> str | None:
    """A warmup that is longer than the run: the configured learning rate would never be reached."""
    warmup, steps = run.argument("warmup_steps", 0) or 0, run.argument("max_steps", -1)
    if warmup < 1 or steps < 1 or warmup < steps:
        return None
    return (
        f"args.warmup_steps={warmup} with args.max_steps={steps}: the run ends before learning_rate is reached; give "
        "fewer, or below 1 a share of the run."
    )


def precision(run: Run) -> str | None:
    """TRL's default is bfloat16, whatever the device."""
    bf16, fp16, on_cpu = run.argument("bf16"), run.argument("fp16"), run.argument("use_cpu")
    if on_cpu and fp16:
        return "args.fp16=true with args.use_cpu=true: half precision needs a GPU; give args.fp16=false."
    if on_cpu and bf16 is None:
        return "args.bf16=null with args.use_cpu=true is TRL's bfloat16, slow on a CPU: give args.bf16=false, or true."
    if not on_cpu and (bf16 is not False or fp16) and not torch.accelerator.is_available():
        return "no GPU is found and args.use_cpu=false: give args.use_cpu=true args.bf16=false."
    return None


def compiler(run: Run) -> str | None:
    """DeepSpeed compiles its operators for the CPU when they are first needed."""
    offloads = any(run.zero.get(f"offload_{what}", {}).get("device") == "cpu" for what in ("optimizer", "param"))
    if not (offloads or (run.zero and run.argument("use_cpu"))) or shutil.which("g++") or shutil.which("c++"):
        return None
    what = "offload" if offloads else "DeepSpeed on CPUs"
    return f"deepspeed: {what} compiles operators and there is no g++; install it, or choose a stage without offload."


def best_model(run: Run) -> str | None:
    """The best model can only be one that was both saved and evaluated."""
    if not run.argument("load_best_model_at_end") or run.config.get("held_out") is not None:
        return None
    saved, evaluated = run.argument("save_strategy", "steps"), run.argument("eval_strategy", "no")
    if saved != evaluated:
        return (
            f"args.load_best_model_at_end=true with save_strategy={saved} and eval_strategy={evaluated}: "
            f"they must be the same; give args.eval_strategy={saved}."
        )
    steps, every = run.argument("save_steps", 500), run.argument("eval_steps") or run.argument("logging_steps", 10)
    if saved != "steps" or steps % every == 0:
        return None
    return f"args.save_steps={steps} with load_best_model_at_end=true: a multiple of eval_steps={every} is needed."


def packed_attention(run: Run) -> str | None:
    """Packing without FlashAttention: packed rows would attend to each other (TRL only warns)."""
    packs = run.argument("packing") and run.argument("packing_strategy", "bfd") != "wrapped"
    name = "packing" if packs else "padding_free" if run.argument("padding_free") else None
    attention = run.model("attn_implementation")
    if name is None or "flash" in str(attention):
        return None
    return (
        f"args.{name}=true with model.attn_implementation={attention}: rows would attend to each other; "
        f"give model.attn_implementation=flash_attention_2, or args.{name}=false."
    )


CHECKS = (
    fewer_processes,
    precision,
    group_size,
    evaluation_groups,
    no_reward,
    past_samples,
    sharded_generation,
    quantised_and_split,
    quantised_without_adapters,
    controller_without_reference,
    longer_warmup,
    vllm_version,
    vllm_sampling,
    vllm_server,
    compiler,
    best_model,
    packed_attention,
    trackers,
    kernels,
    attention,
    generation_words,
)
