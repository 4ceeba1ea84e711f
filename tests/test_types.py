from __future__ import annotations

from spikestill.types import InputError, unknown_name


def test_the_nearest_name_is_suggested_and_a_few_names_are_all_listed() -> None:
    message = str(unknown_name("model", "vgg55", ["vgg9", "vgg5", "resnet20"]))
    assert message == "unknown model 'vgg55': did you mean 'vgg5'? (known: resnet20, vgg5, vgg9)"


def test_nothing_is_suggested_for_what_resembles_nothing() -> None:
    assert str(unknown_name("model", "qqq", ["vgg5"])) == "unknown model 'qqq': (known: vgg5)"


def test_of_many_names_only_the_nearest_are_listed() -> None:
    message = str(unknown_name("option", "epoch", [f"option{index}" for index in range(30)] + ["epochs"]))
    assert message.startswith("unknown option 'epoch': did you mean 'epochs'? (the nearest known: epochs, ")
    assert message.count("option") == 1 + 7


def test_a_name_of_any_length_is_a_short_line() -> None:
    assert len(str(unknown_name("model", "a" * 100_000, ["resnet19"]))) < 200


def test_a_message_of_any_length_is_a_line_one_can_read() -> None:
    message = str(InputError(f"the name {'a' * 100_000} is taken"))
    assert len(message) < 4100
    assert message.startswith("the name a")
    assert message.endswith("a is taken")
    assert str(InputError("short")) == "short"
