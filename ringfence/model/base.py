"""What the models of a lab share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ringfence.model.values import ANY_PORT, OutwardPorts, Signal, Words, split_port, split_span


class Declared(BaseModel):
    """Base of every model: unknown keys are refused, values cannot be changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False)


class WithPort(Declared):
    """A port and a protocol; ``port: "53/udp"`` stands for ``port: 53, proto: udp``."""

    @model_validator(mode="before")
    @classmethod
    def _split(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and isinstance(given.get("port"), str | int):
            number, proto = split_port(given["port"], given.get("proto"))
            return {**given, "port": number, "proto": proto}
        return given


class Egress(Declared):
    """A flow that the service may open to somewhere outside the lab's segments."""

    to: str = Field(description="internet, a place or a network such as 192.168.10.5/32")
    port: OutwardPorts | None = Field(
        None, description='port number, "123/udp", a range as "8000-8010", or any; none with proto: icmp'
    )
    proto: Literal["", "tcp", "udp", "icmp"] = Field(
        "", description="tcp, udp, or icmp: asking for an echo; by default tcp, with port: any both tcp and udp"
    )

    @model_validator(mode="before")
    @classmethod
    def _split(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        if given.get("proto") == "icmp":
            if given.get("port") is not None:
                raise ValueError("icmp has no ports (leave port out)")
        elif given.get("port") is None:
            raise ValueError("it has no port (write port: 443, or port: any)")
        elif isinstance(given["port"], str | int):
            port, proto = split_span(given["port"], given.get("proto") or None, any_port=True)
            return {**given, "port": port, "proto": proto}
        return given

    @property
    def ways(self) -> tuple[tuple[str, int | str], ...]:
        """Protocol and ports, once for each protocol; "any" where they are all."""
        if self.proto == "icmp" or self.port is None:
            return (("icmp", ANY_PORT),)
        return tuple((proto, self.port) for proto in ((self.proto,) if self.proto else ("tcp", "udp")))


class Reload(Declared):
    """How a running container reads its configuration and secrets again: one of the two."""

    command: Words = Field((), description="command that is run in the container")
    signal: Signal = Field("", description="signal that its first process is sent, such as SIGHUP")

    @model_validator(mode="after")
    def _one(self) -> Reload:
        if bool(self.command) == bool(self.signal):
            raise ValueError("reload is a command or a signal (write one: a command line, or {signal: SIGHUP})")
        return self


def reload_of(value: Any) -> Any:
    """Take a command for the mapping that it stands for (``{command: …}``)."""
    return {"command": value} if isinstance(value, str | list) else value
