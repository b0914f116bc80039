"""How the verdict is read from the words of an answer, in the spellings that models use."""

import json
import re
import unicodedata

# What may introduce a verdict: "Answer:", "The final verdict is", "Reply".
NAME = (
    r"(?:the\s+)?(?:final\s+|better\s+|best\s+|correct\s+|preferred\s+)?(?:answer|verdict|choice|winner|rating|score|"
    r"preference|output|reply|response|summary|option|assistant)(?:\s+is\b)?"
)
TIE = r"(?:it(?:'s| is)\s+)?(?:an?\s+)?(?:tie|tied|draw|equal|equally good|both(?: are (?:equal|equally good))?)"
MARKS = r"[\s*_`'\"“”()\[\]{}<>:#]*"  # around a verdict, without - and . that belong to numbers
END = r"[\s*_`'\"“”()\[\]{}<>.!]*"
KEYS = {
    "pair": ("verdict", "answer", "winner", "choice", "preference", "preferred", "better"),
    "single": ("score", "rating", "verdict", "answer"),
}
THOUGHT = re.compile(r"^\s*<(think|thinking|reasoning)>.*</\1>", re.DOTALL)


def parsed(prompt, text: str) -> float | None:
    """The value that an answer to a prompt states, None where it states none, or more than one.

    Prompts with a pattern: its last match, else a last line like "Verdict: A". Others: the verdict alone, bold, in
    brackets, full-width, as JSON, or after a name such as "Answer:". A tie in words counts for prompts that compare.
    """
    text = unicodedata.normalize("NFKC", THOUGHT.sub("", text)).translate({0x3010: "[", 0x3011: "]"}).strip()
    if prompt.pattern is None:
        in_json = _in_json(prompt, text)
        return _parsed(prompt, text if in_json is None else in_json, labelled=False)
    if matches := re.findall(prompt.pattern, text):
        return prompt.value(matches[-1])
    if prompt.kind == "pair" and re.search(rf"\[\[\s*{TIE}\s*\]\]", text, re.IGNORECASE):
        return 0.5
    return _parsed(prompt, text.rpartition("\n")[2], labelled=True)


def _parsed(prompt, text: str, labelled: bool) -> float | None:
    """The verdict that a short text is. named: whether it has to be introduced, as in "Verdict: A"."""
    verdicts, tail = "|".join(sorted(map(re.escape, prompt.allowed), key=len, reverse=True)), ""
    if prompt.kind == "single":
        verdicts, tail = r"\d+(?:\.\d+)?", rf"(?:\s*(?:/|out of)\s*{prompt.scale[1]})?"
    name = rf"(?:{MARKS}\b(?i:{NAME})(?![\w])){'{1,2}' if labelled else '{0,2}'}{MARKS}"
    if match := re.fullmatch(rf"{name}\b({verdicts}){tail}{END}", text):
        return prompt.value(match[1])
    tie = prompt.kind == "pair" and re.fullmatch(rf"{name}{TIE}{END}", text, re.IGNORECASE)
    return 0.5 if tie else None


def _in_json(prompt, text: str) -> str | None:
    """The verdict in a JSON object that is the whole answer, fenced or not; None where there is no such object."""
    fenced = re.fullmatch(r"(?:```(?:json)?)?\s*(\{.*\})\s*(?:```)?", text, re.DOTALL)
    try:
        content = json.loads(fenced[1]) if fenced else None
    except ValueError:
        return None
    if not isinstance(content, dict):
        return None
    lowered = {str(key).lower(): value for key, value in content.items()}
    values = {str(lowered[key]) for key in KEYS[prompt.kind] if isinstance(lowered.get(key), str | int | float)}
    return values.pop() if len(values) == 1 else ""
