import json
import random

import pytest
import torch

from rlhf_trl_ext.trainers.parts.replay import STRATEGIES, Group, ReplayBuffer, join, trimmed


def group(key, step=0, rewards=(0.0, 1.0), width=3):
    rows = {"prompt_ids": torch.full((2, 2), key), "prompt_mask": torch.ones(2, 2).long()}
    rows |= {"completion_ids": torch.full((2, width), key), "completion_mask": torch.ones(2, width).long()}
    rows |= {"rewards": torch.tensor(rewards), "sampling_per_token_logps": torch.full((2, width), -float(key))}
    return Group(rows, key, step)


def keys(groups):
    return [found.key for found in groups]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_limits_hold_in_random_traces(strategy):
    for trace in range(30):
        chance = random.Random(trace)
        size, staleness, uses = chance.randint(1, 12), chance.randint(1, 5), chance.randint(1, 4)
        buffer, drawn, born, key = ReplayBuffer(size, staleness, uses, strategy, seed=trace), {}, {}, 0
        for now in range(1, 40):
            buffer.advance()
            for _ in range(chance.randint(0, 3)):
                found = keys(buffer.sample(chance.randint(0, 6)))
                assert len(set(found)) == len(found)
                for one in found:
                    drawn[one] = drawn.get(one, 0) + 1
                    assert 1 <= now - born[one] <= staleness and drawn[one] <= uses, (trace, one)
            fresh = []
            for _ in range(chance.randint(0, 5)):
                key += 1
                born[key] = now
                fresh.append(group(key, now, (0.0, chance.choice([0.5, 1.0]))))
            buffer.add(fresh)
            assert len(buffer) <= size
        assert len(drawn) > 3, trace  # the trace says something


def test_groups_that_cannot_teach_are_never_stored():
    buffer = ReplayBuffer(8, 4, 2)
    truncated = group(4)
    truncated.rows["completion_mask"].zero_()
    truncated.__post_init__()
    nan = float("nan")
    buffer.add([group(1, 0, (0.1, 0.1)), group(2, 0, (nan, 1.0)), group(3, 0, (nan, nan)), truncated, group(5)])
    assert keys(buffer.groups) == [5]


def test_the_oldest_make_room_and_undated_ones_first():
    buffer = ReplayBuffer(3, 4, 2)
    buffer.add([group(1, 1), group(2, 2), group(9, None)])
    buffer.add([group(3, 3)])
    assert keys(buffer.groups) == [1, 2, 3]


def test_undated_groups_do_not_grow_stale_but_are_used_up():
    buffer = ReplayBuffer(3, 1, 2)
    buffer.add([group(9, None)])
    for _ in range(10):
        buffer.advance()
    assert [keys(buffer.sample(1)) for _ in range(3)] == [[9], [9], []]


def test_groups_that_were_not_learnt_from_keep_their_uses():
    buffer = ReplayBuffer(8, max_staleness=4, max_uses=2)
    buffer.add([group(1), group(2)])
    for _ in range(5):  # their last use or not, they come back
        drawn = buffer.sample(2)
        assert sorted(keys(drawn)) == [1, 2]
        buffer.put_back(drawn)
    assert [g.uses for g in buffer.groups] == [0, 0]
    buffer.sample(2)
    buffer.put_back(buffer.sample(2))
    assert sorted((g.key, g.uses) for g in buffer.groups) == [(1, 1), (2, 1)]


def shares(strategy, groups, **settings):
    """How often each group is the one drawn, of 4000 draws."""
    buffer, counts = ReplayBuffer(8, 4, 10**9, strategy, **settings), {found.key: 0 for found in groups}
    buffer.now = 2
    buffer.add(groups)
    for _ in range(4000):
        counts[buffer.sample(1)[0].key] += 1
    return [counts[found.key] / 4000 for found in groups]


def test_strategies_by_hand():
    # ages 1 and 2; standard deviations 1 : 3; means 0.5 and 1.5, which are 0 and 1 above the lowest
    groups = [group(1, 1, (0.0, 1.0)), group(2, 0, (0.0, 3.0))]
    assert shares("uniform", groups) == pytest.approx([0.5, 0.5], abs=0.03)
    assert shares("recency", groups, rho=0.5) == pytest.approx([2 / 3, 1 / 3], abs=0.03)
    assert shares("variance", groups) == pytest.approx([1 / 4, 3 / 4], abs=0.03)
    assert shares("variance", groups, alpha=2.0) == pytest.approx([1 / 10, 9 / 10], abs=0.03)
    assert shares("recency_variance", groups, rho=0.5) == pytest.approx([2 / 5, 3 / 5], abs=0.03)
    assert shares("reward", groups) == pytest.approx([0, 1], abs=0.01)
    with pytest.raises(ValueError, match="strategy=newest: allowed are recency_variance"):
        ReplayBuffer(1, 1, 1, "newest")


def test_drawing_leaves_the_global_generators_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    buffer = ReplayBuffer(8, 4, 2)
    buffer.add([group(1), group(2)])
    buffer.sample(1)
    assert torch.equal(torch.get_rng_state(), before)


def filled(seed=0):
    buffer = ReplayBuffer(16, 8, 3, seed=seed)
    for now in range(1, 5):
        buffer.advance()
        buffer.sample(2)
        buffer.add([group(10 * now + i, now, (0.0, 1.0 + i), width=2 + i) for i in range(3)])
    return buffer


