"""Keys that a launcher shares with others and does not read: a value on its command line would be dropped."""

TRAINS = ("num_processes", "step_timeout", "completion_length", "monitor", "profile", "callbacks", "shown_rows")
STAGE = (*TRAINS, "stages")
NO_STAGE = (*STAGE, "held_out", "output_dir", "overwrite")
KEYS = {
    "generate": TRAINS,
    "label": (*TRAINS, "held_out"),
    "revise": (*TRAINS, "held_out"),
    "data": NO_STAGE,
    "plan": ("sweep",),
    "benchmark": ("sweep",),
    "chat": (*NO_STAGE, "shares"),
    "landscapes": (*STAGE, "held_out", "overwrite", "seed", "shares"),
}
# Where nothing is trained, `args` holds only what a model's file sets for all: the arguments that are read of it.
ARGUMENTS = {
    **dict.fromkeys(("generate", "label", "revise"), ("use_cpu",)),
    **dict.fromkeys(("answer", "data", "chat"), ()),
}


def refusals(launcher: str, overrides: list[str], adapters: bool = True) -> list[str]:
    """One sentence for every override of a key that `launcher` has from a shared file and does not read.

    adapters: whether adapters are trained; without them nothing reads their settings.
    """
    errors = [
        f"{typed}: model.use_peft is false, so there is no adapter; give model.use_peft=true, or leave this out."
        for typed in (override.lstrip("+~") for override in overrides)
        if typed.startswith(("model.lora_", "model.merge_adapter")) and not adapters
    ]
    for override in overrides:
        typed = override.lstrip("+~")
        first, _, below = typed.partition("=")[0].partition(".")
        if first in KEYS.get(launcher, ()):
            errors.append(f"{typed}: launchers.{launcher} reads no {first}; leave it out.")
        elif first == "args" and launcher in ARGUMENTS and below not in ARGUMENTS[launcher]:
            reads = "".join(f", only args.{name} is read" for name in ARGUMENTS[launcher])
            errors.append(f"{typed}: launchers.{launcher} trains nothing{reads}; leave it out.")
    return errors
