"""File names for things that others named: short, lower case, never leading out of their folder, never the same for two."""

from __future__ import annotations

import hashlib
import re
import unicodedata


def slug(*names: str, limit: int = 48) -> str:
    """A file name of these names. Where letters were lost a digest is added, so that different names stay different."""
    text = "-".join(names)
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    short = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:limit].strip("-")
    if short and len(names) == 1 and short == text:
        return short
    return f"{short or 'x'}-{hashlib.sha256(repr(names).encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def area(name: str) -> str:
    return f"areas/{slug(name)}.html"


def task(name: str) -> str:
    return f"tasks/{slug(name)}.html"


def method(task: str, name: str) -> str:
    return f"methods/{slug(task)}/{slug(name)}.html"


def setting(key: dict) -> str:
    """The page of one group: a task on one data set at one size on one machine."""
    data = key["data"].split("(")[0]
    rest = [key[name] for name in sorted(key) if name != "task"]
    digest = hashlib.sha256(repr(rest).encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"tasks/{slug(key['task'])}/{slug(data, limit=24)}-{slug(key['size'])}-{slug(key['device'])}-{digest}.html"


def anchor(environment: str) -> str:
    return f"machine-{slug(environment)}"


def root(path: str) -> str:
    """The relative way from a page to the folder of the site."""
    return "../" * path.count("/")
