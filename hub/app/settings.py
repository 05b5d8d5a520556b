"""All settings: from the environment (NUMHUB_*), over a TOML file, over the defaults.

``deploy/hub.example.toml`` is the manual: each setting with unit and consequence; a test compares the two.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

LOG_FILE, LEDGER_FILE, INDEX_DIR = "log.db", "ledger.db", "index"
"""Names below ``data_dir``."""


class Settings(BaseSettings):
    """Built without arguments it runs the whole hub on one machine. Unknown options are refused."""

    model_config = SettingsConfigDict(env_prefix="NUMHUB_", extra="forbid", frozen=True)

    data_dir: Path = Path("numhub-data")
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    public_url: str = ""
    partitions: Annotated[int, Field(ge=1, le=64)] = 8
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    max_connections: Annotated[int, Field(ge=16, le=100_000)] = 4000
    drain_within: Annotated[float, Field(gt=0, le=300)] = 10.0
    requests_per_second: Annotated[int, Field(ge=0)] = 2000
    token_requests_per_minute: Annotated[int, Field(ge=1)] = 120
    body_limit: Annotated[int, Field(ge=65_536, le=64 << 20)] = 1 << 20
    bulk_appends_in_flight: Annotated[int, Field(ge=1, le=64)] = 4
    live_lag_limit: Annotated[float, Field(ge=0, le=3600)] = 5.0
    reader_cache_bytes: Annotated[int, Field(ge=1 << 20)] = 64 << 20
    max_upload_bytes: Annotated[int, Field(ge=1 << 20)] = 4 << 30
    delivery_timeout: Annotated[float, Field(ge=1, le=60)] = 15.0
    deliveries_in_flight: Annotated[int, Field(ge=1, le=10_000)] = 512
    push_retry_after: tuple[float, ...] = ()
    profile: Literal["development", "production"] = "development"
    kafka_bootstrap: str = ""
    kafka_topic_prefix: str = "numhub."
    kafka_security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"] = "SCRAM-SHA-512"
    kafka_username: str = ""
    kafka_password: SecretStr = SecretStr("")
    kafka_ca_file: str = ""
    ledger_url: SecretStr = SecretStr("")
    ledger_readers: Annotated[int, Field(ge=1, le=100)] = 4
    redis_url: SecretStr = SecretStr("")
    tracing: Literal["off", "otlp"] = "off"
    lease_seconds: Annotated[float, Field(ge=1, le=300)] = 10.0
    worker_port: Annotated[int, Field(ge=0, le=65_535)] = 8081
    snapshots_dir: str = ""
    snapshot_every: Annotated[float, Field(ge=1)] = 900.0
    keys_dir: str = ""
    batches_dir: str = ""
    dangerous_allow_unsafe_kafka: bool = False
    dangerous_allow_loopback_receivers: bool = False

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then environment; `load` puts a TOML file behind them. No .env file is ever read."""
        file = cls.model_config.get("toml_file")
        more = (TomlConfigSettingsSource(settings_cls),) if file else ()
        return (init_settings, env_settings, *more)

    @field_validator("public_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if not value:
            return value
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
            raise ValueError("must be http(s)://host[:port], without query or fragment")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _together(self) -> Settings:
        loopback = self.host in ("127.0.0.1", "::1", "localhost")
        if self.dangerous_allow_loopback_receivers and not loopback:
            raise ValueError("dangerous_allow_loopback_receivers is for a hub that listens on loopback only")
        if not self.public_url and not loopback:
            raise ValueError("public_url must be set when host is not a loopback address: it is the token issuer")
        return self

    @property
    def keys_folder(self) -> Path:
        """Where the hub's own keys live: one folder for all processes of a hub."""
        return Path(self.keys_dir) if self.keys_dir else self.data_dir / "keys"

    @property
    def batches_folder(self) -> Path:
        """Where uploaded files wait: one folder for all processes that take in files."""
        return Path(self.batches_dir) if self.batches_dir else self.data_dir / "batches"

    @property
    def ledger_address(self) -> str | Path:
        """A database URL, or the SQLite file below ``data_dir``."""
        return self.ledger_url.get_secret_value() or self.data_dir / LEDGER_FILE

    @property
    def ledger_options(self) -> dict[str, Any]:
        """How it is opened: in the production profile its tables are changed by `numhub ledger migrate` alone."""
        return {"readers": self.ledger_readers, "migrate": self.profile == "development"}

    @property
    def shared(self) -> bool:
        """Several processes may work on one ledger. An embedded one belongs to whoever locked its directory."""
        return bool(self.ledger_url.get_secret_value())

    def base_url(self, bound_port: int) -> str:
        """``public_url``, or the loopback address the hub listens on."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.public_url or f"http://{host}:{bound_port}"


def load(file: Path | None = None, **overrides: object) -> Settings:
    """The settings; a TOML ``file`` stands below the environment. Raises ValidationError, FileNotFoundError."""
    if file is None:
        return Settings(**overrides)  # type: ignore[arg-type]
    if not file.is_file():
        raise FileNotFoundError(f"there is no settings file {file}")

    class _WithFile(Settings):
        model_config = SettingsConfigDict(env_prefix="NUMHUB_", extra="forbid", frozen=True, toml_file=file)

    return _WithFile(**overrides)  # type: ignore[arg-type]
