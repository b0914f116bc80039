"""Keys and passwords have no place in a configuration, which is written to files; they come from the environment."""

import os
import re
from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf

NAMES = re.compile(r"(^|_)(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
KEYS = {"hub_token", "push_to_hub_token", "hf_token", "token", "api_key", "password", "secret"}
SHAPES = re.compile(
    r"\b(?:sk-[\w-]{8,}|sk_\w{16,}|hf_\w{16,}|gh[opsur]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"
    r"|AKIA[A-Z0-9]{12,}|AIza[\w-]{20,}|xox[abprs]-[\w-]{10,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,})"
)
IN_URL = re.compile(
    r"(?<=://)[^/@\s?#]+@|(?<=[?&])(?:api[-_]?key|key|token|access_token|sig)=[^&\s\"']+", re.IGNORECASE
)
FROM_ENVIRONMENT = re.compile(r"\$\{\s*oc\.(?:env|decode)\s*:\s*\$?\{?(?:oc\.env:)?\s*(\w+)")
INSTEAD = "export it and leave it out here, or log in (`hf auth login`, `wandb login`)"


def refusals(config: DictConfig) -> list[str]:
    """One sentence for every value that is a key or password, without the value."""
    errors = []
    for where, value in _strings(OmegaConf.to_container(config, resolve=False), ""):
        name = where.rpartition(".")[2]
        variable = FROM_ENVIRONMENT.search(value)
        value += os.environ.get(variable.group(1), "") if variable else ""
        if variable and NAMES.search(variable.group(1)):
            errors.append(
                f"{where}=${{oc.env:{variable.group(1)}}}: its value would be written to files; libraries read "
                f"{variable.group(1)} from the environment themselves, leave it out here."
            )
        elif name == "key_variable" and value not in os.environ and not re.fullmatch(r"[A-Z_][A-Z_0-9]{0,63}", value):
            errors.append(f"{where}: the name of an environment variable is needed; put the key there, not here.")
        elif (name in KEYS and value) or redact(value) != value:
            errors.append(
                f"{where}: a key or password does not belong into a configuration, which is written to "
                f"files; {INSTEAD}."
            )
    return errors


def redact(text: str) -> str:
    """Text in which whatever is a key or password, by its shape, place or value, is replaced by ***."""
    for name, value in os.environ.items():
        if NAMES.search(name) and len(value) >= 8 and value in text:
            text = text.replace(value, "***")
    return IN_URL.sub("***", SHAPES.sub("***", text))


def _strings(node, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _strings(value, f"{where}.{key}".lstrip("."))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _strings(value, f"{where}[{index}]")
    elif isinstance(node, str):
        yield where, node
