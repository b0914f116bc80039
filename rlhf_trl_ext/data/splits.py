"""Which of SFT, reward, RL and evaluation a prompt belongs to, from a stable hash of the prompt."""

import hashlib
import unicodedata

from rlhf_trl_ext.data.schema import Turn

BUCKETS = ("sft", "reward", "rl", "evaluation")
VIEW_BUCKETS = {"demonstrations": "sft", "preferences": "reward", "prompts": "rl", "unpaired": "reward"}
HELD_OUT = 0.1  # of the prompts, where one stage trains on all the others


def normalise(text: str) -> str:
    """The text without what does not make another prompt of it: Unicode form, case and amount of white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def split_key(prompt: list[Turn]) -> str:
    """What the hash is taken of: the first user turn, normalised.

    Not the whole prompt: real data hold the same conversation cut at several turns (128 of the 2,310 prompts of
    HH harmless-base/test continue another one of them), and with the whole prompt hashed a conversation would be
    trained on and its continuation evaluated on. Equal prompts have equal first turns, so nothing is lost but that
    unrelated conversations opening with the same words stay together.
    """
    return normalise(next((turn["content"] for turn in prompt if turn["role"] == "user"), ""))


def bucket_of(prompt: list[Turn], shares: dict[str, float], seed: int) -> str:
    """The bucket whose interval of [0, 1), as wide as its share, holds SHA-256(seed, split_key) / 2^256.

    shares: as `check_shares` allows. The order of rows, files and shares has no influence.
    """
    key = hashlib.sha256(f"{seed}\n{split_key(prompt)}".encode()).digest()
    position, edge = int.from_bytes(key) / 2**256, 0.0
    filled = [bucket for bucket in BUCKETS if shares.get(bucket, 0) > 0]
    for bucket in filled:
        edge += shares[bucket]
        if position < edge:
            return bucket
    return filled[-1]  # the shares sum to 1 only up to rounding


def check_shares(shares: dict[str, float]) -> None:
    """Raises ValueError unless the shares have known names, are not negative and sum to 1. A missing one counts 0."""
    total = sum(shares.values())
    if not set(shares) <= set(BUCKETS) or min(shares.values(), default=-1) < 0 or abs(total - 1) > 1e-6:
        settings = ", ".join(f"{name}: {share}" for name, share in shares.items())
        raise ValueError(
            f"shares={{{settings}}} sum to {total:g}: give shares >= 0 of {', '.join(BUCKETS)} that sum to 1; an "
            "unwanted one is set to 0."
        )
