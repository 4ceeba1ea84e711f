"""Small data sets in the true on-disk formats."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from spikestill.data import ImageSet


@pytest.fixture
def picture() -> Callable[..., bytes]:
    """Encode a random image: ``picture(seed, mode="RGB", size=(8, 8), format="PNG")``."""

    def encode(seed: int, mode: str = "RGB", size: tuple[int, int] = (8, 8), format: str = "PNG") -> bytes:
        generator = np.random.default_rng(seed)
        array = generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(array).convert(mode).save(stream, format=format)
        return stream.getvalue()

    return encode


@pytest.fixture
def write_parquet() -> Callable[..., None]:
    """Write one file in the layout of the hubs: ``write_parquet(path, images, labels, column="img", names=None)``."""

    def write(
        path: Path,
        images: Sequence[bytes | None],
        labels: Sequence[int | None],
        column: str = "img",
        names: Sequence[str] | None = None,
    ) -> None:
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        rows = [{"bytes": content, "path": f"{index}.png"} for index, content in enumerate(images)]
        table = pa.table({column: pa.array(rows, kind), "label": pa.array(labels, pa.int64())})
        if names is not None:
            features = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}
            table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
        pq.write_table(table, path)

    return write


@pytest.fixture
def random_images() -> Callable[..., ImageSet]:
    """``random_images(count, classes=4, shape=(3, 8, 8), seed=0)``, the classes in turn."""

    def make(count: int, classes: int = 4, shape: tuple[int, int, int] = (3, 8, 8), seed: int = 0) -> ImageSet:
        generator = torch.Generator().manual_seed(seed)
        pixels = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
        return ImageSet(pixels, torch.arange(count) % classes)

    return make
