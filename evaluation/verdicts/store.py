"""Verdicts on disk: one JSON line a pair, beside the results that they belong to. Judged once, read by everyone.

`verdicts/<judge>.jsonl` holds policy, against, pair (row of the samples, from 0) and what the judge said of it: see
`Verdict`. `results.json` and `evaluation.json` list these files under `verdicts`, with the digests of the samples that
were judged: verdicts on other samples count as absent.
"""

import hashlib
import json
import re
from dataclasses import asdict, fields
from pathlib import Path

from evaluation.files import finite
from rlhf_trl_ext.data.reading import local_records
from rlhf_trl_ext.data.samples import Samples
from rlhf_trl_ext.files import write
from rlhf_trl_ext.judging.verdicts import Verdict

Verdicts = dict[tuple[str, str], list[Verdict]]
FOLDER = "verdicts"


def digest(rows: Samples) -> str:
    """SHA-256 (16 hex digits) of samples: of everything that a judge may look at."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True, default=str).encode()).hexdigest()[:16]


def file_name(judge: str) -> str:
    """A file name of a judge's name; a digest keeps apart what differs in characters that no file name has."""
    plain = re.sub(r"[^\w.-]+", "_", judge)[-100:]
    return f"{plain}{'' if plain == judge else '-' + hashlib.sha256(judge.encode()).hexdigest()[:8]}.jsonl"


def save(folder: Path, judge: str, identity: str, verdicts: Verdicts, samples: dict[str, Samples]) -> dict:
    """Write a judge's verdicts below `folder`; returns the entry for `verdicts` of its results."""
    lines = [
        json.dumps(finite({"policy": a, "against": b, "pair": pair, **_filled(verdict)}), allow_nan=False) + "\n"
        for (a, b), row in verdicts.items()
        for pair, verdict in enumerate(row)
    ]
    path = Path(folder) / FOLDER / file_name(judge)
    write(path, "".join(lines))
    judged = dict.fromkeys(name for names in verdicts for name in names)
    return {"file": f"{FOLDER}/{path.name}", "identity": identity, "samples": {n: digest(samples[n]) for n in judged}}


def _filled(verdict: Verdict) -> dict:
    return {key: value for key, value in asdict(verdict).items() if value is not None or key == "outcome"}


def current(entry: dict, samples: dict[str, Samples]) -> set[str]:
    """Policies whose samples are those that were judged."""
    return {name for name, rows in samples.items() if entry["samples"].get(name) == digest(rows)}


def load(folder: Path, entry: dict, samples: dict[str, Samples]) -> Verdicts:
    """Stored verdicts on these samples; pairs of policies whose samples are others now are left out.

    Raises ValueError for a file that is absent or damaged.
    """
    unchanged = current(entry, samples)
    path, known = Path(folder) / FOLDER / Path(entry["file"]).name, {field.name for field in fields(Verdict)}
    if path.is_symlink() or not path.is_file():
        raise ValueError(f"{path}: the stored verdicts are missing; judge again with `python -m launchers.evaluate`.")
    verdicts: Verdicts = {}
    for place, row in local_records(str(path), path):
        try:
            names = row["policy"], row["against"]
            verdict = Verdict(**{key: _value(value) for key, value in row.items() if key in known})
            if verdict.outcome not in (None, 0.0, 0.5, 1.0) or not _is_share(verdict.preference):
                raise TypeError
            if unchanged.issuperset(names):
                verdicts.setdefault(names, []).append(verdict)
        except (KeyError, TypeError):
            raise ValueError(
                f"{place} is no verdict: the file is damaged; judge again with `python -m launchers.evaluate`."
            ) from None
    lacking = [names for names, row in verdicts.items() if len(row) != len(samples[names[0]])]
    if lacking:
        raise ValueError(f"{path} lacks verdicts on {lacking[0]}; judge again with `python -m launchers.evaluate`.")
    return verdicts


def _is_share(preference) -> bool:
    return preference is None or (isinstance(preference, int | float) and -0.01 <= preference <= 1.01)  # rounded


def _value(value):
    return tuple(value) if isinstance(value, list) else value
