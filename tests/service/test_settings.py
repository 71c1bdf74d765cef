"""One table of settings: environment, flags, secrets from files, and a page of documentation that cannot go stale."""

import argparse
from pathlib import Path

import pytest

from service import settings
from service.settings import Settings, SettingsError, flags_given, load_settings, variable_of

ROOT = Path(__file__).parent.parent.parent


def flags(*words: str) -> dict[str, str]:
    parser = argparse.ArgumentParser()
    settings.add_flags(parser)
    return flags_given(parser.parse_args(words))


def test_defaults_bind_the_loopback_address() -> None:
    loaded = load_settings({})
    assert (loaded.settings.host, loaded.settings.port, loaded.warnings) == ("127.0.0.1", 8000, ())
    assert loaded.settings.hosts() == ("localhost", "127.0.0.1", "::1")


def test_a_flag_wins_over_the_environment_and_that_over_the_default() -> None:
    environment = {"DVT_PORT": "9000", "DVT_MAX_BATCH": "16"}
    found = load_settings(environment, flags("--port", "9001")).settings
    assert (found.port, found.max_batch, found.top_k) == (9001, 16, 5)


def test_an_empty_variable_counts_as_unset() -> None:
    assert load_settings({"DVT_PORT": ""}).settings.port == 8000


def test_every_setting_but_a_secret_has_a_flag_that_reaches_it() -> None:
    values = {"port": "81", "host": "h", "metrics_public": "true", "device": "cpu", "backend": "eager"}
    values["otlp_endpoint"] = "http://collector:4318"
    for name in Settings.model_fields:
        if name in ("bundle", *settings.secret_names()):
            with pytest.raises(SystemExit):
                flags(settings.flag_of(name), "x")
            continue
        default = Settings.model_fields[name].default
        value = values.get(name, str(default) if default != "" else "x")
        assert flags(settings.flag_of(name), value) == {name: value}
        load_settings({}, {name: value})


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"DVT_PORT": "http"}, "DVT_PORT is 'http'"),
        ({"DVT_PORT": "70000"}, "DVT_PORT is '70000'.*65535"),
        ({"DVT_PORT": "tcp://10.0.0.1:8000"}, "enableServiceLinks: false"),
        ({"DVT_BACKEND": "tpu"}, "DVT_BACKEND is 'tpu'.*onnx"),
        ({"DVT_DEVICE": "gpu"}, "DVT_DEVICE is 'gpu': write auto, cpu, cuda, .* cuda:0,cuda:2"),
        ({"DVT_DEVICE": "cuda:0,cuda:0"}, "DVT_DEVICE is 'cuda:0,cuda:0': it names a device twice"),
        ({"DVT_MAX_IMAGE_PX": "16777216"}, "DVT_MAX_IMAGE_PX is '16777216'.*32768"),
        ({"DVT_QUEUE_LIMIT": "0"}, "DVT_QUEUE_LIMIT is '0'"),
        ({"DVT_ADMIN_KEY": "a", "DVT_ADMIN_KEY_FILE": "b"}, "both set"),
        ({"DVT_API_KEYS_FILE": "nowhere"}, "nowhere, which is no file"),
    ],
)
def test_a_wrong_value_names_the_setting_the_value_and_the_way_out(environment: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings(environment)


def test_a_wrong_flag_is_named_as_it_was_written() -> None:
    with pytest.raises(SettingsError, match="--max-batch is 'many'"):
        load_settings({}, flags("--max-batch", "many"))


def test_unknown_variables_are_warned_about_with_the_nearest_name() -> None:
    (close, far) = load_settings({"DVT_QUEUE_LIMITS": "9", "DVT_ZZZ": "1", "PATH": "x"}).warnings
    assert "DVT_QUEUE_LIMITS" in close
    assert "did you mean DVT_QUEUE_LIMIT?" in close
    assert "DVT_ZZZ" in far


def test_secrets_do_not_show_in_what_is_printed() -> None:
    loaded = load_settings({"DVT_ADMIN_KEY": "hunter2"})
    assert loaded.settings.admin_key.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(loaded)


def test_secret_files_are_handed_on_by_name(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("one\n")
    assert load_settings({"DVT_API_KEYS_FILE": str(file)}).secret_files == {"api_keys": file}
    by_value = load_settings({"DVT_API_KEYS": str(file)})
    assert by_value.secret_files == {"api_keys": file}
    assert by_value.settings.api_keys.get_secret_value() == ""


def test_hosts_are_a_list_or_follow_the_address() -> None:
    assert load_settings({"DVT_HOST": "0.0.0.0"}).settings.hosts() == ("*",)
    assert load_settings({"DVT_ALLOWED_HOSTS": "A.example, b.example"}).settings.hosts() == ("a.example", "b.example")


def test_the_page_of_settings_is_the_one_that_the_code_makes() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    assert page == settings.render_markdown(), "run: python -m service.settings > docs/settings.md"
    for name in Settings.model_fields:
        assert page.count(f"| `{variable_of(name)}`") == 1


def test_what_the_command_line_reads_as_a_client_is_no_mistake_of_the_service() -> None:
    assert load_settings({"DVT_URL": "http://a", "DVT_KEY": "k", "DVT_KEY_FILE": "f"}).warnings == ()
    (warning,) = load_settings({"DVT_API_KEY": "k"}).warnings
    assert "did you mean DVT_API_KEYS?" in warning
