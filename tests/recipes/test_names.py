from __future__ import annotations

import pytest

from spikestill.recipes.names import KINDS, names, unknown
from spikestill.types import InputError


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_names(kind: str) -> None:
    found = names(kind)
    assert found
    assert len(found) == len(set(found))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'models'"):
        names("model")


def test_known_names_give_no_complaint() -> None:
    assert list(unknown("model", "resnet20")) == list(unknown("model", "timm:whatever")) == []
    assert list(unknown("data set", "folder:x")) == []
    assert "did you mean 'blockwise'" in next(unknown("method", "blockwize"))
