"""The image's entry point: what variables of apache's controller become, and what of them is refused, without an image."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

from atsk8s.errors import SettingsError

ENTRYPOINT = Path(__file__).resolve().parents[2] / "docker/entrypoint.py"


@pytest.fixture(scope="module")
def entrypoint() -> ModuleType:
    """docker/entrypoint.py as a module: it is a program, and no package."""
    spec = importlib.util.spec_from_file_location("entrypoint", ENTRYPOINT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def image(entrypoint: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """/etc/atsk8s and the run directory's etc, as make_config_dir leaves it."""
    config, etc = tmp_path / "config", tmp_path / "etc"
    config.mkdir()
    etc.mkdir()
    for name in ("plugin.config", "ssl_multicert.config", "logging.yaml", "records.config"):
        (config / name).write_text(f"# the image's {name}\n")
        (etc / name).symlink_to(config / name)
    monkeypatch.setattr(entrypoint, "CONFIG_DIR", config)
    return tmp_path


def certificate(directory: Path) -> str:
    directory.mkdir(parents=True)
    for name in ("tls.crt", "tls.key"):
        (directory / name).write_text(name)
    return str(directory)


def test_alternative_files_stand_for_the_images(entrypoint: ModuleType, image: Path) -> None:
    (image / "mine.yaml").write_text("logging: {}\n")
    (image / "config/other-sni.yaml").write_text("sni: []\n")
    env = {"LOG_CONFIG_FNAME": str(image / "mine.yaml"), "SSL_SERVERNAME_FNAME": "other-sni.yaml"}
    entrypoint.apply_ancestors_files(image / "etc", env)
    assert (image / "etc/logging.yaml").read_text() == "logging: {}\n"
    assert (image / "etc/sni.yaml").read_text() == "sni: []\n"
    assert (image / "etc/records.config").read_text() == "# the image's records.config\n"
    assert (image / "config/logging.yaml").read_text() == "# the image's logging.yaml\n"


def test_extra_plugins_follow_the_images(entrypoint: ModuleType, image: Path) -> None:
    (image / "extra").write_text("# more\nstats_over_http.so _stats 127.0.0.1/32")
    entrypoint.apply_ancestors_files(image / "etc", {"EXTRA_PLUGIN_FNAME": str(image / "extra")})
    text = (image / "etc/plugin.config").read_text()
    assert text == "# the image's plugin.config\n# more\nstats_over_http.so _stats 127.0.0.1/32\n"
    assert (image / "config/plugin.config").read_text() == "# the image's plugin.config\n"


def test_tls_directories_become_certificates_for_every_address(entrypoint: ModuleType, image: Path) -> None:
    first, second = certificate(image / "a"), certificate(image / "b")
    entrypoint.apply_ancestors_files(image / "etc", {"POD_TLS_PATH": f"{first}:{second}/:"})
    assert (image / "etc/ssl_multicert.config").read_text().splitlines() == [
        "# the image's ssl_multicert.config",
        f"dest_ip=* ssl_cert_name={first}/tls.crt ssl_key_name={first}/tls.key",
        f"dest_ip=* ssl_cert_name={second}/tls.crt ssl_key_name={second}/tls.key",
    ]


def test_nothing_named_nothing_changed(entrypoint: ModuleType, image: Path) -> None:
    entrypoint.apply_ancestors_files(image / "etc", {"POD_TLS_PATH": "", "EXTRA_PLUGIN_FNAME": "", "LOG_CONFIG_FNAME": ""})
    assert all(path.is_symlink() for path in (image / "etc").iterdir())


@pytest.mark.parametrize("missing", ["tls.crt", "tls.key"])
def test_a_missing_certificate_is_named(entrypoint: ModuleType, image: Path, missing: str) -> None:
    directory = certificate(image / "a")
    Path(directory, missing).unlink()
    with pytest.raises(SettingsError, match=f"POD_TLS_PATH.*{directory}/{missing}: No such file"):
        entrypoint.apply_ancestors_files(image / "etc", {"POD_TLS_PATH": directory})


@pytest.mark.parametrize("path", ["relative", "/a b", "/a\nssl_key_dialog=exec:/bin/x", '/a"b', "/a#b", "/\x00", "/ä"])
def test_a_directory_that_a_line_cannot_hold_is_refused(entrypoint: ModuleType, image: Path, path: str) -> None:
    with pytest.raises(SettingsError, match="POD_TLS_PATH"):
        entrypoint.apply_ancestors_files(image / "etc", {"POD_TLS_PATH": path})


def test_so_are_too_many(entrypoint: ModuleType, image: Path) -> None:
    with pytest.raises(SettingsError, match="at most 1000"):
        entrypoint.apply_ancestors_files(image / "etc", {"POD_TLS_PATH": ":".join(["/x"] * 1001)})


