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


DOCUMENTS = {
    "an object that holds the rows": json.dumps({"version": "1.0", "data": ROWS}),
    "the same, pretty-printed": json.dumps({"version": "1.0", "data": ROWS}, indent=2),
    "objects behind each other, pretty-printed": "\n".join(json.dumps(row, indent=2) for row in ROWS),
}


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_json_documents(tmp_path, document):
    (tmp_path / "ROWS.JSON").write_text(document)
    assert [record for _, record in read(tmp_path / "ROWS.JSON")] == ROWS


COLUMNS = {
    "pandas' columns": {"text": {"0": "a", "1": "b"}, "n": {"0": 1, "1": 2}},
    "pandas' index": {"0": {"text": "a", "n": 1}, "1": {"text": "b", "n": 2}},
    "lists": {"text": ["a", "b"], "n": [1, 2]},
}


@pytest.mark.parametrize("document", COLUMNS.values(), ids=COLUMNS)
def test_columns_as_pandas_writes_them(tmp_path, document):
    (tmp_path / "rows.json").write_text(json.dumps(document))
    assert [record for _, record in read(tmp_path / "rows.json")] == [{"text": "a", "n": 1}, {"text": "b", "n": 2}]


def test_one_pretty_printed_record_of_turns_is_one_record(tmp_path):
    record = {"chosen": {"role": "assistant", "content": "a"}, "rejected": {"role": "assistant", "content": "b"}}
    (tmp_path / "rows.json").write_text(json.dumps(record, indent=2))
    assert [found for _, found in read(tmp_path / "rows.json")] == [record]


def test_an_array_that_is_called_jsonl(tmp_path):
    for indent in (None, 2):
        (tmp_path / "rows.jsonl").write_text(json.dumps(ROWS, indent=indent))
        assert [record for _, record in read(tmp_path / "rows.jsonl")] == ROWS


WRONG = {
    "rows.jsonl": (gzip.compress(LINES.encode()), r"path=rows\.jsonl is a \.gz file by its first bytes"),
    "parquet.json": (b"PAR1....", r"is a \.parquet file by its first bytes"),
    "sheet.csv": (b"PK\x03\x04....", r"is a \.zip \(or \.xlsx\) file by its first bytes"),
    "wide.csv": ("a,b\n1,2\n".encode("utf-16"), "is UTF-16 by its first bytes: save it as UTF-8"),
    "lines.csv": (LINES.encode(), r"holds JSON, no table: let its name end in \.jsonl"),
    "null.json": (b"null", "holds NoneType instead of records"),
    "two.json": (b'[{"a": 1}]\n[{"a": 2}]', r"path=two\.json:1 goes on after its JSON array"),
    "twice.csv": (b"a,b,a\n1,2,3\n", "has two columns called a"),
}


@pytest.mark.parametrize("name", WRONG)
def test_files_that_are_not_what_they_are_called(tmp_path, name):
    content, message = WRONG[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / name)


def test_cells_are_text_but_for_turns(tmp_path):
    turns = [{"role": "user", "content": "it's here"}]
    cells = {"json": json.dumps(turns), "python": str(turns), "code": '[{"name": 1}]', "reward_model": '{"style": "x"}'}
    lines = [",".join(cells), ",".join('"' + cell.replace('"', '""') + '"' for cell in cells.values())]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    ((_, row),) = read(tmp_path / "rows.csv")
    assert row == {"json": turns, "python": turns, "code": cells["code"], "reward_model": {"style": "x"}}
    numpy = "[{'role': 'user', 'content': 'a'} {'role': 'assistant', 'content': 'b'}]"  # as numpy prints an array
    (tmp_path / "rows.csv").write_text(f'turns,n\n"{numpy}",1\n')
    ((_, bad),) = read(tmp_path / "rows.csv")
    assert bad.reason.startswith("turns in a cell that are neither JSON nor Python")


@pytest.mark.parametrize("text", ["a, b\n1, 2\n", "\n \na,b\n\n1,2\n", '"a",b\r\n1,2', '"a"\t"b"\n1\t2\n'])
def test_space_quotes_and_marks_of_tables(tmp_path, text):
    (tmp_path / "rows.csv").write_text(text)
    assert [record for _, record in read(tmp_path / "rows.csv")] == [{"a": "1", "b": "2"}]


def test_two_lists_in_a_document_are_not_guessed_between(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps({"train": ROWS, "test": ROWS}))
    with pytest.raises(ValueError, match=r"path=rows\.json holds train, test: give a file with one of them"):
        read(tmp_path / "rows.json")


def test_a_line_separator_within_a_text_ends_no_record(tmp_path):
    record = {"text": "a\u2028b\u0085c"}
    text = "\ufeff" + json.dumps(record, ensure_ascii=False) + "\r\n\r\n" + json.dumps({"text": "d\r\ne"}) + "\r\n \n"
    (tmp_path / "rows.ndjson").write_bytes(text.encode())
    assert read(tmp_path / "rows.ndjson") == [("rows.ndjson:1", record), ("rows.ndjson:3", {"text": "d\r\ne"})]


