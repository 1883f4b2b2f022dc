"""How the image is built, as far as that needs no container."""

from __future__ import annotations

from pathlib import Path

from tests.image.verb import image_verb


def test_pip_settings_come_in_pips_own_order(tmp_path: Path) -> None:
    (tmp_path / ".pip").mkdir()
    (tmp_path / ".pip/pip.conf").write_text("[global]\nproxy = http://one.test:1\ntimeout = 7\nno-input = true\ntarget = /x\n")
    named = tmp_path / "named.conf"
    named.write_text("[install]\ntrusted-host = files.test\n[global]\nproxy = http://two.test:2\n")
    env = {"HOME": str(tmp_path), "PIP_CONFIG_FILE": str(named), "PIP_TIMEOUT": "9"}

    found = image_verb.pip_settings(env)

    assert found["proxy"] == "http://two.test:2"
    assert found["trusted-host"] == "files.test"
    assert found["timeout"] == "9"
    assert found["no-input"] == "true", "whatever it is called"
    assert "target" not in found, "a place on this machine"


def test_mirror_is_the_first_of_the_machines_sources() -> None:
    assert image_verb.base.mirror_of("# x\nTypes: deb\nURIs: http://one.test/debian http://b/\nURIs: http://c/\n") == (
        "http://one.test/debian"
    )
    assert image_verb.base.mirror_of("") == image_verb.base.DEFAULT_MIRROR


def test_private_store_leaves_the_users_alone(tmp_path: Path) -> None:
    env = image_verb.private_store(tmp_path / "image")

    assert set(env) == {"CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "TMPDIR"}
    for path in env.values():
        assert Path(path).is_relative_to(tmp_path)
        assert Path(path).exists()
    assert f'graphroot = "{tmp_path}/image/store"' in Path(env["CONTAINERS_STORAGE_CONF"]).read_text()
