"""Local files and the hub: every record with its place."""

import gzip
import json

import pytest

from rlhf_trl_ext.data.reading import hub_records, local_files, local_records
from rlhf_trl_ext.data.schema import BadRow

ROWS = [{"text": "a"}, {"text": "é"}, {"text": "c\nd"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def read(file):
    return list(local_records(file.name, file))


def test_json_lines_plain_and_gzipped(tmp_path):
    for name in ("rows.jsonl", "rows.json", "rows.jsonl.gz", "rows.json.gz"):
        opened = gzip.open if name.endswith(".gz") else open
        with opened(tmp_path / name, "wt", encoding="utf-8") as stream:
            stream.write(LINES.replace("\n", "\n\n", 1))  # the blank second line is no record, but counts as a line
        assert read(tmp_path / name) == [(f"{name}:1", ROWS[0]), (f"{name}:3", ROWS[1]), (f"{name}:4", ROWS[2])]


def test_a_json_array_knows_the_line_of_each_record(tmp_path):
    file = tmp_path / "rows.json"
    file.write_text('\ufeff\n[\n  {\n    "text": "a"\n  },\n  {"text": "é"}, {"text": "c\\nd"}\n]\n', encoding="utf-8")
    assert read(file) == [("rows.json:3", ROWS[0]), ("rows.json:6", ROWS[1]), ("rows.json:6", ROWS[2])]
    file.write_text("[]")
    assert read(file) == []


def test_parquet(tmp_path):
    from datasets import Dataset

    Dataset.from_list(ROWS).to_parquet(tmp_path / "rows.parquet")
    assert read(tmp_path / "rows.parquet") == [(f"rows.parquet:{i}", row) for i, row in enumerate(ROWS, start=1)]


@pytest.mark.parametrize(
    "broken", [b'{"text": "a"', b"text", b'{"text": "\xff"}', b"[" * 100_000, b'{"a": 1} {"b": 2}']
)
def test_a_broken_line_is_a_bad_row_and_reading_goes_on(tmp_path, broken):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"text": "a"}\n' + broken + b'\n{"text": "b"}\n')
    first, second, third = read(file)
    assert first == ("rows.jsonl:1", {"text": "a"})
    assert second[0] == "rows.jsonl:2"
    assert isinstance(second[1], BadRow)
    assert second[1].reason == "broken JSON line"
    assert third == ("rows.jsonl:3", {"text": "b"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"a": 1},\n {"a": }]', r"path=rows\.json:2 is not valid JSON \(Expecting value\): mend the array"),
        (b'[{"a": 1},\n', r"path=rows\.json ends within its JSON array: copy or download it again\."),
    ],
)
def test_a_broken_array_stops(tmp_path, content, message):
    (tmp_path / "rows.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "rows.json")


def test_a_truncated_file_stops(tmp_path):
    whole = gzip.compress(LINES.encode() * 1000)
    (tmp_path / "rows.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ValueError, match=r"path=rows\.jsonl\.gz is not a whole gzip file .*: copy or download it again"
    ):
        read(tmp_path / "rows.jsonl.gz")
    (tmp_path / "rows.jsonl.gz").write_text(LINES)
    with pytest.raises(ValueError, match=r"path=rows\.jsonl\.gz is not a whole gzip file"):
        read(tmp_path / "rows.jsonl.gz")
    (tmp_path / "rows.parquet").write_text(LINES)
    with pytest.raises(ValueError, match=r"path=rows\.parquet is not a whole parquet file"):
        read(tmp_path / "rows.parquet")


def test_a_folder_gives_its_data_files_sorted_and_named_within_it(tmp_path):
    for name in ("b/z.jsonl", "a.parquet", "b/a.json.gz", "PROVENANCE.md", "b/.notes", "c.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list(local_files(str(tmp_path))) == ["a.parquet", "b/a.json.gz", "b/z.jsonl"]
    assert local_files(str(tmp_path / "b/z.jsonl")) == {"z.jsonl": tmp_path / "b/z.jsonl"}


def test_a_path_without_data_is_refused(tmp_path):
    (tmp_path / "rows.csv").touch()
    for path, found in ((tmp_path / "nowhere", "does not exist"), (tmp_path / "rows.csv", "is no data file"),
                        (tmp_path, "holds no data file")):  # fmt: skip
        with pytest.raises(ValueError) as error:
            local_files(str(path))
        assert str(error.value) == (
            f"path={path} {found}: give a file that ends in .json, .jsonl, .json.gz, .jsonl.gz, .parquet, or a folder "
            "of them."
        )


def test_the_hub_gives_a_split_with_row_numbers(monkeypatch):
    from datasets import Dataset

    asked = []
    monkeypatch.setattr("datasets.load_dataset", lambda *a, **k: asked.append((a, k)) or Dataset.from_list(ROWS))
    assert list(hub_records("some/data", "train_prefs", "v2", None)) == [
        (f"some/data/train_prefs:{i}", row) for i, row in enumerate(ROWS, start=1)
    ]
    assert asked == [(("some/data",), {"split": "train_prefs", "revision": "v2"})]


def test_a_file_of_a_hub_repository_is_read_like_a_local_one(monkeypatch, tmp_path):
    (tmp_path / "trees.jsonl.gz").write_bytes(gzip.compress(LINES.encode()))
    asked = []

    def download(*args, **options):
        asked.append((args, options))
        return str(tmp_path / "trees.jsonl.gz")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert next(hub_records("some/data", "train", None, "trees.jsonl.gz")) == ("some/data/trees.jsonl.gz:1", ROWS[0])
    assert asked == [(("some/data", "trees.jsonl.gz"), {"repo_type": "dataset", "revision": None})]


def test_a_hub_out_of_reach_names_the_way_out(monkeypatch):
    def fail(*args, **options):
        raise ConnectionError("Couldn't reach\n'some/data' on the Hub")

    monkeypatch.setattr("datasets.load_dataset", fail)
    with pytest.raises(ConnectionError, match=r"hub=some/data cannot be read \(.*\): .*dataset\.path=<file or folder>"):
        list(hub_records("some/data", "train", None, None))
