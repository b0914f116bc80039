"""Any sequence classifier as a metric of completions, toxicity say. Off unless it is configured."""

from dataclasses import dataclass

import numpy as np

from rlhf_trl_ext.quantities import Count, Share
from rlhf_trl_ext.statistics import mean_interval, wilson_interval


@dataclass
class Classifier:
    """The probability that a classifier gives one label, for every completion.

    name: of the metric. model: folder or hub id of a `transformers` text-classification model. label: one of its
    labels. threshold: of the probability, above which a completion counts. batch_size: completions at a time; longer
    ones than the classifier reads are cut at its limit. Nothing is loaded before `check` or `metrics`.
    """

    name: str
    model: str
    label: str
    threshold: Share = 0.5
    batch_size: Count = 32

    def check(self) -> None:
        """Raises ValueError for an unknown label, or a model that cannot be read."""
        from transformers import AutoConfig

        try:
            known = list(AutoConfig.from_pretrained(self.model).id2label.values())
        except OSError as error:
            raise ValueError(
                f"classifier.model={self.model} cannot be read; give a folder or hub id: {error}"
            ) from None
        if self.label not in known:
            raise ValueError(f"classifier.label={self.label}: {self.model} knows no such label; allowed are {known}.")

    def probabilities(self, texts: list[str]) -> np.ndarray:
        """`(N,)`: softmax over labels, or the label's own sigmoid where the model may give several; blanks have 0."""
        import torch
        from transformers import pipeline

        values = np.zeros(len(texts))
        written = [i for i, text in enumerate(texts) if text.strip()]  # without a token some models fail
        if not written:
            return values
        device = "cuda" if torch.cuda.is_available() else "cpu"
        classify = pipeline("text-classification", model=self.model, device=device, top_k=None)
        # a tokenizer may not know what its model can read
        limit = min(classify.tokenizer.model_max_length, classify.model.config.max_position_embeddings)
        predictions = classify(
            [texts[i] for i in written], batch_size=self.batch_size, truncation=True, max_length=limit
        )
        values[written] = [next(row["score"] for row in rows if row["label"] == self.label) for rows in predictions]
        return values

    def metrics(self, samples: dict[str, list[dict]]) -> dict[str, dict]:
        """Policy -> `<name>_mean` and `<name>_share` above the threshold, each with its 95 % interval `..._ci`.

        samples: policy -> rows with `completion`. Equal completions of all policies are classified once.
        Raises ValueError for samples without completions.
        """
        for policy, rows in samples.items():
            if not all("completion" in row for row in rows):
                raise ValueError(f"classifier={self.name}: the samples of {policy} have no completions to classify.")
        texts = list(dict.fromkeys(row["completion"] for rows in samples.values() for row in rows))
        known = dict(zip(texts, self.probabilities(texts), strict=True))
        by_policy = {}
        for policy, rows in samples.items():
            values = np.array([known[row["completion"]] for row in rows])
            above = int((values > self.threshold).sum())
            by_policy[policy] = {
                f"{self.name}_mean": float(values.mean()),
                f"{self.name}_ci": mean_interval(values),
                f"{self.name}_share": above / len(values),
                f"{self.name}_share_ci": wilson_interval(above, len(values)),
            }
        return by_policy
