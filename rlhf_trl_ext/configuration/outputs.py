"""Files that launchers write where they are told to: only what is of their own kind is replaced."""

from collections.abc import Callable
from pathlib import Path

import yaml
from omegaconf import DictConfig

from rlhf_trl_ext.files import read_mark

GENERATOR = '<meta name="generator" content="rlhf-trl-ext">'  # in every report
EVALUATION = "# Policies against "  # begins every report of an evaluation


def refusals(config: DictConfig, launcher: str) -> list[str]:
    """One sentence for every file that `launcher` would replace and that is not of the kind that it writes."""
    kinds = {
        "answer": [(_output(config), "samples", _is_samples)],
        "capability": [(_output(config), "results of tasks", _is_capability)],
        "data": [(_output(config), "facts of a data set", _is_facts)],
        "report": [(_output(config), "report", lambda path: GENERATOR in path.read_text(errors="replace")[:2000])],
        "pipeline": [(_inside(config, "results.json"), "results of a pipeline", _has("policies", "stages"))],
        "benchmark": [(_inside(config, "benchmark.json"), "results of a benchmark", _has("cells"))],
        "landscapes": [(_inside(config, "results.json"), "results of landscapes", _is_landscapes)],
    }
    kinds |= {"evaluate": _of_evaluation(config)} if launcher == "evaluate" else {}
    return [
        f"{_setting(config)}={path}: it is there already and holds no {kind}, so it is not replaced; give another "
        "path, or move it away."
        for path, kind, is_own in kinds.get(launcher, ())
        if path is not None and path.is_file() and path.stat().st_size and not is_own(path)
    ]


def _setting(config: DictConfig) -> str:
    return "output" if "output" in config else "output_dir"


def _output(config: DictConfig) -> Path | None:
    output = config.get("output")
    return Path(output) if isinstance(output, str) else None


def _inside(config: DictConfig, name: str) -> Path | None:
    folder = config.get("output_dir")
    return Path(folder, name) if isinstance(folder, str) else None


def _of_evaluation(config: DictConfig) -> list[tuple]:
    folder = Path(config.results).parent if isinstance(config.get("results"), str) else Path(str(config.output_root))
    path = _output(config) or (folder / "evaluation").with_suffix(".json")
    report = path.with_suffix(".md")
    return [
        (path, "evaluation", _has("judge", "policies")),
        (report, "evaluation", lambda path: path.read_text(errors="replace").startswith(EVALUATION)),
    ]


def _has(*keys: str) -> Callable[[Path], bool]:
    """Whether a JSON file has these keys. One that cannot be read is what a crash left, and is made anew."""
    return lambda path: _is_json(path) and (read_mark(path) is None or read_mark(path, keys) is not None)


def _is_json(path: Path) -> bool:
    return path.suffix == ".json"


def _is_samples(path: Path) -> bool:
    with path.open(errors="replace") as file:
        line = file.readline(2**20)
    return '"prompt"' in line and '"completion"' in line


def _is_capability(path: Path) -> bool:
    tasks = read_mark(path) or {}
    return _is_json(path) and all(isinstance(models, dict) and "baseline" in models for models in tasks.values())


def _is_landscapes(path: Path) -> bool:
    rows = read_mark(path) or {}
    return not {"policies", "stages", "judge"} & rows.keys() and all(
        isinstance(row, dict | list) for row in rows.values()
    )


def _is_facts(path: Path) -> bool:
    try:
        facts = yaml.safe_load(path.read_text())
    except (ValueError, yaml.YAMLError):
        return False
    return isinstance(facts, dict) and {"rows", "columns", "lengths"} <= facts.keys()
