"""Images in Parquet files, in the layout of data hubs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spikestill.data.decode import Encoded, decode_all
from spikestill.data.parts import ON_DISK, assemble, choose
from spikestill.data.records import RawData
from spikestill.data.unreadable import Unreadable
from spikestill.files import regular
from spikestill.types import InputError

__all__ = ["read_parquet"]

_FILE = re.compile(rf"^(?P<part>{'|'.join(ON_DISK)})(-(?P<shard>\d+)-of-(?P<shards>\d+)(-[0-9a-f]+)?)?\.parquet$")
_IMAGE_COLUMNS = ("img", "image")

_MOST_INFLATION = 100
"""How many times the bytes of its file a column may take once it is read: encoded images hardly shrink any more."""
_ALWAYS_FINE = 2**28
"""Bytes of a column that may be read in any case."""
_BATCH, _BYTES_OF_A_BATCH = 512, 2**26


def read_parquet(path: Path, image_size: int | None = None, unreadable: Unreadable | None = None) -> RawData:
    """Read ``train`` and ``test`` (and ``validation``, where there is one) from a folder of Parquet files.

    A part is one file (``train.parquet``) or several shards (``train-00000-of-00002.parquet``), in the folder or in its
    sub-folder ``data``. Column ``img`` or ``image`` is a struct with the encoded image in ``bytes``; column ``label``
    is an integer. Class names come from the hub's metadata in the file, else they are the numbers. Without a test part,
    the validation part is the test set. Images that cannot be read are refused, unless ``unreadable`` leaves them out.

    Raises:
        InputError: missing files or columns, null or out-of-range labels, images that cannot be read (with file and
            row) or differ in size without ``image_size``.
    """
    files = _find(path)
    labels = {part: [_labels(file) for file in shards] for part, shards in files.items()}
    names = _class_names(files["train"][0]) or _numbers(labels["train"], files["train"][0])
    for part, shards in files.items():
        for file, values in zip(shards, labels[part], strict=True):
            _check_range(file, values, len(names))
    decoded = {part: _images(shards, image_size, unreadable) for part, shards in files.items()}
    flat = {part: [value for shard in values for value in shard] for part, values in labels.items()}
    return assemble(decoded, flat, names, lambda part, row: _place(files[part], labels[part], row))


def _find(path: Path) -> dict[str, list[Path]]:
    """The files of each part, shards in order."""
    if not path.is_dir():
        raise InputError(f"parquet: '{path}' is not a folder; give the one that holds train.parquet and test.parquet")
    found: dict[str, list[Path]] = {}
    for file in sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet")):
        if match := _FILE.match(file.name):
            found.setdefault(match["part"], []).append(file)
    for files in found.values():
        _check_shards(files)
    return choose(found, f"parquet: '{path}'")


def _check_shards(files: list[Path]) -> None:
    """One whole file, or every shard of one writing."""
    matches = [match for file in files if (match := _FILE.match(file.name))]
    if len(files) == 1 and matches[0]["shard"] is None:
        return
    totals = {match["shards"] for match in matches}
    numbers = sorted(int(match["shard"]) for match in matches if match["shard"] is not None)
    if len(totals) != 1 or numbers != list(range(int(matches[0]["shards"] or 0))):
        there = ", ".join(file.name for file in files)
        raise InputError(f"parquet: shards are missing or mixed in '{files[0].parent}': {there}")


def _open(file: Path) -> tuple[Any, str]:
    """The open file and the name of its image column, after its columns were checked."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        opened = parquet.ParquetFile(regular(file))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"'{file}' is not a readable Parquet file ({_line(error)})") from error
    _refuse_inflated(file, opened.metadata)
    schema = opened.schema_arrow
    columns = ", ".join(f"{field.name}: {field.type}" for field in schema)
    image = next((name for name in _IMAGE_COLUMNS if name in schema.names), None)
    if image is None or "label" not in schema.names:
        raise InputError(f"'{file}' needs the columns img (or image) and label; it has {columns}")
    kind = schema.field(image).type
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise InputError(f"'{file}': column {image} must be a struct with the field bytes; the columns are {columns}")
    if not pa.types.is_integer(schema.field("label").type):
        raise InputError(f"'{file}': column label must be an integer; the columns are {columns}")
    return opened, image


