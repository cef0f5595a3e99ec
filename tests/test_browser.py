"""The page in a real browser: it loads in silence and shows each table and picture."""

import json
import re
import shutil
import subprocess
from urllib.parse import unquote

import numpy as np
import pytest
from fakes import encode, noise

from aqa.regress.heads.model_file import Calibration
from aqa.regress.heads.scoring import Score, Scored
from aqa.regress.report.score_page import write_score_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--hide-scrollbars",
)

#: Measures the page from outside: the page's own policy forbids it any script.
PROBE = """<!doctype html><meta charset="utf-8"><title>probe</title>
<iframe id="page" src="report.html" style="border:0;width:{width}px;height:900px">
</iframe><pre id="found"></pre>
<script>
const box = (element) => {{
  const {{width, height}} = element.getBoundingClientRect();
  return [Math.round(width), Math.round(height)];
}};
document.getElementById("page").onload = () => {{
  const page = document.getElementById("page").contentDocument;
  const all = (selector) => [...page.querySelectorAll(selector)];
  all("details").forEach((element) => (element.open = true));
  document.getElementById("found").textContent = JSON.stringify({{
    tables: all("table").map((t) => [t.id, ...box(t), t.rows.length]),
    pictures: all("figure").map((f) => [f.id, ...box(f.querySelector("svg"))]),
    texts: all("figure svg text").length,
    overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth,
  }});
}};
</script>
"""


def run(profile, *arguments):
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, console


@pytest.fixture(scope="module", params=[1280, 375], ids=["desktop", "phone"])
def seen(request, compared, tmp_path_factory):
    """What the browser shows at a width, and what it says on its console."""
    folder = tmp_path_factory.mktemp("browser")
    shutil.copy(compared.out / "report.html", folder)
    probe = folder / "probe.html"
    probe.write_text(PROBE.format(width=request.param))
    arguments = ("--allow-file-access-from-files", "--virtual-time-budget=5000")
    dom, console = run(folder / "profile", *arguments, "--dump-dom", probe.as_uri())
    text = re.search(r'<pre id="found">(.*?)</pre>', dom, re.DOTALL).group(1)
    return json.loads(text), console


def test_the_page_loads_in_silence_and_shows_each_table_and_picture(seen):
    found, console = seen
    assert console == []
    tables = {name: rest for name, *rest in found["tables"]}
    assert {"table-2", "table-3", "table-4", "pooled"} <= set(tables)
    assert {"single-vs-all-claim-1", "zero-shot-kendall"} <= set(tables)
    for width, height, rows in tables.values():
        assert width > 150
        assert height > 15 * rows > 30
    pictures = {name: rest for name, *rest in found["pictures"]}
    names = ("single-vs-all", "predictions", "zero-shot", "fine-tune")
    assert set(pictures) == {f"picture-{name}" for name in names}
    for width, height in pictures.values():
        assert width >= 440
        assert height > 150
    assert found["texts"] > 100
    assert found["overflow"] == 0  # the page itself never scrolls sideways


def test_an_error_on_the_console_would_be_heard(compared, tmp_path):
    page = (compared.out / "report.html").read_text()
    broken = tmp_path / "broken.html"
    broken.write_text(page.replace("<main>", '<main><img src="http://[::1]:9/x.png">'))
    _, console = run(tmp_path / "profile", "--dump-dom", broken.as_uri())
    assert any("Content Security Policy" in line for line in console)


def test_the_page_of_scores_loads_in_silence_and_plays_from_a_second(tmp_path):
    video = encode(tmp_path / "a # [b].mp4", noise(30), "mpeg4")
    score = Score(
        "diving",
        45.2,
        Calibration(-2.0, 3.5, 0.9, 12, 3),
        course=(9.0, 7.0),
        changes=(9.0, -2.0),
        lost=(0.0, -2.0),
        seconds=((0.0, 0.6), (0.64, 1.2)),
    )
    strip = np.zeros((2, 112, 112, 3), np.uint8)
    page = write_score_page(tmp_path / "page.html", [Scored(video, score, strip)], {})
    dom, console = run(tmp_path / "profile", "--dump-dom", page.as_uri())
    assert console == []
    assert "most lost here" in dom and "held out in 3 folds" in dom
    (link,) = re.findall(r'href="([^"#]*)#t=0.64,1.20"', dom)
    assert (tmp_path / unquote(link)).is_file()
    picture = tmp_path / "page.png"
    run(tmp_path / "profile", f"--screenshot={picture}", page.as_uri())
    assert picture.stat().st_size > 5_000


def test_the_page_prints(compared, tmp_path):
    printed = tmp_path / "report.pdf"
    report = (compared.out / "report.html").as_uri()
    run(tmp_path / "profile", f"--print-to-pdf={printed}", report)
    assert printed.read_bytes().startswith(b"%PDF-")
    assert printed.stat().st_size > 20_000