def traced(buffer):
    found = []
    for _ in range(3):
        buffer.advance()
        found.append(keys(buffer.sample(3)))
    return found


def test_a_restored_buffer_draws_what_the_other_draws(tmp_path):
    buffer = filled()
    buffer.save(tmp_path, 0, 1)
    restored = ReplayBuffer(16, 8, 3, seed=99)
    restored.load(tmp_path, 0, 1)
    assert keys(restored.groups) == keys(buffer.groups) and restored.now == buffer.now
    for ours, theirs in zip(restored.groups, buffer.groups, strict=True):
        assert (ours.step, ours.uses) == (theirs.step, theirs.uses) and ours.rows.keys() == theirs.rows.keys()
        assert all(torch.equal(value, theirs.rows[name]) for name, value in ours.rows.items())
    assert traced(restored) == traced(buffer)
    # the control: another generator draws others
    other = filled()
    other.generator.manual_seed(1)
    assert traced(other) != traced(filled())


@pytest.mark.parametrize("worlds", [(2, 1), (2, 3), (1, 2)])
def test_whole_groups_are_dealt_anew_to_another_number_of_processes(tmp_path, worlds):
    before, after = worlds
    buffers = [filled(seed) for seed in range(before)]
    for rank, buffer in enumerate(buffers):
        for found in buffer.groups:
            found.key += 100 * rank
        buffer.save(tmp_path, rank, before)
    dealt = []
    for rank in range(after):
        dealt.append(ReplayBuffer(16 * before, 8, 3))
        dealt[-1].load(tmp_path, rank, after)
    everything = sorted(key for buffer in buffers for key in keys(buffer.groups))
    assert sorted(key for buffer in dealt for key in keys(buffer.groups)) == everything
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1 and all(buffer.now == 4 for buffer in dealt)


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    content = bytearray(path.read_bytes())
    content[content.rindex(b'"uses": ') + 8 if path.suffix == ".json" else -1] ^= 1  # 0 uses become 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["replay_1.safetensors", "replay_1.json"])
@pytest.mark.parametrize("harm", [cut, flip, lambda path: path.unlink()], ids=["cut", "flipped bit", "deleted"])
@pytest.mark.parametrize("world", [2, 1])
def test_a_damaged_or_missing_shard_is_named(tmp_path, name, harm, world):
    for rank in range(2):
        filled().save(tmp_path, rank, 2)
    harm(tmp_path / name)
    with pytest.raises(ValueError, match=r"replay_1.*(damaged|missing): the replay buffer cannot be restored"):
        ReplayBuffer(16, 8, 3).load(tmp_path, world - 1, world)


def test_a_checkpoint_without_a_buffer_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"replay_0.json is missing"):
        ReplayBuffer(16, 8, 3).load(tmp_path, 0, 1)


def test_nothing_is_pickled(tmp_path):
    filled().save(tmp_path, 0, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["replay_0.json", "replay_0.safetensors"]
    assert json.loads((tmp_path / "replay_0.json").read_text())["world_size"] == 1


def test_rows_are_the_same_after_trimming_and_joining_with_wider_ones():
    # the first prompt column and the last two completion columns are padding in all rows
    rows = {"prompt_ids": torch.tensor([[0, 0, 5], [0, 6, 7]]), "prompt_mask": torch.tensor([[0, 0, 1], [0, 1, 1]])}
    rows |= {"completion_ids": torch.tensor([[1, 2, 0, 0], [3, 0, 0, 0]]), "rewards": torch.tensor([1.0, 2.0])}
    rows |= {"completion_mask": torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]]), "logps": -torch.rand(2, 4)}
    small = trimmed(rows)
    assert small["prompt_ids"].tolist() == [[0, 5], [6, 7]] and small["completion_ids"].tolist() == [[1, 2], [3, 0]]
    wide = {"prompt_ids": torch.full((1, 5), 8), "prompt_mask": torch.ones(1, 5).long(), "rewards": torch.ones(1)}
    wide |= {"completion_ids": torch.full((1, 6), 8), "completion_mask": torch.ones(1, 6).long()}
    wide |= {"logps": torch.zeros(1, 6), "elsewhere": torch.zeros(1)}
    both = join([wide, small], {"prompt_ids": 9, "completion_ids": 9})
    assert "elsewhere" not in both
    assert both["prompt_ids"][1:].tolist() == [[9, 9, 9, 0, 5], [9, 9, 9, 6, 7]]
    assert both["prompt_mask"][1:].tolist() == [[0, 0, 0, 0, 1], [0, 0, 0, 1, 1]]
    assert both["completion_ids"][1:].tolist() == [[1, 2, 9, 9, 9, 9], [3, 0, 9, 9, 9, 9]]
    assert both["completion_mask"][1:].sum(1).tolist() == [2, 1] and both["rewards"].tolist() == [1, 1, 2]
    back = trimmed({name: value[1:] for name, value in both.items()})
    for name in ("prompt_ids", "completion_ids", "logps"):
        counts = small["prompt_mask" if name == "prompt_ids" else "completion_mask"].bool()
        assert torch.equal(back[name][counts], small[name][counts]), name
