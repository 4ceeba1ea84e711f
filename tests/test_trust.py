"""Consent to code that a file names."""

from __future__ import annotations

import pytest

from spikestill import trust
from spikestill.types import InputError

NAME = "python:mine.nets:small"


def test_nothing_is_allowed_without_consent() -> None:
    with pytest.raises(InputError, match=r"^'python:mine.nets:small' is code that a file names.*--trust-code"):
        trust.require_consent(NAME)


def test_consent_is_for_a_name_and_for_a_block() -> None:
    with trust.consent([NAME]):
        trust.require_consent(NAME)
        with trust.consent(["python:other:one"]):
            trust.require_consent(NAME)
        for other in ("python:other:one", "python:mine.nets:large", "python:mine.nets:small2"):
            with pytest.raises(InputError):
                trust.require_consent(other)
        assert not trust.consents_to_all()
    with pytest.raises(InputError):
        trust.require_consent(NAME)


def test_consent_to_all_is_kept_within_a_narrower_one() -> None:
    with trust.consent(trust_code=True), trust.consent(["python:a:b"]):
        trust.require_consent(NAME)
        assert trust.consents_to_all()
    assert not trust.consents_to_all()


def test_consent_ends_with_an_exception() -> None:
    with pytest.raises(KeyError), trust.consent(trust_code=True):
        raise KeyError
    assert not trust.consents_to_all()


@pytest.mark.parametrize(
    "word",
    [
        NAME,
        f"--model={NAME}",
        f"--stages.teacher={{model: {NAME}, epochs: 1}}",
        f'--stages.teacher={{"model": "{NAME}"}}',
        f"--objectives=[{{name: logits, model: {NAME}}}]",
    ],
)
def test_names_in_command_line_words(word: str) -> None:
    assert trust.names_in_argv(["train", word]) == [NAME]


def test_names_in_the_fields_of_a_recipe() -> None:
    fields = {
        "model": NAME,
        "data": "python:not.a:network",
        "stages": {"teacher": {"model": "python:a:b"}, "source": None},
        "objectives": [{"name": "logits", "options": {"teacher": "python:c:d"}}],
        "width": 1.0,
    }
    assert list(trust.code_names(fields)) == [NAME, "python:a:b", "python:c:d"]
