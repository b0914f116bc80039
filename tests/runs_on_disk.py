"""Folders of results as the pipeline and the benchmark leave them, with numbers instead of training."""

import json
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from evaluation.verdicts.results import summarise

ITEMS = ("umbrella", "scarf", "key", "lamp")
SKILL = {"repeats": 0.95, "sft": 0.5, "dpo": 0.55, "grpo": 0.85, "grpo_again": 0.85}
# What is left of a JSON file by a crash, a full disk or a hand.
DAMAGED = [b"", b'{"name": "sf', b"\x00\xff\xfe\x80" * 40, b"[]", b"null", b"NaN", b'"text"', b"[" * 100_000]
# What policies of these names do to a text: (completion, prompt) -> completion.
PLANTED = {
    "repeats": lambda text, prompt: " ".join(["thank you very much"] * 6),
    "copies": lambda text, prompt: prompt,
    "pads": lambda text, prompt: f"{text} As said, it is where such things usually are in this house, on most days.",
}
PHASES = {"generate": 0.5, "score": 0.1, "forward": 0.2, "backward": 0.2}


def write_pipeline(folder: Path, seed: int, policies=("dpo", "grpo", "grpo_again"), prompts=48, objectives=()) -> Path:
    """One pipeline: stages with samples and logs, and results.json by the real `summarise`."""
    generator, records = np.random.default_rng(seed), {}
    for name in ("sft", *policies):
        stage, drawn = folder / name, folder / f"samples-{name}"
        for path in (stage, drawn):
            path.mkdir(parents=True)
        (stage / "config.yaml").write_text(f"name: {name}\n")
        (stage / "versions.json").write_text(json.dumps({"torch": "2", "git_commit": "abc"}))
        (drawn / "config.yaml").write_text("dataset: {_target_: rlhf_trl_ext.data.embedded.Embedded}\n")
        rows = [_sample(name, number + 1000 * seed, generator, objectives) for number in range(prompts)]
        (drawn / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        online = name.startswith("grpo")
        if online:
            (stage / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _log(generator)))
            (stage / "profile.json").write_text(json.dumps({"steps": 20, "step_seconds": 1.0, "phases": PHASES}))
        cost = {"sampled_tokens": 2000 * online, "train_seconds": 20.0, "peak_memory_mb": 500.0}
        records[name] = {"name": name, "steps": 20, **cost}
        records[f"samples-{name}"] = {"prompts": prompts, "file": str(drawn / "samples.jsonl")}
    judge = {"_target_": "rlhf_trl_ext.judging.judge.ScoreJudge"}
    config = {"baseline": "sft", "policies": list(policies), "judge": judge, "seed": seed}
    config = OmegaConf.create(config | {"reward": {"path": None, "functions": ["${reward.path}"]}})
    (folder / "results.json").write_text(json.dumps(summarise(config, records, folder)))
    return folder


def _sample(name: str, number: int, generator: np.random.Generator, objectives: tuple) -> dict:
    gold = float(np.clip(SKILL.get(name, 0.6) + generator.normal(0, 0.1), 0, 1))
    text = f"Your {ITEMS[number % 4]} number {number} is on the shelf in the hall, {'thank you' if gold > 0.6 else ''}."
    prompt = f"Where is my thing <{number}>?"
    text = PLANTED[name](text, prompt) if name in PLANTED else text
    row = {"prompt": [{"role": "user", "content": prompt}], "completion": text}
    row |= {"reward": 2 * gold, "gold_reward": gold, "kl": 3 * (gold - 0.5), "entropy": 1.0}
    row |= {f"rewards/{key}": gold * (place + 1) for place, key in enumerate(objectives)}
    return row | {"completion_tokens": 12, "truncated": False}


def _log(generator: np.random.Generator) -> list[dict]:
    rows = []
    for step in range(1, 21):
        gold = 0.5 + 0.3 * step / 20 + float(generator.normal(0, 0.01))
        spent = {"step": step, "max_steps": 20, "seconds": float(step), "sampled_tokens": 100 * step}
        rows.append({**spent, "reward": 2 * gold, "rewards/gold_reward/mean": gold, "loss": 0.1})
        if step % 10 == 0:
            rows.append({**spent, "eval_reward": 2 * gold, "eval_rewards/gold_reward/mean": gold})
    return rows
