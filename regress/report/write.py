"""The report of one or more experiments: files, page, Markdown, terminal.

Conventions: a folder holds report.json (one experiment's object, or, for several,
`{"experiment": "all", "created_with": ..., "reports": [one object each]}`), report.md,
report.html, tables.tex, table.csv, numbers.csv, predictions.csv and figures/*.svg of
the last run; a folder of each experiment's name within it holds the same of that
experiment alone, and outlives runs of others. Each file is replaced whole or not at
all; the same results give the same bytes, but for the date in page and Markdown. The
page stands alone: style and pictures are within it, it has no script, and its policy
forbids the browser to load anything.
Whatever comes from file names, labels or provenance is escaped.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.padding import Padding
from rich.text import Text
from scipy.stats import rankdata

from aqa.cache.files import write_file
from aqa.regress.experiments.result import (
    AnyReport,
    FineTuneReport,
    Result,
    Row,
    to_json,
)
from aqa.regress.experiments.study import title_of
from aqa.regress.report.export import numbers_csv, predictions_csv, table_csv
from aqa.regress.report.score_page import jpeg, render
from aqa.regress.report.tables import by_action, comparison, details, fine_tuning
from aqa.regress.report.text_table import (
    Entry,
    Line,
    Table,
    escape,
    latex,
    number,
    rich_table,
    sentence,
)

if TYPE_CHECKING:
    from aqa.regress.report.figures import Picture

    Drawn = tuple[tuple[Picture, ...], tuple[tuple[str, str], ...]]

#: From keys of samples to frames of those videos that can be shown: (n, h, w, 3) RGB.
Strips = Callable[[Sequence[str]], Mapping[str, NDArray[np.uint8]]]

#: Columns of what is redirected, where nothing needs to be cut.
WIDE = 1_000
#: Files beside the page that it links to.
DOWNLOADS = {
    "table.csv": "table (CSV)",
    "tables.tex": "tables (LaTeX)",
    "numbers.csv": "every number (CSV)",
    "predictions.csv": "predictions (CSV)",
    "report.json": "report (JSON)",
}
METHODS = (
    "rho is Spearman's rank correlation with average ranks for ties, within each "
    "action, on its test list; fine-tuning with a fixed split trains and tests on "
    "samples drawn from both lists.",
    "Where all predictions are equal rho is undefined: it is named, counted and left "
    "out of means.",
    "Averages over actions are formed by Fisher's z and arithmetically. A perfect "
    "ranking of n samples counts as 1 - 6 / (n^3 - n) in Fisher's z, half way to the "
    "next lower value, so that it does not decide an average alone.",
    "Labels are scaled by the training scores of their action: divided by their "
    "standard deviation, and with z-scores their mean subtracted. Nothing that is "
    "fitted or chosen sees a test label.",
    "Intervals are at 95 %, on Fisher's z: the variance over test samples is that of "
    "Bonett and Wright (2000) for Spearman's rho, what models have in common comes "
    "from bootstrap resamples, and the variance over seeds is added, with Student's t "
    "where seeds are few. They speak of other test samples like these and of other "
    "seeds, not of other data sets or splits. Four test samples are needed.",
    "With one seed a comparison gives no verdict. Untrained heads are averaged over "
    "many draws.",
    "R-l2 is the mean of ((predicted - true) / (highest - lowest true score))^2 over "
    "the test samples, in judges' units, times 100, as the leaderboards print it; "
    "lower is better. It is left out where a head never saw the action's scores.",
)


@dataclass(frozen=True)
class Run:
    """Which data set a report is about, and how and when it was asked for."""

    data: str
    command: str = ""
    date: str = ""


@dataclass(frozen=True)
class Section:
    """One experiment's text, tables and pictures; `details` are further tables.

    `strips` are captions with frames of a video side by side, as JPEG in base64.
    """

    name: str
    title: str
    question: str
    findings: tuple[str, ...]
    notes: tuple[str, ...]
    tables: tuple[Table, ...]
    details: tuple[Table, ...]
    pictures: "tuple[Picture, ...]" = ()
    strips: tuple[tuple[str, str], ...] = ()


def shared_notes(reports: Sequence[AnyReport]) -> tuple[str, ...]:
    """Return notes that every one of several reports has: they are printed once."""
    first, *others = reports
    return tuple(
        note
        for note in first.notes
        if others and all(note in other.notes for other in others)
    )


def section_of(
    result: Result,
    shared: Sequence[str] = (),
    pictures: "tuple[Picture, ...]" = (),
    strips: tuple[tuple[str, str], ...] = (),
) -> Section:
    """Make an experiment's section; notes that are `shared` are left out."""
    report = result.report
    return Section(
        report.experiment,
        result.title,
        result.question,
        tuple(report.findings),
        tuple(note for note in report.notes if note not in shared),
        (
            main_table(result),
            *(
                comparison(report, found, f"{report.experiment}-claim-{nth}")
                for nth, found in enumerate(report.claims, 1)
            ),
        ),
        (*details(report), extremes(result)),
        pictures,
        strips,
    )


