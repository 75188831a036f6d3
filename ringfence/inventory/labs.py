"""Where a lab's inventory is, and its address book on disk."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from ringfence.compile.book import Book, BookError, dump, parse
from ringfence.inventory.front import ROOT, InventoryError

_HOSTS_FILES = ("hosts.yml", "hosts.yaml")
BOOK = "addresses.yml"

__all__ = ["ROOT", "hosts_file", "load_book", "save_book"]


def hosts_file(directory: Path) -> Path:
    """Return the file with hosts and groups.

    Raises:
        InventoryError: there is none.
    """
    for name in _HOSTS_FILES:
        if (directory / name).is_file():
            return directory / name
    raise InventoryError(f"{directory}: there is no hosts.yml (copy inventories/example and adapt it)")


def load_book(directory: Path) -> Book:
    """Read the lab's address book; an empty one where there is none yet."""
    path = directory / BOOK
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        return Book()
    except (OSError, UnicodeDecodeError) as error:
        raise InventoryError(f"{path}: it cannot be read: {error}") from error
    except BookError as error:
        raise InventoryError(str(error)) from error


def save_book(directory: Path, book: Book) -> str | None:
    """Write the address book if it changed, in one step.

    Returns:
        A notice for the user if something was, or could not be, written.
    """
    path, text = directory / BOOK, dump(book)
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if path.read_text(encoding="utf-8") == text:
            return None
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=directory, prefix=f".{BOOK}.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        return f"{path}: the address book cannot be written ({error.strerror}); addresses may change later"
    return f"{path}: the address book has changed; commit it, it keeps every service on its addresses"