@pytest.mark.parametrize("variable", ["LOG_CONFIG_FNAME", "SSL_SERVERNAME_FNAME", "EXTRA_PLUGIN_FNAME"])
def test_what_is_no_usable_file_is_refused(entrypoint: ModuleType, image: Path, variable: str) -> None:
    os.mkfifo(image / "fifo")
    (image / "large").write_bytes(b"#" * (entrypoint.FILE_BYTES_MAX + 1))
    for name, fault in (
        ("missing", "No such file"),
        (str(image), "is no file"),
        (str(image / "fifo"), "is no file"),
        ("/dev/zero", "is no file"),
        (str(image / "large"), "at most"),
        ("a\nb", "control characters"),
        ("a\x00b", "control characters"),
        ("x" * 5000, "too long"),
    ):
        with pytest.raises(SettingsError, match=rf"(?s){variable}=.*{fault}"):
            entrypoint.apply_ancestors_files(image / "etc", {variable: name})


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"x.so " + b"a" * 1020, "line 1 is longer"),
        (b"x.so\n\x1b[2J\n", "line 2 has control"),
        (b"x.so \xff\n", "not UTF-8"),
        (b"# ok\n/usr/lib/kubernetes_ssl.so --admin=off\n", "line 2: kubernetes_ssl.so is loaded already"),
    ],
)
def test_extra_plugins_are_looked_at(entrypoint: ModuleType, image: Path, content: bytes, fault: str) -> None:
    (image / "extra").write_bytes(content)
    with pytest.raises(SettingsError, match=fault):
        entrypoint.apply_ancestors_files(image / "etc", {"EXTRA_PLUGIN_FNAME": str(image / "extra")})


def test_debug_means_debug_lines_that_are_shown(entrypoint: ModuleType) -> None:
    assert entrypoint.ancestors_variables({}) == entrypoint.ancestors_variables({"INGRESS_DEBUG": ""}) == {}
    meant = entrypoint.ancestors_variables({"INGRESS_DEBUG": "1"})
    assert meant["ATSK8S_LOG_LEVEL"] == "debug"
    assert meant["PROXY_CONFIG_DIAGS_DEBUG_TAGS"] == "atsk8s"


def test_namespaces_are_read_as_the_ancestor_read_them(entrypoint: ModuleType) -> None:
    plain = entrypoint.without_ancestors_words({"INGRESS_NS": "Trafficserver-Test,b", "INGRESS_IGNORE_NS": "Kube-System", "X": "Y"})
    assert plain == {"INGRESS_NS": "trafficserver-test,b", "INGRESS_IGNORE_NS": "kube-system", "X": "Y"}
    assert entrypoint.without_ancestors_words({"INGRESS_NS": "ALL"}) == {}


@pytest.fixture
def start(entrypoint: ModuleType, image: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything that prepare() touches, under one directory; manifests to serve in it."""
    (image / "run").mkdir()
    (image / "manifests").mkdir()
    monkeypatch.setattr(entrypoint, "RUN_DIR", image / "run")
    return image


def test_a_start_with_the_ancestors_variables(entrypoint: ModuleType, start: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of the ancestor's at once, as its chart sets them: what reaches Traffic Server."""
    env = {
        "ATSK8S_MANIFESTS": str(start / "manifests"),
        "TS_CACHE_SIZE": "0",
        "POD_NAMESPACE": "trafficserver-test",
        "INGRESS_CLASS": "",
        "INGRESS_NS": "all",
        "INGRESS_IGNORE_NS": "",
        "INGRESS_DEBUG": "true",
        "RESYNC_PERIOD": "1m",
        "POD_TLS_PATH": certificate(start / "ssl"),
    }
    merged = entrypoint.prepare([], env)
    assert merged["ATSK8S_LOG_LEVEL"] == "debug"
    assert merged["PROXY_CONFIG_DIAGS_DEBUG_ENABLED"] == "1"
    assert "INGRESS_NS" not in merged
    assert "dest_ip=*" in (start / "run/etc/ssl_multicert.config").read_text()
    assert "RESYNC_PERIOD is not needed" in capsys.readouterr().err
    assert entrypoint.prepare(["--log-level=error"], env)["ATSK8S_LOG_LEVEL"] == "error"  # and a second start in one container
    assert entrypoint.prepare([], {**env, "ATSK8S_LOG_LEVEL": "warning"})["ATSK8S_LOG_LEVEL"] == "warning"


def test_a_start_with_a_bad_one_ends_in_one_line(
    entrypoint: ModuleType, start: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    env = {"ATSK8S_MANIFESTS": str(start / "manifests"), "TS_CACHE_SIZE": "0", "POD_TLS_PATH": "/nowhere"}
    monkeypatch.setattr(entrypoint.os, "environ", env)
    monkeypatch.setattr(entrypoint.sys, "argv", ["entrypoint"])
    with pytest.raises(SystemExit, match="2"):
        entrypoint.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert "/nowhere/tls.crt: No such file or directory" in line


def test_snippets_make_our_rules_go_on_with_tslua(entrypoint: ModuleType, image: Path) -> None:
    ours = "map / http://localhost @plugin=/opt/atsk8s/lib/kubernetes_remap.so"
    (image / "config/remap.config").write_text(f"# {ours}\n{ours}\nmap /x http://127.0.0.1:1\n")
    link = image / "etc/remap.config"
    link.symlink_to(image / "config/remap.config")
    entrypoint.add_snippets(link)
    assert link.read_text() == f"# {ours}\n{ours} {entrypoint.SNIPPETS_RULE}\nmap /x http://127.0.0.1:1\n"
    assert (image / "config/remap.config").read_text() == f"# {ours}\n{ours}\nmap /x http://127.0.0.1:1\n"


def test_a_rule_that_has_tslua_is_left_alone(entrypoint: ModuleType, image: Path) -> None:
    own = "map / http://localhost @plugin=/opt/atsk8s/lib/kubernetes_remap.so @plugin=tslua.so @pparam=/mine.lua\n"
    (image / "config/remap.config").write_text(own)
    link = image / "etc/remap.config"
    link.symlink_to(image / "config/remap.config")
    entrypoint.add_snippets(link)
    assert link.read_text() == own
