"""DPO on soft labels, `-p logsigmoid(b d) - (1 - p) logsigmoid(-b d)` with p the judge's probability of each row."""

import contextlib

from rlhf_trl_ext.trainers.dpo import DPOTrainer
from rlhf_trl_ext.trainers.parts.soft_labels import COLUMN, SoftLabels, soft_term


class SoftDPOTrainer(SoftLabels, DPOTrainer):
    """`trl.DPOTrainer` with only `(1 - p_chosen) b d` added to the loss of every row.

    d: difference of the log-ratios of chosen and rejected, b: `args.beta`. One p for all rows is conservative DPO
    (cDPO); TRL's `label_smoothing` does nothing with `loss_type=sigmoid`, and `robust` is another estimator.
    Raises ValueError for arguments under which the loss is no logistic loss of `b d`.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        settings = {
            "loss_type": (self.loss_types, ["sigmoid"]),
            "f_divergence_type": (self.f_divergence_type, "reverse_kl"),
            "ld_alpha": (self.ld_alpha, None),
            "use_weighting": (self.use_weighting, False),
        }
        for key, (value, allowed) in settings.items():
            if value != allowed:
                raise ValueError(f"args.{key}={value}: soft labels are defined for {key}={allowed} only.")

    def compute_ref_log_probs(self, model, inputs):
        return super().compute_ref_log_probs(model, {key: inputs[key] for key in inputs if key != COLUMN})

    def _compute_loss(self, model, inputs, return_outputs):
        p_chosen = inputs.pop(COLUMN)
        policy = self.accelerator.unwrap_model(model)
        with _logps(policy, inputs) as own, _logps(self.ref_model, inputs) as other:
            result = super()._compute_loss(model, inputs, return_outputs)
        if self.precompute_ref_logps:
            reference = inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
        else:  # without a reference model, the policy with its adapter switched off is called second
            reference = (other[0] if self.ref_model is not None else own[1]).chunk(2)
        chosen, rejected = own[0].chunk(2)
        difference = (chosen - reference[0]) - (rejected - reference[1])
        loss, *outputs = result if return_outputs else (result,)
        loss = loss + soft_term(p_chosen, self.beta * difference) * self.loss_weights[0]
        return (loss, *outputs) if return_outputs else loss


@contextlib.contextmanager
def _logps(model, inputs: dict):
    """Collects, for every call of the model, the log-probabilities of the completions, `(2B,)`, chosen first."""
    logps, width = [], inputs["completion_mask"].shape[1] - 1

    def keep(module, args, outputs):
        if getattr(outputs, "log_probs", None) is not None:
            logps.append(outputs.log_probs[:, -width:].sum(dim=1))

    handle = model.register_forward_hook(keep) if model is not None else None
    try:
        yield logps
    finally:
        if handle is not None:
            handle.remove()
