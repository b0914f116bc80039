"""Trials of a proof: repeated until enough of them count, printed one by one, kept beside their summary."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path


def collect(count: int, attempt: Callable[[int], dict | None]) -> list[dict]:
    """`count` results of `attempt(number of results so far)`, printed as they come; None does not count."""
    trials = []
    while len(trials) < count:
        result = attempt(len(trials))
        if result is not None:
            trials.append(result)
            print(json.dumps(result), flush=True)
    return trials


def conclude(file: Path, summary: dict, trials: list[dict]) -> dict:
    """Write summary and trials to `file`, print the summary and return it."""
    file.write_text(json.dumps({**summary, "trials": trials}, indent=1))
    print(json.dumps(summary))
    return summary


def parser(description: str, counted: str, count: int, output: str) -> argparse.ArgumentParser:
    """Options of a proof: `counted`, `--seed` and `--output`."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(counted, type=int, default=count)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--output", default=output)
    return options
