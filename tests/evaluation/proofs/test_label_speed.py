import pytest

from evaluation.proofs.speed.labelling import measure


@pytest.mark.slow
def test_labelling_keeps_nothing_in_memory_and_answers_every_pair(tmp_path):
    """Two thousand labels; the time is measured by `python -m evaluation.proofs.speed.labelling`."""
    found = measure(2000, 0.0, 64, tmp_path)
    assert sum(1 for _ in (tmp_path / "labels.jsonl").open()) == 2000
    after_a_tenth, at_the_end = found["memory"]
    # 4,000 answers of 2 kB are 8 MB, and their questions as much again
    print(found["memory"])
    assert at_the_end - after_a_tenth < 4, found["memory"]
