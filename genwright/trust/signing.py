"""Signing: C2PA manifests (Content Credentials) written into files and read back, with certificates of one's own.

A certificate that one has made oneself proves that nobody has changed the file since. It does not prove who made it:
for that, a certificate comes from an authority on C2PA's list. Nothing here goes online; no time stamp is asked for.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from genwright.core.errors import DataError, MissingExtra, UsageError
from genwright.core.home import locked, state
from genwright.core.run import write_bytes
from genwright.media import ffmpeg

GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_ORGANISATION = "Genwright, self-made (identity not proven)"
_AUTHORITY_DAYS, _SIGNER_DAYS, _RENEW_DAYS = 3650, 365, 30
_SILENT = {"builder": {"thumbnail": {"enabled": False}}, "verify": {"verify_after_sign": False}}


@dataclass(frozen=True)
class Identity:
    """Who signs: certificates in PEM, the signer's own first, and the signer's key in PEM."""

    chain: bytes
    key: bytes


@dataclass(frozen=True)
class Signature:
    """What is known of a file's manifest.

    `state`: "own" (unchanged, signed with this user's self-made certificate), "valid" (unchanged, signed by somebody
    whom nothing here vouches for), "invalid" (changed since, or broken), "" (none). `faults` are C2PA's codes.
    """

    state: str
    signer: str = ""
    made_by: str = ""
    source_type: str = ""
    faults: tuple[str, ...] = ()


def sign(path: Path, identity: Identity, facts: Mapping[str, Any], *, made_by: str) -> None:
    """Put a signed manifest into the file, in place of any other, and read it back.

    `facts` become an assertion of their own. Raises DataError for a file that holds none or is broken, UsageError when
    what was signed does not read back as sound (a certificate that C2PA does not allow, a key of another one).
    """
    data = path.read_bytes()
    library, kind = _library(), kind_of(data)
    if not kind:
        raise DataError(f"{path.name} cannot carry a signature.", "PNG, JPEG, WebP, WAV, MP3 and FLAC files can.")
    action = {"action": "c2pa.created", "digitalSourceType": GENERATED, "softwareAgent": {"name": made_by}}
    manifest = {
        "claim_generator_info": [{"name": made_by}],
        "title": path.name,
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [action]}},
            {"label": "genwright.provenance", "data": dict(facts)},
        ],
    }
    signed, algorithm = io.BytesIO(), algorithm_of(identity.key)
    try:
        info = library.C2paSignerInfo(algorithm, identity.chain, identity.key, None)
        quiet = library.Settings.from_dict(_SILENT)
        with (
            library.Context(quiet) as context,
            library.Signer.from_info(info) as signer,
            library.Builder(json.dumps(manifest), context) as builder,
        ):
            builder.sign(signer, kind, io.BytesIO(data), signed)
    except library.C2paError as error:
        raise DataError(
            f"{path} cannot be signed: {error}.", "Look at the file, and at the certificate and key."
        ) from None
    found = _read(signed.getvalue(), kind)
    if found.state not in ("own", "valid"):
        raise UsageError(
            f"The signature of {path} does not read back as sound: {', '.join(found.faults)}.",
            "The certificate must be for signing (extended key usage), in date, and belong to the key.",
        )
    write_bytes(path, signed.getvalue())


def read_signature(path: Path) -> Signature:
    """Validate the file's manifest, offline."""
    data = path.read_bytes()
    kind = kind_of(data)
    return _read(data, kind) if kind else Signature("")


def own_identity() -> Identity:
    """The user's own, in their state folder (0600), made when first asked for; the signer's certificate is renewed."""
    folder = state() / "signing"
    with locked(folder / "lock"):
        folder.chmod(0o700)
        if not all((folder / name).is_file() for name in ("authority.key", "authority.crt")):
            _make_authority(folder)
        if not (folder / "signer.key").is_file() or not _lasts(folder / "signer.crt"):
            _make_signer(folder)
        chain = (folder / "signer.crt").read_bytes() + (folder / "authority.crt").read_bytes()
        return Identity(chain, (folder / "signer.key").read_bytes())


def given_identity(certificate: Path, key: Path) -> Identity:
    """An identity from two PEM files. Raises UsageError when they cannot be read or do not belong together."""
    from cryptography import x509

    try:
        identity = Identity(certificate.read_bytes(), key.read_bytes())
        public = x509.load_pem_x509_certificates(identity.chain)[0].public_key()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"The certificate {certificate} or its key cannot be read: {error}.", "Both are PEM."
        ) from None
    if public != _private(identity.key).public_key():
        raise UsageError(f"{key} is not the key of the first certificate in {certificate}.", "Give the signer's first.")
    return identity


