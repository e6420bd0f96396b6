"""The papers behind a fit, collected from what the fit used."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Citation:
    """A paper or book. `text` is the full reference; `doi`, `year`, `title` are optional extras for BibTeX."""

    text: str
    doi: str = ""
    title: str = ""
    year: str = ""

    def key(self) -> str:
        """Return a BibTeX key: the first author's name and the year."""
        author = re.match(r"\w+", self.text)
        year = self.year or next(iter(re.findall(r"\b(?:19|20)\d\d\b", self.text)), "")
        return f"{author.group(0).lower() if author else 'anon'}{year}"

    def bibtex(self) -> str:
        """Return a BibTeX entry of type misc whose note is the full reference."""
        fields = {"title": self.title, "year": self.year, "doi": self.doi, "note": self.text}
        body = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items() if value)
        return f"@misc{{{self.key()},\n{body}\n}}"


def collect(*used: object) -> tuple[Citation, ...]:
    """Return the citations of the given objects (their `citation` attribute, a plain text too), each once, in order."""
    found: dict[str, Citation] = {}
    for item in used:
        citation = getattr(item, "citation", None)
        for one in citation if isinstance(citation, tuple | list) else (citation,):
            one = Citation(one) if isinstance(one, str) and one.strip() else one
            if isinstance(one, Citation):
                found.setdefault(one.text, one)
    return tuple(found.values())


def to_bibtex(citations: Iterable[Citation]) -> str:
    """Return a BibTeX file's text; equal keys get a, b, c appended."""
    seen: dict[str, int] = {}
    entries = []
    for citation in citations:
        key = citation.key()
        count = seen.get(key, 0)
        seen[key] = count + 1
        suffix = chr(ord("a") + count - 1) if count else ""
        entries.append(citation.bibtex().replace(f"{{{key},", f"{{{key}{suffix},", 1))
    return "\n\n".join(entries) + ("\n" if entries else "")
