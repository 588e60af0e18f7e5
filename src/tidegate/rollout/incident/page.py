"""A report as one HTML file: no script, nothing from elsewhere, fit for a narrow screen and for paper."""

import base64
import hashlib
from collections.abc import Sequence
from typing import Final

from tidegate.rollout.incident.blocks import Block, Log, Points, Table, Words
from tidegate.rollout.incident.document import Document
from tidegate.rollout.incident.text import markup

STYLE: Final = """
:root{color-scheme:light dark;--line:#8886;--soft:#8881}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;line-height:1.25}h2{font-size:1.2rem;margin-top:2rem;border-bottom:1px solid var(--line)}h3{font-size:1rem}
h1,h2,h3,p,li,dd,td,th{overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem}dt{opacity:.7}dd{margin:0}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;min-width:36rem;font-size:.92rem}
th,td{text-align:left;vertical-align:top;padding:.3rem .6rem .3rem 0;border-bottom:1px solid var(--line)}
th{white-space:nowrap;font-weight:600}td.n,th.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
pre{background:var(--soft);padding:.6rem;overflow-x:auto;font-size:.82rem;line-height:1.4}
footer{margin-top:2rem;opacity:.7;font-size:.85rem}
@media print{body{margin:0;max-width:none;font-size:10pt}pre{white-space:pre-wrap;overflow-wrap:anywhere}.wide{overflow:visible}table{min-width:0}
th{white-space:normal}tr,h2,h3{break-inside:avoid}h2,h3{break-after:avoid}thead{display:table-header-group}@page{size:A4;margin:18mm 16mm}}
"""
#: What a browser may do with a page of ours: show it, and use that one style.
POLICY: Final = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    + "'"
)


def to_html(found: Document, footer: str = "") -> str:
    """Write a report."""
    facts = "".join(
        f"<dt>{markup(name)}</dt><dd>{markup(value)}</dd>" for name, value in found.facts
    )
    body = [f"<h1>{markup(found.title)}</h1>", f"<dl>{facts}</dl>" if facts else ""]
    for section in found.sections:
        body.append(f"<h2>{markup(section.title)}</h2>")
        body += [_block(block) for block in section.blocks]
    if footer:
        body.append(f"<footer>{markup(footer)}</footer>")
    return page(found.title, "\n".join(body))


def page(title: str, body: str, head: str = "") -> str:
    """Return a whole page around a body that is HTML already."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="robots" content="noindex">'
        f"<title>{markup(title)}</title>{head}<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _block(block: Block) -> str:
    match block:
        case Words():
            return f"<p>{markup(block.text)}</p>"
        case Points():
            return f"<ul>{''.join(f'<li>{markup(one)}</li>' for one in block.rows)}</ul>"
        case Table():
            head = _row("th", block.head, block.numbers)
            rows = "\n".join(_row("td", row, block.numbers) for row in block.rows)
            return f'<div class="wide"><table><thead>{head}</thead><tbody>\n{rows}\n</tbody></table></div>'
        case Log():
            lines = "\n".join(_log_line(one) for one in block.lines)
            return f"<h3>{markup(block.title)}</h3>\n<pre>\n{lines}</pre>"


def _row(tag: str, cells: Sequence[str], numbers: frozenset[int]) -> str:
    made = (
        f"<{tag}{' class=n' if at in numbers else ''}>{markup(cell)}</{tag}>"
        for at, cell in enumerate(cells)
    )
    return f"<tr>{''.join(made)}</tr>"


def _log_line(line: str) -> str:
    # Already one line of printable characters; its spaces are part of it.
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
