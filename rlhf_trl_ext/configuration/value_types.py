"""Types of settings: texts, names, folders, shares and lists, with what each of them refuses."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, Strict

from rlhf_trl_ext.configuration.paths import creatable
from rlhf_trl_ext.quantities import Seed

Flag = Annotated[bool, Strict()]
Text = Annotated[str, Strict(), Field(min_length=1)]
Texts = list[Text]
Views = Literal["demonstrations", "preferences", "prompts", "unpaired"]
Port = Annotated[int, Strict(), Field(ge=1, le=65535)]


def _distinct(items: list) -> list:
    if len(set(items)) < len(items):
        raise ValueError("every one is named once")
    return items


def _no_baseline(models: dict) -> dict:
    if "baseline" in models:
        raise ValueError("this name is the baseline's own; give the policy another one")
    return models


def _all(shares: dict) -> dict:
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"they sum to {sum(shares.values()):g}, and shares sum to 1; an unwanted one is 0")
    return shares


def _built(node: dict) -> dict:
    if "_target_" not in node:
        raise ValueError("{_target_: module.Class, ...} is needed")
    return node


def _file_name(name: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError("it names a folder; letters, digits, . - and _ are allowed, and a letter or digit first")
    return name


def _writable(path: str) -> str:
    if message := creatable(path):
        raise ValueError(message)
    return path


def _writable_file(path: str) -> str:
    if Path(path).is_dir():
        raise ValueError("it is a folder, and a file is needed; give another path")
    return _writable(path)


Shares = Annotated[
    dict[Literal["sft", "reward", "rl", "evaluation"], Annotated[float, Field(ge=0, le=1)]], AfterValidator(_all)
]
Models = Annotated[dict[Text, Text], Field(min_length=1), AfterValidator(_no_baseline)]
Named = Annotated[Texts, Field(min_length=1), AfterValidator(_distinct)]
Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(_distinct)]
Mapping = dict[str, Any]
Built = Annotated[Mapping, AfterValidator(_built)]
Name = Annotated[Text, AfterValidator(_file_name)]
Output = Annotated[Text, AfterValidator(_writable)]
OutputFile = Annotated[Text, AfterValidator(_writable_file)]
