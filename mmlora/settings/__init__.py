"""Settings: ``mmlora.toml``, overridden by ``MMLORA_*`` variables, and read when a workspace is opened.

Nested settings take two underscores: ``MMLORA_TRAINING__BATCH_SIZE=4096``. A setting may also be a file of
that name in the folder that ``MMLORA_SECRETS_DIR`` names, for secrets that are mounted.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from mmlora.errors import UsageError
from mmlora.redaction import remember, remember_whole
from mmlora.setting_faults import faults_of, misplaced, moved
from mmlora.settings.sections import (
    AirflowSettings,
    AlertSettings,
    CandidateSettings,
    CheckSettings,
    FeatureSettings,
    LoggingSettings,
    PromiseSettings,
    PromotionSettings,
    QualitySettings,
    RetentionSettings,
    ScoringSettings,
    TrainingSettings,
)

__all__ = ["CheckSettings", "QualitySettings", "Settings", "TrainingSettings", "load_settings"]


class Settings(BaseSettings):
    """All settings, and the locations of the workspace's parts."""

    model_config = SettingsConfigDict(
        env_prefix="MMLORA_", env_nested_delimiter="__", extra="forbid", toml_file="mmlora.toml"
    )

    home: Path = Field(Path("var"), description="the workspace's folder")
    warehouse_url: str = Field(
        "", repr=False, description="URL of the warehouse; SQLite under home when empty"
    )
    mlflow_url: str = Field("", repr=False, description="MLflow tracking URI; SQLite under home when empty")
    feast_registry_url: str = Field(
        "", repr=False, description="SQL registry URL; SQLite under home when empty"
    )
    shared_url: str = Field(
        "",
        repr=False,
        description="s3://BUCKET/PATH or file:///PATH of a workspace that machines share; none when empty",
    )
    features: FeatureSettings = FeatureSettings()
    checks: CheckSettings = CheckSettings()
    training: TrainingSettings = TrainingSettings()
    candidates: CandidateSettings = CandidateSettings()
    scoring: ScoringSettings = ScoringSettings()
    retention: RetentionSettings = RetentionSettings()
    promises: PromiseSettings = PromiseSettings()
    quality: QualitySettings = QualitySettings()
    promotion: PromotionSettings = PromotionSettings()
    alerts: AlertSettings = AlertSettings()
    airflow: AirflowSettings = AirflowSettings()
    logging: LoggingSettings = LoggingSettings()

    @model_validator(mode="after")
    def _remember_secrets(self) -> Self:
        """Remember the passwords in URLs, so that they are hidden in all output."""
        urls = (self.warehouse_url, self.mlflow_url, self.feast_registry_url, self.shared_url)
        for url in (*urls, self.scoring.ray_address):
            remember(url)
        remember_whole(self.alerts.webhook)
        return self

    @model_validator(mode="after")
    def _check_shared(self) -> Self:
        """Reject a shared workspace with a database that is one machine's file, or another kind of URL."""
        if not self.shared_url:
            return self
        faults = [
            f"{name} must name a server (MMLORA_{name.upper()}), not a file of one machine"
            for name in ("warehouse_url", "mlflow_url", "feast_registry_url")
            if re.match(r"(sqlite|duckdb)\b|file:|[^:]*$", getattr(self, name))
        ]
        if not re.match(r"s3://[^/]|file:///.", self.shared_url):
            faults.append("write it as s3://BUCKET/PATH or file:///PATH")
        if faults:
            raise ValueError(f"with shared_url, {'; '.join(faults)}")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Give arguments precedence over variables, these over secrets, and these over ``mmlora.toml``."""
        secrets = NestedSecretsSettingsSource(
            file_secret_settings,
            secrets_dir=os.environ.get("MMLORA_SECRETS_DIR"),
            secrets_nested_delimiter="__",
        )
        return init_settings, env_settings, secrets, TomlConfigSettingsSource(settings_cls)


def load_settings(**overrides: object) -> Settings:
    """Read the settings.

    Raises:
        UsageError: settings are unknown or out of range; all faults are listed.
    """
    secrets = os.environ.get("MMLORA_SECRETS_DIR")
    if secrets and not Path(secrets).is_dir():
        raise UsageError(
            f"MMLORA_SECRETS_DIR: there is no folder {secrets}; name one with files of secrets, or unset it"
        )
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        faults = "; ".join([*faults_of(error, depth=2), *misplaced(error, Settings), *moved(error)])
        raise UsageError(
            f"settings: {faults}; `mmlora init` in an empty folder lists all settings, with their defaults"
        ) from None
    except SettingsError as error:  # a variable of a section that isn't JSON
        raise UsageError(f"settings: {error}; write JSON") from None
    except ValueError as error:  # a mmlora.toml that isn't TOML
        raise UsageError(f"mmlora.toml: {error}") from None