def main_table(result: Result) -> Table:
    """Make the paper's table of an experiment."""
    if isinstance(result.report, FineTuneReport):
        return fine_tuning(result.report, *result.table)
    return by_action(result.report, *result.table)


@dataclass(frozen=True)
class Extreme:
    """A test sample whose predicted rank is near to or far from the true one."""

    column: str
    key: str
    texts: tuple[str, str, str, str]  # judges, predicted, rank, predicted rank
    worst: bool


def best_row(result: Result) -> str:
    """Name the row with the highest average, or the first where rows have none."""
    averages = {
        row.name: row.average.fisher_z
        for row in result.report.rows
        if isinstance(row, Row) and row.name in result.cells
    }
    return max(averages, key=averages.__getitem__, default=next(iter(result.cells)))


def extreme_samples(result: Result, count: int) -> list[Extreme]:
    """Return the `count` best and worst predicted samples of each column.

    Of `best_row`, the first seed; ranks are within a column.
    """
    found = []
    for column, cell in result.cells[best_row(result)].items():
        test, predicted = cell.tests[0], cell.predicted[0]
        ranks, guessed = rankdata(test.truth), rankdata(predicted)
        order = np.argsort(np.abs(ranks - guessed), kind="stable")
        few = min(count, len(order) // 2)
        for nth, place in enumerate((*order[:few], *order[len(order) - few :])):
            texts = (
                number(test.truth[place], "{:.2f}"),
                number(predicted[place], "{:.2f}"),
                f"{ranks[place]:g}",
                f"{guessed[place]:g}",
            )
            key = str(result.keys[test.rows[place]])
            found.append(Extreme(column, key, texts, nth >= few))
    return found


def extremes(result: Result, count: int = 3) -> Table:
    """Make the table of the best and worst predicted samples."""
    return Table(
        f"{result.report.experiment}-extremes",
        f"Best and worst predicted samples: {best_row(result)}",
        "sample",
        ("judges", "predicted", "rank", "predicted rank"),
        tuple(
            Line(f"{each.column}: {each.key}", tuple(map(Entry, each.texts)))
            for each in extreme_samples(result, count)
        ),
        ("first seed; of each column the nearest ranks first, then the furthest",),
    )


def strips_of(result: Result, strips: Strips) -> tuple[tuple[str, str], ...]:
    """Return the best and the worst predicted video of each action, with frames."""
    if isinstance(result.report, FineTuneReport):
        return ()  # its columns are many settings of the same actions
    samples = extreme_samples(result, 1)
    frames = strips([sample.key for sample in samples])
    found = []
    for sample in samples:
        if sample.key in frames:
            judged, predicted, rank, guessed = sample.texts
            caption = (
                f"{title_of(sample.column)}, {'worst' if sample.worst else 'best'}: "
                f"{sample.key}, judges {judged}, predicted {predicted}; "
                f"rank {rank}, predicted {guessed}"
            )
            apart = np.pad(frames[sample.key], ((0, 0), (0, 0), (0, 2), (0, 0)))
            found.append((caption, jpeg(np.concatenate(apart, axis=1))))
    return tuple(found)


def write_report(
    results: Sequence[Result],
    out: Path,
    run: Run | None = None,
    strips: Strips | None = None,
) -> Path:
    """Write the run's files, and each experiment's own; returns the page's path."""
    # Here: a table on a terminal needs no drawing library.
    from aqa.regress.report.figures import pictures_of

    drawn: dict[str, Drawn] = {
        result.report.experiment: (
            pictures_of(result),
            strips_of(result, strips) if strips else (),
        )
        for result in results
    }
    for result in results:
        _write_files([result], drawn, out / result.report.experiment, run)
    return _write_files(results, drawn, out, run)


def _write_files(
    results: Sequence[Result], drawn: "Mapping[str, Drawn]", out: Path, run: Run | None
) -> Path:
    reports = [result.report for result in results]
    shared = shared_notes(reports)
    sections = [
        section_of(result, shared, *drawn[result.report.experiment])
        for result in results
    ]
    text = json.dumps(joined(reports), indent=1, allow_nan=False)
    written = {
        "report.json": text + "\n",
        "numbers.csv": numbers_csv(reports),
        "table.csv": table_csv(reports),
        "predictions.csv": predictions_csv(results),
        "tables.tex": latex([table for each in sections for table in each.tables]),
        "report.md": markdown(reports, sections, run),
        "report.html": page(reports, sections, run),
    }
    for section in sections:
        for picture in section.pictures:
            written[f"figures/{picture.name}.svg"] = picture.svg
    for name, content in written.items():
        write_file(out / name, content)
    return out / "report.html"


def joined(reports: Sequence[AnyReport]) -> dict[str, Any]:
    """Return the object of report.json."""
    objects: list[dict[str, Any]] = [to_json(report) for report in reports]
    if len(objects) == 1:
        return objects[0]
    created_with = objects[0]["created_with"]
    return {"experiment": "all", "created_with": created_with, "reports": objects}


def title_of_page(run: Run | None) -> str:
    """Return the title: which data set was asked."""
    return f"Action quality: {run.data}" if run else "Action quality"


def page(
    reports: Sequence[AnyReport], sections: Sequence[Section], run: Run | None = None
) -> str:
    """Return the self-contained HTML page."""
    return render(
        "page.html.jinja",
        minus=_minus,
        sentence=sentence,
        unbroken=_unbroken,
        title=title_of_page(run),
        files=DOWNLOADS,
        facts=facts(reports[0], run),
        notes=shared_notes(reports),
        sections=sections,
        methods=METHODS,
        provenances=provenances(reports),
    )


def markdown(
    reports: Sequence[AnyReport], sections: Sequence[Section], run: Run | None = None
) -> str:
    """Return the same as Markdown; pictures are those in the folder `figures`."""
    parts = [f"# {escape(title_of_page(run))}"]
    lines = facts(reports[0], run).items()
    parts.append("\n".join(f"- **{name}**: {escape(text)}" for name, text in lines))
    parts += [f"> {escape(sentence(note))}" for note in shared_notes(reports)]
    for section in sections:
        parts += [f"## {section.title}", section.question]
        parts += [f"**{escape(finding)}**" for finding in section.findings]
        parts += [f"> {escape(sentence(note))}" for note in section.notes]
        for picture in section.pictures:
            parts.append(f"![{escape(picture.alt)}](figures/{picture.name}.svg)")
            parts.append(f"*{picture.caption}*")
        for table in (*section.tables, *section.details):
            parts += [f"### {escape(table.title)}", table.markdown()]
    parts += ["## How the numbers are made", "\n".join(f"- {text}" for text in METHODS)]
    parts.append("## What the features were made with")
    for label, record in provenances(reports).items():
        parts += [f"### {escape(label)}", f"```json\n{record}\n```"]
    return "\n\n".join(parts) + "\n"


def provenances(reports: Sequence[AnyReport]) -> dict[str, str]:
    """Return what each cache was made with, as JSON text, by the label of its rows."""
    first = reports[0].provenance
    records = {str(first.get("features", "unnamed")): first}
    for report in reports:
        records |= getattr(report, "also", None) or {}
    return {label: json.dumps(record, indent=2) for label, record in records.items()}


def facts(report: AnyReport, run: Run | None = None) -> dict[str, str]:
    """Return what the numbers were made from, one line each."""
    lists = report.samples.values()
    train, test = (sum(counts[name] for counts in lists) for name in ("train", "test"))
    schedule = report.settings["schedule"]
    found = {
        "Features": _features(report.provenance),
        "Samples": f"{len(lists)} actions, {train:,} to train, {test:,} to test",
        "Split": report.settings["split"],
        "Seeds": str(len(report.seeds)),
        "Training": f"{schedule['iterations']:,} iterations per head",
        "Differs from the paper": "; ".join(report.settings["differs_from_paper"]),
        "Floor": (
            f"{number(report.floor['pooled_action_mean'])} pooled rho for knowing "
            "only the action, no video"
        ),
        "Made with": ", ".join(f"{k} {v}" for k, v in report.created_with.items()),
    }
    if run:
        found |= {"Command": run.command, "Date": run.date}
    return {name: text for name, text in found.items() if text}


def _features(provenance: Mapping[str, Any]) -> str:
    """Return the kind of features, the network and its weights, where known."""
    weights = provenance.get("weights")
    name = weights.get("name") if isinstance(weights, Mapping) else None
    parts = [provenance.get("features"), provenance.get("arch")]
    text = ", ".join(str(part) for part in parts if part)
    return f"{text}, weights {name}" if name else text or "unknown"


def _minus(text: str) -> str:
    """Return numbers with a minus sign in place of the hyphen."""
    return re.sub(r"(?<![\w.])-(?=\d)", "\N{MINUS SIGN}", text)


def _unbroken(title: str) -> str:
    """Keep a count together: "Diving (n = 8)" breaks before the bracket alone."""
    return title.replace("(n = ", "(n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")


def print_results(results: Sequence[Result], console: Console) -> None:
    """Print the main table of each experiment, its findings and its notes.

    Intervals are left to the files: a terminal's line is too short for them. What is
    redirected is as wide as it needs to be.
    """
    if not console.is_terminal:
        console = Console(file=console.file, width=WIDE)
    shared = shared_notes([result.report for result in results])
    for result in results:
        section = section_of(result, shared)
        console.print(rich_table(section.tables[0]))
        _print_lines(section.findings, console)
        _print_lines([f"Note: {note}" for note in section.notes], console)
        console.print()
    _print_lines([f"Note: {note}" for note in shared], console)


def _print_lines(lines: Sequence[str], console: Console) -> None:
    for line in lines:
        if console.is_terminal:
            console.print(Padding(Text(line), (0, 0, 0, 2)))
        else:
            console.print(Text(f"  {line}"), soft_wrap=True)
