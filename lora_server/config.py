"""config.toml and the environment become one frozen Config; nothing else reads settings."""

import os
import re
import tomllib
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from lora_server.errors import ConfigInvalid

ENV_PREFIX = "LORA_SERVER_"
ENV_DELIMITER = "__"
CREDENTIAL = "jwt-key"  # the systemd credential that holds the file of auth.key_file
KEYS_CREDENTIAL = "keys"  # and a folder of those of auth.keys; systemd adds "_" and their names

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d{1,9})([smhd])")


def seconds(value: Any) -> Any:
    """Turn `"90s"`, `"5m"`, `"12h"` or `"30d"` into seconds; leave numbers to pydantic."""
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        return int(match[1]) * _UNITS[match[2]]
    return value


def _octal(value: Any) -> Any:
    return int(value, 8) if isinstance(value, str) else value


def _networks(value: Any) -> Any:
    return tuple(ip_network(str(item)) for item in value) if isinstance(value, list) else value


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(seconds)]
Mode = Annotated[int, Field(ge=0, le=0o7777), BeforeValidator(_octal)]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(_networks)]
EntityType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]


class Section(BaseModel):
    """A table of config.toml; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerConfig(Section):
    """Where and how the daemon listens, and how much it takes at once."""

    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535)
    base_path: str = Field("/api/v1", pattern=r"^(/[A-Za-z0-9_.-]+)*$")
    max_concurrent_uploads: int = Field(64, ge=1)
    max_uploads_per_principal: int = Field(16, ge=1)
    upload_idle_timeout: Seconds = 30
    min_upload_rate: ByteSize = ByteSize(16 * 1024)  # bytes per second, over each idle timeout
    shutdown_grace: Seconds = 60
    trusted_proxies: Networks = ()
    metrics: Literal["open", "admin", "off"] = "open"
    max_failed_logins: int = Field(20, ge=1)  # per address and minute


class StorageConfig(Section):
    """The trees on disk and what may stand in them."""

    models_dir: Path = Path("/data/models/loras")
    bin_dir: Path = Path("/data/bin/models/loras")
    staging_dir: Path = Path("/data/staging/loras")
    state_dir: Path = Path("/var/lib/lora-server")
    max_file_size: ByteSize = ByteSize(500 * 1024 * 1024)
    min_free_space: ByteSize = ByteSize(1024**3)
    bin_retention: Seconds = 30 * 86400
    entity_types: tuple[EntityType, ...] = ("clothes", "identities", "product", "styles", "faces")
    admin_entity_types: tuple[EntityType, ...] = ("faces",)  # only through the admin upload
    file_mode: Mode = 0o644
    dir_mode: Mode = 0o755

    @model_validator(mode="after")
    def _types_are_usable(self) -> "StorageConfig":
        if "sha256" in self.entity_types:  # /lora/sha256/{hex} looks content up
            raise ValueError("entity_types: 'sha256' is a path of the API")
        if unknown := set(self.admin_entity_types) - set(self.entity_types):
            raise ValueError(f"admin_entity_types: not in entity_types: {sorted(unknown)}")
        return self


class KeyConfig(Section):
    """One verification key: a file, the one algorithm it serves, and its `kid`."""

    kid: str = Field(min_length=1, max_length=128)
    algorithm: Literal["HS256", "RS256", "EdDSA"]
    file: Path


class AuthConfig(Section):
    """Which tokens are good."""

    key_file: Path | None = None
    keys: tuple[KeyConfig, ...] = ()
    audience: str | None = None
    issuer: str | None = None
    admin_scope: str = "admin"
    read_scope: str = "read"
    leeway: Annotated[float, Field(ge=0, le=300), BeforeValidator(seconds)] = 30
    max_ttl: Seconds = 30 * 86400
    revoked_file: Path | None = None

    @model_validator(mode="after")
    def _kids_differ(self) -> "AuthConfig":
        kids = [key.kid for key in self.keys]
        if len(set(kids)) != len(kids):
            raise ValueError("keys: two keys share a kid")
        return self


class IngestConfig(Section):
    """How files are judged at the door."""

    pickle: Literal["verify", "convert", "refuse"] = "verify"
    on_unknown: Literal["accept", "refuse"] = "accept"
    max_header_size: ByteSize = ByteSize(16 * 1024 * 1024)


class EvaluationConfig(Section):
    """What is evaluated, by which worker, and how much may wait."""

    enabled: bool = True
    on_upload: Literal["weights", "off"] = "weights"
    worker_socket: Path | None = None  # of a worker that runs by itself; else one is started
    max_queue: int = Field(100, ge=1, le=10_000)
    weights_workers: int = Field(2, ge=1, le=64)  # files whose weights are measured at once
    weights_timeout: Seconds = 300
    gpu_reserve: ByteSize = ByteSize(4 * 1024**3)  # left free for inference


class LoggingConfig(Section):
    """What is logged, and in which form."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"


class _Environment(EnvSettingsSource):
    """Variables as pydantic reads them, except that one which is no JSON is judged, not fatal."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value  # validation refuses it by the name of its key


class Config(BaseSettings):
    """Everything that can be set, checked once."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=ENV_DELIMITER,
        extra="forbid",
        frozen=True,
    )

    server: ServerConfig = ServerConfig()
    storage: StorageConfig = StorageConfig()
    auth: AuthConfig = AuthConfig()
    ingest: IngestConfig = IngestConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    logging: LoggingConfig = LoggingConfig()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file; read nothing else."""
        return _Environment(settings_cls), init_settings


def load(path: Path | None) -> Config:
    """Read the settings, the environment over the file over the defaults.

    Raises:
        ConfigInvalid: the file cannot be read, or a key is unknown or wrong; names the key.

    """
    _refuse_unknown_variables(os.environ)
    try:
        config = Config(**(_read_toml(path) if path else {}))
    except ValidationError as error:
        raise ConfigInvalid("\n".join(_complaints(error))) from error
    return _with_credentials(config, credentials_directory())


def credentials_directory() -> Path | None:
    """Return the folder in which systemd hands secrets over, if it started this process so."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return Path(folder) if folder else None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigInvalid(f"{path}: {error}") from error


def _complaints(error: ValidationError) -> list[str]:
    return [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    """Only names with the section delimiter are settings: LORA_SERVER_URL is the client's."""
    for name in environ:
        section, delimiter, _ = name.removeprefix(ENV_PREFIX).partition(ENV_DELIMITER)
        known = section.lower() in Config.model_fields
        if name.startswith(ENV_PREFIX) and delimiter and not known:
            raise ConfigInvalid(f"{name}: no section is called {section.lower()!r}")


def _with_credentials(config: Config, folder: Path | None) -> Config:
    """Read keys from systemd's credential store, where it holds them, and not from their files.

    A service cannot open the files; whoever mints tokens, with the same settings, can.
    """
    if not folder:
        return config
    auth = config.auth
    update: dict[str, Any] = {
        "keys": tuple(
            key.model_copy(update={"file": _handed(folder, key.file)}) for key in auth.keys
        )
    }
    if (folder / CREDENTIAL).exists() and (auth.key_file or not auth.keys):
        update["key_file"] = folder / CREDENTIAL
    return config.model_copy(update={"auth": auth.model_copy(update=update)})


def _handed(folder: Path, file: Path) -> Path:
    credential = folder / f"{KEYS_CREDENTIAL}_{file.name}"
    return credential if credential.exists() else file
