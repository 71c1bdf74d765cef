import importlib
import subprocess
import sys
import types
from pathlib import Path

import pytest

import dvt

ROOT = Path(__file__).parent.parent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_help_imports_none_of_the_heavy_packages() -> None:
    code = "import sys, dvt; dvt.main(['--help']); print(*sys.modules, sep='\\n')"
    loaded = set(run("-c", code).stdout.split())
    assert "dvt" in loaded
    assert loaded.isdisjoint({"torch", "fastapi", "numpy", "onnxruntime", "pydantic", "models", "service", "training"})


@pytest.mark.parametrize("command", ["classify", "budget", "top", "completion"])
def test_help_of_what_is_used_daily_is_instant_too(command: str) -> None:
    code = f"import sys, dvt\ntry: dvt.main([{command!r}, '--help'])\nfinally: print(*sys.modules, sep='\\n')"
    loaded = set(run("-c", code).stdout.split())
    assert "models.arguments" in loaded or command == "completion"
    assert loaded.isdisjoint({"fastapi", "numpy", "pydantic", "httpx", "dvt_client", "rich", "prometheus_client"})


def test_help_names_every_command_on_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert dvt.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for command in dvt.COMMANDS:
        assert sum(line.split()[:1] == [command.name] and command.help in line for line in lines) == 1
    assert max(map(len, lines)) <= 100


def test_no_arguments_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert dvt.main([]) == 0
    assert "usage: dvt COMMAND" in capsys.readouterr().out


def test_version_is_the_one_of_the_module(capsys: pytest.CaptureFixture[str]) -> None:
    assert dvt.main(["--version"]) == 0
    assert capsys.readouterr().out == f"dvt {dvt.__version__}\n"


@pytest.mark.parametrize(
    ("typed", "way_out"),
    [("trian", "did you mean `dvt train`?"), ("xyz", "commands are serve, classify"), ("--port", "commands are serve")],
)
def test_an_unknown_command_names_the_nearest(typed: str, way_out: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert dvt.main([typed]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert way_out in captured.err
    assert captured.err.count("\n") == 1


def test_no_command_lets_onnx_runtime_report_its_use() -> None:
    code = "import os, dvt\ntry: dvt.main(['serve', '--help'])\nfinally: print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert run("-c", code).stdout.endswith("\n1\n")


def fake_command(monkeypatch: pytest.MonkeyPatch, error: BaseException | None, code: int = 0) -> None:
    """Mount a command `fake` whose run raises `error` or returns `code`."""

    def run_fake(args: object) -> int:
        if error is not None:
            raise error
        return code

    module = types.ModuleType("fake_cli")
    module.add_fake = lambda parser: parser.set_defaults(run=run_fake)  # type: ignore[attr-defined]  # made for the test
    monkeypatch.setitem(sys.modules, "fake_cli", module)
    monkeypatch.setattr(dvt, "COMMANDS", (dvt.Command("fake", "Group", "fake_cli", "does nothing"),))


def test_the_exit_code_is_the_commands_own(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_command(monkeypatch, None, code=3)
    assert dvt.main(["fake"]) == 3


def test_a_missing_extra_is_named_with_the_way_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_command(monkeypatch, ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn"))
    assert dvt.main(["fake"]) == 2
    err = capsys.readouterr().err
    assert "needs torch" in err
    assert "make setup" in err
    assert "'.[train]'" in err


def test_a_missing_module_of_our_own_is_a_bug_and_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_command(monkeypatch, ModuleNotFoundError("No module named 'models.dtv'", name="models.dtv"))
    with pytest.raises(ModuleNotFoundError):
        dvt.main(["fake"])


def test_interrupting_a_command_gives_the_shells_code_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_command(monkeypatch, KeyboardInterrupt())
    assert dvt.main(["fake"]) == 130


@pytest.mark.parametrize("command", dvt.COMMANDS, ids=lambda command: command.name)
def test_every_command_has_help_without_loading_torch(command: dvt.Command) -> None:
    code = f"import sys, dvt\ntry: dvt.main([{command.name!r}, '--help'])\nfinally: print('torch' in sys.modules)"
    result = run("-c", code)
    assert result.returncode == 0, result.stderr
    assert f"usage: dvt {command.name}" in result.stdout
    assert result.stdout.endswith("False\n")


def test_the_table_names_modules_of_this_repository() -> None:
    for module in {command.module for command in dvt.COMMANDS}:
        found = importlib.import_module(module).__file__
        assert found is not None
        assert Path(found).is_relative_to(ROOT)
