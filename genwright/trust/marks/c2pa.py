"""A signature in the file (C2PA): made by AI, by which model, unchanged since; PNG, JPEG, WebP, WAV, MP3, FLAC."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field, model_validator

from genwright.core import FilePath, Part, Provenance
from genwright.core import Settings as Options
from genwright.trust.sidecar import renew_sidecar
from genwright.trust.signing import given_identity, own_identity, read_signature, sign

last = 2  # after every other label: whatever changes the file later breaks the signature


class Settings(Options):
    certificate: FilePath | None = Field(
        None,
        description="PEM file of certificates, the signer's first; null is one made here, which proves no identity",
    )
    key: FilePath | None = Field(None, description="PEM file with the signer's key, unencrypted")

    @model_validator(mode="after")
    def _both(self) -> Settings:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("needs `certificate` and `key`, or neither")
        return self


def apply(part: Part, provenance: Provenance, settings: Settings) -> Part:
    """The part with its file signed and `meta["signature"]` saying how it reads back; words are left as they are.

    Raises DataError for a file that cannot carry a signature, UsageError for a certificate that cannot sign.
    """
    if part.path is None or part.kind == "text":
        return part
    if settings.certificate and settings.key:
        identity = given_identity(settings.certificate, settings.key)
    else:
        identity = own_identity()
    sign(part.path, identity, provenance.as_dict(), made_by=provenance.producer)
    renew_sidecar(part.path)
    return replace(part, meta={**(part.meta or {}), "signature": read_signature(part.path).state})


def warning(settings: Settings) -> str:
    """What a door should say once."""
    if settings.certificate:
        return ""
    return "Files are signed with a certificate made here: it proves that they are unchanged, not who made them."