def _refuse_inflated(file: Path, metadata: Any) -> None:
    """Refuse a file that says of itself that it becomes far more than it is: reading it would take all memory.

    Raises:
        InputError: for more rows than bytes, and for a column that grows beyond measure.
    """
    size = file.stat().st_size
    if metadata.num_rows > size:  # the smallest image takes some 60 bytes
        raise InputError(f"'{file}' has {metadata.num_rows:,} rows in {size:,} bytes, which no images do; remove it")
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            grown = metadata.row_group(group).column(column).total_uncompressed_size
            if grown > max(_ALWAYS_FINE, _MOST_INFLATION * size):
                raise InputError(f"'{file}' would grow from {size:,} to {grown:,} bytes, which no images do; remove it")


def _batch_size(opened: Any) -> int:
    """Rows to read at a time, so that they take some 64 MiB."""
    groups = [opened.metadata.row_group(number) for number in range(opened.metadata.num_row_groups)]
    largest = max((group.total_byte_size // max(group.num_rows, 1) for group in groups), default=1)
    return int(min(max(_BYTES_OF_A_BATCH // max(largest, 1), 1), _BATCH))


def _labels(file: Path) -> list[int]:
    import pyarrow as pa

    opened, _ = _open(file)
    try:
        labels: list[Any] = opened.read(columns=["label"]).column("label").to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"'{file}' is not a readable Parquet file ({_line(error)})") from error
    if not labels:
        raise InputError(f"'{file}' holds no image")
    for row, value in enumerate(labels):
        if value is None:
            raise InputError(f"'{file}' row {row}: the label is null; every image needs one")
        if value < 0:
            raise InputError(f"'{file}' row {row}: label {value} is negative; labels count from 0")
    return labels


def _numbers(labels: list[list[int]], file: Path) -> tuple[str, ...]:
    """Class names 0..K-1 for a file that has none; each must occur in the training part."""
    present = {value for shard in labels for value in shard}
    for value in range(len(present)):
        if value not in present:
            raise InputError(
                f"'{file}': no training image has label {value}, but one has {max(present)}; "
                "labels must count from 0 without a gap"
            )
    return tuple(str(value) for value in sorted(present))


def _check_range(file: Path, labels: list[int], classes: int) -> None:
    for row, value in enumerate(labels):
        if value >= classes:
            raise InputError(f"'{file}' row {row}: label {value} is outside 0..{classes - 1}")


def _images(shards: list[Path], image_size: int | None, unreadable: Unreadable | None) -> list[Any]:
    images = []
    for file in shards:
        opened, column = _open(file)
        images += decode_all(
            _encoded(file, opened, column),
            opened.metadata.num_rows,
            title=f"decoding {file.name}",
            image_size=image_size,
            unreadable=unreadable,
        )
    return images


def _encoded(file: Path, opened: Any, column: str) -> Iterator[Encoded]:
    import pyarrow as pa

    row = 0
    try:
        for batch in opened.iter_batches(batch_size=_batch_size(opened), columns=[column]):
            for content in batch.column(0).field("bytes").to_pylist():
                if content is None:
                    raise InputError(f"'{file}' row {row}: the image is null; its bytes must lie in the file")
                yield f"'{file}' row {row}", content
                row += 1
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"'{file}' cannot be read after row {row} ({_line(error)})") from error


def _class_names(file: Path) -> tuple[str, ...] | None:
    """The names in the hub's own metadata; None where there are none."""
    opened, _ = _open(file)
    metadata = opened.schema_arrow.metadata or {}
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"]["label"]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return tuple(str(name) for name in names) or None


def _place(shards: list[Path], labels: list[list[int]], row: int) -> str:
    """File and row within it of image ``row`` of the whole part."""
    for file, values in zip(shards, labels, strict=True):
        if row < len(values):
            return f"'{file}' row {row}"
        row -= len(values)
    raise IndexError(row)


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
