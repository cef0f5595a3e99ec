"""Turn paths of instruments into features: python examples/paths.py LIST OUT.

LIST is a CSV with the columns key, action, score, split (or fold, group columns of your
own) and file: a text table of one recording, a row per time and a column per channel
(positions, velocities, angles, forces), separated by commas or spaces. A first line
with names is skipped.

A recording is cut into parts of equal length. A part is described by the mean, the
standard deviation and the mean absolute change of each channel, and by its seconds. OUT
gets one .npy (parts, 3 x channels + 1) per recording and list.csv, for
`aqa cache import OUT/list.csv --name NAME --cache FILE`. For the kinematics of JIGSAWS
(76 columns, 30 per second) this gives the (6, 229) of docs/jigsaws.md.
"""

import csv
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def read_table(path: Path) -> Numbers:
    """Read a recording (times, channels)."""
    lines = path.read_text(encoding="utf-8-sig").strip().splitlines()
    comma = "," if lines and "," in lines[0] else None
    if lines and not all(map(is_number, lines[0].split(comma))):
        del lines[0]
    if not lines:
        return np.empty((0, 0))
    try:
        return np.loadtxt(lines, delimiter=comma, ndmin=2)
    except ValueError as error:
        raise click.ClickException(
            f"{path}: expected rows of equally many numbers: {error}"
        ) from error


def is_number(word: str) -> bool:
    """Return whether a word is a number; "nan" is one."""
    try:
        float(word)
    except ValueError:
        return False
    return True


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
@click.option("--parts", default=6, show_default=True, help="Parts per recording.")
@click.option("--rate", default=30.0, show_default=True, help="Rows per second.")
def main(listed: Path, out: Path, parts: int, rate: float) -> None:
    """Describe every recording of the list."""
    with open(listed, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        source = listed.parent / row["file"]
        table = read_table(source)
        if len(table) < 2 * parts or not np.isfinite(table).all():
            raise click.ClickException(
                f"{source}: expected at least {2 * parts} rows of finite numbers, "
                f"found {len(table)} rows"
            )
        row["file"] = f"{row['key']}.npy"
        target = out / row["file"]
        target.parent.mkdir(parents=True, exist_ok=True)
        np.save(target, describe(table, parts, rate))
    with open(out / "list.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    click.echo(f"{len(rows)} recordings described; list: {out / 'list.csv'}")


if __name__ == "__main__":
    main()
