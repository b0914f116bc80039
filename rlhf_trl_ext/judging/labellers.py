"""Labellers: who says which of two replies is better, seeing them in one order. `labelling.py` makes labels of that."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import yaml

from rlhf_trl_ext.judging.constitution import Constitution, Rubric
from rlhf_trl_ext.judging.prompt import Prompt, as_text, load
from rlhf_trl_ext.judging.respondents import Inquiry, Respondent


class Display(NamedTuple):
    """Two replies to a prompt as a labeller sees them, in this order. prompt: text or messages."""

    prompt: str | list[dict]
    first: str
    second: str

    @property
    def identity(self) -> str:
        """The pair whatever the order, as text."""
        return json.dumps([self.prompt, *sorted((self.first, self.second))])


class Opinion(NamedTuple):
    """preference: probability that what stands first is better, None where nothing could be read. mass: see `Reading`.

    scores: of both, for labellers that score each alone. evidence: what was said and by which principle.
    """

    preference: float | None
    mass: float | None = None
    scores: tuple[float, float] | None = None
    evidence: dict | None = None


Displays = Callable[[], Iterable[Display]]


class Labeller:
    """name, notices: for the report. sees_order: whether the order of the two replies can matter."""

    name: str
    sees_order = True
    notices: list[str] = []
    cost: dict = {"requests": 0, "prompt_tokens": 0, "completion_tokens": 0, "usd": 0.0}

    def check(self) -> None:
        """Raises ValueError when the labeller cannot work, before anything is asked."""

    def preview(self, displays: Displays) -> dict:
        """What asking would take."""
        return {"requests": 0, "usd": 0.0}

    def prepare(self, displays: Displays, total: int | None = None, tolerant: bool = False) -> None:
        """Ask whatever `opinion` needs. displays: called once a pass. tolerant: failures become no opinions."""

    def opinion(self, display: Display) -> Opinion:
        """What was said about a display that was prepared."""
        raise NotImplementedError


class PairLabeller(Labeller):
    """A language model that compares two replies.

    prompt: a pair prompt, a name in `judging/prompts` or a file. constitution: its principles stand where the prompt
    has {principle}; `principles` of them are drawn for a pair, and their probabilities averaged. examples: a YAML file
    with a list of {prompt, first, second, verdict}, worked examples (few shots).
    """

    def __init__(
        self,
        respondent: Respondent,
        prompt: str = "helpfulness",
        constitution: Constitution | None = None,
        principles: int = 1,
        examples: str | None = None,
    ):
        self.respondent, self.prompt, self.constitution = respondent, load(prompt), constitution
        self.count = principles
        if self.prompt.kind != "pair":
            raise ValueError(f"prompt={prompt} scores single replies: give one that compares, such as helpfulness.")
        if ("{principle}" in self.prompt.show) != (constitution is not None):
            raise ValueError(f"prompt={prompt}: a constitution is needed where it has {{principle}}, and only there.")
        if constitution is not None and not 1 <= principles <= len(constitution.principles):
            raise ValueError(f"principles={principles}: give 1 to {len(constitution.principles)}.")
        self.examples = _worked(self.prompt, examples) if examples else ""
        self.name = f"{respondent.name}:{constitution.name if constitution else self.prompt.name}"

    @property
    def notices(self) -> list[str]:
        return list(self.respondent.notices)

    @property
    def cost(self) -> dict:
        return self.respondent.cost

    def check(self) -> None:
        self.respondent.check(self.prompt)

    def preview(self, displays: Displays) -> dict:
        return self.respondent.preview(self._inquiries(displays))

    def prepare(self, displays: Displays, total: int | None = None, tolerant: bool = False) -> None:
        total = total and total * (self.count if self.constitution else 1)
        self.respondent.ask(lambda: self._inquiries(displays), total, tolerant)

    def opinion(self, display: Display) -> Opinion:
        drawn = self._principles(display)
        readings = [self.respondent.reading(self._inquiry(display, principle)) for principle in drawn]
        evidence = {"text": [reading.text for reading in readings]}
        if self.constitution:
            evidence["principles"] = drawn
        values = [reading.value for reading in readings]
        masses = [reading.mass for reading in readings if reading.mass is not None]
        mass = sum(masses) / len(masses) if masses else None
        return Opinion(None if None in values else sum(values) / len(values), mass, evidence=evidence)

    def _inquiries(self, displays: Displays) -> Iterator[Inquiry]:
        return (self._inquiry(display, p) for display in displays() for p in self._principles(display))

    def _principles(self, display: Display) -> list[str]:
        if self.constitution is None:
            return [""]
        return [principle.compare for principle in self.constitution.draw(display.identity, self.count)]

    def _inquiry(self, display: Display, principle: str) -> Inquiry:
        values = {"prompt": as_text(display.prompt), "first": display.first, "second": display.second}
        return Inquiry(self.prompt, tuple({**values, "principle": principle}.items()), self.examples)


class RubricLabeller(Labeller):
    """A language model that scores each reply alone by a rubric; `P(first is better) = sigmoid((s_1 - s_2) / t)`.

    Scores are expected levels under the probabilities of the digits. temperature: t, in levels.
    """

    sees_order = False

    def __init__(self, respondent: Respondent, rubric: str = "ultrafeedback", temperature: float = 1.0):
        if not temperature > 0:
            raise ValueError(f"temperature={temperature}: it is above 0, in levels of the rubric.")
        self.respondent, self.rubric, self.temperature = respondent, Rubric(rubric), temperature
        self.name = f"{respondent.name}:{self.rubric.name}"

    notices, cost = PairLabeller.notices, PairLabeller.cost

    def check(self) -> None:
        for prompt in self.rubric.prompts.values():
            self.respondent.check(prompt)

    def preview(self, displays: Displays) -> dict:
        return self.respondent.preview(self._inquiries(displays))

    def prepare(self, displays: Displays, total: int | None = None, tolerant: bool = False) -> None:
        total = total and total * 2 * len(self.rubric.prompts)
        self.respondent.ask(lambda: self._inquiries(displays), total, tolerant)

    def opinion(self, display: Display) -> Opinion:
        scored = [self._scores(display.prompt, reply) for reply in (display.first, display.second)]
        masses = [mass for _, mass in scored if mass is not None]
        mass = min(masses) if masses else None
        if any(None in scores.values() for scores, _ in scored):
            return Opinion(None, mass, evidence={"aspects": [scores for scores, _ in scored]})
        first, second = (self.rubric.score(scores) for scores, _ in scored)
        preference = sigmoid((first - second) / self.temperature)
        return Opinion(preference, mass, (first, second), {"aspects": [scores for scores, _ in scored]})

    def _scores(self, prompt, reply: str) -> tuple[dict[str, float | None], float | None]:
        """Score of every aspect, and the least label mass."""
        found = {a: self.respondent.reading(self._inquiry(a, prompt, reply)) for a in self.rubric.prompts}
        masses = [reading.mass for reading in found.values() if reading.mass is not None]
        return {a: reading.value for a, reading in found.items()}, min(masses, default=None)

    def _inquiries(self, displays: Displays) -> Iterator[Inquiry]:
        for display in displays():
            for reply in (display.first, display.second):
                yield from (self._inquiry(aspect, display.prompt, reply) for aspect in self.rubric.prompts)

    def _inquiry(self, aspect: str, prompt, reply: str) -> Inquiry:
        return Inquiry(self.rubric.prompts[aspect], (("prompt", as_text(prompt)), ("response", reply)))


class RewardModelLabeller(Labeller):
    """A reward model, or any reward function; `P(first is better) = sigmoid((r_1 - r_2) / temperature)`."""

    sees_order = False

    def __init__(self, path: str, temperature: float = 1.0, batch_size: int = 64, dtype: str = "float32"):
        if not temperature > 0:
            raise ValueError(f"temperature={temperature}: it is above 0, in the reward's unit.")
        self.path, self.temperature, self.batch_size, self.dtype = path, temperature, batch_size, dtype
        self.name = f"reward_model:{path}"
        self.scores: dict[bytes, float] = {}

    def prepare(self, displays: Displays, total: int | None = None, tolerant: bool = False) -> None:
        from rlhf_trl_ext.rewards.model import RewardModel

        model = RewardModel(self.path, self.batch_size, self.dtype)
        waiting: dict[bytes, tuple] = {}
        for display in displays():
            for reply in (display.first, display.second):
                if (key := _key(display.prompt, reply)) not in self.scores:
                    waiting[key] = (display.prompt, [{"role": "assistant", "content": reply}])
            if len(waiting) >= self.batch_size:
                self._score(model, waiting)
        self._score(model, waiting)

    def _score(self, model, waiting: dict) -> None:
        if waiting:
            prompts, replies = zip(*waiting.values(), strict=True)
            self.scores.update(zip(waiting, model(list(prompts), list(replies)), strict=True))
            waiting.clear()

    def opinion(self, display: Display) -> Opinion:
        scores = tuple(self.scores[_key(display.prompt, reply)] for reply in (display.first, display.second))
        return Opinion(sigmoid((scores[0] - scores[1]) / self.temperature), scores=scores)


def sigmoid(x: float) -> float:
    """`1 / (1 + exp(-x))`, without overflow."""
    return 0.5 * (1 + math.tanh(x / 2))


def _key(prompt, reply: str) -> bytes:
    return hashlib.sha256(json.dumps([prompt, reply]).encode()).digest()


def _worked(prompt: Prompt, path: str) -> str:
    """Examples as they are shown before the material. Raises ValueError for a malformed file."""
    try:
        with open(path) as file:
            content = yaml.safe_load(file)
        shown = []
        for number, example in enumerate(content, start=1):
            verdict = str(example.pop("verdict"))
            if prompt.value(verdict) is None:
                raise ValueError(f"verdict={verdict}; allowed are {', '.join(prompt.allowed)}")
            shown.append(f"Example {number}\n{prompt.material(**example)}\n{prompt.answer.strip()}\n{verdict}")
    except (OSError, AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(
            f"examples={path}: {' '.join(str(error).split())}; give a list of prompt, first, second, verdict."
        ) from None
    return "\n\n".join([*shown, "Now the case to judge"])
