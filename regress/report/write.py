"""Every number of a report as lines of two CSV files.

Conventions: numbers.csv is long: one number a line, `statistic` says which, `seed` and
`iteration` are empty where a number is not of one; predictions.csv has one line a
prediction, in judges' units. What is undefined is an empty value. Numbers are written
with all their digits. A text that a spreadsheet would take for a formula has an
apostrophe in front.

One experiment as a reader meets it: what was asked, what came out, how sure it is.

Conventions: the first table is the paper's; `details` are further tables, for those
who look. Text is plain; each medium escapes it.

report.html and report.md: the same sections, one for reading, one for a repository.

Conventions: the page stands alone: style and pictures lie within it, it has no script
and its policy forbids the browser to load anything. Whatever comes from file names,
labels or provenance is escaped.

The files of a report.

Conventions: a folder holds report.json (one experiment's object, or, for several,
`{"experiment": "all", "created_with": ..., "reports": [one object each]}`), report.md,
report.html, numbers.csv, predictions.csv and figures/*.svg. Each file appears whole or
not at all; the same results give the same bytes.

Reports on a terminal: each experiment's main table and what it says in words.

Conventions: intervals are left to report.md and report.html, a terminal line is too
short for them; colour only where the console has it.
"""

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from aqa.cache.files import replacing
from aqa.regress.experiments.result import Result, strict
from aqa.regress.report.tables import (
    FINE_TUNE,
    SINGLE,
    ZERO_SHOT,
    Line,
    Report,
    Table,
    by_action,
    choices,
    claim,
    defined,
    escape,
    fine_tuning,
    kendall,
    number,
    pooled,
    rl2,
)

if TYPE_CHECKING:
    from aqa.regress.report.figures import Picture

Record = tuple[Any, ...]

#: What a formula, or text that hides one, begins with.
FORMULA = ("=", "+", "-", "@", "\t", "\r")

NUMBERS = ("experiment", "row", "column", "statistic", "seed", "iteration", "value")
PREDICTIONS = ("experiment", "row", "column", "seed", "key", "truth", "predicted")


def numbers_csv(reports: Sequence[Report]) -> str:
    """All numbers of the reports."""
    lines = (
        (report["experiment"], *line)
        for report in reports
        for line in (
            *_floor(report),
            *_rows(report),
            *_averages(report),
            *_claims(report),
        )
    )
    return _csv(NUMBERS, lines)


def predictions_csv(results: Sequence[Result]) -> str:
    """All predictions on test samples that the results rest on."""
    return _csv(
        PREDICTIONS, (line for result in results for line in _predictions(result))
    )


