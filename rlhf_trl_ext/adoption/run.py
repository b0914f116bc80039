"""A run of another framework, adopted: a folder with metrics.jsonl, a model that loads, and overrides."""

import json
from pathlib import Path

from rlhf_trl_ext.adoption import arguments, logs, weights
from rlhf_trl_ext.files import finite, read_mark, write


def framework(folder: Path) -> str:
    """TRL, OpenRLHF, verl, LLaMA-Factory, Axolotl or DeepSpeed, by the files that they leave.

    Raises ValueError for a folder without any.
    """
    if (folder / "trainer_log.jsonl").is_file() or (folder / "training_args.yaml").is_file():
        return "LLaMA-Factory"
    if any(folder.glob("**/global_step_*/actor")) or any(folder.glob("**/model_world_size_*_rank_*.pt")):
        return "verl"
    if any(folder.glob("**/_actor")) or _has_text(folder, ("*.sh",), ("openrlhf",)):
        return "OpenRLHF"
    if _has_text(folder, ("README.md", "*.y*ml"), ("axolotl", "base_model:")):
        return "Axolotl"
    checkpoint = weights.find(folder)
    if checkpoint and (checkpoint / "config.json").is_file() and "value_head_prefix" in _config(checkpoint):
        return "OpenRLHF"
    if any(folder.glob("**/trainer_state.json")):
        return "TRL"
    if any(folder.glob("**/*_model_states.pt")):
        return "DeepSpeed"
    if checkpoint:
        return "TRL"
    raise ValueError(
        f"folder={folder} holds no run of TRL, OpenRLHF, verl, LLaMA-Factory, Axolotl or DeepSpeed: "
        "give the folder that holds its checkpoints and logs."
    )


def _config(checkpoint: Path) -> dict:
    return read_mark(checkpoint / "config.json") or {}


def _has_text(folder: Path, patterns: tuple[str, ...], words: tuple[str, ...]) -> bool:
    texts = (path.read_text(errors="replace") for pattern in patterns for path in folder.glob(pattern))
    return any(word in text for text in texts for word in words)


def adopt(folder: Path, output: Path, trusted: bool = False) -> dict:
    """Write `output/metrics.jsonl`, `output/model` and `output/overrides.txt`; the run's folder is only read.

    trusted: whether shards that are pickles may be loaded, which can run code.
    Returns framework, rows, log, model (what was done, or why not), overrides, lacking (arguments without counterpart).
    Raises ValueError where the folder is no run, where `output` is not empty, and for pickles that are not trusted.
    """
    if not folder.is_dir():
        raise ValueError(f"folder={folder}: no such folder; give the one that holds a run's checkpoints and logs.")
    if output.exists() and any(output.iterdir()):
        raise ValueError(f"output_dir={output} is not empty: give another one.")
    name, checkpoint = framework(folder), weights.find(folder)
    if checkpoint and weights.opens_pickles(checkpoint) and not trusted:
        raise ValueError(
            f"{checkpoint} holds shards that are pickles, and loading them can run code; if you know where they come "
            "from, give trust=[pickle] on the command line."
        )
    rows, log = logs.read(folder)
    overrides, lacking = arguments.overrides(name, arguments.read(name, folder))
    output.mkdir(parents=True, exist_ok=True)
    record = {
        "framework": name,
        "rows": len(rows),
        "log": log,
        "overrides": overrides,
        "lacking": lacking,
        "model": None,
    }
    record["problem"] = None
    if checkpoint:
        try:
            record["model"] = weights.adopt(checkpoint, output / "model")
        except ValueError as error:
            record["problem"] = str(error)
    if rows:
        write(output / "metrics.jsonl", "".join(json.dumps(finite(row), allow_nan=False) + "\n" for row in rows))
    text = "\n".join([*overrides, *(f"# no counterpart: {each}" for each in lacking)])
    write(output / "overrides.txt", text + "\n")
    write(output / "adopted.json", json.dumps({**record, "folder": str(folder.resolve())}, indent=2))
    return record
