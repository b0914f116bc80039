"""What all judges that are language models share, wherever the model runs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rlhf_trl_ext.judging.constitution import Constitution, Rubric
from rlhf_trl_ext.judging.inquiry import Comparing, Inquiry, Reading, Scoring
from rlhf_trl_ext.judging.judge import Judge, Replies, Score, check_temperature
from rlhf_trl_ext.judging.prompt import Prompt, load
from rlhf_trl_ext.judging.verdicts import Display, Displays, Opinion, Reply
from rlhf_trl_ext.quantities import Count, Positive, Seed, Share

Inquiries = Callable[[], Iterable[Inquiry]]


@dataclass(kw_only=True, eq=False)
class LanguageModelJudge(Judge):
    """A language model that compares two replies, or scores each alone.

    prompt: a name in `rlhf_trl_ext/judging/prompts` or a file; one with verdicts compares, one with a scale scores.
    rubric: scores by its aspects instead of a prompt.
    constitution: `principles` of its principles are drawn for a pair, by a hash of seed and pair. examples: a YAML file
    of worked examples, a list of {prompt, first, second, verdict}. temperature: of `Judge`, in levels of the scale.
    both_orders, max_unreadable: see `Judge`. Raises ValueError for settings that do not belong together.
    """

    model: str
    prompt: str | None = "helpfulness"
    rubric: str | None = None
    constitution: str | None = None
    principles: Count = 1
    examples: str | None = None
    temperature: Positive = 1.0
    both_orders: bool = True
    max_unreadable: Share = 0.25
    seed: Seed = 0

    def __post_init__(self) -> None:
        if not self.model.strip():
            raise ValueError("model is empty: give the name of a model, or a folder.")
        check_temperature(self.temperature, "levels of the scale")
        if not 0 <= self.max_unreadable <= 1:
            raise ValueError(f"max_unreadable={self.max_unreadable}: a share, 0 to 1.")
        self.questions = self._questions()
        self.name = f"{self.model}:{self.questions.name}"
        for prompt in self.questions.prompts:
            self.check_prompt(prompt)

    def _questions(self) -> Comparing | Scoring:
        if self.rubric is not None:
            for name in ("prompt", "constitution", "examples"):
                if path := getattr(self, name):
                    raise ValueError(f"rubric={self.rubric} and {name}={path}: with a rubric, {name} is null.")
            return Scoring(rubric=Rubric(self.rubric))
        if self.prompt is None:
            raise ValueError("prompt=null: give a prompt, or a rubric.")
        prompt = load(self.prompt)
        constitution = Constitution(self.constitution, self.seed) if self.constitution else None
        if prompt.kind == "pair":
            return Comparing(prompt, constitution, self.principles, self.examples)
        if constitution or self.examples:
            raise ValueError(
                f"prompt={self.prompt} scores single replies: constitution and examples need one that compares."
            )
        return Scoring(prompt)

    @property
    def scores_alone(self) -> bool:
        """See `Judge`."""
        return isinstance(self.questions, Scoring)

    @property
    def scale(self) -> tuple[float, float] | None:
        """See `Judge`."""
        return self.questions.scale if self.scores_alone else None

    def check_prompt(self, prompt: Prompt) -> None:
        """Raises ValueError when this prompt cannot be put to the model."""

    def preview_inquiries(self, inquiries: Iterable[Inquiry]) -> dict:
        """What asking would take."""
        return {"requests": 0, "usd": 0.0}

    def ask(self, inquiries: Inquiries, total: int | None = None, tolerant: bool = False) -> None:
        """Get all answers. inquiries: called once a pass. tolerant: failures are only counted."""
        raise NotImplementedError

    def reading(self, inquiry: Inquiry) -> Reading:
        """The answer to an inquiry that was asked."""
        raise NotImplementedError

    def preview(self, displays: Displays) -> dict:
        """See `Judge.preview`."""
        return self.preview_inquiries(self._inquiries(displays))

    def prepare(self, displays: Displays, total: int | None = None, tolerant: bool = False) -> None:
        """See `Judge.prepare`."""
        if self.scores_alone:
            return super().prepare(displays, total, tolerant)
        self.ask(lambda: self._inquiries(displays), total and total * self.questions.per_item, tolerant)

    def prepare_scores(self, replies: Replies, total: int | None = None, tolerant: bool = False) -> None:
        """See `Judge.prepare_scores`."""
        inquiries = lambda: (i for reply in replies() for i in self.questions.inquiries(reply))  # noqa: E731
        self.ask(inquiries, total and total * self.questions.per_item, tolerant)

    def opinion(self, display: Display) -> Opinion:
        """See `Judge.opinion`."""
        return super().opinion(display) if self.scores_alone else self.questions.opinion(display, self.reading)

    def score(self, reply: Reply) -> Score:
        """See `Judge.score`."""
        return self.questions.score(reply, self.reading)

    def _inquiries(self, displays: Displays) -> Iterable[Inquiry]:
        for display in displays():
            for single in display.replies if self.scores_alone else (display,):
                yield from self.questions.inquiries(single)
