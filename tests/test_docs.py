"""The documents are part of the product: every command and code block in them runs.

Conventions: a fenced block marked `sh` holds commands, one marked `python` holds code;
both run in order, page by page, in a folder that holds what the pages speak of (see
`world`). Options that make a run long are replaced by short ones. A block that cannot
run here follows a line `<!-- not run: REASON -->`; one whose output is only shown has
no language.
"""

import re
import runpy
import shlex
import shutil
from pathlib import Path

import click
import nbformat
import numpy as np
import pytest
from click.testing import CliRunner
from fakes import encode, noise
from nbclient import NotebookClient

import aqa
from aqa.cli import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text("utf-8") for page in PAGES}
#: Values of options in the short form; an option given without one here is kept.
SHORT = {
    "--iterations": "20",
    "--seeds": "1",
    "--scale": "0.01",
    "--fewest": "7",
    "--hidden": "8",
    "--folds": "2",
    "--batch": "2",
}
#: What Python code is replaced by: two clips of each video, in place of six.
SHORT_CODE = 'weights="tiny"', 'weights="tiny", length=37'
#: Commands for which the short form adds options that the page leaves out.
ADDED = {
    "fit": ["--iterations", "20", "--config", "fit.toml"],
    "compare": ["--iterations", "20", "--config", "compare.toml"],
    "synth": ["--scale", "0.001", "--fewest", "7", "--actions", "diving,gym_vault"],
    "extract": ["--length", "37"],
}


def commands(group, path=("aqa",)):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands(main))


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_help_and_is_documented(name):
    command = COMMANDS[name]
    assert command.help, f"{name} has no help"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts[0]} has no help"
    assert any(re.search(rf"\b{name}\b", text) for text in TEXTS.values()), name


@pytest.mark.parametrize("page", TEXTS)
def test_page_names_no_command_that_is_not_there(page):
    said = set(re.findall(r"^aqa ([a-z][a-z ]*[a-z])(?= |$)", TEXTS[page], re.M))
    said |= set(re.findall(r"`aqa ([a-z]+(?: [a-z]+)?)", TEXTS[page]))
    known = {name.removeprefix("aqa ") for name in COMMANDS}
    groups = {name.split()[0] for name in known if " " in name}
    for words in said:
        first = words.split()[0]
        assert first in known or first in groups, words
        if first in groups and " " in words:
            assert " ".join(words.split()[:2]) in known, words


@pytest.mark.parametrize("page", TEXTS)
def test_relative_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", TEXTS[page]):
        if not re.match(r"[a-z]+:", target):
            assert (ROOT / page).parent.joinpath(target).exists(), target


def test_readme_is_short_and_gives_the_two_commands():
    readme = TEXTS["README.md"]
    assert "make demo" in readme
    assert "make test" in readme
    assert len(readme.splitlines()) <= 150


def test_changelog_speaks_of_this_version():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {aqa.__version__}" in changelog


def test_every_test_that_reliability_names_exists():
    text = (ROOT / "RELIABILITY.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+\.py)(?:::(\w+))?`", text)
    assert named
    for file, test in named:
        source = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert not test or f"def {test}(" in source, f"{file}::{test}"


def blocks(text):
    """Yield (language, code) of each fenced block that runs."""
    pattern = r"(?:<!-- (not run: [^>]+?) -->\n+)?^```(sh|python)\n(.*?)^```$"
    for skipped, language, code in re.findall(pattern, text, re.M | re.S):
        if not skipped:
            yield language, code


