"""report.html and report.md: the same sections, one for reading, one for a repository.

Conventions: the page stands alone: style and pictures lie within it, it has no script
and its policy forbids the browser to load anything. Whatever comes from file names,
labels or provenance is escaped.
"""

import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from aqa.regress.report.drawing import Picture
from aqa.regress.report.sections import Section, shared_notes
from aqa.regress.report.table import escape, number
from aqa.regress.report.tables import Report

TITLE = "Action quality: does it transfer?"

Chapter = tuple[Section, Sequence[Picture]]


def page(reports: Sequence[Report], chapters: Sequence[Chapter]) -> str:
    """The self-contained HTML page."""
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters["minus"] = _minus
    environment.filters["svg"] = Markup
    template = (
        files("aqa.regress.report").joinpath("page.html.jinja").read_text("utf-8")
    )
    return environment.from_string(template).render(
        title=TITLE,
        facts=facts(reports[0]),
        notes=shared_notes(reports),
        chapters=chapters,
        methods=METHODS,
        provenances=provenances(reports),
    )


def markdown(reports: Sequence[Report], chapters: Sequence[Chapter]) -> str:
    """The same as Markdown; pictures are those in the folder `figures`."""
    parts = [f"# {TITLE}"]
    lines = facts(reports[0]).items()
    parts.append("\n".join(f"- **{name}**: {escape(text)}" for name, text in lines))
    parts += [f"> {escape(note)}" for note in shared_notes(reports)]
    for section, pictures in chapters:
        parts += [f"## {section.title}", section.question]
        parts += [f"**{escape(finding)}**" for finding in section.findings]
        parts += [f"> {escape(note)}" for note in section.notes]
        for picture in pictures:
            parts.append(f"![{escape(picture.alt)}](figures/{picture.name}.svg)")
            parts.append(f"*{picture.caption}*")
        for table in (*section.tables, *section.details):
            parts += [f"### {escape(table.title)}", table.markdown()]
    parts += ["## How the numbers are made", "\n".join(f"- {text}" for text in METHODS)]
    parts.append("## What the features were made with")
    for label, record in provenances(reports).items():
        parts += [f"### {escape(label)}", f"```json\n{record}\n```"]
    return "\n\n".join(parts) + "\n"


def provenances(reports: Sequence[Report]) -> dict[str, str]:
    """What each cache was made with, as JSON text, by the label of its rows."""
    first = reports[0]["provenance"]
    records = {str(first.get("features", "unnamed")): first}
    for report in reports:
        records |= report.get("also", {})
    return {label: json.dumps(record, indent=2) for label, record in records.items()}


def facts(report: Report) -> dict[str, str]:
    """What the numbers were made from, a line each."""
    lists = report["samples"].values()
    train, test = (
        sum(counts[split] for counts in lists) for split in ("train", "test")
    )
    schedule = report["settings"]["schedule"]
    paper = (
        "the paper's length"
        if report["settings"]["paper_length"]
        else ("not the paper's length")
    )
    return {
        "Features": _features(report["provenance"]),
        "Samples": f"{len(lists)} actions, {train:,} to train, {test:,} to test",
        "Seeds": str(len(report["seeds"])),
        "Training": f"{schedule['iterations']:,} iterations a head, {paper}",
        "Floor": (
            f"{number(report['floor']['pooled_action_mean'])} pooled rho for knowing "
            "only the action, no video"
        ),
        "Made with": ", ".join(f"{k} {v}" for k, v in report["created_with"].items()),
    }


METHODS = (
    "rho is Spearman's rank correlation with average ranks for ties, within each "
    "action, on its test list; fine-tuning tests on samples drawn from both lists.",
    "Where all predictions are equal rho is undefined: it is named, counted and left "
    "out of means.",
    "Averages over actions are formed by Fisher's z and arithmetically; 1 and -1 count "
    "as 0.999999 in Fisher's z.",
    "Labels are divided by the standard deviation of the training scores of their "
    "action. Nothing that is fitted or chosen sees a test label.",
    "Intervals are percentiles of the bootstrap: they speak of other test samples like "
    "these, and of other seeds where there are several, not of other data sets or "
    "splits. Test samples that seeds draw from one pool are resampled as a pool.",
    "R-l2 is the mean of ((predicted - true) / (highest - lowest true score))^2 over "
    "the test samples, in judges' units, times 100, as the leaderboards print it; "
    "lower is better.",
)


def _features(provenance: Mapping[str, Any]) -> str:
    """The kind of features, the network and its weights, where they are known."""
    weights = provenance.get("weights")
    name = weights.get("name") if isinstance(weights, Mapping) else None
    parts = [provenance.get("features"), provenance.get("arch")]
    text = ", ".join(str(part) for part in parts if part)
    return f"{text}, weights {name}" if name else text or "unknown"


def _minus(text: str) -> str:
    """Numbers with a minus sign in place of the hyphen."""
    return re.sub(r"(?<![\w.])-(?=\d)", "\N{MINUS SIGN}", text)
