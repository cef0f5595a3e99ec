"""The repository root is the package: guard what that could ship or hide."""

import ast
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("cache", "extract", "regress")

#: The house's arrows: what each package may import of aqa.
ALLOWED = {
    "cache": {"cache"},
    "extract": {"extract", "cache"},
    "regress": {"regress", "cache"},
}


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module


def modules():
    return [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]


def test_root_holds_no_stray_modules():
    assert {path.name for path in ROOT.glob("*.py")} == {
        "__init__.py",
        "__main__.py",
        "api.py",
        "cli.py",
    }


def test_setup_cfg_names_every_package():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    inits = [path for path in modules() if path.name == "__init__.py"]
    folders = [path.parent.relative_to(ROOT).parts for path in inits]
    found = {".".join(("aqa", *folder)) for folder in folders}
    assert set(config["options"]["packages"].split()) == {"aqa"} | found


def test_imports_point_one_way():
    for path in modules():
        package = path.relative_to(ROOT).parts[0]
        for name in imported_modules(path):
            if name.startswith("aqa."):  # `aqa` itself holds the version alone
                target = name.split(".")[1]
                assert target in ALLOWED[package], f"{path} imports {name}"


def test_only_the_cache_imports_h5py():
    for path in [*modules(), *ROOT.glob("*.py")]:
        if path.parent.name != "cache":
            roots = {name.split(".")[0] for name in imported_modules(path)}
            assert "h5py" not in roots, path
