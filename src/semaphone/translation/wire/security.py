"""Who may connect: anyone on this machine; from elsewhere only over TLS and with a token."""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semaphone.errors import InputError, MissingExtraError


def import_grpc() -> Any:
    """The grpc module, or MissingExtraError."""
    try:
        import grpc
    except ImportError:
        raise MissingExtraError("Devices and edges as processes", "translation") from None
    return grpc


def split_address(address: str) -> tuple[str, int]:
    """`HOST:PORT` → both parts; InputError if it is something else."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 <= int(port) <= 65_535:
        raise InputError(f"An address is HOST:PORT, such as 127.0.0.1:7000, not {address!r}.")
    return host.strip("[]"), int(port)


def is_loopback(address: str) -> bool:
    """Whether an address can only be reached from this machine."""
    host, _ = split_address(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(path: str, what: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"The {what} {path} cannot be read: {error.strerror}.") from None


@dataclass(frozen=True)
class Security:
    """Files of TLS and the token; all empty on loopback."""

    certificate: str = ""  # PEM file of the server
    key: str = ""  # PEM file of its private key
    authority: str = ""  # PEM file of who signed the server's certificate, for clients
    token_file: str = ""  # first line is the shared token

    @property
    def token(self) -> str:
        """The shared token, "" if there is none."""
        if not self.token_file:
            return ""
        token = _read(self.token_file, "token file").decode("utf-8", "replace").strip()
        if len(token) < 16:
            raise InputError(f"The token in {self.token_file} should have at least 16 characters.")
        return token

    def server_credentials(self, address: str) -> Any:
        """Credentials for `add_secure_port`, or None for a plain port on loopback."""
        if not self.certificate and not self.key:
            if not is_loopback(address):
                raise InputError(
                    f"{address} can be reached from other machines: that needs --tls-cert, --tls-key and --token-file."
                )
            return None
        if not is_loopback(address) and not self.token:
            raise InputError(f"{address} can be reached from other machines: that needs --token-file as well.")
        grpc = import_grpc()
        pair = (_read(self.key, "TLS key"), _read(self.certificate, "TLS certificate"))
        return grpc.ssl_server_credentials([pair])

    def connect(self, address: str, options: list[tuple[str, Any]]) -> Any:
        """A gRPC channel; plain only on loopback."""
        grpc = import_grpc()
        split_address(address)
        if self.authority:
            credentials = grpc.ssl_channel_credentials(_read(self.authority, "TLS authority"))
            return grpc.secure_channel(address, credentials, options)
        if not is_loopback(address):
            raise InputError(f"{address} is another machine: that needs --tls-ca and --token-file.")
        return grpc.insecure_channel(address, options)

    def metadata(self) -> list[tuple[str, str]]:
        """What a client sends with each call."""
        token = self.token
        return [("authorization", f"Bearer {token}")] if token else []

    def allows(self, metadata: Any) -> bool:
        """Whether a call's metadata carries the token."""
        token = self.token
        if not token:
            return True
        given = dict(metadata or ()).get("authorization", "")
        return hmac.compare_digest(str(given).encode(), f"Bearer {token}".encode())
