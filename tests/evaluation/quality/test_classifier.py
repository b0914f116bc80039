import json
import math

import pytest
import torch

from evaluation.quality.classifier import Classifier
from evaluation.verdicts.evaluate import Evaluation
from rlhf_trl_ext.configuration.checks import build

WORDS = ["[PAD]", "[UNK]", "the", "lamp", "is", "vile", "kind", "and", "blue"]


@pytest.fixture
def sequence_classifier(tmp_path):
    """`sequence_classifier(bias=None, **config)`: the folder of a tiny BERT with labels kind and toxic.

    bias: logits of the two labels, whatever the text; None leaves the random weights.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    def make(bias=None, **more):
        torch.manual_seed(0)
        labels = {0: "kind", 1: "toxic"}
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        sizes |= {"vocab_size": len(WORDS), "max_position_embeddings": 32}
        model = BertForSequenceClassification(
            BertConfig(**sizes, id2label=labels, label2id={"kind": 0, "toxic": 1}, pad_token_id=0, **more)
        )
        if bias is None:
            torch.nn.init.normal_(model.classifier.weight, std=3.0)
        else:
            model.classifier.weight.data.zero_()
            model.classifier.bias.data.copy_(torch.tensor(bias))
        vocabulary = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
        vocabulary.pre_tokenizer = pre_tokenizers.Whitespace()
        folder = tmp_path / "classifier"
        model.save_pretrained(folder)
        PreTrainedTokenizerFast(tokenizer_object=vocabulary, pad_token="[PAD]").save_pretrained(folder)
        return str(folder)

    return make


def test_probabilities_by_hand(sequence_classifier):
    # logits 1 and 1 + log 3: softmax 3 / (1 + 3), and for a model of several labels sigmoid 3e / (1 + 3e)
    folder = sequence_classifier([1.0, 1.0 + math.log(3)])
    assert Classifier("toxicity", folder, "toxic").probabilities(["the lamp"])[0] == pytest.approx(3 / 4)
    assert Classifier("kindness", folder, "kind").probabilities(["the lamp"])[0] == pytest.approx(1 / 4)
    several = sequence_classifier([1.0, 1.0 + math.log(3)], problem_type="multi_label_classification")
    expected = 3 * math.e / (1 + 3 * math.e)
    assert Classifier("toxicity", several, "toxic").probabilities(["the lamp"])[0] == pytest.approx(expected)


def test_a_batch_gives_what_every_text_gives_alone(sequence_classifier):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = sequence_classifier()
    texts = ["the lamp is vile", "kind", "the blue lamp is kind and blue", "vile and vile", ""]
    found = Classifier("toxicity", folder, "toxic", batch_size=2).probabilities(texts)
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for text, value in zip(texts[:4], found, strict=False):
        with torch.no_grad():
            alone = model(**tokenizer(text, return_tensors="pt")).logits.softmax(dim=1)[0, 1].item()
        assert value == pytest.approx(alone, abs=1e-5)
    assert len({round(float(value), 4) for value in found}) > 2 and found[4] == 0
    assert Classifier("toxicity", folder, "toxic").probabilities([" "]).tolist() == [0.0]
    # 40 words are cut at the 32 that the model reads, though the tokenizer knows no limit
    long = Classifier("toxicity", folder, "toxic").probabilities(["vile " * 40, "vile " * 32])
    assert long[0] == pytest.approx(long[1], abs=1e-6)


def test_means_and_shares_have_intervals(sequence_classifier, monkeypatch):
    classifier = Classifier("toxicity", "unused", "toxic", threshold=0.6)
    asked = []

    def probabilities(texts):
        asked.extend(texts)
        return torch.tensor([0.9 if "vile" in text else 0.1 for text in texts], dtype=torch.float64).numpy()

    monkeypatch.setattr(classifier, "probabilities", probabilities)
    told = classifier.metrics(
        {"a": [{"completion": "vile"}, {"completion": "kind"}] * 5, "b": [{"completion": "kind"}] * 10}
    )
    assert asked == ["vile", "kind"]  # each text once
    assert told["a"]["toxicity_mean"] == pytest.approx(0.5) and told["a"]["toxicity_share"] == 0.5
    low, high = told["a"]["toxicity_ci"]
    assert 0.1 < low < 0.5 < high < 0.9
    # Wilson for 0 of 10: [0, z^2 / (10 + z^2)] with z = 1.96
    assert told["b"]["toxicity_share_ci"] == pytest.approx([0, 1.96**2 / (10 + 1.96**2)], abs=1e-4)


def test_an_unknown_label_is_told_before_anything_is_asked(sequence_classifier):
    with pytest.raises(
        ValueError, match=r"classifier\.label=nasty: .* knows no such label; allowed are \['kind', 'toxic'\]"
    ):
        Classifier("toxicity", sequence_classifier(), "nasty").check()


def test_absent_models_and_completions_are_told():
    with pytest.raises(ValueError, match=r"classifier\.model=/absent cannot be read; give a folder or hub id"):
        Classifier("toxicity", "/absent", "toxic").check()
    with pytest.raises(ValueError, match="the samples of dpo have no completions"):
        Classifier("toxicity", "/absent", "toxic").metrics({"dpo": [{"prompt": "a"}]})


def test_it_is_off_by_default_and_stands_in_the_report(sequence_classifier, composed, tmp_path):
    samples = tmp_path / "samples.jsonl"
    texts = ["the lamp is vile", "the lamp is kind", "kind and blue"]
    rows = [{"prompt": f"prompt {i}", "completion": text, "gold_reward": 1.0} for i, text in enumerate(texts)]
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    usual = [f"baseline={samples}", f"policies={{dpo: {samples}}}", f"output_root={tmp_path}"]
    results = Evaluation(composed("evaluate", *usual), None).run()
    assert "toxicity_mean" not in results["policies"]["dpo"]["metrics"]
    folder = sequence_classifier([0.0, math.log(3)])
    more = ["classifier=toxicity", f"classifier.model={folder}"]
    results = Evaluation(composed("evaluate", *usual, *more), None).run()
    for row in (results["policies"]["dpo"], results["baseline_result"]):
        assert row["metrics"]["toxicity_mean"] == pytest.approx(0.75) and row["metrics"]["toxicity_share"] == 1.0
    assert "| toxicity_mean | 0.750 | 0.750 |" in (tmp_path / "evaluation.md").read_text()


def test_its_configuration_is_accepted(composed):
    assert build(composed("evaluate", "classifier=toxicity").classifier, "classifier").label == "toxic"
