"""The command `dvt`: mounts the command lines of the packages, each only when it is asked for.

A module of `COMMANDS` exposes, for its command NAME, `add_NAME(parser)`, which adds the arguments and sets `run` to a
function of the parsed arguments that returns the exit code. Nothing else is imported, so `dvt --help` is instant and
serving never loads training.
"""

import argparse
import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

__version__ = "0.1.0"


@dataclass(frozen=True)
class Command:
    """One line of the help: `name` is mounted from `module`, under the heading `group`."""

    name: str
    group: str
    module: str
    help: str


COMMANDS = (
    Command("serve", "Serve", "service.cli", "answer POST /classify with a bundle"),
    Command(
        "classify", "Use", "service.commands.classify", "tell what photos show: by a server, or by a bundle right here"
    ),
    Command(
        "budget", "Use", "service.commands.budget", "see or change what a server's images may cost: get, set, watch"
    ),
    Command("top", "Use", "service.commands.top", "watch a server live: requests, exits, latency, queues, budget"),
    Command("train", "Make a bundle", "training.cli", "train a recipe on a tree of images, write a bundle"),
    Command("profile", "Make a bundle", "training.cli", "find thresholds, write the frontier and the named profiles"),
    Command(
        "certify", "Make a bundle", "training.cli_certify", "prove on held-out images how much leaving early harms"
    ),
    Command("eval", "Make a bundle", "training.cli", "measure accuracy and GMACs of a bundle on images"),
    Command("convert", "Make a bundle", "models.cli", "turn a published checkpoint (*.pth.tar) into a bundle"),
    Command("export", "Make a bundle", "models.cli", "add one ONNX graph a stage to a bundle, checked against PyTorch"),
    Command("plan", "Measure", "service.commands.plan", "replicas, latency and price for a load, by queueing formulas"),
    Command("bench", "Measure", "benchmarks.cli", "throughput, latency and cost of the service, beside other servers"),
    Command("completion", "Shell", "service.commands.completion", "let the shell complete what is typed after dvt"),
)

# Import name -> what installs it, for a command that finds it missing.
EXTRA_OF = {
    "torch": "train",
    "onnx": "train",
    "onnxscript": "bench",
    "matplotlib": "train",
    "rich": "client",
    "httpx": "client",
    "dvt_client": "client",
    "scipy": "train",
    "pymoo": "genetic",
    "onnxruntime": "cpu",
    "psutil": "bench",
    "redis": "replicas",
}


def help_text() -> str:
    """What `dvt --help` prints."""
    lines = ["usage: dvt COMMAND ...", "", "Image classification that spends on each image as little as it needs."]
    width = max(len(command.name) for command in COMMANDS)
    for group in dict.fromkeys(command.group for command in COMMANDS):
        lines += ["", f"{group}:"]
        lines += [f"  {command.name:<{width}}  {command.help}" for command in COMMANDS if command.group == group]
    lines += ["", "`dvt COMMAND --help` tells a command's arguments and exit codes, `dvt --version` the version."]
    return "\n".join(lines)


def parser_of(command: Command) -> argparse.ArgumentParser:
    """The parser of one command; imports the module that holds it."""
    description = f"{command.help[0].upper()}{command.help[1:]}."
    parser = argparse.ArgumentParser(prog=f"dvt {command.name}", description=description)
    add = getattr(importlib.import_module(command.module), f"add_{command.name}")
    add(parser)
    return parser


def unknown_command(name: str) -> str:
    """One line that names the nearest command, or all of them when none is near."""
    names = [command.name for command in COMMANDS]
    near = [] if name.startswith("-") else difflib.get_close_matches(name, names, n=1)
    way_out = f"did you mean `dvt {near[0]}`?" if near else f"commands are {', '.join(names)}"
    return f"dvt: no command {name!r}; {way_out}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run `dvt` with the arguments `argv` (those of the process by default); returns the exit code, 2 for misuse."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0
    if arguments[0] == "--version":
        print(f"dvt {__version__}")
        return 0
    command = next((command for command in COMMANDS if command.name == arguments[0]), None)
    if command is None:
        print(unknown_command(arguments[0]), file=sys.stderr)
        return 2
    # ONNX Runtime reports its use to its maker unless this is set before it is loaded; whoever wants that sets it to 0.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        args = parser_of(command).parse_args(arguments[1:])
        return int(args.run(args))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRA_OF:
            raise
        extra = EXTRA_OF[package]
        print(
            f"dvt {command.name}: needs {package}, which is not installed here: "
            f"`make setup` installs everything into .venv, `pip install -e '.[{extra}]'` this alone",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
