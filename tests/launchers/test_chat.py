"""A conversation with policies, scripted by the standard input."""

import io
import sys

import pytest

from launchers.chat import main
from rlhf_trl_ext.models.chatting import Chatter
from rlhf_trl_ext.models.loading import ModelArguments
from rlhf_trl_ext.models.sampling import complete


def chat(monkeypatch, capsys, text, *arguments):
    monkeypatch.setattr(sys, "argv", ["chat", *arguments, "samples.max_new_tokens=6"])
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    main()
    return capsys.readouterr().out.splitlines()


def test_a_reply_is_what_sampling_gives_and_the_conversation_goes_on(tiny):
    chatter = Chatter("", str(tiny), ModelArguments(model_name_or_path=str(tiny)), 6, 0.0, "Be kind.")
    said = "".join(chatter.reply("Hello"))
    chats = [[{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]]
    assert complete(chatter.model, chatter.tokenizer, chats, 6, 0.0).texts == [said]
    assert [turn["role"] for turn in chatter.turns] == ["system", "user", "assistant"]
    chatter.forget()
    assert chatter.turns == chats[0][:1]


def test_policies_answer_side_by_side_from_the_standard_input(tiny, monkeypatch, capsys):
    both = f"policies={{a: {tiny}, b: {tiny}}}"
    lines = chat(monkeypatch, capsys, "Hello\n\nHello\n", both, "samples.temperature=0")
    assert [line[:3] for line in lines] == ["a: ", "b: "] * 2
    assert lines[0][3:] == lines[1][3:] == lines[2][3:]  # greedy, the same model, a new conversation


@pytest.mark.parametrize("more", [[], ["policy=a", "policies={b: c}"]])
def test_one_of_policy_and_policies_is_given(more, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        chat(monkeypatch, capsys, "", *more)
    assert "policies" in str(ended.value.code) + capsys.readouterr().err
