"""PDF text: `python -m genwright.server.pdf_text FILE` writes a PDF's words, within limits of memory and time."""

from __future__ import annotations

import logging
import sys

_MEMORY = 2_000_000_000  # bytes


def main(path: str) -> None:
    """A blank line between pages."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    except ImportError:  # not on this system
        pass
    from pypdf import PdfReader

    logging.disable()
    for page in PdfReader(path).pages:
        sys.stdout.buffer.write(page.extract_text().encode("utf-8", "replace") + b"\n\n")


if __name__ == "__main__":
    main(sys.argv[1])
