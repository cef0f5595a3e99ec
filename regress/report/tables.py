"""The tables of a report, made from its report.json object alone.

Conventions: columns are actions in the report's order, then the averages; the paper's
line stands under ours of the same name; the highest of ours in a column is strong.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from aqa.regress.claims import capital
from aqa.regress.report.table import Entry, Line, Table, bracket, defined, number
from aqa.regress.study import title_of

Report = Mapping[str, Any]

MATCHED = (
    "in parentheses: trained and tested on the same action, left out of the row's "
    "average"
)
AVERAGES = {"fisher_z": "Fisher z", "arithmetic": "arithm."}


def intervals(report: Report) -> str:
    """What the brackets of a table hold; a single seed has no spread."""
    if len(report["seeds"]) == 1:
        return "in brackets the bootstrap 95 % interval over test samples, of one seed"
    return (
        "in brackets the bootstrap 95 % interval: of an action over test samples, of "
        f"an average over {varied(report)}; sd: standard deviation over seeds"
    )


def varied(report: Report) -> str:
    """What the resamples behind averages and claims draw anew."""
    if len(report["seeds"]) == 1:
        return "test samples"
    return "seeds and test samples together"


def printed_name(name: str) -> str:
    """The name of an action, a row or a fine-tuning column as tables print it."""
    action, size, n = name.rpartition(" n=")
    return f"{title_of(action)}, n={n}" if size else title_of(name)


def by_action(report: Report, name: str, title: str) -> Table:
    """Rows over actions and both averages, the paper's line under each of ours."""
    actions = list(report["samples"])
    printed = dict(report["paper"]["rows"]) if report["paper"] else {}
    best = _best(report)
    lines = []
    for row in report["rows"]:
        entries = [_cell(row["per_action"][name], best.get(name)) for name in actions]
        entries += [_average(row["average"], kind, best.get(kind)) for kind in AVERAGES]
        lines.append(Line(title_of(row["name"]), tuple(entries)))
        if row["name"] in printed:
            lines.append(_printed(printed.pop(row["name"]), report, "paper"))
    for row_name, cells in printed.items():
        lines.append(_printed(cells, report, f"paper: {row_name}"))
    columns = (*map(title_of, actions), *AVERAGES.values())
    return Table(name, title, "", columns, tuple(lines), tuple(_notes(report)))


def claim(report: Report, found: Mapping[str, Any], name: str) -> Table:
    """A paired comparison, column by column and on average."""
    columns = {
        printed_name(column): cell for column, cell in found["per_column"].items()
    }
    columns |= {
        f"average, {AVERAGES[kind]}": cell for kind, cell in found["average"].items()
    }
    lines = [
        Line(
            label,
            (
                Entry(number(cell["difference"], "{:+.3f}")),
                Entry(bracket(cell["ci95"], "{:+.2f} to {:+.2f}")),
                Entry(number(cell["probability"], "{:.2f}")),
            ),
        )
        for label, cell in columns.items()
    ]
    return Table(
        name,
        f"{capital(found['better'])} minus {found['other']}",
        "",
        ("difference", "95 % interval", "P(better)"),
        tuple(lines),
        (
            f"P(better): share of paired bootstrap resamples, of {varied(report)}, in "
            "which the first has the higher rho; it is not a p-value",
        ),
    )


def fine_tuning(report: Report) -> Table:
    """Table 4, with the last iteration beside the best."""
    paper = report["paper"]
    rows = by_setting(report["rows"])
    printed = by_setting(paper["rows"]) if paper else {}
    # Both starts, or scratch alone, or nothing.
    starts = max(map(len, printed.values()), default=0)
    lines = []
    for setting, pair in rows.items():
        last = [row["last"] for row in pair]
        ahead = max(filter(defined, last), default=None)
        entries = [
            Entry(number(row["last"]), _details(row), row["last"] == ahead)
            for row in pair
        ]
        others = [*pair, *printed.get(setting, ())]
        entries += [Entry(number(row["best"])) for row in others]
        lines.append(Line(printed_name("{} n={}".format(*setting)), tuple(entries)))
    for kind, label in AVERAGES.items():
        averages = [report["averages"][start] for start in ("random", "multi-action")]
        values = [found[at][kind] for at in ("last", "best") for found in averages]
        entries = [Entry(number(value)) for value in values]
        entries += [Entry("")] * starts
        lines.append(Line(f"average, {label}", tuple(entries)))
    columns = ["scratch, last", "tuned, last", "scratch, best", "tuned, best"]
    notes = [
        "scratch starts from random weights, tuned from the head trained on all other "
        "actions",
        "last: after the last iteration, the honest number; best: the highest of all "
        "evaluated iterations, chosen on the test samples, as the paper does",
        _tested(report["rows"]),
        intervals(report),
        *_undefined(report),
    ]
    if paper:
        columns += ["paper: scratch, best", "paper: tuned, best"][:starts]
        notes.append(f"paper: {paper['source']}")
    return Table(
        "table-4",
        "Fine-tuning on n samples of a new action",
        "",
        tuple(columns),
        tuple(lines),
        tuple(notes),
    )


