"""A reward model from soft labels, `-p logsigmoid(r_c - r_r) - (1 - p) logsigmoid(r_r - r_c)`."""

from rlhf_trl_ext.trainers.parts.soft_labels import COLUMN, SoftLabels, soft_term
from rlhf_trl_ext.trainers.reward import RewardTrainer


class SoftRewardTrainer(SoftLabels, RewardTrainer):
    """`trl.RewardTrainer` with only `(1 - p_chosen) (r_chosen - r_rejected)` added to the loss of every row.

    The optimum is `r_chosen - r_rejected = logit(p_chosen)`. A column `margin` m is TRL's: the difference is less m
    in both terms, which pushes it above m and is no soft label.
    """

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        p_chosen, margin = inputs.pop(COLUMN), inputs.get("margin", 0.0)
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
        chosen, rejected = outputs.logits.squeeze(-1).chunk(2)
        loss = loss + soft_term(p_chosen, chosen - rejected - margin)
        return (loss, outputs) if return_outputs else loss
