"""The server's memory: a database (SQLite here, or PostgreSQL by URL) and a folder of blobs."""

from .store import Store

__all__ = ["Store"]
