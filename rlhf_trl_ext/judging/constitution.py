"""Constitutions and rubrics: YAML files that say what a judge shall prefer."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from rlhf_trl_ext.configuration import named_yaml
from rlhf_trl_ext.judging.prompt import Prompt

HERE = Path(__file__).parent
REPLY = "<conversation>\n{prompt}\n</conversation>\n\n<reply>\n{response}\n</reply>"
DIGIT = "Answer with one digit from {0} to {1} and nothing else."


@dataclass(frozen=True)
class Principle:
    """How to compare by it, how to criticise a reply by it, and how to revise the reply after that."""

    compare: str
    critique: str
    revise: str


class Constitution:
    """A list of principles; which ones a pair is judged by is a function of the pair and the seed alone.

    name: a file in `judging/constitutions`, or a path. Raises ValueError for an unknown name or a malformed file.
    """

    def __init__(self, name: str, seed: int = 0):
        content = named_yaml.read(name, "constitution", HERE / "constitutions")
        fields = set(Principle.__dataclass_fields__)
        if not isinstance(content, list) or not content:
            raise ValueError(
                f"constitution={name} is no list of principles: see {HERE / 'constitutions/helpful.yaml'}."
            )
        for number, principle in enumerate(content, start=1):
            if not isinstance(principle, dict) or set(principle) != fields or not all(principle.values()):
                raise ValueError(
                    f"constitution={name}, principle {number}: give {', '.join(sorted(fields))}, each once."
                )
        self.name, self.seed = Path(name).stem, seed
        self.principles = [Principle(**principle) for principle in content]

    def draw(self, identity: str, count: int = 1) -> list[Principle]:
        """The `count` principles whose SHA-256 with seed and identity is lowest: uniform, without replacement."""

        def rank(principle: Principle) -> bytes:
            return hashlib.sha256(f"{self.seed}\0{identity}\0{principle.compare}".encode()).digest()

        return sorted(self.principles, key=rank)[:count]


class Rubric:
    """Aspects of a reply that are scored each alone, `score = sum_i w_i s_i / sum_i w_i`, in the aspects' scale.

    name: a file in `judging/rubrics`, or a path: aspect -> weight, question, levels (the lowest first, as many as the
    scale has). Raises ValueError for an unknown name or a malformed file.
    """

    def __init__(self, name: str):
        content = named_yaml.read(name, "rubric", HERE / "rubrics")
        if not isinstance(content, dict) or not content:
            raise ValueError(f"rubric={name} holds no aspects: see {HERE / 'rubrics/ultrafeedback.yaml'}.")
        self.name = Path(name).stem
        self.prompts: dict[str, Prompt] = {}
        self.weights: dict[str, float] = {}
        for aspect, settings in content.items():
            if not isinstance(settings, dict) or set(settings) != {"weight", "question", "levels"}:
                raise ValueError(f"rubric={name}, aspect {aspect}: give weight, question and levels.")
            if not settings["weight"] > 0 or not 2 <= len(settings["levels"]) <= 9:
                raise ValueError(f"rubric={name}, aspect {aspect}: weight is above 0, and levels are 2 to 9.")
            self.weights[aspect] = float(settings["weight"])
            self.prompts[aspect] = self._prompt(aspect, settings["question"], settings["levels"])

    def _prompt(self, aspect: str, question: str, levels: list[str]) -> Prompt:
        listed = "\n".join(f"{number}: {level}" for number, level in enumerate(levels, start=1))
        instructions = f"Score the reply to the last message of a conversation. {question}\n{listed}"
        scale = (1, len(levels))
        return Prompt(f"{self.name}:{aspect}", "single", instructions, REPLY, DIGIT.format(*scale), 1, scale=scale)

    def score(self, scores: dict[str, float]) -> float:
        """The weighted mean of the aspects' scores."""
        return sum(self.weights[a] * scores[a] for a in self.weights) / sum(self.weights.values())
