"""Raw records with the place where each stands, from local files or from the hub."""

import csv
import io
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from rlhf_trl_ext.data.schema import BadRow

LINES, TABLES = (".json", ".jsonl", ".ndjson"), (".csv", ".tsv")
PACKED = {"": None, ".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
SUFFIXES = (*(f"{suffix}{packed}" for suffix in (*LINES, *TABLES) for packed in PACKED), ".parquet", ".arrow")
# What `datasets` and LLaMA-Factory write beside their data.
DESCRIPTIONS = ("dataset_info.json", "state.json", "dataset_dict.json")
BUFFER = 2**20  # bytes that are looked at to tell lines from a document
Located = tuple[str, Any]


def local_files(path: str) -> dict[str, Path]:
    """The file, or every data file below the folder, through links, sorted, by name within the folder.

    A folder that `save_to_disk` wrote is one "file". Raises ValueError if there is none.
    """
    root = Path(path).expanduser()
    if (root / "state.json").is_file():
        return {root.name: root}
    if root.is_dir():
        below = [Path(folder, name) for folder, _, names in os.walk(root, followlinks=True) for name in names]
        files = sorted(file for file in below if _is_data(file))
    else:
        files = [root] if root.is_file() and _is_data(root) else []
    if not files:
        what = "holds no data file" if root.is_dir() else "is no data file" if root.exists() else "does not exist"
        raise ValueError(
            f"path={path} {what}: give a file that ends in {', '.join((*LINES, *TABLES))} (also with "
            f"{', '.join(filter(None, PACKED))}), .parquet or .arrow, or a folder of them."
        )
    return {str(f.relative_to(root)) if root.is_dir() else f.name: f for f in files}


def _is_data(file: Path) -> bool:
    return file.name.lower().endswith(SUFFIXES) and file.name not in DESCRIPTIONS and file.is_file()


def local_records(name: str, file: Path) -> Iterator[Located]:
    """(location, record) of one file, a location being name:line, counted from 1 (name:row for tables).

    A line that is not JSON comes as a BadRow in place of the record. Blank lines are passed over.
    Raises ValueError for a file that cannot be read on: truncated, or a JSON document broken in the middle.
    """
    lower = file.name.lower()
    if file.is_dir():
        import datasets

        rows = datasets.load_from_disk(str(file))
        yield from ((f"{name}:{number}", record) for number, record in enumerate(rows, start=1))
        return
    if lower.endswith((".parquet", ".arrow")):
        yield from _arrow_records(file, name, lower.endswith(".parquet"))
        return
    packed = Path(lower).suffix if Path(lower).suffix in PACKED else ""
    kind = Path(lower.removesuffix(packed)).suffix
    with _opened(file, PACKED[packed]) as stream:
        try:
            if kind in TABLES:
                yield from _table_records(stream, name, kind)
            elif kind == ".json" and not _is_lines(stream):
                yield from _document_records(stream, name)
            else:
                yield from _line_records(stream, name)
        except (OSError, EOFError) as error:
            raise ValueError(f"path={name} is not a whole {packed} file ({error}): copy it again.") from error


def _opened(file: Path, compression: str | None) -> IO[bytes]:
    if compression is None:
        return file.open("rb", buffering=BUFFER)
    import pyarrow

    return io.BufferedReader(pyarrow.input_stream(str(file), compression=compression), BUFFER)


def hub_records(
    hub: str, split: str, revision: str | None, file: str | None, instead: str = "dataset.path=<file or folder>"
) -> Iterator[Located]:
    """(location, record) of a hub data set's split, or of one file of its repository.

    instead: the key that takes local files, for messages.
    Raises ConnectionError if the hub, or the data set on it, cannot be reached.
    """
    import datasets
    import huggingface_hub

    try:
        if file is None:
            dataset = datasets.load_dataset(hub, split=split, revision=revision)
        else:
            local = huggingface_hub.hf_hub_download(hub, file, repo_type="dataset", revision=revision)
    except OSError as error:
        reason = " ".join(str(error).split())
        raise ConnectionError(
            f"hub={hub} cannot be read ({type(error).__name__}: {reason}): check name and network, or give local files "
            f"with {instead}."
        ) from error
    if file is None:
        yield from ((f"{hub}/{split}:{number}", record) for number, record in enumerate(dataset, start=1))
    else:
        yield from local_records(f"{hub}/{file}", Path(local))


def _is_lines(stream: IO[bytes]) -> bool:
    """Whether a .json file holds a record a line, rather than one document. Leaves the stream where it was."""
    beginning = stream.peek(BUFFER).removeprefix(b"\xef\xbb\xbf").lstrip()
    first, newline, rest = beginning.partition(b"\n")
    if beginning.startswith(b"["):
        return False
    try:
        return isinstance(json.loads(first), dict) and bool(newline and rest.strip())
    except ValueError:
        # a broken first line among whole ones, or the beginning of a document
        return first.rstrip().endswith(b"}") and first.startswith(b"{") and bool(rest.strip())


def _line_records(stream: IO[bytes], name: str) -> Iterator[Located]:
    for number, line in enumerate(stream, start=1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # bytes that are not UTF-8 raise a ValueError as well
            record = BadRow("broken JSON line")
        yield f"{name}:{number}", record


def _document_records(stream: IO[bytes], name: str) -> Iterator[Located]:
    """Records of a JSON array, of an object that holds one, or of objects behind each other, pretty-printed or not.

    They are decoded one by one, because only so the line of each is known.
    """
    text = stream.read().decode("utf-8-sig", errors="surrogateescape")  # bad bytes then make their own record bad
    start = _array(text, name)
    decoder, position = json.JSONDecoder(), start + 1 if start is not None else 0
    line = 1 + text.count("\n", 0, position)

    def skip(characters: str) -> None:
        nonlocal line, position
        while position < len(text) and text[position] in characters:
            line += text[position] == "\n"
            position += 1

    skip(" \t\r\n")
    while text[position : position + 1] not in ("]", ""):
        try:
            record, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"path={name}:{error.lineno} is not valid JSON ({error.msg}): mend it, or give one record per "
                "line, where a broken one is left out and counted."
            ) from error
        yield f"{name}:{line}", record
        line, position = line + text.count("\n", position, end), end
        skip(" \t\r\n,")
    if start is not None and position >= len(text):
        raise ValueError(f"path={name} ends within its JSON array: copy or download it again.")


def _array(text: str, name: str) -> int | None:
    """Where the array of records begins: the document itself, or the one list of objects in it; None: no array.

    Raises ValueError where several lists of objects could be meant.
    """
    if text.lstrip().startswith("["):
        return text.index("[")
    try:
        document = json.loads(text)
    except ValueError:
        return None
    lists = [key for key, value in document.items() if isinstance(value, list) and value and _objects(value)]
    if not lists or any(key in document for key in ("chosen", "messages", "prompt", "conversations")):
        return None
    if len(lists) > 1:
        raise ValueError(f"path={name} holds {', '.join(lists)}: give a file with one of them.")
    return text.index("[", text.index(json.dumps(lists[0])))


def _objects(value: list) -> bool:
    return all(isinstance(item, dict) for item in value)


def _table_records(stream: IO[bytes], name: str, kind: str) -> Iterator[Located]:
    """Rows of a table by the names in its first line; cells are text, JSON in a cell (as pandas writes it) is read."""
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    head = text.readline()
    if not head.strip():
        return
    counts = {mark: head.count(mark) for mark in ("\t", ";", "|", ",")}
    mark = "\t" if kind == ".tsv" else max(counts, key=counts.get)
    csv.field_size_limit(2**31 - 1)
    rows = csv.DictReader(itertools.chain([head], text), delimiter=mark, strict=True)
    try:
        for row in rows:
            if None in row or None in row.values():
                yield f"{name}:{rows.line_num}", BadRow("a row with another number of cells than the first line")
            else:
                yield f"{name}:{rows.line_num}", {column: _cell(value) for column, value in row.items()}
    except csv.Error as error:
        raise ValueError(f"path={name}:{rows.line_num}: {error}; mend the quotes.") from error


def _cell(value: str) -> Any:
    """A cell's text; lists and objects are read as JSON, an empty cell is None."""
    if value[:1] in "[{" and value[-1:] in "]}" and value:
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value or None


def _arrow_records(file: Path, name: str, parquet: bool) -> Iterator[Located]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.memory_map(str(file)) as source:
            batches = pyarrow.parquet.ParquetFile(source).iter_batches(1000) if parquet else _arrow_batches(source)
            for batch in batches:
                for record in batch.to_pylist():
                    number += 1
                    yield f"{name}:{number}", record
    except pyarrow.ArrowException as error:
        raise ValueError(f"path={name} is not a whole data file ({error}): copy or download it again.") from error


def _arrow_batches(source):
    """Batches of an Arrow file: a stream, as `save_to_disk` writes it, or one with an index."""
    import pyarrow

    try:
        return pyarrow.ipc.open_stream(source)
    except pyarrow.ArrowInvalid:
        source.seek(0)
        file = pyarrow.ipc.open_file(source)
        return (file.get_batch(number) for number in range(file.num_record_batches))
