"""What arguments need of other packages: trackers, kernels, attention, the words of transformers' generation."""

import difflib

from rlhf_trl_ext.configuration.ranges import FIELDS, outside
from rlhf_trl_ext.configuration.training_run import Run

# Trackers that transformers refuses, once the weights are loaded, where their package is absent.
TRACKERS = ("clearml", "comet_ml", "mlflow", "neptune", "swanlab", "tensorboard", "trackio", "wandb")


def trackers(run: Run) -> str | None:
    """`args.report_to` names trackers that exist and are installed."""
    from transformers.integrations import integration_utils as known

    names = run.argument("report_to", "none")
    for name in [names] if isinstance(names, str | bool) else names or []:
        if name in ("all", "none"):
            continue
        if name not in known.INTEGRATION_TO_CALLBACK:
            return f"args.report_to={name}: allowed are none, all, {', '.join(sorted(known.INTEGRATION_TO_CALLBACK))}."
        if name in TRACKERS and name not in known.get_available_reporting_integrations():
            return f"args.report_to={name}: it is not installed; pip install {name}, or give args.report_to=none."
    return None


def kernels(run: Run) -> str | None:
    from transformers.utils import is_liger_kernel_available

    if not run.argument("use_liger_kernel") or is_liger_kernel_available():
        return None
    return "args.use_liger_kernel=true: liger-kernel is not installed; pip install liger-kernel, or leave it false."


def attention(run: Run) -> str | None:
    """`model.attn_implementation` is one of transformers' own that is installed; kernels of the hub are `org/name`."""
    from transformers import utils
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    name = run.model("attn_implementation")
    if name is None or "/" in name:
        return None
    known = ["eager", *(key for key in ALL_ATTENTION_FUNCTIONS.valid_keys() if "|" not in key)]
    if name not in known:
        return f"model.attn_implementation={name}: allowed are {', '.join(sorted(known))}, or null."
    version = name.removeprefix("flash_attention_")
    if version == name or utils.is_kernels_available() or getattr(utils, f"is_flash_attn_{version}_available")():
        return None
    return (
        f"model.attn_implementation={name}: flash-attn is not installed, or there is no GPU for it; "
        "pip install flash-attn, or give model.attn_implementation=sdpa."
    )


def generation_words(run: Run) -> str | None:
    """transformers keeps a word that it does not know, and generates without it."""
    keywords = run.argument("generation_kwargs")
    if not isinstance(keywords, dict) or run.argument("use_vllm"):
        return None
    from transformers import GenerationConfig

    known = [name for name in vars(GenerationConfig()) if not name.startswith("_")]
    for name, value in keywords.items():
        if name in FIELDS and (reason := outside(value, *FIELDS[name])):
            return f"args.generation_kwargs.{name}={value}: {reason}."
        if name not in known:
            close = difflib.get_close_matches(name, known)
            hint = f"did you mean {' or '.join(close)}?" if close else "see transformers.GenerationConfig."
            return f"args.generation_kwargs.{name}: transformers knows no such word; {hint}"
    return None
