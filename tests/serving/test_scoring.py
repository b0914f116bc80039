from rlhf_trl_ext.serving.scoring import sampled, score
from rlhf_trl_ext.serving.traffic import Traffic, connect, read


class ByLength:
    def __call__(self, prompts, completions):
        if completions[0][0]["content"] == "refused":
            raise ValueError("its template refuses it")
        return [float(len(completion[0]["content"])) for completion in completions]


def test_a_sampled_share_of_whole_answers_is_scored_once(tmp_path):
    store = Traffic(tmp_path / "t.sqlite")
    row = {"time": 1.0, "policy": "p", "prompt": [{"role": "user", "content": "x"}], "status": "complete"}
    for number in range(100):
        store.record({**row, "id": f"a{number}", "completion": "x" * number})
    store.record({**row, "id": "broken", "completion": "xx", "status": "timeout"})
    store.record({**row, "id": "refused", "completion": "refused"}).result(5)
    store.close()
    connection, last, before = connect(store.path), 0, -1
    while last != before:
        before, last = last, score(connection, ByLength(), 0.5, last)
    scored = {answer["id"]: answer["reward"] for answer in read(store.path) if answer["reward"] is not None}
    assert scored == {f"a{n}": float(n) for n in range(100) if sampled(f"a{n}", 0.5)}
    assert 30 < len(scored) < 70 and not {"broken", "refused"} & scored.keys()


def test_shares_are_shares():
    ids = [f"answer {number}" for number in range(4000)]
    assert 0.08 < sum(sampled(one, 0.1) for one in ids) / 4000 < 0.12 and all(sampled(one, 1.0) for one in ids)
