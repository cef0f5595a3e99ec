"""The files of a report.

Conventions: a folder holds report.json (one experiment's object, or, for several,
`{"experiment": "all", "created_with": ..., "reports": [one object each]}`), report.md,
report.html, numbers.csv, predictions.csv and figures/*.svg. Each file appears whole or
not at all; the same results give the same bytes.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aqa.cache.replacement import replacing
from aqa.regress.report.numbers import numbers_csv, predictions_csv
from aqa.regress.report.page import markdown, page
from aqa.regress.report.pictures import pictures_of
from aqa.regress.report.sections import section_of, shared_notes
from aqa.regress.result import Result, strict


def write_report(results: Sequence[Result], out: Path) -> Path:
    """Write every file of the report; the path of report.html."""
    reports = [result.report for result in results]
    shared = shared_notes(reports)
    chapters = [
        (section_of(result.report, shared), pictures_of(result.report, result.cells))
        for result in results
    ]
    text = json.dumps(strict(joined(reports)), indent=1, allow_nan=False)
    _write(out / "report.json", text + "\n")
    _write(out / "numbers.csv", numbers_csv(reports))
    _write(out / "predictions.csv", predictions_csv(results))
    for _, pictures in chapters:
        for picture in pictures:
            _write(out / "figures" / f"{picture.name}.svg", picture.svg)
    _write(out / "report.md", markdown(reports, chapters))
    _write(out / "report.html", page(reports, chapters))
    return out / "report.html"


def joined(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The object of report.json."""
    if len(reports) == 1:
        return reports[0]
    created_with = reports[0]["created_with"]
    return {"experiment": "all", "created_with": created_with, "reports": [*reports]}


def _write(path: Path, text: str) -> None:
    with replacing(path) as descriptor, os.fdopen(descriptor, "wb", closefd=False) as f:
        f.write(text.encode())
