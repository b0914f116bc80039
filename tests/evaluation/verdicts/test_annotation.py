"""Blind comparison by people: order, resumption, agreement, and who reads the labels."""

import json

import pytest

from evaluation.verdicts.agreement import read_labels
from evaluation.verdicts.annotation import Annotation, in_words
from rlhf_trl_ext.data.labelled import Labelled

PROMPTS = [[{"role": "user", "content": f"prompt {number}"}] for number in range(20)]
BASELINE = [{"prompt": prompt, "completion": f"base {number}"} for number, prompt in enumerate(PROMPTS)]
POLICY = [{"prompt": prompt, "completion": f"mine {number}"} for number, prompt in enumerate(PROMPTS)]


def opened(folder, **settings):
    return Annotation(BASELINE, {"mine": POLICY}, folder, **settings)


def compare(annotation, annotator, count, prefer):
    """Somebody who prefers replies that begin with `prefer`; returns the items."""
    items = []
    for _ in range(count):
        item = annotation.next(annotator)
        annotation.answer(annotator, item, "first" if item.first.startswith(prefer) else "second")
        items.append(item)
    return items


def test_pairs_come_in_an_order_of_each_persons_own_and_blind(tmp_path):
    annotation = opened(tmp_path)
    ann, bob = (compare(annotation, name, 20, "mine") for name in ("ann", "bob"))
    assert [item.pair for item in ann] != [item.pair for item in bob]
    assert sorted(item.pair for item in ann) == sorted(item.pair for item in bob) == list(range(20))
    assert {item.swapped for item in ann} == {True, False} and annotation.next("ann") is None
    assert set(annotation.outcomes["ann"].values()) == {1.0}  # of the policy, wherever it was shown
    assert all((item.second if item.swapped else item.first).startswith("mine") for item in ann)


def test_everyone_continues_where_they_ended_and_nothing_is_stored_twice(tmp_path):
    items = compare(opened(tmp_path), "ann", 7, "mine")
    annotation = opened(tmp_path)
    assert annotation.progress("ann") == (7, 20) and annotation.progress("bob") == (0, 20)
    annotation.answer("ann", items[0], "tie")  # a second click
    assert annotation.outcomes["ann"]["mine", items[0].pair] == 1.0
    compare(annotation, "ann", 13, "mine")
    assert len((tmp_path / "annotations.jsonl").read_text().splitlines()) == 20


def test_annotations_of_other_samples_are_refused(tmp_path):
    compare(opened(tmp_path), "ann", 1, "mine")
    with pytest.raises(ValueError, match="is no annotation of these samples; give another output"):
        Annotation(BASELINE, {"mine": [{**row, "completion": "other"} for row in POLICY]}, tmp_path)


def test_equal_replies_are_not_shown_and_a_choice_of_pairs_is_the_same_for_all(tmp_path):
    same = Annotation(BASELINE, {"mine": POLICY[:10] + BASELINE[10:]}, tmp_path)
    assert len(same.pairs) == 10
    assert opened(tmp_path, max_pairs=5).pairs == opened(tmp_path, max_pairs=5).pairs != opened(tmp_path).pairs[:0]


def test_labels_are_those_that_training_and_evaluation_read(tmp_path):
    annotation = opened(tmp_path)
    (
        compare(annotation, "ann", 20, "mine"),
        compare(annotation, "bob", 20, "mine"),
        compare(annotation, "eve", 20, "base"),
    )
    rows = list(Labelled(str(tmp_path), evaluation=1e-9).load("preferences"))
    assert len(rows) == 20 and {round(row["p_chosen"], 3) for row in rows} == {0.667}
    assert all(row["chosen"][0]["content"].startswith("mine") for row in rows)
    labels = read_labels(tmp_path / "outcomes.jsonl", [("mine", "baseline")], 20)
    assert {verdict.outcome for verdict in labels["mine", "baseline"]} == {1.0}


def test_as_many_for_as_against_is_a_tie_and_no_preference(tmp_path):
    annotation = opened(tmp_path, max_pairs=1)
    compare(annotation, "ann", 1, "mine"), compare(annotation, "bob", 1, "base")
    assert (tmp_path / "labels.jsonl").read_text() == ""
    assert json.loads((tmp_path / "outcomes.jsonl").read_text())["outcome"] == 0.5


def test_how_far_people_agree(tmp_path):
    pytest.importorskip("krippendorff", reason="pip install 'rlhf-trl-ext[annotate]'")
    annotation = opened(tmp_path)
    assert annotation.agreement() == {"kappa": [], "alpha": None}
    for key in annotation.pairs:  # ann: the first ten won; bob: agrees on 18 of 20
        for name, won in (("ann", key[1] < 10), ("bob", 1 <= key[1] <= 10)):
            annotation.outcomes.setdefault(name, {})[key] = float(won)
    (row,) = annotation.agreement()["kappa"]
    assert (row["agreement"], row["pairs"]) == (0.9, 20) and row["kappa"] == pytest.approx(0.8)  # (0.9 - 0.5) / 0.5
    # alpha = 1 - D_o / D_e: 4 of 40 values in unequal pairs; 20 wins, 20 losses of 40: 1 - 0.1 / (20 / 39)
    assert annotation.agreement()["alpha"] == pytest.approx(1 - 0.1 * 39 / 20)
    assert "kappa 0.80" in in_words(annotation.agreement())[0]


@pytest.mark.slow
def test_the_page_shows_a_pair_and_keeps_what_is_clicked(tmp_path):
    pytest.importorskip("gradio", reason="pip install 'rlhf-trl-ext[annotate]'")
    from gradio_client import Client

    from evaluation.verdicts.annotation_page import page

    annotation = opened(tmp_path)
    blocks = page(annotation)
    _, url, _ = blocks.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, share=False)
    try:
        client = Client(url, verbose=False)
        prompt, first, second, progress = client.predict("", api_name="/begin")
        assert (prompt, first, second, progress) == ("", "", "", "Write your name to begin.")
        prompt, first, second, progress = client.predict("ann", api_name="/begin")
        assert prompt.startswith("user: prompt") and progress == "0 of 20 pairs"
        *_, progress = client.predict("ann", api_name="/answer")  # the first button
        assert progress == "1 of 20 pairs"
        (outcome,) = annotation.outcomes["ann"].values()
        assert outcome == float(first.startswith("mine"))
    finally:
        blocks.close()
