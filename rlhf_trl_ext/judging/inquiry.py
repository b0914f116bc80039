"""What a language model is asked about replies: which of two is better, or the score of each alone."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import yaml

from rlhf_trl_ext.judging.constitution import Constitution, Rubric
from rlhf_trl_ext.judging.judge import Score
from rlhf_trl_ext.judging.prompt import Prompt, as_text
from rlhf_trl_ext.judging.verdicts import Display, Opinion, Reply


@dataclass(frozen=True)
class Inquiry:
    """A prompt and what is shown by it. examples: worked examples, shown before the material."""

    prompt: Prompt
    values: tuple[tuple[str, str], ...]
    examples: str = ""

    @property
    def material(self) -> str:
        """What is shown."""
        return "\n\n".join(filter(None, (self.examples, self.prompt.framed_material(**dict(self.values)))))

    @property
    def question(self) -> str:
        """Instructions and what is shown, without how to answer."""
        return f"{self.prompt.instructions.strip()}\n\n{self.material}"


class Reading(NamedTuple):
    """What an answer means: probability that the first is better, or the expected score; None for unreadable.

    mass: probability of all verdicts together, None where unknown. text: the answer, or why there is none.
    """

    value: float | None
    mass: float | None
    text: str


Read = Callable[[Inquiry], Reading]


class Comparing:
    """Asks which of two replies is better.

    constitution: its principles stand where the prompt has {principle}; `principles` of them are drawn for a pair, and
    their probabilities averaged. examples: a YAML file with a list of {prompt, first, second, verdict}.
    Raises ValueError for a prompt and a constitution that do not belong together, and for a malformed file.
    """

    def __init__(self, prompt: Prompt, constitution: Constitution | None, principles: int, examples: str | None):
        self.prompt, self.constitution, self.count = prompt, constitution, principles
        if ("{principle}" in prompt.show) != (constitution is not None):
            raise ValueError(
                f"prompt={prompt.name}: a constitution is needed where it has {{principle}}, as "
                "prompt=constitution has, and only there."
            )
        if constitution is not None and not 1 <= principles <= len(constitution.principles):
            raise ValueError(f"principles={principles}: give 1 to {len(constitution.principles)}.")
        self.examples = worked(prompt, examples) if examples else ""
        self.name = constitution.name if constitution else prompt.name
        self.prompts, self.per_item = [prompt], principles if constitution else 1

    def inquiries(self, display: Display) -> Iterator[Inquiry]:
        """Everything to be asked about a display."""
        return (self._inquiry(display, principle) for principle in self._principles(display))

    def opinion(self, display: Display, read: Read) -> Opinion:
        """The mean of the probabilities; None where one is unreadable."""
        principles = self._principles(display)
        readings = [read(self._inquiry(display, principle)) for principle in principles]
        evidence = {"text": [reading.text for reading in readings]}
        if self.constitution:
            evidence["principles"] = principles
        values = [reading.value for reading in readings]
        masses = [reading.mass for reading in readings if reading.mass is not None]
        mass = sum(masses) / len(masses) if masses else None
        return Opinion(None if None in values else sum(values) / len(values), mass, evidence=evidence)

    def _principles(self, display: Display) -> list[str]:
        if self.constitution is None:
            return [""]
        return [principle.compare for principle in self.constitution.draw(display.identity, self.count)]

    def _inquiry(self, display: Display, principle: str) -> Inquiry:
        values = {"prompt": as_text(display.prompt), "first": display.first, "second": display.second}
        values |= {"principle": principle, "reference": _reference(display.samples and display.samples[0])}
        return Inquiry(self.prompt, tuple(values.items()), self.examples)


class Scoring:
    """Asks for the score of a reply alone: by one prompt with a scale, or by every aspect of a rubric."""

    def __init__(self, prompt: Prompt | None = None, rubric: Rubric | None = None):
        self.name = rubric.name if rubric else prompt.name
        self.by_aspect = rubric.prompts if rubric else {prompt.name: prompt}
        self.prompts, self.per_item = list(self.by_aspect.values()), len(self.by_aspect)
        self.combined = rubric.score if rubric else lambda scores: scores[prompt.name]
        scales = [aspect.scale for aspect in self.prompts]
        self.scale = tuple(
            float(self.combined(dict(zip(self.by_aspect, end, strict=True)))) for end in zip(*scales, strict=True)
        )

    def inquiries(self, reply: Reply) -> Iterator[Inquiry]:
        """Everything to be asked about a reply."""
        return (self._inquiry(prompt, reply) for prompt in self.prompts)

    def score(self, reply: Reply, read: Read) -> Score:
        """The combined score; None where one aspect is unreadable. mass: the least of all aspects."""
        readings = {aspect: read(self._inquiry(prompt, reply)) for aspect, prompt in self.by_aspect.items()}
        values = {aspect: reading.value for aspect, reading in readings.items()}
        mass = min((r.mass for r in readings.values() if r.mass is not None), default=None)
        evidence = {"aspects": values, "text": [reading.text for reading in readings.values()]}
        return Score(None if None in values.values() else self.combined(values), mass, evidence)

    def _inquiry(self, prompt: Prompt, reply: Reply) -> Inquiry:
        values = {"prompt": as_text(reply.prompt), "response": reply.text, "reference": _reference(reply.sample)}
        return Inquiry(prompt, tuple(values.items()))


def _reference(sample: dict | None) -> str:
    """The reference answer that a benchmark's sample carries, as prompts show it."""
    reference = (sample or {}).get("reference") or ""
    return f"\n[Reference answer]\n{reference}\n" if reference else ""


def worked(prompt: Prompt, path: str) -> str:
    """Examples as they are shown before the material. Raises ValueError for a malformed file."""
    try:
        with open(path) as file:
            content = yaml.safe_load(file)
        parts = []
        for number, example in enumerate(content, start=1):
            verdict = str(example.pop("verdict"))
            if prompt.value(verdict) is None:
                raise ValueError(f"verdict={verdict}; allowed are {', '.join(prompt.allowed)}")
            parts.append(f"Example {number}\n{prompt.material(**example)}\n{prompt.answer.strip()}\n{verdict}")
    except (OSError, AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(
            f"examples={path}: {' '.join(str(error).split())}; give a list of prompt, first, second, verdict."
        ) from None
    return "\n\n".join([*parts, "Now the case to judge"])
