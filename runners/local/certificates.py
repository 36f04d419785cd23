"""Certificates of a local server: an authority made for it alone, and what that authority has signed."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from runners.local.tools import find_program, run_program

DAYS = "825"  # the longest that clients put up with
_EXTENSIONS = """
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = IP:127.0.0.1, DNS:localhost
authorityKeyIdentifier = keyid
"""


class Certificates(NamedTuple):
    """Files in PEM format.

    Attributes:
        authority: the certificate that clients have to trust.
        server: the server's key, its certificate and the authority's, in one file.
    """

    authority: Path
    server: Path


def certificates(directory: Path) -> Certificates:
    """The certificates of a server at 127.0.0.1, made when the directory does not hold them yet.

    Args:
        directory: created when absent.

    Raises:
        UserError: openssl is missing or failed.
    """
    authority, server = directory / "ca.pem", directory / "server.pem"
    if not server.exists():
        directory.mkdir(mode=0o700, exist_ok=True)
        (directory / "extensions.cnf").write_text(_EXTENSIONS, "utf-8")
        key = _request(directory, "ca", "local authority")
        _sign(directory, "ca", authority, ["-signkey", str(key)])
        own, own_key = directory / "own.pem", _request(directory, "server", "127.0.0.1")
        _sign(directory, "server", own, ["-CA", str(authority), "-CAkey", str(key)])
        chain = directory / "chain.pem"
        chain.touch(0o600)
        chain.write_text("".join(path.read_text("ascii") for path in (own_key, own, authority)), "ascii")
        chain.replace(server)  # last: that it is there says that all is
    return Certificates(authority, server)


def _request(directory: Path, name: str, subject: str) -> Path:
    """Make a key and ask for its certificate; returns the key."""
    key = directory / f"{name}.key"
    kind = ["-newkey", "rsa:2048", "-nodes", "-keyout", str(key)]
    _openssl(["req", "-new", *kind, "-subj", f"/CN={subject}", "-out", str(directory / f"{name}.csr")])
    key.chmod(0o600)
    return key


def _sign(directory: Path, name: str, certificate: Path, by: list[str]) -> None:
    what = ["-req", "-in", str(directory / f"{name}.csr"), "-days", DAYS, "-set_serial", str(len(name))]
    extensions = ["-extfile", str(directory / "extensions.cnf"), "-extensions", name]
    _openssl(["x509", *what, *extensions, *by, "-out", str(certificate)])


def _openssl(arguments: list[str]) -> None:
    purpose = "making certificates"
    run_program([find_program("openssl", purpose), *arguments], purpose)
