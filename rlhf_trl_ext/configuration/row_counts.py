"""Rows of data as a trainer gets them: whether there are enough, and what `max_length` makes of them."""

from rlhf_trl_ext.configuration.checks import ConfigError


def enough_rows(rows: int, args) -> None:
    """Raises ConfigError where `rows` of data are fewer than one batch: no step would be taken, or the last never end.

    args: the trainer's arguments; online algorithms sample several completions for a row.
    """
    needed, sum_of = args.per_device_train_batch_size * args.world_size, "per_device_train_batch_size x processes"
    if hasattr(args, "steps_per_generation"):
        needed, sum_of = args.generation_batch_size // args.num_generations, "generation_batch_size / num_generations"
    if rows < needed:
        raise ConfigError(
            f"dataset has {rows} rows and a batch needs {needed} ({sum_of}): "
            "give more data or a smaller args.per_device_train_batch_size."
        )


def some_left(dataset, args, rows: int) -> str | None:
    """How many rows a trainer has left out or will cut at max_length, in one sentence; None where there are none.

    dataset: the trainer's, prepared; args: its arguments; rows: of the data that it was given.
    Raises ConfigError where it has left out every row.
    """
    limit = getattr(args, "max_length", None)
    if hasattr(dataset, "__len__") and len(dataset) == 0:
        raise ConfigError(
            f"args.max_length={limit}: no row is left, as all that is learnt from lies behind it; give more."
        )
    if limit is None or getattr(args, "packing", False):
        return None
    left_out, names = rows - len(dataset), dataset.column_names
    if "prompt_ids" in names:
        replies = [dataset[name] for name in ("chosen_ids", "rejected_ids", "completion_ids") if name in names]
        pairs = zip(dataset["prompt_ids"], *replies, strict=True)
        cut = sum(len(prompt) + max(map(len, own)) > limit for prompt, *own in pairs)
    else:  # prepared rows are cut already; the reward trainer leaves long ones out
        cut = sum(len(ids) >= limit for ids in dataset["input_ids"]) if "input_ids" in names else 0
    if not left_out and not cut:
        return None
    return f"args.max_length={limit}: of {rows:,} rows {cut:,} are cut there and {left_out:,} left out."
