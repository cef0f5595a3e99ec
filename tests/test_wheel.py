"""What is shipped: the package's files, all of them, and nothing else."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("cache", "extract", "regress")
SHIPPED = {".py", ".jinja", ".json", ".mplstyle", ".safetensors"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build from a copy, so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    skipped = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "demo")
    shutil.copytree(ROOT, folder / "source", ignore=skipped)
    (folder / "source" / "scratch").mkdir()
    (folder / "source" / "scratch" / "notes.py").write_text("x = 1\n")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    made = subprocess.run(
        [*command, "--outdir", folder, folder / "source"],
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-2000:]
    (path,) = folder.glob("*.whl")
    return path


def package_files():
    files = {"aqa/py.typed", *(f"aqa/{path.name}" for path in ROOT.glob("*.py"))}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*"):
            if path.suffix in SHIPPED:
                files.add(f"aqa/{path.relative_to(ROOT).as_posix()}")
    return files


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith("LICENSE")]
    assert names == package_files()
    assert licences


@pytest.mark.slow
def test_the_wheel_works_where_there_is_no_checkout(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    script = (
        "import aqa.cache.store, aqa.extract.stage, aqa.cli\nprint(aqa.cli.__file__)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(str(tmp_path))
