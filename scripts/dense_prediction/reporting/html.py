"""The parts of a page that needs nothing but itself: no script, no other file, no network."""

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image


WIDEST = 1500
"""Pixels of a picture in a page."""

STYLE = """\
body { font: 15px/1.45 system-ui, sans-serif; color: #222; margin: 2em auto; max-width: 1180px; padding: 0 1em; }
h1 { font-size: 1.5em; margin-bottom: 0; } h2 { font-size: 1.2em; margin-top: 2em; border-bottom: 1px solid #ddd; }
p.lead { color: #555; margin-top: 0.3em; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 0.8em 0; }
th, td { padding: 0.2em 0.8em; text-align: right; border-bottom: 1px solid #eee; vertical-align: top; }
th { font-weight: 600; } th:first-child, td:first-child, table.words td { text-align: left; }
tr:hover td { background: #f6f8fb; }
figure { margin: 1em 0; } figcaption { color: #555; font-size: 0.9em; } img { max-width: 100%; height: auto; }
pre { background: #f6f6f6; padding: 1em; overflow-x: auto; font-size: 0.85em; }
"""


def page(title: str, lead: str, sections: Sequence[str]) -> str:
    """A whole page."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f"<style>\n{STYLE}</style></head><body>\n<h1>{escape(title)}</h1>\n"
        f'<p class="lead">{escape(lead)}</p>\n{"".join(sections)}</body></html>\n'
    )


def section(title: str, *parts: str) -> str:
    """A heading and what stands below it; nothing where nothing does."""
    content = "\n".join(filter(None, parts))
    return f"<h2>{escape(title)}</h2>\n{content}\n" if content else ""


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>" if text else ""


def table(rows: Sequence[Sequence[str]], of_words: bool = False) -> str:
    """Rows of cells, the first of them the heading; nothing where there is no other."""
    if len(rows) < 2:
        return ""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "\n".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows[1:])
    kind = ' class="words"' if of_words else ""
    return f'<div class="scroll"><table{kind}><tr>{head}</tr>\n{body}</table></div>'


def figure(image: Image.Image, caption: str, is_photo: bool) -> str:
    """A picture inside the page, a photo as JPEG, and what it shows."""
    image = image.convert("RGB")
    if image.width > WIDEST:
        image = image.resize((WIDEST, round(image.height * WIDEST / image.width)), Image.Resampling.LANCZOS)
    file, kind = io.BytesIO(), "jpeg" if is_photo else "png"
    image.save(file, kind, **({"quality": 82} if is_photo else {"optimize": True}))
    data = base64.b64encode(file.getvalue()).decode("ascii")
    source = f"data:image/{kind};base64,{data}"
    size = f'width="{image.width}" height="{image.height}"'
    text = escape(caption)
    return f'<figure><img src="{source}" alt="{text}" {size}><figcaption>{text}</figcaption></figure>'


def folded(title: str, text: str) -> str:
    """Text as it is, that is unfolded by a click."""
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"
