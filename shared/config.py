"""Configuration of every process: `TOKENGRID_*` environment variables over a YAML file over defaults.

The defaults are the embedded shape: one process, in-process broker, SQLite under `var/`.
Every bound, timeout and default stands here once, with its reason.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from shared.errors import SetupFailed
from shared.sharding import log_names

SERVICES = ("catalog", "quota", "routing", "billing", "audit")


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="TOKENGRID_", extra="forbid")

    broker: str = Field(
        "inproc://localhost", description="kombu URI: inproc://localhost, or amqp://user:password@host:port/vhost"
    )
    database: str = Field(
        "sqlite:///{var}/{service}.db",
        description="SQLAlchemy URL; {var} and {service} are filled in. PostgreSQL: postgresql+psycopg://…/tokengrid_{service}",
    )
    var: Path = Field(Path("var"), description="folder for all state of the embedded shape")
    archive: Path | None = Field(
        None,
        description="folder of the archive: where a service reads what was dropped from its database; needs the extra "
        "`archive`",
    )
    partition_events: int = Field(
        1_000_000,
        ge=1,
        description="events in a partition of PostgreSQL's log: what can be dropped at once, less than a gigabyte",
    )
    deadline_s: float = Field(
        15.0, gt=0, description="longest wait for an RPC's answer; a heartbeat is missed well before"
    )
    heartbeat_s: int = Field(10, ge=0, description="AMQP heartbeat; a dead peer is noticed after two")
    max_workers: int = Field(32, ge=1, description="RPC calls a service process works on at once")
    batch_max: int = Field(8192, ge=1, description="commands in one execute call")
    waiting_max: int = Field(
        32_768, ge=1, description="commands that may wait for a commit; past it a service answers Busy at once"
    )
    page_max: int = Field(5000, ge=1, description="events in one page of a log")
    follow_poll_s: float = Field(1.0, gt=0, description="a follower pulls at least this often, prompted or not")
    backdate_max_s: int = Field(
        35 * 86400, ge=0, description="how old a command's occurred_at may be: late mediation files of the last period"
    )
    future_max_s: int = Field(60, ge=0, description="how far ahead of our clock occurred_at may be: clock skew")
    sweep_interval_s: float = Field(
        30.0, ge=0, description="how often quota expires what is due by its own clock; 0: only when told"
    )
    snapshot_every: int = Field(
        500,
        ge=1,
        description="events of an account until the next snapshot of it: so many are read and folded in 3 ms",
    )
    snapshot_interval_s: float = Field(
        10.0, ge=0, description="how often quota takes the snapshots of accounts that are due; 0: only when told"
    )
    subscribe_ahead_s: int = Field(
        3600,
        ge=0,
        le=86_400,
        description="how long before it begins billing works out a subscription's period, so that its points are there",
    )
    subscriptions_interval_s: float = Field(
        1.0, ge=0, description="how often billing looks for subscriptions that are due; 0: only when told"
    )
    refresh_interval_s: float = Field(
        1.0, gt=0, description="how long an idle routing replica may be without what the others have learnt"
    )
    seal_interval_s: float = Field(2.0, gt=0, description="how often audit signs a checkpoint of a log that has grown")
    audit_origin: str = Field(
        "tokengrid",
        pattern=r"^[!-*,-~]{1,100}$",
        description="prefix of the logs' names in checkpoints, `origin/log`; used when the key is made",
    )
    audit_key: SecretStr | None = Field(
        None, description="signing key of checkpoints, PRIVATE+KEY+…; without it {var}/audit/key, made on first start"
    )
    audit_next_key: SecretStr | None = Field(
        None,
        description="signing key that is to take the place of the present one and signs beside it until then; without "
        "it {var}/audit/next-key, if there is one",
    )
    witness_keys: tuple[str, ...] = Field(
        (), description="verifier keys of the witnesses whose cosignatures audit keeps, as a JSON list"
    )
    quota_shards: int = Field(
        1,
        ge=1,
        le=1024,
        description="into how many shards quota's accounts are split; fixed for good at the first start",
    )
    quota_shards_preferred: tuple[int, ...] = Field(
        (),
        description="shards that this quota process takes at once; it stands by for the others. None named: all alike",
    )
    accounts_cached_max: int = Field(
        100_000,
        ge=1,
        description="accounts a quota process keeps in memory: 3.4 kB each with three grants, 1.5 kB more for a call "
        "in flight; twice the active ones of a million, in half a gigabyte",
    )
    telemetry: Literal["off", "console", "otlp"] = Field("off", description="where traces and metrics go")
    otlp_endpoint: str = Field("http://localhost:4318", description="OTLP/HTTP collector, used when telemetry is otlp")
    log_level: str = Field("WARNING", description="level of the log on stderr")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = os.environ.get("TOKENGRID_CONFIG_FILE")
        yaml = (YamlConfigSettingsSource(settings_cls, yaml_file=file),) if file else ()
        return (init_settings, env_settings, *yaml)

    @property
    def embedded(self) -> bool:
        """One process, nothing to install: the in-process broker."""
        return self.broker.startswith("inproc:")

    def shards(self, service: str) -> int:
        """How many shards, each with a log of its own, a service has. Of all services only quota has several."""
        return self.quota_shards if service == "quota" else 1

    def logs(self, service: str) -> tuple[str, ...]:
        """The names of a service's logs, by shard: the service's own, or `quota-0`, `quota-1` and so on."""
        return log_names(service, self.shards(service))

    def database_url(self, service: str, shard: int = 0) -> str:
        """The SQLAlchemy URL of one service's own database; of several shards, that of this one (`quota_3`).

        Raises SetupFailed where several shards would share a database.
        """
        name = service
        if self.shards(service) > 1:
            name = f"{service}_{shard}"
            if "{service}" not in self.database:
                raise SetupFailed(
                    f"Each of the {self.shards(service)} shards of {service} needs a database of its own: "
                    f"write {{service}} into TOKENGRID_DATABASE, which stands for {name} and so on."
                )
        return self.database.format(var=self.var, service=name)

    def nameko(self) -> dict[str, object]:
        """The configuration dictionary that nameko's containers and proxies take."""
        return {
            "AMQP_URI": self.broker,
            "HEARTBEAT": self.heartbeat_s,
            "max_workers": self.max_workers,
            "serializer": "json",
            "tokengrid": self,
        }