def kind_of(data: bytes) -> str:
    """The media type by a file's first bytes; empty for one that is not signed here."""
    if data[:4] == b"RIFF":
        return {b"WEBP": "image/webp", b"WAVE": "audio/wav"}.get(data[8:12], "")
    if ffmpeg.kind_of(data):  # AAC may begin as MP3 does
        return ""
    is_mp3 = data[:1] == b"\xff" and data[1:2] >= b"\xe0" and data[:3] != b"\xff\xd8\xff"
    heads = {
        b"\x89PNG\r\n\x1a\n": "image/png",
        b"\xff\xd8\xff": "image/jpeg",
        b"fLaC": "audio/flac",
        b"ID3": "audio/mpeg",
    }
    return "audio/mpeg" if is_mp3 else next((kind for head, kind in heads.items() if data.startswith(head)), "")


def algorithm_of(key: bytes) -> bytes:
    """C2PA's name of how this key signs. Raises UsageError for a key that C2PA does not allow."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    private = _private(key)
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return b"ed25519"
    if isinstance(private, rsa.RSAPrivateKey) and private.key_size >= 2048:
        return b"ps256"
    named = {"secp256r1": b"es256", "secp384r1": b"es384", "secp521r1": b"es512"}
    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in named:
        return named[private.curve.name]
    raise UsageError(
        "The key is of a kind that C2PA does not allow.", "Use P-256, P-384, P-521, Ed25519 or RSA from 2048."
    )


# -- reading -----------------------------------------------------------------------------------------------------------


def _read(data: bytes, kind: str) -> Signature:
    library, own = _library(), state() / "signing" / "authority.crt"
    asked: dict[str, Any] = {
        "verify": {"verify_trust": own.is_file(), "ocsp_fetch": False, "remote_manifest_fetch": False}
    }
    if own.is_file():
        asked["trust"] = {"user_anchors": own.read_text(encoding="ascii")}
    try:
        with library.Context(library.Settings.from_dict(asked)) as context:
            reader = library.Reader.try_create(kind, io.BytesIO(data), None, context)
            if reader is None:
                return Signature("")
            with reader:
                said = json.loads(reader.json())
    except library.C2paError as error:
        return Signature("invalid", faults=(str(error),)) if b"jumdc2pa" in data else Signature("")
    manifest = said.get("manifests", {}).get(said.get("active_manifest"), {})
    acts = [one["data"]["actions"] for one in manifest.get("assertions", []) if one["label"].startswith("c2pa.actions")]
    sources = [act["digitalSourceType"] for acted in acts for act in acted if "digitalSourceType" in act]
    results = said.get("validation_results", {}).get("activeManifest", {})
    return Signature(
        {"Trusted": "own", "Valid": "valid"}.get(said.get("validation_state"), "invalid"),
        str(manifest.get("signature_info", {}).get("issuer", "")),
        str((manifest.get("claim_generator_info") or [{}])[0].get("name", "")),
        str(sources[0]) if sources else "",
        tuple(sorted({one["code"] for one in results.get("failure", [])})),
    )


def _library() -> Any:
    try:
        import c2pa
    except ImportError:
        raise MissingExtra("c2pa-python", "image") from None
    return c2pa


# -- certificates ------------------------------------------------------------------------------------------------------


def _make_authority(folder: Path) -> None:
    key = _new_key()
    _keep(folder / "authority.key", _pem_of_key(key))
    (folder / "authority.crt").write_bytes(_certificate("authority", key, key, _AUTHORITY_DAYS, is_authority=True))


def _make_signer(folder: Path) -> None:
    key, authority = _new_key(), _private((folder / "authority.key").read_bytes())
    _keep(folder / "signer.key", _pem_of_key(key))
    (folder / "signer.crt").write_bytes(_certificate("signer", key, authority, _SIGNER_DAYS))


def _certificate(name: str, key: Any, issuer: Any, days: int, *, is_authority: bool = False) -> bytes:
    """PEM, as C2PA 2.x asks (section 14.5): key identifiers, and for the signer the usage e-mail protection."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def named(what: str) -> x509.Name:
        parts = {NameOID.ORGANIZATION_NAME: _ORGANISATION, NameOID.COMMON_NAME: what}
        return x509.Name([x509.NameAttribute(kind, words) for kind, words in parts.items()])

    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(named("authority"), named(name), key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(is_authority, 0 if is_authority else None), critical=True)
        .add_extension(_usage(is_authority), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False)
    )
    if not is_authority:
        made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return made.sign(issuer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _usage(is_authority: bool) -> Any:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not is_authority, key_cert_sign=is_authority, crl_sign=is_authority, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _lasts(path: Path) -> bool:
    """Whether a certificate is there and good for some time yet."""
    from cryptography import x509

    if not path.is_file():
        return False
    end = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    return end > datetime.now(UTC) + timedelta(days=_RENEW_DAYS)


def _new_key() -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _private(pem: bytes) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise UsageError(f"The signer's key cannot be read: {error}", "Give an unencrypted PEM key.") from None


def _pem_of_key(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem


def _keep(path: Path, secret: bytes) -> None:
    """Write a key that nobody else can read, not even for a moment."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secret)
