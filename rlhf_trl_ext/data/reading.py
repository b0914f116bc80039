"""Raw records with the place where each stands, from local files or from the hub."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from rlhf_trl_ext.data.schema import BadRow

SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".parquet")
Located = tuple[str, Any]


def local_files(path: str) -> dict[str, Path]:
    """The file, or every data file below the folder, sorted, by name within the folder. Raises ValueError if none."""
    root = Path(path).expanduser()
    if root.is_dir():
        files = sorted(f for f in root.rglob("*") if f.name.endswith(SUFFIXES) and f.is_file())
    else:
        files = [root] if root.is_file() and root.name.endswith(SUFFIXES) else []
    if not files:
        found = "holds no data file" if root.is_dir() else "is no data file" if root.exists() else "does not exist"
        raise ValueError(f"path={path} {found}: give a file that ends in {', '.join(SUFFIXES)}, or a folder of them.")
    return {str(f.relative_to(root)) if root.is_dir() else f.name: f for f in files}


def local_records(name: str, file: Path) -> Iterator[Located]:
    """(location, record) of one file, a location being name:line, counted from 1 (name:row for parquet).

    A line that is not JSON comes as a BadRow in place of the record. Blank lines are passed over.
    Raises ValueError for a file that cannot be read on: truncated, or a JSON array broken in the middle.
    """
    if file.name.endswith(".parquet"):
        yield from _parquet_records(file, name)
        return
    opened = gzip.open if file.name.endswith(".gz") else open
    with opened(file, "rb") as stream:
        try:
            yield from (_array_records if _is_array(file, stream) else _line_records)(stream, name)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"path={name} is not a whole gzip file ({error}): copy or download it again.") from error


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
        told = " ".join(str(error).split())
        raise ConnectionError(
            f"hub={hub} cannot be read ({type(error).__name__}: {told}): check name and network, or give local files "
            f"with {instead}."
        ) from error
    if file is None:
        yield from ((f"{hub}/{split}:{number}", record) for number, record in enumerate(dataset, start=1))
    else:
        yield from local_records(f"{hub}/{file}", Path(local))


def _is_array(file: Path, stream: IO[bytes]) -> bool:
    """Whether a .json file holds one array of records rather than a record per line. Rewinds the stream."""
    if file.name.endswith((".jsonl", ".jsonl.gz")):
        return False
    beginning = stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    stream.seek(0)
    return beginning.startswith(b"[")


def _line_records(stream: IO[bytes], name: str) -> Iterator[Located]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # bytes that are not UTF-8 raise a ValueError as well
            record = BadRow("broken JSON line")
        yield f"{name}:{number}", record


def _array_records(stream: IO[bytes], name: str) -> Iterator[Located]:
    """Records of a JSON array, decoded one by one, because only so the line of each is known."""
    text = stream.read().decode("utf-8-sig", errors="surrogateescape")  # bad bytes then make their own record bad
    decoder, line, position = json.JSONDecoder(), 1, 0

    def skip(characters: str) -> None:
        nonlocal line, position
        while position < len(text) and text[position] in characters:
            line += text[position] == "\n"
            position += 1

    skip(" \t\r\n")
    position += 1
    skip(" \t\r\n")
    while text[position : position + 1] not in ("]", ""):
        try:
            record, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"path={name}:{error.lineno} is not valid JSON ({error.msg}): mend the array, or give one record per "
                "line, where a broken one is left out and counted."
            ) from error
        yield f"{name}:{line}", record
        line, position = line + text.count("\n", position, end), end
        skip(" \t\r\n,")
    if position >= len(text):
        raise ValueError(f"path={name} ends within its JSON array: copy or download it again.")


def _parquet_records(file: Path, name: str) -> Iterator[Located]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=1000):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{name}:{number}", record
    except pyarrow.ArrowException as error:
        raise ValueError(f"path={name} is not a whole parquet file ({error}): copy or download it again.") from error
