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

from aqa.cache.errors import counted
from aqa.cache.files import write_file
from aqa.regress.experiments.result import AnyReport, FineTuneReport, Result, to_json
from aqa.regress.experiments.study import title_of
from aqa.regress.report.formats import (
    Table,
    escape,
    latex,
    number,
    numbers_csv,
    predictions_csv,
    rich_table,
    sentence,
    table_csv,
)
from aqa.regress.report.score_page import jpeg, render
from aqa.regress.report.tables import (
    comparison,
    details,
    extreme_samples,
    extremes,
    main_table,
)

if TYPE_CHECKING:
    from aqa.regress.report.figures import Picture

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

    @property
    def title(self) -> str:
        """The title of the page."""
        return f"Action quality: {self.data}"


@dataclass(frozen=True)
class Section:
    """One experiment's text, tables and pictures; `details` are further tables.

    `strips` are captions with frames of a video side by side, as JPEG in base64.
    """

    result: Result
    notes: tuple[str, ...]
    tables: tuple[Table, ...]
    details: tuple[Table, ...]
    pictures: "tuple[Picture, ...]" = ()
    strips: tuple[tuple[str, str], ...] = ()


def shared_notes(results: Sequence[Result]) -> tuple[str, ...]:
    """Return notes that every one of several reports has: they are printed once."""
    first, *others = (result.report.notes for result in results)
    return tuple(
        note for note in first if others and all(note in other for other in others)
    )


def section_of(
    result: Result,
    shared: Sequence[str] = (),
    pictures: "tuple[Picture, ...]" = (),
    strips: tuple[tuple[str, str], ...] = (),
) -> Section:
    """Make an experiment's section; notes that are `shared` are left out."""
    report = result.report
    compared = (
        comparison(report, found, f"{report.experiment}-claim-{nth}")
        for nth, found in enumerate(report.claims, 1)
    )
    return Section(
        result,
        tuple(note for note in report.notes if note not in shared),
        (main_table(result), *compared),
        (*details(report), extremes(result)),
        pictures,
        strips,
    )


def strips_of(result: Result, strips: Strips | None) -> tuple[tuple[str, str], ...]:
    """Return the best and the worst predicted video of each action, with frames."""
    if strips is None or isinstance(result.report, FineTuneReport):
        return ()  # columns of fine-tuning are many settings of the same actions
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
    results: Sequence[Result], out: Path, run: Run, strips: Strips | None = None
) -> Path:
    """Write the run's files, and each experiment's own; returns the page's path."""
    # Here: a table on a terminal needs no drawing library.
    from aqa.regress.report.figures import pictures_of

    sections = []
    shared = shared_notes(results)
    for result in results:
        drawn = pictures_of(result), strips_of(result, strips)
        alone = section_of(result, (), *drawn)
        _write_files([alone], (), out / result.report.experiment, run)
        sections.append(section_of(result, shared, *drawn))
    return _write_files(sections, shared, out, run)


def _write_files(
    sections: Sequence[Section], shared: Sequence[str], out: Path, run: Run
) -> Path:
    results = [section.result for section in sections]
    reports = [result.report for result in results]
    text = json.dumps(joined(reports), indent=1, allow_nan=False)
    written = {
        "report.json": text + "\n",
        "numbers.csv": numbers_csv(reports),
        "table.csv": table_csv(reports),
        "predictions.csv": predictions_csv(results),
        "tables.tex": latex([table for each in sections for table in each.tables]),
        "report.md": markdown(sections, shared, run),
        "report.html": page(sections, shared, run),
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


def page(sections: Sequence[Section], shared: Sequence[str], run: Run) -> str:
    """Return the self-contained HTML page; `shared` notes stand before the sections."""
    reports = [section.result.report for section in sections]
    return render(
        "page.html.jinja",
        minus=_minus,
        sentence=sentence,
        unbroken=_unbroken,
        title=run.title,
        files=DOWNLOADS,
        facts=facts(reports[0], run),
        notes=shared,
        sections=sections,
        methods=METHODS,
        provenances=provenances(reports),
    )


def markdown(sections: Sequence[Section], shared: Sequence[str], run: Run) -> str:
    """Return the same as Markdown; pictures are those in the folder `figures`."""
    reports = [section.result.report for section in sections]
    lines = facts(reports[0], run).items()
    parts = [
        f"# {escape(run.title)}",
        "\n".join(f"- **{name}**: {escape(text)}" for name, text in lines),
        *(f"> {escape(sentence(note))}" for note in shared),
    ]
    for section in sections:
        parts += [f"## {section.result.title}", section.result.question]
        parts += [f"**{escape(text)}**" for text in section.result.report.findings]
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


def facts(report: AnyReport, run: Run) -> dict[str, str]:
    """Return what the numbers were made from, one line each."""
    lists = report.samples.values()
    train, test = (sum(counts[name] for counts in lists) for name in ("train", "test"))
    schedule = report.settings["schedule"]
    found = {
        "Features": _features(report.provenance),
        "Samples": (
            f"{counted(len(lists), 'action')}, {train:,} to train, {test:,} to test"
        ),
        "Split": report.settings["split"],
        "Seeds": str(len(report.seeds)),
        "Training": f"{schedule['iterations']:,} iterations per head",
        "Differs from the paper": "; ".join(report.settings["differs_from_paper"]),
        "Floor": (
            f"{number(report.floor['pooled_action_mean'])} pooled rho for knowing "
            "only the action, no video"
            if len(lists) > 1
            else ""
        ),
        "Made with": ", ".join(f"{k} {v}" for k, v in report.created_with.items()),
        "Command": run.command,
        "Date": run.date,
    }
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
    shared = shared_notes(results)
    for result in results:
        report = result.report
        notes = [note for note in report.notes if note not in shared]
        console.print(rich_table(main_table(result)))
        _print_lines(report.findings, notes, console)
        console.print()
    _print_lines((), shared, console)


def _print_lines(
    findings: Sequence[str], notes: Sequence[str], console: Console
) -> None:
    for line in (*findings, *(f"Note: {note}" for note in notes)):
        if console.is_terminal:
            console.print(Padding(Text(line), (0, 0, 0, 2)))
        else:
            console.print(Text(f"  {line}"), soft_wrap=True)
