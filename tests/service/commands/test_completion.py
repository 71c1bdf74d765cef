import pytest

import dvt
from service.commands.completion import completions


@pytest.mark.parametrize("command", dvt.COMMANDS, ids=lambda command: command.name)
def test_every_flag_of_every_command_is_offered(command: dvt.Command) -> None:
    shown = [
        flag
        for action in dvt.parser_of(command)._actions
        if action.help != "==SUPPRESS=="
        for flag in action.option_strings
    ]
    assert set(completions([command.name, "-"])) == set(shown)


def test_commands_and_what_follows_them_are_offered_by_their_beginning() -> None:
    assert completions(["c"]) == [command.name for command in dvt.COMMANDS if command.name.startswith("c")]
    assert set(completions([])) > {command.name for command in dvt.COMMANDS}
    assert completions(["budget", "f"]) == ["frontier"]
    assert completions(["bench", "auto", "s"]) == ["simulate"]


def test_values_of_a_flag_are_its_choices_and_else_the_shells_own() -> None:
    assert completions(["classify", "--top-k", ""]) == completions(["classify", "--top-k", "-"]) == []
    assert completions(["certify", "--backend", "o"]) == ["onnx"]
    assert completions(["completion", ""]) == ["bash", "zsh", "fish"]


def test_what_is_no_command_has_nothing_to_offer() -> None:
    assert completions(["nothing", ""]) == []
