"""`dvt completion bash|zsh|fish`: a few lines for the shell, which ask `dvt` itself what could come next.

So what is completed is what the parsers know, and nothing has to be made anew when a command learns a flag. Only the
parser of the command that is being typed is loaded.
"""

import argparse
import sys
from collections.abc import Sequence

# Each passes the words before the cursor, and the beginning of the one at it as the last. Where nothing is printed
# the shell completes names of files.
_SCRIPTS = {
    "bash": """\
_dvt() {
    local IFS=$'\\n'
    COMPREPLY=($(dvt completion --next "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _dvt dvt
""",
    "zsh": """\
#compdef dvt
_dvt() {
    local -a found
    found=("${(@f)$(dvt completion --next "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[*]}" ]]; then compadd -- "${found[@]}"; else _files; fi
}
compdef _dvt dvt
""",
    "fish": """\
function _dvt
    set -l words (commandline -opc) (commandline -ct)
    set -l found (dvt completion --next $words[2..-1] 2>/dev/null)
    if test -n "$found"; printf '%s\\n' $found; else; __fish_complete_path (commandline -ct); end
end
complete -c dvt -f -a '(_dvt)'
""",
}
_INSTALL = """\
Into the file that the shell reads at its start:
  bash (~/.bashrc):                   eval "$(dvt completion bash)"
  zsh (~/.zshrc, after compinit):     eval "$(dvt completion zsh)"
  fish (~/.config/fish/config.fish):  dvt completion fish | source
"""


def add_completion(parser: argparse.ArgumentParser) -> None:
    parser.description = "Print what lets a shell complete commands, flags, their values and names of files."
    parser.epilog = _INSTALL
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("shell", nargs="?", choices=tuple(_SCRIPTS), metavar="SHELL", help=", ".join(_SCRIPTS))
    parser.add_argument("--next", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.set_defaults(run=run_completion)


def run_completion(args: argparse.Namespace) -> int:
    """Exit code 2 where no shell is named."""
    if args.next is not None:
        sys.stdout.write("".join(f"{word}\n" for word in completions(args.next)))
    elif args.shell is not None:
        sys.stdout.write(_SCRIPTS[args.shell])
    else:
        print(f"dvt completion: for which shell? {', '.join(_SCRIPTS)}", file=sys.stderr)
        return 2
    return 0


def completions(words: Sequence[str]) -> list[str]:
    """What the last of the words after `dvt` may become; none where that is up to the user, or names a file."""
    import dvt

    *before, word = words or [""]
    if not before:
        names = [command.name for command in dvt.COMMANDS]
        return _beginning(word, [*names, "--help", "--version"])
    command = next((command for command in dvt.COMMANDS if command.name == before[0]), None)
    if command is None:
        return []
    return _beginning(word, _next(dvt.parser_of(command), before[1:], word))


def _next(parser: argparse.ArgumentParser, before: Sequence[str], word: str) -> list[str]:
    """Candidates by the parser's own table of arguments, which argparse keeps but has no other name for."""
    subcommands: dict[str, argparse.ArgumentParser] = {}
    positionals: list[argparse.Action] = []
    flags: dict[str, argparse.Action] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            subcommands = dict(action.choices)
        elif action.option_strings:
            flags.update(dict.fromkeys(action.option_strings, action))
        else:
            positionals.append(action)
    for at, given in enumerate(before):
        if given in subcommands:
            return _next(subcommands[given], before[at + 1 :], word)
    last = flags.get(before[-1]) if before else None
    if last is not None and last.nargs != 0:  # A flag that takes a value: it is being typed.
        return [str(choice) for choice in last.choices or ()]
    if word.startswith("-"):
        return [flag for flag, action in flags.items() if action.help != argparse.SUPPRESS]
    choices = [str(choice) for action in positionals for choice in action.choices or ()]
    return [*subcommands, *choices]


def _beginning(word: str, candidates: Sequence[str]) -> list[str]:
    return [candidate for candidate in candidates if candidate.startswith(word)]
