"""The environment as one typed object. Every environment variable that the project reads is a field here, and a line of `.env.example`.

Belongs here: the variables, and the file that may hold them. Does not belong here: settings that differ between districts (`profiles.py`
and `app.districts.settings`).
"""

import codecs
import ipaddress
import logging
import os
import stat
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import AnyHttpUrl, Field, SecretStr, TypeAdapter, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from roster_pipeline.errors import PermanentError

log = logging.getLogger(__name__)

_PROJECT = Path(__file__).resolve().parent.parent
# Where the secrets are sent. One source must give both: a file of an unknown folder could otherwise send our secret anywhere.
_ADDRESSES = {"clever_api_url", "clever_auth_url"}
_SECRETS = {"clever_client_id", "clever_client_secret"}
_OTHER_ENCODINGS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}


class Settings(BaseSettings):
    """The configuration of this process. Secrets are printed as stars."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", populate_by_name=True)

    roster_env_file: Path | None = Field(
        None, description="A file with more of these variables. Unset: `.env` beside the checkout's pyproject.toml. Empty: none."
    )
    roster_home: Path = Field(Path(".roster"), description="Where the project keeps its own data: embedded PostgreSQL, Dagster home.")
    roster_database_url: SecretStr | None = Field(
        None,
        description="postgresql://user:password@host/database?sslmode=verify-full, PostgreSQL 15 or newer. The server itself, or a pooler "
        "in session mode. Unset: the embedded PostgreSQL under ROSTER_HOME.",
    )
    roster_dagster_database_url: SecretStr | None = Field(
        None,
        description="Dagster's own storage. Unset: a database on the same server, named as the application's with `_dagster` appended.",
    )
    clever_api_url: str = Field("https://api.clever.com", description="Data API, without the version.")
    clever_auth_url: str = Field("https://clever.com", description="Host of /oauth/tokens.")
    clever_client_id: str | None = Field(None, description="The application's client id at Clever.")
    clever_client_secret: SecretStr | None = Field(None, description="The application's client secret at Clever.")
    clever_api_version: str = Field("v3.0", pattern=r"^v3\.[01]$", description="v3.0, or v3.1 where Clever has granted it.")
    clever_page_limit: int = Field(10_000, ge=1, le=10_000, description="Records a page. Clever refuses more than 10,000.")
    clever_requests_at_once: int = Field(8, ge=1, le=32, description="Requests to Clever that the pull of one district has open at a time.")
    clever_connect_timeout_s: float = Field(10.0, gt=0, description="Seconds to wait for a connection to Clever.")
    clever_read_timeout_s: float = Field(60.0, gt=0, description="Seconds to wait for the next bytes of an answer of Clever.")
    clever_max_attempts: int = Field(6, ge=1, description="Attempts per request before a transient error ends the pull.")
    roster_pull_deadline_s: float = Field(
        900.0, gt=0, description="Seconds that the pull of one district may take, with retries and rate-limit waits."
    )
    roster_late_tick_minutes: int = Field(
        180, ge=0, description="A nightly schedule that was missed still starts if it is at most this many minutes late."
    )
    roster_shard_from: int = Field(
        20,
        ge=0,
        description="If at most this many districts are due at once, each gets its own run; more than that share ROSTER_SHARDS runs.",
    )
    roster_shards: int = Field(8, ge=1, description="Runs that share the districts of a night. Two of them run at a time (dagster.yaml).")
    roster_shard_districts_at_once: int = Field(
        4,
        ge=1,
        le=64,
        description="Districts that a shard syncs at a time: more than there are cores, because most wait for Clever.",
    )
    roster_district_timeout_s: float = Field(3600.0, gt=0, description="Seconds after which the nightly sync of a district is stopped.")
    roster_district_memory_mb: int = Field(2048, gt=0, description="Megabytes of memory above which a shard stops the sync of a district.")
    roster_work_mem: str = Field("256MB", pattern=r"^[0-9]+(kB|MB|GB)$", description="PostgreSQL work_mem of a sync's own session.")
    roster_keep_syncs_days: int = Field(
        400, ge=1, description="Days to keep ended syncs with their history and quarantine, decided holds and closed alerts."
    )
    roster_keep_changes_days: int = Field(
        90,
        ge=1,
        description="Days to keep the values in ops.changes: personal data. Which row changed, and when, is kept as long as its sync.",
    )
    roster_keep_runs_days: int = Field(
        60, ge=1, description="Days to keep Dagster's runs and their logs. The newest run of each district is always kept."
    )
    roster_keep_disconnected_days: int = Field(
        60, ge=1, description="Days to keep the last snapshot and plan (staging, reconcile) of a district after it has disconnected."
    )
    roster_alert_urls: SecretStr | None = Field(
        None, description="Where alerts go: Apprise URLs (mail, Slack, Teams, webhooks), comma separated. They hold secrets."
    )
    roster_ui_url: str = Field("http://127.0.0.1:3000", description="Address of Dagster's UI for people: alerts link to it.")

    @field_validator("clever_api_url", "clever_auth_url", "roster_ui_url")
    @classmethod
    def _plain_base_url(cls, value: str) -> str:
        value = value.strip()
        TypeAdapter(AnyHttpUrl).validate_python(value)
        return value.rstrip("/")

    @field_validator("clever_api_url", "clever_auth_url")
    @classmethod
    def _keeps_secrets(cls, value: str) -> str:
        """The client secret and the tokens go there (R11.9)."""
        parts = urlsplit(value)
        if parts.scheme != "https" and not _is_this_machine(parts.hostname or ""):
            raise ValueError("must begin with https://, because secrets are sent there; http:// only for this machine")
        return value


@cache
def settings() -> Settings:
    """The settings of this process, read once, on first use."""
    return read_environment()


def read_environment() -> Settings:
    """The settings, from the environment and from the file of ROSTER_ENV_FILE. The environment takes precedence.

    Raises:
        PermanentError: the file is missing, is not text in UTF-8, or gives addresses of Clever for secrets of the environment (or the other
            way round).
        pydantic.ValidationError: the value of a variable is not valid.
    """
    file = _env_file()
    if file is None:
        return Settings()
    _check(file)
    both = Settings(_env_file=file)
    in_environment = Settings().model_fields_set
    in_file_only = both.model_fields_set - in_environment
    for addresses, secrets in ((in_file_only, in_environment), (in_environment, in_file_only)):
        if addresses & _ADDRESSES and secrets & _SECRETS:
            names = " and ".join(sorted(each.upper() for each in (addresses & _ADDRESSES) | (secrets & _SECRETS)))
            raise PermanentError(
                f"{names} come partly from {file} and partly from the environment. The secret could be sent to the wrong place.",
                hint="Set all of them in one place. ROSTER_ENV_FILE= (empty) reads no file.",
            )
    return both


def _env_file() -> Path | None:
    """The file with more variables. Never one of the current folder: an unpacked archive must not decide where secrets go."""
    named = os.environ.get("ROSTER_ENV_FILE")
    if named is not None:
        return Path(named) if named else None
    beside = _PROJECT / ".env"
    return beside if beside.exists() and (_PROJECT / "pyproject.toml").exists() else None


def _check(file: Path) -> None:
    try:
        content, mode = file.read_bytes(), file.stat().st_mode
    except OSError as error:
        raise PermanentError(f"{file} cannot be read: {error.strerror}.", hint="ROSTER_ENV_FILE names it.") from None
    encoding = next((name for mark, name in _OTHER_ENCODINGS.items() if content.startswith(mark)), None)
    try:
        content.decode()
    except UnicodeDecodeError:
        encoding = encoding or "not UTF-8"
    if encoding is None and b"\0" in content:
        encoding = "UTF-16 without a mark"
    if encoding is not None:
        raise PermanentError(f"{file} is {encoding}.", hint="Save it as UTF-8. In PowerShell: `Set-Content -Encoding utf8`.")
    if mode & (stat.S_IRGRP | stat.S_IROTH | stat.S_IWGRP | stat.S_IWOTH):
        log.warning("%s can be read or changed by other users of this machine, and it can hold secrets: chmod 600", file)


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
