"""A policy's answers to a benchmark, as samples that `launchers.evaluate` reads."""

import json
from pathlib import Path

import torch
from omegaconf import DictConfig
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from evaluation.quality.benchmarks.questions import Question, read_questions
from rlhf_trl_ext.configuration.checks import as_config_error, build
from rlhf_trl_ext.files import write
from rlhf_trl_ext.models.sampling import complete


def answer(config: DictConfig) -> Path:
    """Answer the questions of `conf/answer.yaml`; returns the samples file."""
    model = build(config.model, "model", model_name_or_path=config.policy)
    with as_config_error():
        hub = build(config.hub, "hub") if config.hub.name else None
        questions = read_questions(config.questions, config.references, hub)[: config.max_questions]
        tokenizer = model.tokenizer(config.policy)
    set_seed(config.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    policy = model.policy(config.policy, device_map=device)
    transcripts = converse(policy, tokenizer, questions, **config.samples)
    rows = [row for question, replies in zip(questions, transcripts, strict=True) for row in samples(question, replies)]
    path = Path(config.output)
    write(path, "".join(json.dumps(row) + "\n" for row in rows))
    return path


def converse(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: list[Question],
    max_new_tokens: int,
    temperature: float,
    batch_size: int,
) -> list[list[str]]:
    """The policy's answers, one list a question, one answer a turn; it sees its own earlier answers."""
    replies: list[list[str]] = [[] for _ in questions]
    for turn in range(max(len(question.turns) for question in questions)):
        groups: dict[float, list[int]] = {}
        for i, question in enumerate(questions):
            if turn < len(question.turns):
                groups.setdefault(question.temperature(temperature), []).append(i)
        for heat, members in groups.items():
            for start in tqdm(range(0, len(members), batch_size), desc=f"turn {turn + 1}, temperature {heat}"):
                chosen = members[start : start + batch_size]
                chats = [_chat(questions[i], replies[i], turn) for i in chosen]
                done = complete(policy, tokenizer, chats, max_new_tokens, heat)
                for i, text in zip(chosen, done.texts, strict=True):
                    replies[i].append(text)
    return replies


def samples(question: Question, replies: list[str]) -> list[dict]:
    """A sample a turn: the first user turn as prompt, all that followed it as completion, category, turn, reference.

    So the samples of two policies have the same prompts, and a judge sees every conversation whole.
    """
    rows = []
    for turn, _ in enumerate(replies):
        parts = [replies[0]]
        for i in range(1, turn + 1):
            parts += [f"[User]\n{question.turns[i]}", f"[Assistant]\n{replies[i]}"]
        row = {"prompt": [{"role": "user", "content": question.turns[0]}], "completion": "\n\n".join(parts)}
        row |= {"category": question.category, "turn": turn + 1}
        if turn < len(question.references):
            row["reference"] = question.references[turn]
        rows.append(row)
    return rows


def _chat(question: Question, replies: list[str], turn: int) -> list[dict]:
    chat = []
    for i in range(turn):
        chat += [{"role": "user", "content": question.turns[i]}, {"role": "assistant", "content": replies[i]}]
    return [*chat, {"role": "user", "content": question.turns[turn]}]
