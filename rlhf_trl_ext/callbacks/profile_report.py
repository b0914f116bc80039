"""What a profile says, in numbers, words and pictures."""

import json
from html import escape
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


def write(folder: Path, found: dict, timer: PhaseTimer) -> None:
    """profile.json, profile.txt, profile_trace.json (Perfetto, chrome://tracing), profile.folded (speedscope), SVG."""
    (folder / "profile.json").write_text(json.dumps(found, indent=1))
    (folder / "profile.txt").write_text(told(found) + "\n")
    events = [
        {"ph": "X", "pid": 0, "tid": 0, "name": name, "cat": phase, "ts": start * 1e6, "dur": seconds * 1e6}
        for name, phase, start, seconds in timer.slices
    ]
    (folder / "profile_trace.json").write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}))
    stacks = {path: seconds for path, seconds in timer.paths.items() if seconds * 1e6 >= 1}
    lines = [f"{';'.join(path)} {round(seconds * 1e6)}" for path, seconds in stacks.items()]
    (folder / "profile.folded").write_text("\n".join(lines) + "\n")
    flame_graph(stacks, found["steps"], folder / "profile_flame.svg")


def told(found: dict) -> str:
    """The profile as text."""
    step = found["step_seconds"]
    lines = [f"{found['steps']} steps of {step:.3f} s"]
    ordered = sorted(found["phases"].items(), key=lambda item: -item[1])
    lines += [f"  {name:<10} {taken:8.4f} s  {taken / step:6.1%}" for name, taken in ordered if taken]
    lines += ["memory, MiB"] + [f"  {role:<10} {size:10.1f}" for role, size in found["memory_mb"].items()]
    return "\n".join(lines + found["suggestions"])


def flame_graph(stacks: dict[tuple, float], steps: int, path: Path, width: float = 1200.0, row: float = 22.0) -> None:
    """An icicle as SVG: the width of a frame is its time in a mean step, what it calls is below it."""
    total = {}
    for stack, seconds in stacks.items():
        for depth in range(1, len(stack) + 1):
            total[stack[:depth]] = total.get(stack[:depth], 0.0) + 1000 * seconds / steps  # milliseconds
    ends, whole, parts = {(): 0.0}, total[("step",)], []
    for stack in sorted(total, key=lambda stack: (len(stack), -total[stack])):
        left, size = ends[stack[:-1]], total[stack] / whole * width
        ends[stack[:-1]], ends[stack] = left + size, left
        if size < 1:
            continue
        name, top = escape(stack[-1]), (len(stack) - 1) * row
        told = f"{name}: {total[stack]:.1f} ms of {whole:.1f} ms a step, {total[stack] / whole:.1%}"
        colour = f"hsl({hash_of(stack[-1]) * 47 % 360},55%,75%)"
        box = f'<rect x="{left:.1f}" y="{top}" width="{size:.1f}" height="{row - 1}" fill="{colour}"/>'
        label = f'<text x="{left + 4:.1f}" y="{top + 15}">{name}</text>' if size > 7.5 * len(name) + 8 else ""
        parts.append(f"<g><title>{told}</title>{box}{label}</g>")
    height = max(map(len, total)) * row
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" font-family="sans-serif"'
    path.write_text(f'{head} font-size="12">\n' + "\n".join(parts) + "\n</svg>\n")


def hash_of(name: str) -> int:
    """The same number for a name in every run."""
    return sum(map(ord, name))


def memory_by_role(trainer) -> dict[str, float]:
    """MiB that weights and optimizer take on this process, by role."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    critic = getattr(trainer, "critic", None)
    owned = set(map(id, critic.parameters())) if critic is not None else set()
    rewards = [getattr(function, "model", function) for function in getattr(trainer, "reward_funcs", [])]
    found = {"policy": _size(p for p in model.parameters() if id(p) not in owned)}
    modules = {"reference": [getattr(trainer, "ref_model", None)], "critic": [critic], "reward": rewards}
    for role, parts in modules.items():
        found[role] = sum(_size(part.parameters()) for part in parts if hasattr(part, "parameters"))
    states = [*trainer.optimizer.state.values()]
    fitting = getattr(trainer, "fitting", None)
    states += [*fitting.optimizer.state.values()] if fitting is not None else []
    found["optimizer"] = _size(value for state in states for value in state.values() if hasattr(value, "numel"))
    return found


def gradients_mb(trainer) -> float:
    """MiB of the gradients that wait for the optimizer."""
    return _size(parameter.grad for parameter in trainer.model.parameters() if parameter.grad is not None)


def _size(tensors) -> float:
    """MiB; of a weight that ZeRO-3 has spread over processes, this process's share."""
    tensors = [getattr(tensor, "ds_tensor", tensor) for tensor in tensors]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / MIB
