import gzip
import json

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluation.quality.benchmarks.answers import answer, converse, samples
from evaluation.quality.benchmarks.questions import Hub, Question, read_questions
from evaluation.verdicts.win_rate import summary
from rlhf_trl_ext.judging.verdicts import by_score


def test_mt_bench_is_read_whole(shared):
    """80 two-turn questions, ten a category; reference answers for maths, reasoning and coding."""
    folder = shared / "data/mt_bench"
    questions = read_questions(str(folder / "question.jsonl"), str(folder / "reference_answer_gpt-4.jsonl"))
    assert len(questions) == 80 and all(len(question.turns) == 2 for question in questions)
    assert len({question.category for question in questions}) == 8
    with_reference = {q.category for q in questions if q.references}
    assert with_reference == {"math", "reasoning", "coding"}
    assert questions[0].temperature(1.0) == 0.7 and Question("other", ("a",)).temperature(0.3) == 0.3


def test_alpaca_evals_instructions_are_read(shared):
    questions = read_questions(str(shared / "data/alpaca_eval/instructions.jsonl.gz"))
    assert len(questions) == 805 and questions[0].turns[0].startswith("What are the names of some famous actors")


def test_wrong_files_are_told_with_their_line(tmp_path):
    path = tmp_path / "questions.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write('{"instruction": "Hi"}\n{"question": "Hi"}\n')
    with pytest.raises(ValueError, match=r"questions\.jsonl\.gz:2: `turns`, `prompt` or `instruction` is needed"):
        read_questions(str(path))
    with pytest.raises(ValueError, match=r"questions=absent\.jsonl: no such file"):
        read_questions("absent.jsonl")
    path = tmp_path / "empty.jsonl"
    path.write_text("")
    with pytest.raises(ValueError, match="is empty"):
        read_questions(str(path))
    path.write_text("[1]\n")
    with pytest.raises(ValueError, match=r"empty\.jsonl:1 is no JSON object"):
        read_questions(str(path))


def test_mt_bench_comes_from_the_hub(monkeypatch, composed, tiny, tmp_path):
    """HuggingFaceH4/mt_bench_prompts, split train: category, prompt (list), reference (list), prompt_id."""
    from datasets import Dataset

    rows = [
        {"category": "writing", "prompt": ["Hi", "Why"], "reference": [], "prompt_id": 1},
        {"category": "math", "prompt": ["One and one?", "And one?"], "reference": ["2", "3"], "prompt_id": 2},
    ]
    asked = []
    monkeypatch.setattr("datasets.load_dataset", lambda *a, **k: asked.append((a, k)) or Dataset.from_list(rows))
    hub = Hub("HuggingFaceH4/mt_bench_prompts", revision="v1")
    first, second = read_questions(None, hub=hub)
    assert asked == [(("HuggingFaceH4/mt_bench_prompts",), {"split": "train", "revision": "v1"})]
    assert first == Question("writing", ("Hi", "Why")) and second.references == ("2", "3")
    output = tmp_path / "samples.jsonl"
    more = [f"policy={tiny}", f"hub.name={hub.name}", f"output={output}", "samples.max_new_tokens=2"]
    answer(composed("answer", *more))
    written = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(row["category"], row["turn"], row.get("reference")) for row in written] == [
        ("writing", 1, None),
        ("writing", 2, None),
        ("math", 1, "2"),
        ("math", 2, "3"),
    ]


def test_alpaca_eval_comes_from_a_file_of_the_hub(monkeypatch, tmp_path):
    """tatsu-lab/alpaca_eval, alpaca_eval.json: an array with instruction, output, generator and dataset."""
    row = {"instruction": "Name a tree.", "output": "Oak.", "generator": "text_davinci_003", "dataset": "helpful_base"}
    (tmp_path / "alpaca_eval.json").write_text(json.dumps([row], indent=1))
    asked = []
    path = str(tmp_path / "alpaca_eval.json")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *a, **k: asked.append(a) or path)
    hub = Hub("tatsu-lab/alpaca_eval", file="alpaca_eval.json")
    assert read_questions(None, hub=hub) == [Question("helpful_base", ("Name a tree.",))]
    assert asked == [("tatsu-lab/alpaca_eval", "alpaca_eval.json")]


