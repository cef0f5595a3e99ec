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
from aqa.regress.report.export import numbers_csv
from aqa.regress.report.text_table import (
    Entry,
    Line,
    Table,
    escape,
    latex,
    number,
    sentence,
)
from aqa.regress.report.write import (
    DOWNLOADS,
    Run,
    extremes,
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
        self.tags, self.attributes, self.ids, self.open = [], [], [], []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
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


def table_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


@pytest.fixture(scope="module")
def html(compared):
    return (compared.out / "report.html").read_text()


@pytest.fixture(scope="module")
def hostile(compared):
    (name,) = set(compared.reports[0]["samples"]) - {"diving", "sync_diving_10m"}
    return name


def test_every_file_is_there(compared):
    found = {path.name for path in compared.out.iterdir()}
    assert found >= {*DOWNLOADS, "report.md", "report.html"}
    assert {path.name for path in (compared.out / "figures").iterdir()} == {
        "single-vs-all.svg",
        "predictions.svg",
        "zero-shot.svg",
        "fine-tune.svg",
    }


def test_the_page_needs_nothing_from_elsewhere(html):
    found = Page(html)
    assert "script" not in found.tags
    assert "link" not in found.tags
    assert "img" not in found.tags
    for tag, name, value in found.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("src", "href", "xlink:href"):
            assert value.startswith("#") or value in DOWNLOADS, (tag, value)
    assert not re.search(r"url\((?!#)", html)
    assert "default-src 'none'" in html


def test_the_page_is_well_formed_and_its_ids_are_unique(html):
    found = Page(html)
    used = [name for name in found.ids if not re.fullmatch(r"[mpC][0-9a-f_]+", name)]
    assert len(used) == len(set(used))
    assert {"table-2", "table-3", "table-4", "methods"} <= set(found.ids)
    targets = [value for _, name, value in found.attributes if name == "href"]
    within = {target[1:] for target in targets if target.startswith("#")}
    assert within <= set(found.ids)
    assert {target for target in targets if target[0] != "#"} == set(DOWNLOADS)


def test_every_picture_says_what_it_shows(html):
    found = Page(html)
    labels = [value for tag, name, value in found.attributes if name == "aria-label"]
    assert found.tags.count("figure") == found.tags.count("figcaption") == 4
    assert any(label.startswith("Dots with intervals") for label in labels)
    assert any(label.startswith("Matrix of rho") for label in labels)
    assert any(label.startswith("Curves of rho") for label in labels)
    assert any(label.startswith("Scatter of predicted") for label in labels)


def test_names_are_shown_and_never_obeyed(compared, html, hostile):
    assert hostile in Page(html).text
    assert "<img src=x" not in html
    text = (compared.out / "report.md").read_text()
    assert "<img" not in re.sub(r"\\<", "", text)
    assert escape(hostile) in text
    for path in (compared.out / "figures").iterdir():
        root = ElementTree.fromstring(path.read_text())
        tags = {element.tag.split("}")[1] for element in root.iter()}
        assert tags <= {"svg", "defs", "style", "g", "path", "use", "text", "clipPath",
                        "rect", "tspan"}  # fmt: skip


def test_findings_notes_and_numbers_stand_in_page_and_markdown(compared, html):
    text = Page(html).text.replace("\N{MINUS SIGN}", "-")
    markdown_text = (compared.out / "report.md").read_text()
    for report in compared.reports:
        for words in (*report["findings"], *map(sentence, report["notes"])):
            assert words in text
            assert escape(words) in markdown_text
    average = compared.reports[0]["rows"][0]["average"]["fisher_z"]
    assert number(average) in text
    assert number(average) in markdown_text


def test_what_all_experiments_share_is_said_once(compared, html):
    reports = [result.report for result in compared.results]
    (shared,) = [note for note in shared_notes(reports) if "length" in note]
    assert Page(html).text.count(sentence(shared)) == 1
    assert shared in section_of(compared.results[0]).notes
    assert shared_notes(reports[:1]) == ()


def test_numbers_csv_holds_every_number(compared):
    lines = table_of(compared.out / "numbers.csv")

    def value(**wanted):
        (line,) = [
            line
            for line in lines
            if all(line[name] == text for name, text in wanted.items())
        ]
        return float(line["value"])

    single = compared.reports[0]["rows"][1]
    cell = single["per_action"]["diving"]
    place = {"experiment": "single-vs-all", "row": single["name"], "column": "diving"}
    assert value(**place, statistic="mean") == cell["mean"]
    assert value(**place, statistic="spearman", seed="1") == cell["spearman"][1]
    assert value(**place, statistic="ci95 low") == cell["ci95"][0]
    assert value(**place, statistic="rl2_x100", seed="0") == cell["rl2_x100"][0]
    place["column"] = "average"
    average = single["average"]
    assert value(**place, statistic="fisher_z") == average["fisher_z"]
    high = average["ci95"]["arithmetic"][1]
    assert value(**place, statistic="ci95.arithmetic high") == high
    row = compared.reports[2]["rows"][0]
    place = {
        "experiment": "fine-tune",
        "row": row["init"],
        "column": f"{row['action']} n={row['n_train']}",
    }
    iteration, rho = row["curve"][1]
    place |= {"statistic": "mean at iteration", "iteration": str(iteration)}
    assert value(**place) == rho
    claim = compared.reports[1]["claims"][0]
    place = {"experiment": "zero-shot", "row": "multi-action minus random"}
    found = claim["average"]["fisher_z"]["probability"]
    place["statistic"] = "fisher_z.probability"
    assert value(**place, column="average") == found
    floor = compared.reports[1]["floor"]["pooled_action_mean"]
    assert value(experiment="zero-shot", row="floor") == floor
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
    row = compared.reports[1]["rows"][1]
    assert line.entries[0].text.startswith("(")
    cells = row["per_action"].items()
    unseen = [cell["kendall_mean"] for action, cell in cells if action != "diving"]
    mean = sum(unseen) / len(unseen)
    assert float(line.entries[-1].text) == pytest.approx(mean, abs=6e-3)
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
    looks = {(pen.marker, pen.hollow) for pen in pens}
    assert len(looks) == len(rows)


def test_each_caches_provenance_is_shown(compared, html):
    for text in (Page(html).text, (compared.out / "report.md").read_text()):
        assert '"features": "c3d"' in text
        assert '"features": "pose-dct"' in text


def test_predictions_csv_has_every_prediction(compared, hostile):
    chosen = [
        line
        for line in table_of(compared.out / "predictions.csv")
        if (line["experiment"], line["row"], line["column"], line["seed"])
        == ("single-vs-all", "all-action LSTM", hostile, "1")
    ]
    assert len(chosen) == 7
    assert all(line["key"].startswith(hostile) for line in chosen)
    assert len({line["key"] for line in chosen}) == 7


def test_the_terminal_table_fits_eighty_columns(compared, hostile):
    screen = io.StringIO()
    print_results(
        compared.results,
        Console(file=screen, width=80, force_terminal=True, color_system=None),
    )
    text = screen.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "Diving" in text
    head = text.partition("\N{BOX DRAWINGS LIGHT HORIZONTAL}")[0]
    assert "n=8" in head and "(n" not in head
    assert "single-action SVR" in text
    assert "Note: not the paper's length" in text


def test_a_terminal_table_needs_no_drawing_library():
    code = "import sys, aqa.regress.report.write; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_one_report_stands_alone_and_several_lie_in_a_list(compared):
    reports = [result.report for result in compared.results]
    assert joined(reports[:1]) == compared.reports[0]
    assert joined(reports)["reports"] == compared.reports


def test_tables_for_papers_are_latex(compared, hostile):
    text = (compared.out / "tables.tex").read_text()
    assert text.count(r"\begin{tabular}") == text.count(r"\bottomrule") == 10
    assert r"\textbf{" in text and r"{\tiny [" in text and " sd 0." in text
    assert r"\textless{}img src=x onerror=alert(1)\textgreater{} \& \$x\_1\$" in text
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert lines and all(line.count(" & ") >= 1 for line in lines)
    vile = Table("x", r"\input{/etc/passwd} 5% #1 ~^", "", ("a",), ())
    shown = latex([vile])
    assert r"\textbackslash{}input\{/etc/passwd\} 5\% \#1" in shown


def test_the_wide_csv_has_a_line_per_cell(compared):
    lines = table_of(compared.out / "table.csv")
    row = compared.reports[0]["rows"][1]
    [line] = [
        line
        for line in lines
        if (line["experiment"], line["row"], line["column"])
        == ("single-vs-all", row["name"], "diving")
    ]
    cell = row["per_action"]["diving"]
    assert float(line["rho"]) == cell["mean"] and int(line["n"]) == cell["n_test"]
    assert [float(line["low"]), float(line["high"])] == cell["ci95"]
    tuned = [line for line in lines if line["experiment"] == "fine-tune"]
    assert len(tuned) == len(compared.reports[2]["rows"])


def test_a_table_in_a_file_is_as_wide_as_its_names_need(compared):
    screen = io.StringIO()
    print_results(compared.results[:1], Console(file=screen))
    text = screen.getvalue()
    assert "\N{HORIZONTAL ELLIPSIS}" not in text and "\x1b" not in text
    for row in compared.reports[0]["rows"]:
        assert f"\n {row['name']} " in text or f"\n{row['name']} " in text


def test_each_experiment_keeps_a_report_of_its_own(compared, tmp_path):
    config = replace(compared.config, seeds=1, average_offsets=False)
    for name in ("single-vs-all", "zero-shot"):
        compare(compared.cache, [name], config, tmp_path)
    for name in ("single-vs-all", "zero-shot"):
        kept = json.loads((tmp_path / name / "report.json").read_text())
        assert kept["experiment"] == name
        assert (tmp_path / name / "report.html").is_file()
    latest = json.loads((tmp_path / "report.json").read_text())
    assert latest["experiment"] == "zero-shot"
    assert not (tmp_path / "zero-shot" / "heads").exists()


def test_numbers_as_text():
    assert number(0.12345) == "0.123"
    assert number(-0.0004) == "0.000"
    assert number(None) == number(float("nan")) == "undefined"
    assert number(0.5, "{:+.3f}") == "+0.500"


def test_a_table_as_markdown():
    table = Table(
        "name",
        "title",
        "",
        ("a|b", "c"),
        (
            Line("ours", (Entry("0.5", ("[0.1, 0.9]",), strong=True), Entry("0.4"))),
            Line("paper", (Entry("0.6"), Entry("")), paper=True),
        ),
        ("a *note*",),
    )
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

    write_report(compared.results[:1], tmp_path, strips=strips)
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
    result = compared.results[0]
    text = page([result.report], [section_of(result)], run)
    assert "<h1>Action quality: squats</h1>" in text
    assert "<dd>aqa compare all</dd>" in text and "<dd>2026-01-02</dd>" in text
