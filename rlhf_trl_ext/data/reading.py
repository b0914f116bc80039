"""Raw records with the place where each stands, from local files or from the hub."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from rlhf_trl_ext.data.documents import BUFFER, document_records, is_lines, line_records
from rlhf_trl_ext.data.tables import table_records

LINES, TABLES = (".json", ".jsonl", ".ndjson"), (".csv", ".tsv")
PACKED = {"": None, ".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
SUFFIXES = (*(f"{suffix}{packed}" for suffix in (*LINES, *TABLES) for packed in PACKED), ".parquet", ".arrow")
# What `datasets` and LLaMA-Factory write beside their data.
DESCRIPTIONS = ("dataset_info.json", "state.json", "dataset_dict.json")
# First bytes of a file -> what it is called then.
FIRST_BYTES = {
    b"\x1f\x8b": ".gz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"BZh": ".bz2",
    b"PAR1": ".parquet",
    b"ARROW1": ".arrow",
}
FIRST_BYTES |= {b"PK\x03\x04": ".zip (or .xlsx)", b"\xfd7zXZ": ".xz"}
Located = tuple[str, Any]


def local_files(path: str, key: str = "path") -> dict[str, Path]:
    """The file, or every data file below the folder, through links, sorted, by name within the folder.

    A folder that `save_to_disk` wrote is one "file"; what is hidden is no data; a file that several links lead to is
    read once. key: the setting that names the path, for messages. Raises ValueError if there is none.
    """
    root = Path(path).expanduser()
    if (root / "state.json").is_file():
        return {root.name: root}
    if root.is_dir():
        files = list({file.resolve(): file for file in sorted(filter(_is_data, _below(root)), reverse=True)}.values())
        files.sort()
    else:
        files = [root] if root.is_file() and _is_data(root) else []
    if not files:
        what = "holds no data file" if root.is_dir() else "is no data file" if root.exists() else "does not exist"
        raise ValueError(
            f"{key}={path} {what}: give a file that ends in {', '.join((*LINES, *TABLES))} (also with "
            f"{', '.join(filter(None, PACKED))}), .parquet or .arrow, or a folder of them."
        )
    return {str(f.relative_to(root)) if root.is_dir() else f.name: f for f in files}


def _below(root: Path) -> Iterator[Path]:
    """Every file below a folder that is not hidden, through links, each folder once."""
    visited = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        visited.add(os.path.realpath(folder))
        folders[:] = [
            name
            for name in sorted(folders)
            if not name.startswith(".") and os.path.realpath(Path(folder, name)) not in visited
        ]
        yield from (Path(folder, name) for name in names if not name.startswith("."))


def _is_data(file: Path) -> bool:
    return file.name.lower().endswith(SUFFIXES) and file.name not in DESCRIPTIONS and file.is_file()


def local_records(name: str, file: Path) -> Iterator[Located]:
    """(location, record) of one file, a location being name:line, counted from 1 (name:row for tables).

    A line that is not JSON comes as a BadRow in place of the record. Blank lines are passed over.
    Raises ValueError for a file that cannot be read on: truncated, or a JSON document broken in the middle, and for one
    that is not what its name ends in.
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
            _check_first_bytes(stream, name)
            if kind in TABLES:
                yield from table_records(stream, name, kind)
            elif not is_lines(stream, kind):
                yield from document_records(stream, name)
            else:
                yield from line_records(stream, name)
        except (OSError, EOFError) as error:
            raise ValueError(f"path={name} is not a whole {packed} file ({error}): copy it again.") from error


def _check_first_bytes(stream: IO[bytes], name: str) -> None:
    """Raises ValueError for packed or columnar bytes where text is expected, and for UTF-16."""
    first = stream.peek(8)[:8]
    for mark, ending in FIRST_BYTES.items():
        if first.startswith(mark):
            raise ValueError(f"path={name} is a {ending} file by its first bytes: give its name that ending.")
    if first.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"path={name} is UTF-16 by its first bytes: save it as UTF-8.")


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
