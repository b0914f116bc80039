"""What a profile says, in numbers and words."""

import json
from pathlib import Path

from rlhf_trl_ext.callbacks.phases import OTHER, OUTSIDE, PHASES, PhaseTimer

MIB = 2**20
# phase -> the share of a step from which something is said about it, and what.
ADVICE = {
    "generate": (
        0.4,
        "sample with vLLM (args.use_vllm=true), more at once (raise args.per_device_train_batch_size or "
        "args.steps_per_generation), less often (raise args.num_iterations), or shorter (args.max_completion_length)",
    ),
    "score": (0.2, "raise the reward model's batch_size, give it half precision or a smaller model"),
    "reference": (0.2, "use LoRA, whose reference is the policy without its adapter, or train without a KL penalty"),
    "forward": (0.35, "use bf16, a larger args.per_device_train_batch_size, or fewer passes (args.num_iterations)"),
    "backward": (0.4, "use bf16 or LoRA, or, if memory allows, args.gradient_checkpointing=false"),
    "optimizer": (0.15, "raise args.gradient_accumulation_steps, use LoRA or a fused optimizer (args.optim)"),
    "sync": (0.1, "use fewer, larger batches, LoRA, or a lower ZeRO stage"),
    "data": (0.05, "raise args.dataloader_num_workers, or shorten the prompts"),
    OTHER: (0.1, "log and save less often (args.logging_steps, args.save_steps), or use larger batches"),
}


def summary(steps: int, seconds: float, phases: dict[str, float], memory: dict[str, float]) -> dict:
    """profile.json. seconds, phases: sums over the steps; memory: MiB by role."""
    by_phase = {name: phases.get(name, 0.0) / steps for name in PHASES}
    return {
        "steps": steps,
        "step_seconds": seconds / steps,
        "phases": by_phase,
        "outside_seconds": phases.get(OUTSIDE, 0.0),
        "memory_mb": {name: round(value, 2) for name, value in memory.items()},
        "suggestions": suggestions(by_phase, seconds / steps),
    }


def suggestions(phases: dict[str, float], step: float, most: int = 3) -> list[str]:
    """The phases that take more of a step than they should, the largest excess first, with what helps."""
    shares = {name: taken / step for name, taken in phases.items()}
    over = [name for name, share in shares.items() if share > ADVICE[name][0]]
    over.sort(key=lambda name: ADVICE[name][0] - shares[name])
    return [f"{shares[name]:.0%} of the step is {name}: {ADVICE[name][1]}." for name in over[:most]]


def write(folder: Path, profile: dict, timer: PhaseTimer) -> None:
    """profile.json, profile.txt, profile_trace.json (Perfetto, chrome://tracing), profile.folded (speedscope)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "profile.json").write_text(json.dumps(profile, indent=1))
    (folder / "profile.txt").write_text(as_text(profile) + "\n")
    events = [
        {"ph": "X", "pid": 0, "tid": 0, "name": name, "cat": phase, "ts": start * 1e6, "dur": seconds * 1e6}
        for name, phase, start, seconds in timer.slices
    ]
    (folder / "profile_trace.json").write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}))
    stacks = {path: seconds for path, seconds in timer.paths.items() if seconds * 1e6 >= 1}
    lines = [f"{';'.join(path)} {round(seconds * 1e6)}" for path, seconds in stacks.items()]
    (folder / "profile.folded").write_text("\n".join(lines) + "\n")


def as_text(profile: dict) -> str:
    """The profile as text."""
    step = profile["step_seconds"]
    lines = [f"{profile['steps']} steps of {step:.3f} s"]
    ordered = sorted(profile["phases"].items(), key=lambda item: -item[1])
    lines += [f"  {name:<10} {taken:8.4f} s  {taken / step:6.1%}" for name, taken in ordered if taken]
    lines += ["memory, MiB"] + [f"  {role:<10} {size:10.1f}" for role, size in profile["memory_mb"].items()]
    return "\n".join(lines + profile["suggestions"])


def memory_by_role(trainer) -> dict[str, float]:
    """MiB that weights and optimizer take on this process, by role."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    critic = getattr(trainer, "critic", None)
    owned = set(map(id, critic.parameters())) if critic is not None else set()
    rewards = [getattr(function, "model", function) for function in getattr(trainer, "reward_funcs", [])]
    sizes = {"policy": _size(p for p in model.parameters() if id(p) not in owned)}
    modules = {"reference": [getattr(trainer, "ref_model", None)], "critic": [critic], "reward": rewards}
    for role, parts in modules.items():
        sizes[role] = sum(_size(part.parameters()) for part in parts if hasattr(part, "parameters"))
    states = [*trainer.optimizer.state.values()]
    fitting = getattr(trainer, "fitting", None)
    states += [*fitting.optimizer.state.values()] if fitting is not None else []
    sizes["optimizer"] = _size(value for state in states for value in state.values() if hasattr(value, "numel"))
    return sizes


def gradients_mb(trainer) -> float:
    """MiB of the gradients that wait for the optimizer."""
    return _size(parameter.grad for parameter in trainer.model.parameters() if parameter.grad is not None)


def _size(tensors) -> float:
    """MiB; of a weight that ZeRO-3 has spread over processes, this process's share."""
    tensors = [getattr(tensor, "ds_tensor", tensor) for tensor in tensors]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / MIB
