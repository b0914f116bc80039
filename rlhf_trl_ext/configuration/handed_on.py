"""Arguments that a trainer hands on to functions of other packages, which refuse them late or without a word."""

import contextlib
import difflib
import inspect
import re
from collections.abc import Collection, Iterator, Mapping

from hydra.utils import get_object

from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.configuration.training_run import Run
from rlhf_trl_ext.configuration.values import formatted

BITSANDBYTES = re.compile(r"8bit|32bit|bnb|^ademamix|^lion|^paged|^rmsprop_")
# What PEFT says of an adapter's settings -> the key that it is about.
ADAPTERS = {"arget modules": "lora_target_modules", "ask type": "lora_task_type"}


def arguments_class(run: Run) -> str | None:
    """`args` is of the class that the trainer takes."""
    import transformers

    name = run.config.trainer._target_
    trainer, given = get_object(name), get_object(run.config.args._target_)
    if not (inspect.isclass(trainer) and issubclass(trainer, transformers.Trainer)):
        return f"trainer._target_={name}: it is no trainer; give a subclass of transformers.Trainer."
    names = re.findall(r"\w+Config\b", _annotation(trainer))
    if not names or given is transformers.TrainingArguments or any(cls.__name__ in names for cls in given.__mro__):
        return None
    return f"args._target_={run.config.args._target_}: {trainer.__name__} takes {' or '.join(dict.fromkeys(names))}."


def _annotation(trainer: type) -> str:
    """Of the parameter `args`, by the first class that names it."""
    for cls in trainer.__mro__:
        parameter = inspect.signature(cls.__init__).parameters.get("args")
        if parameter is not None and parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            return str(parameter.annotation)
    return ""


def schedule(run: Run) -> str | None:
    """`args.lr_scheduler_type` is one of transformers', and `args.lr_scheduler_kwargs` are words of it."""
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION
    from transformers.trainer_utils import SchedulerType

    given, known = run.argument("lr_scheduler_type", "linear"), [kind.value for kind in SchedulerType]
    if given not in known:
        return f"args.lr_scheduler_type={given}: allowed are {', '.join(known)}."
    function = TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(given)]
    placed = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
    return _unknown(run, "lr_scheduler_kwargs", set(inspect.signature(function).parameters) - placed)


def checkpointing(run: Run) -> str | None:
    """`args.gradient_checkpointing_kwargs` are words of torch's checkpoint."""
    from torch.utils.checkpoint import checkpoint

    known = set(inspect.signature(checkpoint).parameters) - {"function", "args", "kwargs"}
    return _unknown(run, "gradient_checkpointing_kwargs", known | {"preserve_rng_state"})


def compile_backend(run: Run) -> str | None:
    from accelerate.utils import DynamoBackend

    given, known = run.argument("torch_compile_backend"), [backend.value.lower() for backend in DynamoBackend]
    if given is None or str(given).lower() in known:
        return None
    return f"args.torch_compile_backend={given}: allowed are {', '.join(known)}."


def task_type(run: Run) -> str | None:
    from peft import TaskType

    given, known = run.model("lora_task_type"), [task.value for task in TaskType]
    if not run.model("use_peft") or given is None or given in known:
        return None
    return f"model.lora_task_type={given}: allowed are {', '.join(known)}."


def bitsandbytes(run: Run) -> str | None:
    """Packed optimizer states are those of bitsandbytes."""
    from transformers.utils import is_bitsandbytes_available

    optimizer = str(getattr(run.argument("optim"), "value", run.argument("optim")))
    if not BITSANDBYTES.search(optimizer) or is_bitsandbytes_available():
        return None
    return f"args.optim={optimizer}: bitsandbytes is not installed; pip install bitsandbytes, or leave it out."


def sampled_budget(run: Run) -> str | None:
    budget = run.config.get("budget") or {}
    if run.online or budget.get("sampled_tokens") is None:
        return None
    return (
        f"budget.sampled_tokens={budget['sampled_tokens']}: algorithm={run.config.name} samples none, so the run would "
        "never end by it; give budget.gradient_steps, budget.seconds or args.max_steps."
    )


def reward_weights(run: Run) -> str | None:
    """One weight for each reward."""
    weights, functions = run.argument("reward_weights"), run.config.trainer.get("reward_funcs")
    if weights is None or functions is None or isinstance(functions, str) or len(weights) == len(functions):
        return None
    return f"args.reward_weights={formatted(weights)}: {len(weights)} for {len(functions)} rewards; give one for each."


def offloading(run: Run) -> str | None:
    if not (run.argument("activation_offloading") and run.argument("use_cpu")):
        return None
    return "args.activation_offloading=true with args.use_cpu=true: it moves from a GPU to the CPU; leave it false."


CHECKS = (
    reward_weights,
    offloading,
    arguments_class,
    schedule,
    checkpointing,
    compile_backend,
    task_type,
    bitsandbytes,
    sampled_budget,
)


def _unknown(run: Run, key: str, known: Collection[str]) -> str | None:
    """A word of the mapping `args.<key>` that its function does not take."""
    given = run.argument(key)
    for name, value in given.items() if isinstance(given, Mapping) else ():
        if name not in known:
            close = difflib.get_close_matches(name, known)
            hint = (
                f"did you mean {' or '.join(close)}?" if close else f"allowed are {', '.join(sorted(known)) or 'none'}."
            )
            return f"args.{key}.{name}={formatted(value)}: no such word; {hint}"
    return None


@contextlib.contextmanager
def named_refusals(args, model) -> Iterator[None]:
    """What a model's class, PEFT or a callback refuses inside becomes a ConfigError that begins with the key.

    args: the trainer's arguments; model: `ModelArguments`.
    """
    given = set(args.model_init_kwargs or ())  # TRL takes them away
    try:
        yield
    except (TypeError, ValueError, KeyError, AssertionError, ImportError) as error:
        message = " ".join(str(error.args[0] if error.args else error).split())
        word = re.search(r"unexpected keyword argument '(\w+)'", message)
        if word and word[1] in given:
            raise ConfigError(f"args.model_init_kwargs.{word[1]}: the model's class has no such argument.") from error
        if key := next((key for words, key in ADAPTERS.items() if words in message), None):
            raise ConfigError(f"model.{key}={formatted(getattr(model, key))}: {message}") from error
        if "metric_for_best_model" in message:
            raise ConfigError(f"args.metric_for_best_model={args.metric_for_best_model}: {message}") from error
        if isinstance(error, ImportError):
            raise ConfigError(message) from error
        raise
