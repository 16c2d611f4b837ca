"""R11.9: where settings come from, and that no file or address takes the secret elsewhere."""

import logging
from pathlib import Path

import pytest
from pydantic import ValidationError

from roster_pipeline.errors import PermanentError
from roster_pipeline.settings import read_environment


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of ROSTER_ENV_FILE, still missing. No variable of Clever is in the environment."""
    for name in ("CLEVER_API_URL", "CLEVER_AUTH_URL", "CLEVER_CLIENT_ID", "CLEVER_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    found = tmp_path / "roster.env"
    found.touch(mode=0o600)
    monkeypatch.setenv("ROSTER_ENV_FILE", str(found))
    return found


def test_a_file_of_the_current_folder_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROSTER_ENV_FILE")
    (tmp_path / ".env").write_text("CLEVER_PAGE_LIMIT=7\n")
    monkeypatch.chdir(tmp_path)
    assert read_environment().clever_page_limit != 7


def test_the_file_beside_the_checkout_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROSTER_ENV_FILE")
    monkeypatch.setattr("roster_pipeline.settings._PROJECT", tmp_path)
    (tmp_path / ".env").write_text("CLEVER_PAGE_LIMIT=7\n")
    assert read_environment().clever_page_limit == 10_000
    (tmp_path / "pyproject.toml").touch()
    assert read_environment().clever_page_limit == 7


@pytest.mark.parametrize("content", ["CLEVER_PAGE_LIMIT=7\n", "export CLEVER_PAGE_LIMIT='7'\r\n", "\ufeffCLEVER_PAGE_LIMIT=7"])
def test_usual_forms_are_read_and_the_environment_takes_precedence(file: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    file.write_text(content, encoding="utf-8")
    monkeypatch.delenv("CLEVER_PAGE_LIMIT", raising=False)
    assert read_environment().clever_page_limit == 7
    monkeypatch.setenv("CLEVER_PAGE_LIMIT", "8")
    assert read_environment().clever_page_limit == 8


@pytest.mark.parametrize("address", ["CLEVER_API_URL", "CLEVER_AUTH_URL"])
@pytest.mark.parametrize("secret", ["CLEVER_CLIENT_ID", "CLEVER_CLIENT_SECRET"])
@pytest.mark.parametrize("in_file", ["address", "secret"])
def test_secrets_of_one_place_are_never_sent_to_an_address_of_another(
    file: Path, monkeypatch: pytest.MonkeyPatch, address: str, secret: str, in_file: str
) -> None:
    """R11.9."""
    values = {address: "http://127.0.0.1:7999", secret: "s3cret"}
    one, other = (address, secret) if in_file == "address" else (secret, address)
    file.write_text(f"{one}={values[one]}\n")
    monkeypatch.setenv(other, values[other])
    with pytest.raises(PermanentError, match="partly") as refused:
        read_environment()
    assert "s3cret" not in str(refused.value)
    # Both in one place.
    file.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    monkeypatch.delenv(other)
    assert read_environment().model_fields_set >= {address.lower(), secret.lower()}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("CLEVER_PAGE_LIMIT=7\n".encode("utf-16"), "UTF-16"),
        ("CLEVER_PAGE_LIMIT=7\n".encode("utf-16-be"), "UTF-16"),
        ("ROSTER_HOME=/café\n".encode("latin-1"), "not UTF-8"),
    ],
)
def test_a_file_in_another_encoding_is_named(file: Path, content: bytes, named: str) -> None:
    file.write_bytes(content)
    with pytest.raises(PermanentError, match=named) as refused:
        read_environment()
    assert str(file) in refused.value.reason
    assert "UTF-8" in refused.value.hint


def test_a_file_that_is_missing_is_named(file: Path) -> None:
    file.unlink()
    with pytest.raises(PermanentError, match="cannot be read"):
        read_environment()


def test_a_file_that_others_can_read_is_reported(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read_environment()
        assert caplog.messages == []
        file.chmod(0o644)
        read_environment()
    assert [str(file) in message for message in caplog.messages] == [True]


@pytest.mark.parametrize("name", ["CLEVER_API_URL", "CLEVER_AUTH_URL"])
@pytest.mark.parametrize("host", ["api.clever.com", "192.168.1.4:8080", "127.0.0.1.evil.example", "localhost.evil.example"])
def test_secrets_travel_encrypted(monkeypatch: pytest.MonkeyPatch, name: str, host: str) -> None:
    monkeypatch.setenv(name, f"http://{host}")
    with pytest.raises(ValidationError, match="https"):
        read_environment()
    monkeypatch.setenv(name, f"https://{host}")
    read_environment()


@pytest.mark.parametrize("host", ["127.0.0.1:7400", "localhost:1", "[::1]:2", "clever.localhost"])
def test_this_machine_needs_no_encryption(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """A blank around an address is left out."""
    monkeypatch.setenv("CLEVER_API_URL", f"  http://{host}/ ")
    assert read_environment().clever_api_url == f"http://{host}"
