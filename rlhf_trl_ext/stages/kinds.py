"""The kinds of stages, each by what decides its result. `identity.py` reads these declarations and nothing else."""

from dataclasses import dataclass
from pathlib import Path

from rlhf_trl_ext.configuration.checks import ConfigError

PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Kind:
    """A kind of stage.

    name: of the kind and of the launcher that runs it. settings: keys of the configuration that decide, each with all
    below it. code: the module whose source decides, with what it imports from this project. results: files in its
    folder that later stages read, as glob patterns: recorded when it finishes, checked whenever they are used.
    """

    name: str
    settings: tuple[str, ...]
    code: str
    results: tuple[str, ...]


MODEL = ("*.safetensors", "*.bin", "*.json", "*.model", "*.txt", "*.jinja", "adapter/*")
KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            name="train",
            settings=(
                *("name", "seed", "view", "trainer", "args", "model", "dataset"),
                *("evaluate", "held_out", "budget", "callbacks", "monitor"),
            ),
            code="rlhf_trl_ext.stages.train",
            results=MODEL,
        ),
        Kind(
            name="generate",
            settings=(
                *("name", "seed", "policy", "reference", "samples", "args", "model", "dataset", "reward"),
                "held_out",
            ),
            code="rlhf_trl_ext.stages.generate",
            results=("samples.jsonl",),
        ),
        Kind(
            name="label",
            settings=("name", "seed", "pairs", "judge", "labelling", "args", "model", "dataset"),
            code="rlhf_trl_ext.stages.label",
            results=("labels.jsonl",),
        ),
        Kind(
            name="revise",
            settings=("name", "seed", "pairs", "reviser", "args", "model", "dataset"),
            code="rlhf_trl_ext.stages.revise",
            results=("revisions.jsonl",),
        ),
    )
}

# Written by a stage about itself, or after it has finished: no result.
ABOUT = ("stage.json", "versions.json", "log.txt", "README.md")
# Files that are known by a name: last parts of a key -> where they lie, and how their names end. A path is one, too.
NAMED_FILES = {
    "prompt": (PACKAGE / "judging/prompts", ".yaml"),
    "constitution": (PACKAGE / "judging/constitutions", ".yaml"),
    "constitution.name": (PACKAGE / "judging/constitutions", ".yaml"),
    "rubric": (PACKAGE / "judging/rubrics", ".yaml"),
    "chat_template": (PACKAGE / "chat_templates", ".jinja"),
}
# Keys whose text names no file, whatever lies in the working directory.
WORDS = {"name", "view", "split", "hub_split", "kind", "_target_", "_convert_"}
# Keys that name stages of a pipeline, whose folders stand elsewhere in the configuration.
PLANNED = ("reward.stage", "reward.needs")
# Keys below `args` that say where a run is reported, and as whose.
REPORTING = {"report_to", "run_name", "logging_dir", "disable_tqdm", "log_level", "log_level_replica", "project"}
REPORTING |= {"trackio_space_id", "push_to_hub", "hub_token", "hub_model_id", "hub_strategy", "hub_private_repo"}
# Of what asks a judge: how fast it asks, what it may spend and where it keeps the answers.
ASKS = ("rlhf_trl_ext.judging.", "rlhf_trl_ext.rewards.ai.")
ASKING = {"record", "concurrency", "requests_per_minute", "tokens_per_minute", "timeout", "attempts", "budget_usd"}
ASKING |= {"budget_tokens", "prices", "key_variable", "max_unreadable"}
# A key that only looks on unless this one of its own is given.
ONLOOKERS = {"monitor": "action"}
# Own modules that check, find, name, run or report a stage and decide nothing of its result.
ASIDE = ("rlhf_trl_ext.configuration", "rlhf_trl_ext.files", "rlhf_trl_ext.markdown", "rlhf_trl_ext.data.inspection")
ASIDE += ("rlhf_trl_ext.callbacks.progress",)
ASIDE += tuple(
    f"rlhf_trl_ext.stages.{name}"
    for name in (
        *("stage", "identity", "kinds", "sources", "files", "checkpoints", "execution", "label_report"),
        *("completion", "ending", "guard", "processes", "replacement", "named_content", "display", "best_metric"),
    )
)
# What a kind's key is called in a pipeline, where the key itself means another thing.
IN_PIPELINES = {"label": {"judge": "labeller"}}


def kind_of(config) -> Kind:
    """The kind that a configuration states. Raises ConfigError for none and for an unknown one."""
    name = config.get("kind")
    if name not in KINDS:
        raise ConfigError(f"kind={name}: a stage's kind is one of {', '.join(KINDS)}; give kind=<one of them>.")
    return KINDS[name]


def refuse_kind(config, launcher: str) -> None:
    """Raises ConfigError for a configuration that states the kind of another launcher than this one."""
    if launcher in KINDS and config.get("kind") not in (None, launcher):
        kind = kind_of(config).name
        raise ConfigError(f"kind={kind}: that is a stage of launchers.{kind}, not of launchers.{launcher}.")
