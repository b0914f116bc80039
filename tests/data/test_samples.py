"""Samples as other programs write them: separators inside texts, blank lines, messages, numbers that are none."""

import gzip
import json
import math

import pytest

from rlhf_trl_ext.data.samples import read_samples, text_of

ROWS = [{"prompt": f"question {i}", "completion": f"answer {i}", "reward": i / 2} for i in range(3)]
LINES = [json.dumps(row) for row in ROWS]
WRITTEN = {
    "plain.jsonl": "\n".join(LINES).encode(),
    "bom.jsonl": b"\xef\xbb\xbf" + "\n".join(LINES).encode(),
    "blank.jsonl": ("\n\n".join(LINES) + "\n\n  \n").encode(),
    "windows.jsonl": "\r\n".join(LINES).encode(),
    "array.json": json.dumps(ROWS, indent=1).encode(),
    "packed.jsonl.gz": gzip.compress("\n".join(LINES).encode()),
}


@pytest.mark.parametrize(("name", "content"), WRITTEN.items(), ids=WRITTEN.keys())
def test_every_way_of_writing_rows_is_read(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert read_samples(tmp_path / name) == ROWS


def test_separators_of_unicode_end_no_line(tmp_path):
    text = "one\u2028two\u2029three\x85four\x0bfive"
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps({"prompt": text, "completion": text}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_samples(path) == [{"prompt": text, "completion": text}]


def test_completions_as_messages_are_their_text():
    assert text_of([{"role": "assistant", "content": "Yes."}]) == "Yes."
    assert text_of([{"content": [{"type": "text", "text": "Ye"}, {"type": "text", "text": "s."}]}]) == "Yes."
    turns = [{"role": "assistant", "content": "1"}, {"role": "user", "content": "2"}]
    assert text_of(turns) == "Assistant: 1\n\nUser: 2"


def test_scores_are_numbers_absent_or_no_numbers(tmp_path):
    path = tmp_path / "samples.jsonl"
    scores = ["NaN", "Infinity", '"None"', "null", "0.5"]
    path.write_text("".join(f'{{"prompt": "a", "reward": {s}, "rewards/own": {s}, "other": {s}}}\n' for s in scores))
    samples = read_samples(path)
    for key in ("reward", "rewards/own"):
        assert [str(row[key]) for row in samples] == ["nan", "nan", "nan", "None", "0.5"]
    assert samples[1]["other"] == math.inf  # what is no score is left as it is


WRONG = [[3], ["text"], [{"role": "user"}], [{"content": "x"}], [{"role": "user", "content": {"x": 1}}]]


@pytest.mark.parametrize("prompt", WRONG)
def test_a_prompt_is_text_or_messages_with_text(prompt, tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps({"prompt": prompt, "completion": "a"}) + "\n")
    with pytest.raises(ValueError, match=r"samples.jsonl:1 holds no samples"):
        read_samples(path)
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    path.write_text(json.dumps({"prompt": parts, "completion": "a"}) + "\n")
    assert read_samples(path)[0]["prompt"] == [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize("line", ["[1]", '{"completion": "a"}', '{"prompt": "a", "completion": 3}', '{"prompt": ', "1"])
def test_a_row_that_is_no_sample_is_told_with_its_line(line, tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text(LINES[0] + "\n" + line + "\n")
    with pytest.raises(ValueError, match=r"reference=.*samples\.jsonl:2 holds no samples"):
        read_samples(path, "reference")


def test_no_rows_and_no_file_are_told(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"empty\.jsonl holds no samples"):
        read_samples(tmp_path / "empty.jsonl")
    with pytest.raises(ValueError, match=r"absent\.jsonl: no such file"):
        read_samples(tmp_path / "absent.jsonl")
