"""What mkdocs does beside its own: files that are no pages are named, not linked; what is wide gets the whole width."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any, Final

_WIDEST: Final = 80
"""Characters of a drawing's line that have room beside a table of contents."""
_LINK: Final = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)#]+)\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:  # noqa: ANN401 - mkdocs' own
    """Write links that leave docs/ as the path of the file; called by mkdocs for each page."""
    is_wide = any(len(line) > _WIDEST and ("│" in line or "──►" in line) for line in markdown.splitlines())
    if is_wide or "\n## " not in markdown:
        page.meta["hide"] = ["toc"]
    depth = len(PurePosixPath(page.file.src_uri).parts) - 1

    def named(link: re.Match[str]) -> str:
        text, target = link.groups()
        ups = target.count("../")
        if ups <= depth:
            return link[0]
        path = target.replace("../", "").rstrip("/")
        return f"`{path}`" if path.endswith(text.strip("`")) else f"{text} (`{path}`)"

    return _LINK.sub(named, markdown)