def _csv(head: Sequence[str], lines: Iterable[Record]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for line in lines:
        writer.writerow(map(_item, line))
    return text.getvalue()


def _item(item: Any) -> Any:
    """A value as a spreadsheet may have it: nothing undefined, no formula."""
    if isinstance(item, float) and not defined(item):
        return ""
    if isinstance(item, str) and item.startswith(FORMULA):
        return f"'{item}"
    return item


def _floor(report: Report) -> Iterator[Record]:
    for statistic, value in report["floor"].items():
        yield "floor", "", statistic, "", "", value


def _rows(report: Report) -> Iterator[Record]:
    for row in report["rows"]:
        if "per_action" in row:
            for action, cell in row["per_action"].items():
                yield from _flat(row["name"], action, cell)
            for group in ("average", "pooled"):
                yield from _flat(row["name"], group, row.get(group, {}))
        else:
            column = "{action} n={n_train}".format(**row)
            yield from _flat(row["init"], column, row)


def _averages(report: Report) -> Iterator[Record]:
    for start, averages in report.get("averages", {}).items():
        yield from _flat(start, "average", averages)


def _claims(report: Report) -> Iterator[Record]:
    for each in report["claims"]:
        row = f"{each['better']} minus {each['other']}"
        for column, found in each["per_column"].items():
            yield from _flat(row, column, found)
        yield from _flat(row, "average", each["average"])


def _flat(
    row: str, column: str, found: Mapping[str, Any], prefix: str = ""
) -> Iterator[Record]:
    """The numbers of a cell; nested names are joined by a dot."""
    for name, value in found.items():
        statistic = prefix + name
        if isinstance(value, Mapping):
            yield from _flat(row, column, value, f"{statistic}.")
        elif name == "curve":
            for iteration, rho in value:
                yield row, column, "mean at iteration", "", iteration, rho
        elif name == "curve_per_seed":
            at = [iteration for iteration, _ in found["curve"]]
            for seed, rhos in enumerate(value):
                for iteration, rho in zip(at, rhos, strict=True):
                    yield row, column, "spearman at iteration", seed, iteration, rho
        elif _is_interval(value, statistic):
            yield row, column, f"{statistic} low", "", "", value[0]
            yield row, column, f"{statistic} high", "", "", value[1]
        elif isinstance(value, list):
            for seed, item in enumerate(value):
                yield row, column, statistic, seed, "", item
        elif value is None or (
            isinstance(value, int | float) and not isinstance(value, bool)
        ):
            yield row, column, statistic, "", "", value


def _is_interval(value: Any, statistic: str) -> bool:
    return isinstance(value, list) and "ci95" in statistic


def _predictions(result: Result) -> Iterator[Record]:
    experiment = result.report["experiment"]
    for row, columns in result.cells.items():
        for column, cell in columns.items():
            seeds = zip(cell.rows, cell.truth, cell.predicted, strict=True)
            for seed, (rows, truth, predicted) in enumerate(seeds):
                for key, judged, guess in zip(
                    result.keys[rows], truth.tolist(), predicted.tolist(), strict=True
                ):
                    yield experiment, row, column, seed, key, judged, guess


@dataclass(frozen=True)
class Section:
    """One experiment's words and tables."""

    name: str
    title: str
    question: str
    findings: tuple[str, ...]
    notes: tuple[str, ...]
    tables: tuple[Table, ...]
    details: tuple[Table, ...]


TITLES = {
    SINGLE: "Single action or all actions",
    ZERO_SHOT: "Zero-shot: an action never seen",
    FINE_TUNE: "Fine-tuning on a few samples",
}
QUESTIONS = {
    SINGLE: (
        "Does one head trained on all actions rank the test samples of each better "
        "than a head trained on that action alone? (Table 2 of the paper)"
    ),
    ZERO_SHOT: (
        "Does a head rank samples of an action that it never saw? (Table 3 of the "
        "paper)"
    ),
    FINE_TUNE: (
        "With few samples of a new action, is a head trained on the other actions a "
        "better start than random weights? (Table 4 and Figure 3 of the paper)"
    ),
}


def shared_notes(reports: Sequence[Report]) -> tuple[str, ...]:
    """Notes that every one of several reports has: they are said once, for all."""
    first, *others = reports
    return tuple(
        note
        for note in first["notes"]
        if others and all(note in other["notes"] for other in others)
    )


def section_of(report: Report, shared: Sequence[str] = ()) -> Section:
    """An experiment's report.json object as words and tables.

    Notes that are `shared` by all experiments are left out.
    """
    name = report["experiment"]
    claims = tuple(
        claim(report, found, f"{name}-claim-{nth}")
        for nth, found in enumerate(report["claims"], 1)
    )
    return Section(
        name,
        TITLES[name],
        QUESTIONS[name],
        tuple(report["findings"]),
        tuple(note for note in report["notes"] if note not in shared),
        (_main_table(report), *claims),
        _details(report),
    )


def _main_table(report: Report) -> Table:
    if report["experiment"] == SINGLE:
        return by_action(report, "table-2", "Spearman's rho by action")
    if report["experiment"] == ZERO_SHOT:
        return by_action(report, "table-3", "Spearman's rho on each action")
    return fine_tuning(report)


def _details(report: Report) -> tuple[Table, ...]:
    name = report["experiment"]
    others = (kendall(report, f"{name}-kendall"), rl2(report, f"{name}-rl2"))
    return (pooled(report), *others, choices(report)) if name == SINGLE else others


TITLE = "Action quality: does it transfer?"

Chapter = tuple[Section, Sequence["Picture"]]


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


def write_report(results: Sequence[Result], out: Path) -> Path:
    """Write every file of the report; the path of report.html."""
    # Here: a table on a terminal needs no drawing library.
    from aqa.regress.report.figures import pictures_of

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


def print_reports(reports: Sequence[Report], console: Console) -> None:
    """Print the main table of each report, its findings and its notes."""
    shared = shared_notes(reports)
    for report in reports:
        section = section_of(report, shared)
        console.print(rich_table(section.tables[0]))
        _print_lines([*section.findings, *map(_as_note, section.notes)], console)
        console.print()
    _print_lines(list(map(_as_note, shared)), console)


def rich_table(table: Table) -> RichTable:
    """A table as rich draws it."""
    drawn = RichTable(
        title=Text(table.title, style="bold"),
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
    )
    drawn.add_column(Text(table.corner))
    for place, column in enumerate(table.columns):
        # As narrow as its longest word: a head breaks into lines, a number never.
        words = [*column.split(), *(line.entries[place].text for line in table.lines)]
        drawn.add_column(Text(column), justify="right", width=max(map(len, words)))
    for line in table.lines:
        drawn.add_row(*_cells(line))
    return drawn


def _cells(line: Line) -> list[Text]:
    if line.kind == "paper":
        texts = [f"  {line.label}", *(entry.text for entry in line.entries)]
        return [Text(text, style="dim") for text in texts]
    styles = ["bold" if entry.strong else "" for entry in line.entries]
    cells = zip(line.entries, styles, strict=True)
    return [
        Text(line.label),
        *(Text(entry.text, style=style) for entry, style in cells),
    ]


def _print_lines(lines: Sequence[str], console: Console) -> None:
    for line in lines:
        console.print(Padding(Text(line), (0, 0, 0, 2)))


def _as_note(note: str) -> str:
    return f"Note: {note}"
