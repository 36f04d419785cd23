"""Signatures of registered models: Ed25519 (RFC 8032), by keys in PEM files.

    openssl genpkey -algorithm ed25519 -out signing_key.pem
    openssl pkey -in signing_key.pem -pubout -out public_key.pem

The private key stays with whoever may say what is served; jobs get the public one, which is no secret.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from transforms.errors import UserError

#: The environment variables that name the two files where no flag or setting does.
PUBLIC_KEY_VARIABLE, SIGNING_KEY_VARIABLE = "FRAUD_MODEL_PUBLIC_KEY", "FRAUD_MODEL_SIGNING_KEY"


def read_public_key(file: str | None) -> bytes | None:
    """The 32 bytes of a public key.

    Args:
        file: a PEM file; None: the one that FRAUD_MODEL_PUBLIC_KEY names, if it names any.

    Returns:
        None where no key is named: then signatures are not asked for.

    Raises:
        UserError: the file cannot be read, or holds no public key of Ed25519.
    """
    path = file or os.environ.get(PUBLIC_KEY_VARIABLE)
    if not path:
        return None
    try:
        key = load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(f"{path} holds no public key; {_HOW}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise UserError(f"{path} holds a public key of another kind than Ed25519; {_HOW}")
    return key.public_bytes_raw()


def read_signing_key(file: str | None) -> Ed25519PrivateKey | None:
    """The private key of a PEM file, or of the one that FRAUD_MODEL_SIGNING_KEY names; None where none is named.

    Raises:
        UserError: the file cannot be read, or holds no private key of Ed25519. Nothing of its content is told.
    """
    path = file or os.environ.get(SIGNING_KEY_VARIABLE)
    if not path:
        return None
    try:
        key = load_pem_private_key(_read(path), password=None)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        raise UserError(f"{path} holds no private key without a password; {_HOW}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"{path} holds a private key of another kind than Ed25519; {_HOW}")
    return key


def is_signed(content: bytes, signature: bytes, public_key: bytes) -> bool:
    """Whether a signature of some bytes was made with the private key of `public_key`.

    Example:
        >>> key = Ed25519PrivateKey.generate()
        >>> signature, public = key.sign(b"model"), key.public_key().public_bytes_raw()
        >>> is_signed(b"model", signature, public), is_signed(b"another", signature, public)
        (True, False)
    """
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, content)
    except InvalidSignature:
        return False
    return True


_HOW = "openssl genpkey -algorithm ed25519 makes a private key, openssl pkey -pubout writes its public one"


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"key file {path} cannot be read: {error.strerror}") from error