def _best(report: Report) -> dict[str, float]:
    """The highest value of each column, matched cells left aside."""
    found: dict[str, list[float]] = {}
    for row in report["rows"]:
        cells = row["per_action"].items()
        values = [(name, cell["mean"]) for name, cell in cells if not cell["matched"]]
        values += [(kind, row["average"][kind]) for kind in AVERAGES]
        for column, value in values:
            if defined(value):
                found.setdefault(column, []).append(value)
    return {column: max(values) for column, values in found.items()}


def _cell(cell: Mapping[str, Any], best: float | None) -> Entry:
    text = number(cell["mean"])
    if cell["matched"]:
        return Entry(f"({text})", _details(cell))
    return Entry(text, _details(cell), strong=best is not None and cell["mean"] == best)


def _average(average: Mapping[str, Any], kind: str, best: float | None) -> Entry:
    strong = best is not None and average[kind] == best
    numbers = {name: average[name][kind] for name in ("ci95", "sd")}
    return Entry(number(average[kind]), _details(numbers), strong)


def _details(numbers: Mapping[str, Any]) -> tuple[str, ...]:
    """Interval, and standard deviation over seeds, where they are defined."""
    texts = [bracket(numbers["ci95"])]
    if defined(numbers["sd"]):
        texts.append(f"sd {numbers['sd']:.3f}")
    return tuple(filter(None, texts))


def _printed(cells: Mapping[str, Any], report: Report, label: str) -> Line:
    """A line of the paper; its average stands under the rule that formed it."""
    rule = "fisher_z" if report["experiment"] == "single-vs-all" else "arithmetic"
    values = [cells["per_action"][action] for action in report["samples"]]
    values += [cells["average"] if kind == rule else None for kind in AVERAGES]
    entries = (Entry(number(value) if defined(value) else "") for value in values)
    return Line(label, tuple(entries), "paper")


def _notes(report: Report) -> list[str]:
    notes = [intervals(report)]
    if any(cell["matched"] for row in report["rows"] for cell in _cells(row)):
        notes.append(MATCHED)
    if report["paper"]:
        notes.append(f"paper: {report['paper']['source']}")
    return [*notes, *_undefined(report)]


def _tested(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many samples each action is tested on, and where they are from."""
    tests = {title_of(row["action"]): row["n_test"] for row in rows}
    sizes = [f"{n} of {action}" for action, n in tests.items()]
    if len(set(tests.values())) == 1:
        sizes = [f"{rows[0]['n_test']} of each action"]
    return (
        f"tested on samples that each seed draws from an action's training and test "
        f"lists together, none of which it trains on: {', '.join(sizes)}"
    )


def _undefined(report: Report) -> list[str]:
    """Name the rows whose rho is undefined somewhere, and how often."""
    named = []
    for row in report["rows"]:
        count = sum(cell["undefined"] for cell in _cells(row))
        if count:
            name = row.get("name") or "{action} n={n_train} from {init}".format(**row)
            named.append(f"{name} ({count})")
    if not named:
        return []
    return [
        "rho is undefined where all predictions are equal or one is not a number; it "
        f"is left out of means: {', '.join(named)}"
    ]


def _cells(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A row's cells; a row of fine-tuning is one itself."""
    return list(row["per_action"].values()) if "per_action" in row else [row]


def by_setting(
    rows: Sequence[Mapping[str, Any]],
) -> dict[tuple[str, int], list[Mapping[str, Any]]]:
    """Rows by action and training size, from scratch first."""
    found: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for start in ("random", "multi-action"):
        for row in rows:
            if row["init"] == start:
                found.setdefault((row["action"], row["n_train"]), []).append(row)
    return found
