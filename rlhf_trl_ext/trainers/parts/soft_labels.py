"""What trainers on soft preference labels share: `p_chosen`, the probability that chosen is better."""

import torch

COLUMN = "p_chosen"


class SoftLabels:
    """A mixin for TRL's trainers on preferences: the column p_chosen is kept and arrives in `inputs`.

    p_chosen: in [0, 1], one a row. Held-out pairs without it are taken as certain (1); training data without it are
    refused, because the plain trainer is meant then.
    """

    def __init__(self, *args, train_dataset=None, **kwargs):
        name = type(self).__name__
        columns = getattr(train_dataset, "column_names", None)
        if columns is not None and COLUMN not in columns:
            raise ValueError(
                f"{name} needs a column {COLUMN}, and the data have {', '.join(columns)}: use dataset=labelled, or the "
                "plain algorithm."
            )
        if columns is not None and not all(0 <= p <= 1 for p in train_dataset[COLUMN]):
            raise ValueError(f"{name}: {COLUMN} is a probability; give values in [0, 1].")
        super().__init__(*args, train_dataset=train_dataset, **kwargs)
        self.data_collator = Collator(self.data_collator)

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        if COLUMN not in self._signature_columns:
            self._signature_columns.append(COLUMN)


class Collator:
    """TRL's collator with p_chosen `(B,)` float32 added to the batch."""

    def __init__(self, collate):
        self.collate = collate

    def __call__(self, examples: list[dict]) -> dict:
        batch = self.collate(examples)
        return batch | {COLUMN: torch.tensor([example.get(COLUMN, 1.0) for example in examples])}


def soft_term(p_chosen: torch.Tensor, difference: torch.Tensor) -> torch.Tensor:
    """What soft labels add to the mean of `-logsigmoid(x)`: the mean of `(1 - p) x`, because
    `-p logsigmoid(x) - (1 - p) logsigmoid(-x) = -logsigmoid(x) + (1 - p) x`.

    p_chosen, difference: `(B,)`. The gradient of the whole is `sigmoid(x) - p`, its optimum `x = logit(p)`. It and its
    gradient are exactly 0 for p = 1.
    """
    return ((1 - p_chosen) * difference).mean()
