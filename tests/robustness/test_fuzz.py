from __future__ import annotations

import random
from pathlib import Path

import pytest

from spikestill.types import InputError
from tests.robustness.fuzz import Counts, run_fuzz
from tests.robustness.mutations import CANARY, mutated
from tests.robustness.readers import FORMATS

QUICK = ("teacher weights", "Parquet", "tar shard", "image", "NumPy events")


def test_a_mutation_is_the_same_every_time_and_mostly_changes_something() -> None:
    valid = b"seed: 3\nname: [a, b]\n" * 5
    cases = [mutated(valid, "yaml", random.Random(f"0 {number}")) for number in range(50)]
    assert cases == [mutated(valid, "yaml", random.Random(f"0 {number}")) for number in range(50)]
    assert sum(case != valid for case in cases) > 40
    assert any(CANARY.encode() in mutated(valid, "yaml", random.Random(number)) for number in range(100))


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.filterwarnings("ignore")  # Pillow and NumPy warn about some damages before they refuse them
def test_damaged_files_are_read_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    kind = FORMATS[name]
    file = kind.write(tmp_path)
    valid = file.read_bytes()
    kind.read(file)
    refusals = []
    for case in range(40):
        file.write_bytes(mutated(valid, kind.kind, random.Random(f"test {case}")))
        try:
            kind.read(file)
        except InputError as error:
            refusals.append(str(error))
    assert len(refusals) > 10
    assert not any("\n" in refusal for refusal in refusals)


@pytest.mark.slow
def test_a_case_that_ends_the_process_is_counted_and_the_next_ones_are_read(
    tmp_path: Path,
) -> None:
    counts = run_fuzz(["image"], 30, tmp_path)["image"]
    assert (counts.cases, counts.faults) == (30, {})
    assert counts.accepted + counts.refused == 30


def test_counts() -> None:
    counts = Counts()
    for case, outcome in enumerate(("accepted", "refused", "hangs", "hangs")):
        counts.add(case, outcome)
    assert counts == Counts(4, 1, 1, {"hangs": [2, 3]})
