"""What a training is made from, so that a resume notices when that is not what it was."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, TypeVar

from spikestill.data import DataSet
from spikestill.recipes import Recipe, as_mapping
from spikestill.recipes.loading import differences
from spikestill.runs import NETWORKS, Run
from spikestill.train.teachers import PUBLISHED, names_model
from spikestill.types import InputError

__all__ = ["Provenance", "recipe_changes", "relocated"]

AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


@dataclass(frozen=True)
class Provenance:
    """What a training is made from; every checkpoint holds it.

    Attributes:
        recipe: its fields.
        data: the fingerprint of the data set.
        networks: by field (teacher, source, start), the SHA-256 of the weights; None if there are none to be hashed.
    """

    recipe: Recipe
    data: str
    networks: Mapping[str, str | None]

    @classmethod
    def of(cls, recipe: Recipe, data: DataSet) -> Provenance:
        """That of a training on this data set."""
        named = {name: getattr(recipe, name, None) for name in NETWORKS}
        return cls(recipe, data.fingerprint, {name: _fingerprint(network) for name, network in named.items()})

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {"recipe": as_mapping(self.recipe), "data": self.data, "networks": dict(self.networks)}

    def check(self, stored: Mapping[str, Any]) -> None:
        """Hold it against that of a checkpoint.

        Where data and networks lie does not count: what they hold is compared.

        Raises:
            InputError: if recipe, data or a network is another.
        """
        asked, known = as_mapping(self.recipe), stored["recipe"]
        changed = [
            name
            for name in differences(self.recipe, known)
            if not _is_moved(name, asked, known) and not (name in NETWORKS and _are_files(asked[name], known[name]))
        ]
        if changed:
            raise InputError(
                f"cannot resume: the checkpoint was written by a training with other values of {', '.join(changed)}; "
                "remove it to begin anew"
            )
        if stored["data"] != self.data:
            raise InputError(
                f"cannot resume: the data {self.recipe.data} have changed since the training began (their fingerprint "
                "is another); restore them, or begin anew with --overwrite"
            )
        for name, weights in self.networks.items():
            before = stored["networks"].get(name)
            if None not in (weights, before) and weights != before:
                raise InputError(
                    f"cannot resume: the {name} {getattr(self.recipe, name)} has other weights than when the training "
                    "began; restore it, or begin anew with --overwrite"
                )


def relocated(recipe: AnyRecipe) -> AnyRecipe:
    """The recipe, with networks that are not where it says and lie beside its run folder: both were moved together."""
    beside = Path(recipe.folder).parent
    found: dict[str, Any] = {}
    for name in NETWORKS:
        network: Any = getattr(recipe, name, None)
        if not _are_files(network) or Path(network).exists():
            continue
        moved = beside / Path(network).name
        if Run(moved).finished:
            found[name] = str(moved)
    return dataclasses.replace(recipe, **found) if found else recipe


def recipe_changes(recipe: Recipe, run: Run) -> list[str]:
    """The fields in which the ``recipe.yaml`` of a run says otherwise than ``recipe``.

    Where data and networks lie does not count: data are the same if format and last folder are; networks if their
    weights are, or if one of the two is not there to be compared.

    Args:
        recipe: what is asked for.
        run: of which a part is there already.
    """
    stored = run.read_yaml("recipe.yaml")
    return list(_meaningful(differences(recipe, stored), as_mapping(recipe), stored, run))


def _meaningful(names: list[str], asked: Mapping[str, Any], stored: Mapping[str, Any], run: Run) -> Iterator[str]:
    """Of fields that differ, those that say more than where something lies."""
    for name in names:
        moved = _is_moved(name, asked, stored)
        here, there = asked[name], stored.get(name)
        if name in NETWORKS and _are_files(here, there):
            weights = {_fingerprint(here, run), _fingerprint(there, run)}
            moved = len(weights) == 1 or None in weights
        if not moved:
            yield name


def _is_moved(name: str, asked: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
    """Whether a field differs in where the data lie alone."""
    here, there = asked[name], stored.get(name)
    if name == "data" and isinstance(here, str) and isinstance(there, str):
        return _without_folder(here) == _without_folder(there)
    return name == "data_dir"


def _are_files(*networks: Any) -> bool:
    """Whether these are run folders or files of weights, and not models by name."""
    return all(isinstance(name, str) and name != PUBLISHED and not names_model(name) for name in networks)


def _without_folder(data: str) -> tuple[str, str]:
    """``parquet:/somewhere/cifar10`` as its format and its last folder."""
    kind, _, path = data.partition(":")
    return kind, PurePath(path).name


def _fingerprint(network: str | None, run: Run | None = None) -> str | None:
    """SHA-256 of the weights in a run folder, or in one of that name beside ``run``, or of a file of weights."""
    if network is None:
        return None
    places = [Path(network)] if run is None else [Path(network), run.folder.parent / Path(network).name]
    for place in places:
        if place.is_file():
            with place.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        if (found := Run(place).fingerprint) is not None:
            return found
    return None
