"""Turn paths of instruments into features: python examples/paths.py LIST OUT.

LIST is a CSV with the columns key, action, score, split (or fold, group columns of your
own) and file: a text table of one recording, a row per time and a column per channel
(positions, velocities, angles, forces), separated by semicolons, tabs, commas or
spaces. A first line of names is skipped; one of 0, 1, 2, ... may be either, so say
--header or --no-header. Empty cells, NA, nan and comments are refused: whether to fill
a gap or to leave out the row is for whoever made the recording to say.

A recording is cut into parts of equal length. A part is described by the mean, the
standard deviation and the mean absolute change of each channel, and by its seconds. OUT
gets one .npy (parts, 3 x channels + 1) per recording and list.csv, for
`aqa cache import OUT/list.csv --name NAME --cache FILE`. For the kinematics of JIGSAWS
(76 columns, 30 per second) this gives the (6, 229) of docs/jigsaws.md.
"""

import csv
import math
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from aqa.cache.errors import AqaError
from aqa.cache.files import keep_inputs
from aqa.cache.labels import parse_key
from aqa.cache.tables import Table

Numbers = NDArray[np.float64]
#: Cells that stand for no number.
MISSING = ("", "na", "n/a", "nan", "null", "none", "-")


def read_table(path: Path, header: bool | None) -> Numbers:
    """Read a recording (times, channels); `header` None: look at the first line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise AqaError(f"{path}: expected a text in UTF-8: {error}") from error
    lines = [(at, line) for at, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        return np.empty((0, 0))
    separator = next((each for each in ";\t," if each in lines[0][1]), None)
    if separator in (";", "\t"):  # commas are decimal ones
        lines = [(at, line.replace(",", ".")) for at, line in lines]
    rows = [[cell.strip() for cell in line.split(separator)] for _, line in lines]
    names = is_header(rows[0], path) if header is None else header
    if names and "" in rows[0]:
        raise AqaError(f"{path}: expected a name for each column, found {rows[0]}")
    table = [[number(cell) for cell in row] for row in rows]
    for (at, line), row in list(zip(lines, table, strict=True))[names:]:
        if len(row) != len(table[0]) or not all(map(math.isfinite, row)):
            raise AqaError(
                f"{path}: line {at}: expected {len(table[0])} finite numbers, found "
                f"{line[:60]!r}"
            )
    return np.array(table[names:])


def is_header(cells: list[str], path: Path) -> bool:
    """Return whether the first line holds names: no number, and not gaps alone."""
    if cells == [str(n) for n in range(len(cells))]:
        raise AqaError(
            f"{path}: its first line {','.join(cells)[:60]!r} may be names or numbers: "
            "pass --header or --no-header"
        )
    words = [cell for cell in cells if cell.casefold() not in MISSING]
    return bool(words) and all(math.isnan(number(word)) for word in words)


def number(cell: str) -> float:
    """Return a cell as a number, NaN if it is none."""
    try:
        return math.nan if "_" in cell else float(cell)
    except ValueError:
        return math.nan


def describe(table: Numbers, parts: int, rate: float) -> NDArray[np.float32]:
    """Describe each part: (times, channels) -> (parts, 3 x channels + 1)."""
    rows = [
        np.concatenate(
            [
                part.mean(0),
                part.std(0),
                np.abs(np.diff(part, axis=0)).mean(0),
                [len(part) / rate],
            ]
        )
        for part in np.array_split(table, parts)
    ]
    return np.array(rows, np.float32)


@click.command(help=__doc__.splitlines()[0])
@click.argument("listed", type=click.Path(path_type=Path, exists=True))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--parts",
    type=click.IntRange(1),
    default=6,
    show_default=True,
    help="Parts per recording.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    show_default=True,
    help="Rows per second.",
)
@click.option("--header/--no-header", default=None, help="Whether line 1 holds names.")
def main(listed: Path, out: Path, parts: int, rate: float, header: bool | None) -> None:
    """Describe every recording of the list, then write."""
    try:
        made = describe_all(listed, parts, rate, header)
        keep_inputs(out / "list.csv", listed)
        for row, described in made:
            target = out / row["file"]
            target.parent.mkdir(parents=True, exist_ok=True)
            np.save(target, described)
        with open(out / "list.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, made[0][0])
            writer.writeheader()
            writer.writerows(row for row, _ in made)
    except (AqaError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{len(made)} recordings described; list: {out / 'list.csv'}")


def describe_all(
    listed: Path, parts: int, rate: float, header: bool | None
) -> list[tuple[dict[str, str], NDArray[np.float32]]]:
    """Return the rows of the new list, each with what its .npy holds."""
    made = {}
    for line, row in Table(listed, ("key", "file"), ("action", "score", "split")):
        key, source = parse_key(row["key"]), listed.parent / row["file"].strip()
        if key in made:
            raise AqaError(f"{listed}: line {line}: key {key!r} is there twice")
        table = read_table(source, header)
        if len(table) < 2 * parts:
            raise AqaError(
                f"{source}: expected at least {2 * parts} rows of finite numbers, "
                f"found {len(table)} rows"
            )
        row |= {"key": key, "file": f"{key}.npy"}
        made[key] = row, describe(table, parts, rate)
    if not made:
        raise AqaError(f"{listed}: expected one recording per row, found no rows")
    return list(made.values())


if __name__ == "__main__":
    main()
