"""Records of each form, read into view -> row; a preference is also a demonstration (its chosen reply)."""

import contextlib

from rlhf_trl_ext.data.hh import transcript
from rlhf_trl_ext.data.schema import (
    BadRow,
    NoRow,
    Row,
    assistant,
    conversation,
    number_field,
    pair,
    text_field,
    typed_field,
)
from rlhf_trl_ext.data.turns import PROMPTS, REPLIES, is_transcript, joined, pair_of_texts, prompt_of, turns

# What a label, an answer to check against and scores are called.
LABELS = ("label", "kto_tag")
TRUE = ("true", "1", "1.0", "yes", "good", "desirable", "chosen", "up", "positive", "👍")
FALSE = ("false", "0", "0.0", "-1", "-1.0", "no", "bad", "undesirable", "rejected", "down", "negative", "👎")
SOLUTIONS = ("solution", "ground_truth", "answer")
RATINGS = ("ratings", "rating")
SCORES = (
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen-rating", "rejected-rating"),
    ("chosen_rating", "rejected_rating"),
    ("chosen_avg_rating", "rejected_avg_rating"),
    ("rating_chosen", "rating_rejected"),
)


def preference(record: dict) -> dict[str, Row]:
    chosen, rejected = record["chosen"], record["rejected"]
    if any(record.get(name) for name in PROMPTS):
        prompt = prompt_of(record)
        row = pair(joined(prompt, chosen), joined(prompt, rejected))
    elif isinstance(chosen, str) and isinstance(rejected, str):
        row = pair(*pair_of_texts(chosen, rejected))
    else:
        row = pair(turns(chosen, "assistant"), turns(rejected, "assistant"))
    return {"preferences": row, "tie": _ties(record)}


def _ties(record: dict) -> bool:
    """Whether scores stand beside the replies and are equal. Raises BadRow where the rejected one has the higher."""
    for names in SCORES:
        for holder in (record, record.get("metadata") or {}):
            if not isinstance(holder, dict) or any(holder.get(name) is None for name in names):
                continue
            scores = [number_field(holder, name) for name in names]
            if scores[0] < scores[1]:
                raise BadRow(f"{names[0]} < {names[1]}")
            return scores[0] == scores[1]
    return False


def openai_preference(record: dict) -> dict[str, Row]:
    request = typed_field(record, "input", dict)
    if request.get("tools"):
        raise BadRow("tools beside the text, which no algorithm here reads")
    pairs = {"chosen": record["preferred_output"], "rejected": record["non_preferred_output"]}
    return preference({"messages": typed_field(request, "messages", list), **pairs})


def argilla(record: dict) -> dict[str, Row]:
    return preference({**record, "chosen": record["chosen_response"], "rejected": record["rejected_response"]})


def scored(record: dict) -> dict[str, Row]:
    """The best scored reply against the worst; replies and scores side by side, or replies that hold theirs."""
    if "completions" in record:
        replies = [text_field(reply, "response") for reply in typed_field(record, "completions", list)]
        scores = [reply.get("overall_score", reply.get("fine-grained_score")) for reply in record["completions"]]
    else:
        replies = typed_field(record, "generations", list)
        scores = typed_field(record, next(name for name in RATINGS if record.get(name) is not None), list)
    if len(replies) != len(scores):
        raise BadRow("another number of scores than of replies")
    rated = []
    for score, reply in zip(scores, replies, strict=True):
        with contextlib.suppress(BadRow):  # "N/A" or null: a reply that nobody scored
            rated.append((number_field({"score": score}, "score"), reply))
    if len(rated) < 2:
        raise NoRow("records with fewer than two scored replies")
    (worst, rejected), (best, chosen) = min(rated, key=lambda x: x[0]), max(rated, key=lambda x: x[0])
    if best == worst:
        raise NoRow("score ties")
    names = {name: record[name] for name in PROMPTS if name in record}
    return preference({**names, "chosen": chosen, "rejected": rejected})


def unpaired(record: dict) -> dict[str, Row]:
    label = str(next(record[name] for name in LABELS if record.get(name) is not None)).strip().lower()
    label = True if label in TRUE else False if label in FALSE else None
    if label is None:
        raise BadRow("a label that is neither true nor false")
    if "text" in record and not any(record.get(name) for name in PROMPTS):
        return {"text": {"text": text_field(record, "text")}} if label else {}
    reply = next((record[name] for name in REPLIES if record.get(name)), None)
    whole = conversation(prompt_of(record) if reply is None else joined(prompt_of(record), reply))
    row = {"prompt": whole[:-1], "completion": whole[-1:]}
    return {"unpaired": {**row, "label": label}} | ({"demonstrations": row} if label else {})


def demonstration(record: dict) -> dict[str, Row]:
    reply = next((record[name] for name in REPLIES if record.get(name)), None)
    whole = prompt_of(record) if reply is None else joined(prompt_of(record), reply)
    if whole[-1]["role"] == "user":
        return {"prompts": {"prompt": whole}}
    whole = conversation(whole)
    return {"demonstrations": {"prompt": whole[:-1], "completion": whole[-1:]}}


def solved(record: dict) -> dict[str, Row]:
    """A question with the answer to check against: verl's ground truth, GSM8K's number after ####, or a column."""
    checked = record.get("reward_model")
    answer = checked.get("ground_truth") if isinstance(checked, dict) else None
    answer = (
        next((record[name] for name in SOLUTIONS if record.get(name) is not None), None) if answer is None else answer
    )
    if answer is None:
        raise BadRow("no answer to check against")
    if not isinstance(answer, str | int | float):
        raise BadRow("an answer to check against that is no text or number")
    prompt, text = prompt_of(record), str(answer)
    rows = {"prompts": {"prompt": prompt, "solution": text.rpartition("####")[2].strip()}}
    if "####" in text:
        rows["demonstrations"] = {"prompt": prompt, "completion": [assistant(text)]}
    return rows


def plain_text(record: dict) -> dict[str, Row]:
    text = text_field(record, "text")
    if is_transcript(text):
        whole = conversation(transcript(text))
        return {"demonstrations": {"prompt": whole[:-1], "completion": whole[-1:]}}
    return {"text": {"text": text}}


def stepwise(record: dict) -> dict[str, Row]:
    raise ValueError("rows with a label for every step train a process reward model, which no algorithm here does.")
