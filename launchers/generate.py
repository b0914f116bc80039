"""Sample a policy on held-out prompts: `python -m launchers.generate policy=<folder> reference=<folder>`."""

from launchers.entry import entry


@entry("generate")
def main(config):
    from rlhf_trl_ext.stages.generate import generate

    record = generate(config)
    print(f"{record['name']}: {record['prompts']} samples in {record['file']}")
    print(
        f"next: python -m launchers.evaluate baseline=<samples.jsonl> 'policies={{{record['name']}: {record['file']}}}'"
    )


if __name__ == "__main__":
    main()
