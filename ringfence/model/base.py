"""What the models of a lab share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ringfence.model.values import PortNumber, Proto, Signal, Words, split_port


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


class Egress(WithPort):
    """A flow that the service may open to somewhere outside the lab's segments."""

    to: str = Field(description="internet, a place or a network such as 192.168.10.5/32")
    port: PortNumber = Field(description='port number, or "123/udp"')
    proto: Proto = Field("tcp", description="tcp or udp")


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
