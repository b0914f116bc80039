"""Answer a benchmark's questions with a policy: `python -m launchers.answer policy=... questions=... output=...`."""

from launchers.entry import entry


@entry("answer")
def main(config):
    from evaluation.quality.benchmarks.answers import answer

    print(f"answers in {answer(config)}; judge them with `python -m launchers.evaluate`")


if __name__ == "__main__":
    main()
