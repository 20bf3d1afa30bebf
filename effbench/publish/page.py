"""Pages from templates: everything is escaped, scripts are inline and named in the content-security policy by their hashes.

A page makes no request: style, scripts and data are in it. Reports and the site are both made here.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from .. import __version__
from . import format as fmt
from .rows import body

SCRIPTS = ("page.js", "plots.js")
PLOTLY = "plotly-cartesian.min.js"


@functools.cache
def asset(name: str) -> str:
    """Text of a file of this package; line ends as a browser's parser makes them, since hashes are taken of what it sees."""
    text = resources.files(__package__).joinpath("assets", name).read_text(encoding="utf-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def inline(name: str) -> str:
    """A script that may stand between script tags; ValueError where it would end or hide in them."""
    text = asset(name)
    if "</script" in text.lower() or "<!--" in text:
        raise ValueError(f"{name} cannot be inlined: it holds '</script' or '<!--'")
    return text


def policy(scripts: Sequence[str], *, own: bool = False) -> str:
    """The content-security policy of a page with exactly these inline scripts, or (`own`) with files of its own site alone.

    plotly writes style elements: those are allowed.
    """
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts)
    source, styles = ("'self'", "'self' 'unsafe-inline'") if own else (hashes or "'none'", "'unsafe-inline'")
    rules = ("default-src 'none'", f"script-src {source}", f"style-src {styles}", "img-src data: blob:")
    return "; ".join((*rules, "base-uri 'none'", "form-action 'none'"))


def data(value: Any) -> Markup:
    """JSON for a data block: no character in it can end the block, start a comment or end a line of script."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


@functools.cache
def _environment() -> jinja2.Environment:
    # The extension .j2 would switch select_autoescape off: escaping is on for every template.
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("effbench.publish"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_printable,
    )  # fmt: skip
    made.filters["data"] = data
    made.filters["block"] = block
    made.filters["body"] = body
    return made


def block(value: str) -> Markup:
    """Text of several lines, each made printable."""
    return Markup("\n").join(fmt.clean(line, 400) for line in value.splitlines()[:1000])


def _printable(value: Any) -> Any:
    """Foreign strings reach the page only in printable form, also those that no formatter has seen."""
    return fmt.clean(value, 4000) if isinstance(value, str) and not isinstance(value, Markup) else value


def render(template: str, *, plots: bool, **context: Any) -> str:
    """The page as text. `plots` says whether plotly is needed on it."""
    scripts = [inline(name) for name in ((PLOTLY, *SCRIPTS) if plots else SCRIPTS[:1])]
    page = _environment().get_template(template)
    return page.render(
        policy=policy(scripts),
        scripts=[Markup(text) for text in scripts],
        style=Markup(asset("page.css")),
        root=None,
        version=__version__,
        **context,
    )


SITE_SCRIPTS = ("page.js", "site.js", "explore.js", "drawer.js")


def render_site(template: str, *, root: str, plots: bool, **context: Any) -> str:
    """A page of a site: style and scripts are shared files below `root`, the relative way to the site's front page."""
    files = [*((PLOTLY, "plots.js") if plots else ()), *SITE_SCRIPTS]
    return _environment().get_template(template).render(
        policy=policy((), own=True), root=root, files=files, scripts=[], version=__version__, **context
    )  # fmt: skip
