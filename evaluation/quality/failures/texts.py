"""What can be read off one completion: functions of a sample (a row of `launchers.generate`) that return a number.

nan where a measure does not apply to a sample.
"""

import math
import re
from difflib import SequenceMatcher

from rlhf_trl_ext.judging.prompt import as_text

REFUSALS = re.compile(
    r"\b(i can(?:'|’)?t|i cannot|i can not|i(?:'|’)m sorry,? but|i am sorry,? but|i won(?:'|’)t|i(?:'|’)m unable|"
    r"i am unable|as an ai|i(?:'|’)m not able|i am not able|i must decline)\b",
    re.IGNORECASE,
)
PRAISE = re.compile(
    r"^\W*(great|good|excellent|wonderful|fantastic|amazing|brilliant|what a (?:great|good|wonderful)) "
    r"(question|point|idea|thinking|choice)|^\W*you(?:'|’)?(?:re| are) (?:absolutely |completely |so |totally )?right|"
    r"^\W*(absolutely|i (?:completely|totally|fully|couldn(?:'|’)t) agree)",
    re.IGNORECASE,
)
HEDGES = re.compile(
    r"\b(perhaps|maybe|might|possibly|arguably|it depends|in some cases|it(?:'|’)s worth noting)\b", re.I
)
FORMATS = re.compile(
    r"^\s*(?:[-*•]|\d+[.)])\s|^#{1,6}\s|\*\*[^*\n]+\*\*|[\U0001F300-\U0001FAFF\u2600-\u27BF]", re.MULTILINE
)
LONGEST_PERIOD = 50


def words(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return re.findall(r"\w+", text.lower())


def ngrams(tokens: list[str], n: int) -> list[tuple[str, ...]]:
    """All n-grams, in order, with repetitions."""
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))


def repetition(row: dict, n: int = 4) -> float:
    """rep-n, `1 - unique / all` n-grams (Welleck et al., arXiv:1908.04319); nan for fewer than n words."""
    grams = ngrams(words(row["completion"]), n)
    return 1 - len(set(grams)) / len(grams) if grams else math.nan


def loop(row: dict) -> float:
    """1 where the text ends in the same at most 50 words at least three times, else 0."""
    tokens = words(row["completion"])
    for period in range(1, min(LONGEST_PERIOD, len(tokens) // 3) + 1):
        if tokens[-period:] == tokens[-2 * period : -period] == tokens[-3 * period : -2 * period]:
            return 1.0
    return 0.0


def copying(row: dict, n: int = 4) -> float:
    """Share of the completion's n-grams that stand in the prompt (cf. Grusky et al., arXiv:1804.11283)."""
    grams = ngrams(words(row["completion"]), n)
    prompt_grams = set(ngrams(words(as_text(row["prompt"])), n))
    return sum(gram in prompt_grams for gram in grams) / len(grams) if grams else math.nan


def title_copy(row: dict) -> float:
    """1 where the longest common run of characters with the prompt's `TITLE:` exceeds 0.8 of the completion."""
    title = re.search(r"^TITLE:(.*)$", as_text(row["prompt"]), re.MULTILINE)
    text = row["completion"].strip().lower()
    if title is None or not text:
        return math.nan
    title = title[1].strip().lower()
    match = SequenceMatcher(None, title, text, autojunk=False).find_longest_match()
    return float(match.size > 0.8 * len(text))


def degenerate(row: dict) -> float:
    """1 for fewer than three words, over 10 % unprintable characters, the prompt itself, or one character repeated."""
    text = row["completion"].strip()
    unprintable = sum(not (c.isprintable() or c.isspace()) or c == "\ufffd" for c in text)
    bad = len(text.split()) < 3 or unprintable > 0.1 * len(text) or text == as_text(row["prompt"]).strip()
    return float(bad or len(set(text)) == 1)


def refusal(row: dict) -> float:
    """1 where the first 100 characters refuse, else 0."""
    return float(REFUSALS.search(row["completion"][:100]) is not None)


def praise(row: dict) -> float:
    """1 where the completion opens with praise or agreement, a cue of sycophancy (arXiv:2310.13548), else 0."""
    return float(PRAISE.search(row["completion"]) is not None)


def formatting(row: dict) -> float:
    """Bullets, numbers, headers, bold runs and emoji per 100 words."""
    return 100 * len(FORMATS.findall(row["completion"])) / max(1, len(row["completion"].split()))


def hedging(row: dict) -> float:
    """Hedges per 100 words."""
    return 100 * len(HEDGES.findall(row["completion"])) / max(1, len(row["completion"].split()))


def truncated(row: dict) -> float:
    """1 where generation stopped at the limit without an end token; nan where that is not known."""
    return float(row["truncated"]) if "truncated" in row else math.nan


def characters(row: dict) -> float:
    """Length in characters."""
    return float(len(row["completion"]))
