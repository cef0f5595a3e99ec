"""The report's files: complete, self-contained, safe from names, the same each time."""

import base64
import csv
import io
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from scipy.stats import rankdata

from aqa.regress.experiments.compare import compare
from aqa.regress.report import figures
from aqa.regress.report.formats import (
    Entry,
    Line,
    Table,
    escape,
    latex,
    number,
    numbers_csv,
    sentence,
)
from aqa.regress.report.tables import extremes
from aqa.regress.report.write import (
    DOWNLOADS,
    Run,
    joined,
    page,
    print_results,
    section_of,
    shared_notes,
    write_report,
)


class Page(HTMLParser):
    """Tags, attributes and visible text of a page; refuses tags that do not match."""

    VOID = {"meta", "img", "br", "link", "hr", "input"}

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.open, self.text = [], [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def values(self, *names):
        return [value for _, name, value in self.attributes if name in names]


def table_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


@pytest.fixture(scope="module")
def html(compared):
    return (compared.out / "report.html").read_text()


@pytest.fixture(scope="module")
def markdown(compared):
    return (compared.out / "report.md").read_text()


@pytest.fixture(scope="module")
def hostile(compared):
    (name,) = set(compared.reports[0]["samples"]) - {"diving", "sync_diving_10m"}
    return name


def test_every_file_is_there(compared):
    found = {path.name for path in compared.out.iterdir()}
    assert found >= {*DOWNLOADS, "report.md", "report.html"}
    pictures = {path.stem for path in (compared.out / "figures").iterdir()}
    assert pictures == {"single-vs-all", "predictions", "zero-shot", "fine-tune"}


def test_the_page_needs_nothing_from_elsewhere(html):
    found = Page(html)
    assert not {"script", "link", "img"} & set(found.tags)
    assert not [name for _, name, _ in found.attributes if name.startswith("on")]
    targets = found.values("src", "href", "xlink:href")
    assert {target for target in targets if target[0] != "#"} == set(DOWNLOADS)
    assert not re.search(r"url\((?!#)", html)
    assert "default-src 'none'" in html


def test_the_page_is_well_formed_and_says_what_pictures_show(html):
    found = Page(html)
    ids = found.values("id")
    used = [name for name in ids if not re.fullmatch(r"[mpC][0-9a-f_]+", name)]
    assert len(used) == len(set(used))
    assert {"table-2", "table-3", "table-4", "methods"} <= set(ids)
    assert {target[1:] for target in found.values("href") if target[0] == "#"} <= {*ids}
    assert found.tags.count("figure") == found.tags.count("figcaption") == 4
    labels = "\n".join(found.values("aria-label"))
    for begin in (
        "Dots with",
        "Matrix of rho",
        "Curves of rho",
        "Scatter of predicted",
    ):
        assert re.search(f"^{begin}", labels, re.M)


def test_names_are_shown_and_never_obeyed(compared, html, markdown, hostile):
    assert hostile in Page(html).text
    assert "<img src=x" not in html
    assert "<img" not in re.sub(r"\\<", "", markdown)
    assert escape(hostile) in markdown
    for path in (compared.out / "figures").iterdir():
        root = ElementTree.fromstring(path.read_text())
        tags = {element.tag.split("}")[1] for element in root.iter()}
        assert tags <= {"svg", "defs", "style", "g", "path", "use", "text", "clipPath",
                        "rect", "tspan"}  # fmt: skip


def test_findings_notes_and_numbers_stand_in_page_and_markdown(
    compared, html, markdown
):
    text = Page(html).text.replace("\N{MINUS SIGN}", "-")
    for report in compared.reports:
        for words in (*report["findings"], *map(sentence, report["notes"])):
            assert words in text
            assert escape(words) in markdown
    average = number(compared.reports[0]["rows"][0]["average"]["fisher_z"])
    for shown in (text, markdown):
        assert average in shown
        for kind in ("c3d", "pose-dct"):  # the provenance of each cache
            assert f'"features": "{kind}"' in shown


def test_what_all_experiments_share_is_said_once(compared, html):
    (shared,) = [note for note in shared_notes(compared.results) if "length" in note]
    assert Page(html).text.count(sentence(shared)) == 1
    assert shared in section_of(compared.results[0]).notes
    assert shared_notes(compared.results[:1]) == ()


def test_numbers_csv_holds_every_number(compared):
    lines = table_of(compared.out / "numbers.csv")
    single, zero_shot, fine_tune = compared.reports
    row = single["rows"][1]
    cell, average = row["per_action"]["diving"], row["average"]
    tuned = fine_tune["rows"][0]
    (iteration, rho), column = (
        tuned["curve"][1],
        f"{tuned['action']} n={tuned['n_train']}",
    )
    claim = zero_shot["claims"][0]["average"]["fisher_z"]
    here = ("single-vs-all", row["name"])
    cases = {
        (*here, "diving", "mean", "", ""): cell["mean"],
        (*here, "diving", "spearman", "1", ""): cell["spearman"][1],
        (*here, "diving", "ci95 low", "", ""): cell["ci95"][0],
        (*here, "diving", "rl2_x100", "0", ""): cell["rl2_x100"][0],
        (*here, "average", "fisher_z", "", ""): average["fisher_z"],
        (*here, "average", "ci95.arithmetic high", "", ""): (
            average["ci95"]["arithmetic"][1]
        ),
        ("fine-tune", tuned["init"], column, "mean at iteration", "", str(iteration)): (
            rho
        ),
        ("zero-shot", "multi-action minus random", "average",
         "fisher_z.probability", "", ""): claim["probability"],
        ("zero-shot", "floor", "", "pooled_action_mean", "", ""): (
            zero_shot["floor"]["pooled_action_mean"]
        ),
    }  # fmt: skip
    found = {tuple(line.values())[:-1]: line["value"] for line in lines}
    assert len(found) == len(lines)
    for place, value in cases.items():
        assert float(found[place]) == value
    for line in lines:  # numbers alone
        assert line["statistic"] not in ("matched", "converged")
        float(line["value"] or 0)


def test_names_are_no_formulas_in_a_spreadsheet(compared):
    report = compared.results[1].report
    vile = ("=1+1", "+1", "-1", "@x", "\t=1")
    rows = [replace(report.rows[0], name=name) for name in vile]
    report = replace(report, claims=[], rows=rows)
    lines = list(csv.DictReader(io.StringIO(numbers_csv([report]))))
    assert {line["row"] for line in lines} == {"floor", *(f"'{name}" for name in vile)}


def test_other_measures_leave_the_matched_case_out(compared):
    # R-l2 of heads that never saw an action's scores has no meaning: one table only.
    table, _ = section_of(compared.results[1]).details
    (line,) = [line for line in table.lines if line.label == "Diving"]
    cells = compared.reports[1]["rows"][1]["per_action"].items()
    assert line.entries[0].text.startswith("(")
    unseen = [cell["kendall_mean"] for action, cell in cells if action != "diving"]
    assert float(line.entries[-1].text) == pytest.approx(np.mean(unseen), abs=6e-3)
    assert any(note.startswith("in parentheses") for note in table.notes)
    for action, cell in cells:
        assert (cell["rl2_x100_mean"] is None) == (action != "diving")


def test_fine_tuning_shows_its_other_measures_and_test_samples(compared):
    section = section_of(compared.results[2])
    kendall, rl2, _ = section.details
    rows = compared.reports[2]["rows"]
    assert len(kendall.lines) == len(rl2.lines) == len(rows) // 2
    scratch = next(row for row in rows if row["init"] == "random")
    assert kendall.lines[0].entries[0].text == number(scratch["kendall_mean"])
    assert rl2.lines[0].entries[0].text == number(scratch["rl2_x100_mean"], "{:.2f}")
    (note,) = [note for note in section.tables[0].notes if note.startswith("tested on")]
    assert "training and test lists together" in note
    assert f"{scratch['n_test']} of " in note


def test_single_action_rows_are_hollow_and_markers_tell_the_rest(compared):
    rows = compared.results[0].report.rows
    pens = figures._pens(rows)
    assert [pen.hollow for pen in pens] == [row.mode == "single-action" for row in rows]
    assert len({(pen.marker, pen.hollow) for pen in pens}) == len(rows)


def test_predictions_csv_has_every_prediction(compared, hostile):
    place = ("single-vs-all", "all-action LSTM", hostile, "1")
    lines = table_of(compared.out / "predictions.csv")
    assert all(line["ranked"] == line["predicted"] for line in lines)  # a fixed split
    keys = [line["key"] for line in lines if tuple(line.values())[:4] == place]
    assert len(keys) == len(set(keys)) == 7
    assert all(key.startswith(hostile) for key in keys)


def test_the_wide_csv_has_a_line_per_cell(compared):
    lines = table_of(compared.out / "table.csv")
    row = compared.reports[0]["rows"][1]
    place = ("single-vs-all", row["name"], "diving")
    [line] = [line for line in lines if tuple(line.values())[:3] == place]
    cell = row["per_action"]["diving"]
    assert float(line["rho"]) == cell["mean"] and int(line["n"]) == cell["n_test"]
    assert [float(line["low"]), float(line["high"])] == cell["ci95"]
    tuned = [line for line in lines if line["experiment"] == "fine-tune"]
    assert len(tuned) == len(compared.reports[2]["rows"])


def test_the_terminal_table_fits_eighty_columns(compared):
    screen = io.StringIO()
    terminal = Console(file=screen, width=80, force_terminal=True, color_system=None)
    print_results(compared.results, terminal)
    text = screen.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    head = text.partition("\N{BOX DRAWINGS LIGHT HORIZONTAL}")[0]
    assert "Diving" in head and "n=8" in head and "(n" not in head
    assert "single-action SVR" in text and "Note: not the paper's length" in text


def test_a_table_in_a_file_is_as_wide_as_its_names_need(compared):
    screen = io.StringIO()
    print_results(compared.results[:1], Console(file=screen))
    text = screen.getvalue()
    assert "\N{HORIZONTAL ELLIPSIS}" not in text and "\x1b" not in text
    for row in compared.reports[0]["rows"]:
        assert re.search(rf"^ ?{row['name']} ", text, re.M)


def test_a_terminal_table_needs_no_drawing_library():
    code = "import sys, aqa.regress.report.write; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_tables_for_papers_are_latex(compared):
    text = (compared.out / "tables.tex").read_text()
    assert text.count(r"\begin{tabular}") == text.count(r"\bottomrule") == 10
    assert r"\textbf{" in text and r"{\tiny [" in text and " sd 0." in text
    assert r"\textless{}img src=x onerror=alert(1)\textgreater{} \& \$x\_1\$" in text
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert lines and all(line.count(" & ") >= 1 for line in lines)
    shown = latex([Table("x", r"\input{/etc/passwd} 5% #1 ~^", "", ("a",), ())])
    assert r"\textbackslash{}input\{/etc/passwd\} 5\% \#1" in shown


def test_each_experiment_keeps_a_report_of_its_own(compared, tmp_path):
    config = replace(compared.config, seeds=1, average_offsets=False)
    names = ("single-vs-all", "zero-shot")
    for name in names:
        compare(compared.cache, [name], config, tmp_path)
    for name in names:
        kept = json.loads((tmp_path / name / "report.json").read_text())
        assert kept["experiment"] == name
        assert (tmp_path / name / "report.html").is_file()
    latest = json.loads((tmp_path / "report.json").read_text())
    assert latest["experiment"] == "zero-shot"
    assert not (tmp_path / "zero-shot" / "heads").exists()
    reports = [result.report for result in compared.results]
    assert joined(reports[:1]) == compared.reports[0]
    assert joined(reports)["reports"] == compared.reports


def test_numbers_as_text():
    assert number(0.12345) == "0.123"
    assert number(-0.0004) == "0.000"
    assert number(None) == number(float("nan")) == "undefined"
    assert number(0.5, "{:+.3f}") == "+0.500"


def test_a_table_as_markdown():
    ours = Line("ours", (Entry("0.5", ("[0.1, 0.9]",), strong=True), Entry("0.4")))
    paper = Line("paper", (Entry("0.6"), Entry("")), paper=True)
    table = Table("name", "title", "", ("a|b", "c"), (ours, paper), ("a *note*",))
    assert table.markdown().splitlines() == [
        "|  | a\\|b | c |",
        "| --- | ---: | ---: |",
        "| ours | **0.5** [0.1, 0.9] | 0.4 |",
        "| *paper* | 0.6 |  |",
        "",
        "- A \\*note\\*.",
    ]


def test_the_best_and_worst_predicted_samples(compared):
    result = compared.results[0]
    table = extremes(result, count=2)
    name = table.title.removeprefix("Best and worst predicted samples: ")
    averages = {row.name: row.average.fisher_z for row in result.report.rows}
    assert averages[name] == max(averages.values())
    cell = result.cells[name]["diving"]
    true, guess = rankdata(cell.tests[0].truth), rankdata(cell.predicted[0])
    apart = sorted(abs(true - guess))
    shown = [
        abs(float(line.entries[2].text) - float(line.entries[3].text))
        for line in table.lines
        if line.label.startswith("diving: ")
    ]
    assert shown == [*apart[:2], *apart[-2:]]


def test_the_page_shows_the_best_and_worst_videos_that_are_at_hand(compared, tmp_path):
    asked = []

    def strips(keys):
        asked.extend(keys)
        frames = np.full((6, 8, 10, 3), 255, np.uint8)
        return {key: frames for key in keys if key.startswith("diving")}

    write_report(compared.results[:1], tmp_path, Run("dives"), strips)
    table = extremes(compared.results[0], count=1)
    assert [line.label.partition(": ")[2] for line in table.lines] == asked
    text = (tmp_path / "report.html").read_text()
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)
    assert Page(text).tags.count("img") == len(pictures) == 2
    with Image.open(io.BytesIO(base64.b64decode(pictures[0]))) as picture:
        assert picture.size == (6 * (10 + 2), 8)
    for place, word in ((0, "best"), (1, "worst")):
        assert f"Diving, {word}: {asked[place]}, judges " in Page(text).text


def test_the_page_says_what_it_is_about(compared):
    run = Run("squats", "aqa compare all", "2026-01-02")
    text = page([section_of(compared.results[0])], (), run)
    assert "<h1>Action quality: squats</h1>" in text
    assert "<dd>aqa compare all</dd>" in text and "<dd>2026-01-02</dd>" in text