@pytest.mark.parametrize(("name", "mark"), [("rows.csv", ","), ("rows.csv", ";"), ("rows.tsv", "\t"), ("R.CSV", ",")])
def test_tables(tmp_path, name, mark):
    lines = ["question,good,n", '"a ""b""\r\nc","[{""role"": ""user""}]",NA', "é,[not json],"]
    (tmp_path / name).write_bytes(("\ufeff" + "\r\n".join(lines).replace(",", mark)).encode())
    expected = [{"question": 'a "b"\r\nc', "good": [{"role": "user"}], "n": "NA"},
                {"question": "é", "good": "[not json]", "n": None}]  # fmt: skip
    assert [record for _, record in read(tmp_path / name)] == expected


def test_a_row_with_too_many_cells_is_bad_and_open_quotes_stop(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("a,b\n1,2,3\n4,5\n")
    (place, bad), (_, good) = read(file)
    assert (place, bad.reason, good) == (
        "rows.csv:2",
        "a row with another number of cells than the first line",
        {"a": "4", "b": "5"},
    )
    file.write_text('a,b\n"1,2\n')
    with pytest.raises(ValueError, match="mend the quotes"):
        read(file)


def test_what_datasets_wrote(tmp_path):
    from datasets import Dataset

    Dataset.from_list(ROWS).select([2, 0]).save_to_disk(tmp_path / "saved")  # kept as an index into all three rows
    assert local_files(str(tmp_path / "saved")) == {"saved": tmp_path / "saved"}
    assert [record for _, record in read(tmp_path / "saved")] == [ROWS[2], ROWS[0]]
    import pyarrow

    with (
        pyarrow.OSFile(str(tmp_path / "rows.jsonl.zst"), "wb") as raw,
        pyarrow.CompressedOutputStream(raw, "zstd") as out,
    ):
        out.write(LINES.encode())
    assert [record for _, record in read(tmp_path / "rows.jsonl.zst")] == ROWS


def test_a_link_to_a_folder_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/rows.jsonl").write_text(LINES)
    (tmp_path / "view").mkdir()
    (tmp_path / "view/train").symlink_to(tmp_path / "real")
    assert list(local_files(str(tmp_path / "view"))) == ["train/rows.jsonl"]


def test_links_to_themselves_and_hidden_files_give_each_row_once(tmp_path):
    (tmp_path / "rows.jsonl").write_text(LINES)
    (tmp_path / "twice.jsonl").symlink_to(tmp_path / "rows.jsonl")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".ipynb_checkpoints/old.jsonl").write_text(LINES)
    (tmp_path / "._rows.jsonl").write_bytes(b"\x00\x05")
    assert list(local_files(str(tmp_path))) == ["rows.jsonl"]


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
        (b'[{"a": 1},\n {"a": }]', r"path=rows\.json:2 is not valid JSON \(Expecting value\): mend it"),
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
    with pytest.raises(ValueError, match=r"path=rows\.jsonl\.gz is not a whole \.gz file .*: copy it again"):
        read(tmp_path / "rows.jsonl.gz")
    (tmp_path / "rows.jsonl.gz").write_text(LINES)
    with pytest.raises(ValueError, match=r"path=rows\.jsonl\.gz is not a whole \.gz file"):
        read(tmp_path / "rows.jsonl.gz")
    (tmp_path / "rows.parquet").write_text(LINES)
    with pytest.raises(ValueError, match=r"path=rows\.parquet is not a whole data file"):
        read(tmp_path / "rows.parquet")


def test_a_folder_gives_its_data_files_sorted_and_named_within_it(tmp_path):
    for name in ("b/z.jsonl", "a.parquet", "b/a.json.gz", "PROVENANCE.md", "b/.notes", "c.xls", "dataset_info.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list(local_files(str(tmp_path))) == ["a.parquet", "b/a.json.gz", "b/z.jsonl"]
    assert local_files(str(tmp_path / "b/z.jsonl")) == {"z.jsonl": tmp_path / "b/z.jsonl"}


def test_a_path_without_data_is_refused(tmp_path):
    (tmp_path / "rows.xls").touch()
    for path, found in ((tmp_path / "nowhere", "does not exist"), (tmp_path / "rows.xls", "is no data file"),
                        (tmp_path, "holds no data file")):  # fmt: skip
        with pytest.raises(ValueError) as error:
            local_files(str(path))
        assert str(error.value) == (
            f"path={path} {found}: give a file that ends in .json, .jsonl, .ndjson, .csv, .tsv (also with .gz, .zst, "
            ".bz2), .parquet or .arrow, or a folder of them."
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