def shortened(words):
    """Return a command's arguments in their short form."""
    words = list(words)
    for place, word in enumerate(words[:-1]):
        words[place + 1] = SHORT.get(word, words[place + 1])
    added = ADDED.get(words[0], []) if "--features" not in words else []
    for option, value in zip(added[::2], added[1::2], strict=True):
        if option not in words:
            words += [option, value]
    return words


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A folder with all that the pages speak of, small.

    AQA-7 (rendered, in the release's layout) and its poses, c3d.safetensors, videos
    and a list of squats, features and a list of an import, one video jump.mp4.
    """
    folder = tmp_path_factory.mktemp("world")

    def run(*words):
        done = CliRunner().invoke(main, [str(word) for word in words])
        assert done.exit_code == 0, done.output

    run("synth", folder, *ADDED["synth"])
    poses = folder / "AQA-7" / "poses"
    if poses.is_dir():
        shutil.copytree(poses, folder / "poses")
    run("weights", "convert", "tiny", folder / "c3d.safetensors")
    rows = ["video,action,score,split,person"]
    for number in range(1, 9):
        encode(folder / "squats" / f"{number:02}.mp4", noise(40, seed=number), "mpeg4")
        split = "train" if number < 6 else "test"
        rows.append(f"squats/{number:02}.mp4,squat,{number},{split},p{number % 3}")
    labels = [f"squats/{number:02}.mp4,{number + 0.5}" for number in range(1, 3)]
    (folder / "labels.csv").write_text("\n".join(["key,score", *labels]) + "\n")
    (folder / "squats.csv").write_text("\n".join(rows) + "\n")
    rng = np.random.default_rng(0)
    rows = ["key,action,score,split,file"]
    (folder / "i3d").mkdir()
    for number in range(1, 17):
        x = rng.normal(size=(6, 32)).astype(np.float32)
        np.save(folder / "i3d" / f"{number:02}.npy", x)
        split = "train" if number < 11 else "test"
        score = 50 + 10 * x[:, 0].mean()
        rows.append(f"{number:02},squats,{score:.2f},{split},i3d/{number:02}.npy")
    (folder / "i3d.csv").write_text("\n".join(rows) + "\n")
    (folder / "recordings").mkdir()
    rows = ["key,action,score,split,file"]
    for number in range(1, 17):
        table = rng.normal(size=(90, 4)).cumsum(0)
        np.savetxt(folder / "recordings" / f"{number:02}.txt", table)
        split = "train" if number < 11 else "test"
        rows.append(f"{number:02},suturing,{number},{split},recordings/{number:02}.txt")
    (folder / "recordings.csv").write_text("\n".join(rows) + "\n")
    encode(folder / "jump.mp4", noise(110), "mpeg4")
    svr = '[svr]\nkernels = ["linear"]\ncosts = [1.0]\nepsilons = [0.1]\nfolds = 2\n'
    (folder / "fit.toml").write_text(f"calibration_folds = 2\n{svr}")
    (folder / "compare.toml").write_text(f"untrained = 2\nbootstrap = 100\n{svr}")
    return folder


def run_example(script, *words, code=0):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [script, *words])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / script), run_name="__main__")
    assert (ended.value.code or 0) == code


def test_paths_are_described_by_mean_deviation_change_and_seconds(tmp_path):
    """Two parts of a recording by hand: x is 0 1 4 and 4 4, y is 1 throughout."""
    (tmp_path / "a.txt").write_text("x1, y1\n0,1\n1,1\n4,1\n4,1\n4,1\n")
    (tmp_path / "b.txt").write_text("0.0 1\n1 1\n4 1\n4 1\n4 1\n")
    numbered = "0;1\n0;1,0\n1;1\n4;1\n4;1\n4;1\n"  # as pandas and Excel write
    (tmp_path / "c.txt").write_text(numbered)
    rows = "key,action,score,split,file\nt/a,tie,3,train,a.txt\nt/b,tie,4,test,b.txt\n"
    (tmp_path / "list.csv").write_text(rows)
    out = tmp_path / "out"
    run_example(
        "examples/paths.py",
        *(str(tmp_path / "list.csv"), str(out), "--parts", "2", "--rate", "10"),
    )
    first = [5 / 3, 1, np.std([0, 1, 4]), 0, 2, 0, 0.3]
    second = [4, 1, 0, 0, 0, 0, 0.2]
    (tmp_path / "more.csv").write_text("key;file\nt/c;c.txt\n", encoding="utf-16")
    other = tmp_path / "other"
    options = ("--parts", "2", "--rate", "10", "--header")
    run_example("examples/paths.py", str(tmp_path / "more.csv"), str(other), *options)
    for path in (out / "t" / "a.npy", out / "t" / "b.npy", other / "t" / "c.npy"):
        np.testing.assert_allclose(np.load(path), [first, second], rtol=1e-6)
    assert (other / "list.csv").read_text().split() == ["key,file", "t/c,t/c.npy"]
    words = ["cache", "import", str(out / "list.csv"), "--name", "paths", "--cache"]
    done = CliRunner().invoke(main, [*words, str(tmp_path / "f.h5")])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("nan 1\n1 1\n4 1\n4 1\n", "line 1: expected 2 finite numbers"),
        ("NA,\n1,1\n4,1\n4,1\n4,1\n", "line 1: expected 2 finite numbers"),
        ("x,y\n,1\n4,1\n4,1\n4,1\n4,1\n", "line 2: expected 2 finite numbers"),
        ("1 1\n#4 1\n4 1\n4 1\n4 1\n", "line 2: expected 2 finite numbers"),
        ("x 1\n4 1\n4 1\n4 1\n4 1\n", "line 1: expected 2 finite numbers"),
        (",x\n0,1\n1,1\n2,1\n3,1\n", "expected a name for each column"),
        ("0,1\n1,1\n4,1\n4,1\n4,1\n", "'0,1' may be names or numbers: pass --header"),
        ("0.0 1\n1\n4 1\n4 1\n", "line 2: expected 2 finite numbers"),
        ("\n1,5\n2,5\n3,5\n", "found 3 rows"),
        ("x y\n1,5\n2,5\n3,5\n", "line 2: expected 2 finite numbers, found '1,5'"),
        ("knee\n1,5\n2,5\n3,5\n", "line 2: expected 1 finite numbers, found '1,5'"),
        ("\udcff\ufffd", "expected a text in UTF-8"),
        ("x,y\n", "found 0 rows"),
        ("", "found 0 rows"),
    ],
)
def test_a_recording_that_is_no_table_of_numbers_is_named(
    table, reason, tmp_path, capsys
):
    (tmp_path / "a.txt").write_text(table, errors="surrogateescape")
    listed, out = tmp_path / "list.csv", tmp_path / "out"
    listed.write_text("key,action,score,split,file\na,tie,3,train,a.txt\n")
    run_example("examples/paths.py", str(listed), str(out), "--parts", "2", code=1)
    said = capsys.readouterr().err
    assert "a.txt" in said and reason in said and not out.exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("key,score\na,1\n", "lacks file; expected 'key,file,action,score,split'"),
        ("key,file\na,b.txt\n", "b.txt: expected a text in UTF-8: [Errno 2]"),
        ("key,file\n", "expected one recording per row, found no rows"),
        ("", "lacks key, file"),
        ("key,file\n../a,a.txt\n", "'../a' is not normalised or leads outside"),
        ("key,file\na,a.txt\na,a.txt\n", "line 3: key 'a' is there twice"),
    ],
)
def test_a_list_that_cannot_be_used_is_an_error(text, reason, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("x y\n" + "4 1\n" * 4)
    listed, out = tmp_path / "list.csv", tmp_path / "deep" / "out"
    listed.write_text(text)
    run_example("examples/paths.py", str(listed), str(out), "--parts", "2", code=1)
    assert reason in capsys.readouterr().err and not out.parent.exists()
    listed.write_text("key,file\na,a.txt\n")
    words = ("examples/paths.py", str(listed), str(tmp_path), "--parts", "2")
    run_example(*words, code=1)  # OUT/list.csv is LIST
    assert "is an input, and would be replaced" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in TEXTS if any(blocks(TEXTS[p]))])
def test_blocks_of_a_page_run(page, world, tmp_path, monkeypatch):
    folder = tmp_path / "page"
    shutil.copytree(world, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    names = {}
    for language, code in blocks(TEXTS[page]):
        if language == "python":
            exec(compile(code.replace(*SHORT_CODE), page, "exec"), names)
            continue
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if not words or words[0] in ("git", "cd", "make", "pip"):
                continue
            if words[0] == "python":
                run_example(*words[1:])
                continue
            assert words[0] == "aqa", line
            done = CliRunner().invoke(main, shortened(words[1:]))
            assert done.exit_code == 0, f"{line}\n{done.output}"


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path):
    notebook = nbformat.read(ROOT / "docs" / "tutorial.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "clear the outputs"
    for cell in notebook.cells:
        source = cell.source.replace("fewest=8", "fewest=5")
        cell.source = source.replace(*SHORT_CODE)
    NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": tmp_path}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    text = "".join(output.get("text", "") for output in outputs)
    assert "(20, 6, 2, 256) c3d-tiny" in text
    assert text.count("judges") == 4
    assert any("image/png" in output.get("data", {}) for output in outputs)
