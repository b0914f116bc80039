"""Critique and revise replies by a constitution: `python -m launchers.revise pairs.files=[<samples.jsonl>]`."""

from launchers.entry import entry


@entry("revise")
def main(config):
    from rich.pretty import pprint

    from rlhf_trl_ext.stages.revise import preview, revise

    if config.dry_run:
        pprint(preview(config))
        return
    record = revise(config)
    print(f"{record['rows']:,} revisions in {record['file']}; {record['excluded']:,} came back empty")


if __name__ == "__main__":
    main()
