"""A thousand pairs of replies; the server prefers the larger score."""


def score(i, shift):
    return (i * 7 + shift * (i % 3 - 1)) % 11 + shift / 10


def many(shift):
    return [{"prompt": f"p{i}", "completion": f"score={score(i, shift)}"} for i in range(1000)]
