"""What a pipeline may write in `[[serve]]` with use = "fastapi"."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # pydantic reads annotations when the class is made
from typing import Annotated

from pydantic import Field, model_validator

from fst_core import Settings

__all__ = ["FastapiSettings"]

Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Origin = Annotated[str, Field(pattern=r"^https?://[^/\s*]+$")]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class FastapiSettings(Settings):
    """Settings of the frontend `fastapi`."""

    host: str = Field("127.0.0.1", min_length=1, max_length=255)
    """The address to listen on; one beyond this machine needs keys, or allow_anonymous."""
    port: int = Field(9228, ge=0, le=65535)
    """The port to listen on; 0 takes a free one."""
    model_names: tuple[Name, ...] = Field((), max_length=16)
    """What requests may call the model; the first is its id. By default the engine's name for it."""
    key_env: Variable | None = None
    """The environment variable that holds the key which requests must bring, or lines of name:key."""
    key_file: Path | None = None
    """A file that holds the key, or lines of name:key."""
    allow_anonymous: bool = False
    """Listen beyond this machine without a key."""
    requests_per_minute: int | None = Field(None, ge=1)
    """How many requests a key may begin in a minute; no limit by default."""
    concurrent_requests: int | None = Field(None, ge=1)
    """How many requests a key may have at the same time; no limit by default."""
    tls_cert: Path | None = None
    """A PEM file with the certificate chain; the server then speaks HTTPS."""
    tls_key: Path | None = None
    """A PEM file with the certificate's private key."""
    allowed_origins: tuple[Origin, ...] = ()
    """Origins whose pages may call the server from a browser, as "https://example.org"."""
    allowed_hosts: tuple[Name, ...] = ()
    """Names by which the server may be addressed without a key, beside addresses and localhost."""
    max_running: int | None = Field(None, ge=1, le=4096)
    """How many generations run at the same time; by default as many as the engine's batch has."""
    max_waiting: int | None = Field(None, ge=0, le=100_000)
    """How many more may wait; further ones are refused. By default four times as many as run."""
    waiting_seconds: float = Field(30.0, gt=0)
    """How long a request may wait for its first generation to begin; then it is refused."""
    request_seconds: float = Field(300.0, gt=0)
    """How long a request may take from its beginning to its end."""
    stall_seconds: float = Field(30.0, gt=0)
    """How long a client may take to send its request, or not read what it is sent."""
    drain_seconds: float = Field(30.0, ge=0)
    """How long requests may still run when the server is told to stop."""
    ping_seconds: float = Field(15.0, gt=0)
    """After so long without a token, a stream sends a comment that keeps its connection open."""
    dead_seconds: float = Field(2.0, ge=0)
    """How long the engine may be dead before the server ends with an error."""
    max_body_bytes: int = Field(1 << 20, ge=1024)
    """The largest body of a request."""
    max_header_bytes: int = Field(16 << 10, ge=1024)
    """The largest header of a request, with its first line."""
    max_headers: int = Field(100, ge=10)
    """The most lines of a header."""
    max_connections: int = Field(512, ge=1)
    """The most connections; further ones are closed at once."""
    max_choices: int = Field(8, ge=1, le=128)
    """The largest `n` of a request."""
    max_sequences: int = Field(32, ge=1, le=1024)
    """The most prompts of a request, and the most generations: prompts times `n`."""
    log_requests: bool = True
    """Write a line of JSON for each request, without its texts, to the error stream."""

    @model_validator(mode="after")
    def _pairs(self) -> FastapiSettings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together")
        return self