def test_one_source_of_questions_is_needed_and_an_absent_hub_is_told(monkeypatch):
    with pytest.raises(ValueError, match="give one of the two"):
        read_questions(None)
    with pytest.raises(ValueError, match="give one of the two"):
        read_questions("a.jsonl", hub=Hub("b"))

    def fail(*arguments, **options):
        raise ConnectionError("no network")

    monkeypatch.setattr("datasets.load_dataset", fail)
    with pytest.raises(ConnectionError, match=r"hub=b cannot be read .* with questions=<file>"):
        read_questions(None, hub=Hub("b"))


def test_a_sample_a_turn_with_the_same_prompt_for_all_policies():
    question = Question("math", ("One and one?", "And one more?"), ("two", "three"))
    first, second = samples(question, ["2", "3"])
    assert first["prompt"] == second["prompt"] == [{"role": "user", "content": "One and one?"}]
    assert first["completion"] == "2" and first["reference"] == "two" and first["turn"] == 1
    assert second["completion"] == "2\n\n[User]\nAnd one more?\n\n[Assistant]\n3"
    assert second["reference"] == "three" and second["category"] == "math"


def test_the_second_turn_sees_the_first_answer(tiny, monkeypatch):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny).eval(), AutoTokenizer.from_pretrained(tiny)
    seen = []
    applied = tokenizer.apply_chat_template
    monkeypatch.setattr(tokenizer, "apply_chat_template", lambda chats, **k: seen.extend(chats) or applied(chats, **k))
    questions = [Question("math", ("Hi", "Why")), Question("writing", ("Go",))]
    said = converse(model, tokenizer, questions, max_new_tokens=4, temperature=1.0, batch_size=2)
    assert [len(answers) for answers in said] == [2, 1]
    assert seen[-1] == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": said[0][0]},
        {"role": "user", "content": "Why"},
    ]
    again = converse(model, tokenizer, questions[:1], max_new_tokens=4, temperature=1.0, batch_size=1)
    assert again[0] == said[0]  # maths is answered greedily, whatever else is in the batch


def test_a_benchmark_is_answered_from_its_configuration(tiny, composed, tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text('{"question_id": 1, "category": "math", "turns": ["Hi", "Why"]}\n{"instruction": "Go"}\n')
    output = tmp_path / "samples.jsonl"
    more = [f"policy={tiny}", f"questions={path}", f"output={output}", "samples.max_new_tokens=4"]
    assert answer(composed("answer", *more)) == output
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(row["category"], row["turn"]) for row in rows] == [("math", 1), ("math", 2), ("all", 1)]


def test_scores_are_given_by_category():
    rows = [{"prompt": str(i), "category": c} for i, c in enumerate(["math", "math", "stem", "stem"])]
    told = summary(by_score([7, 9, 3, None], [6, 6, 5, 5]), rows, rows)
    assert told["score_means"] == [pytest.approx(19 / 3), pytest.approx(17 / 3)]
    assert told["category_scores"] == {"math": [8.0, 6.0], "stem": [3.0, 5.0]} and told["unparsable"] == 1


@pytest.mark.parametrize("ids", [("81", 81), (81, "81"), (81, 81)])
def test_references_are_matched_by_number_or_text(ids, tmp_path):
    questions, references = tmp_path / "questions.jsonl", tmp_path / "references.jsonl"
    questions.write_text(json.dumps({"question_id": ids[0], "category": "math", "turns": ["1 + 1?"]}) + "\n")
    references.write_text(json.dumps({"question_id": ids[1], "choices": [{"turns": ["2"]}]}) + "\n")
    assert read_questions(str(questions), str(references))[0].references == ("2",)
    references.write_text(json.dumps({"question_id": 82, "choices": [{"turns": ["2"]}]}) + "\n")
    with pytest.raises(ValueError, match=r"references=.*no question_id of .* is among them"):
        read_questions(str(questions), str(references))
