"""What a folder was commissioned to hold, so that a stopped rendering goes on.

Conventions: `commission.json` in the folder of a set is written first and says what
makes its bytes; whatever is found beside one that says the same was rendered by it.
"""

import json
from pathlib import Path
from typing import Any

from aqa.cache.errors import AqaError
from aqa.cache.replacement import make_folder, replacing

NAME = "commission.json"


def commission(root: Path, **order: Any) -> None:
    """Give `root` to one set; AqaError if another set, or anything else, is there."""
    paper = root / NAME
    text = json.dumps(order, sort_keys=True) + "\n"
    if paper.exists():
        if (found := paper.read_text(encoding="utf-8")) != text:
            raise AqaError(
                f"{root} holds another set already, made as {found.strip()}; asked for "
                f"is {text.strip()}: remove it or name another folder"
            )
        return
    if root.exists() and any(root.iterdir()):
        raise AqaError(f"{root} holds something else already: name another folder")
    make_folder(root)
    with replacing(paper) as descriptor, open(descriptor, "w", closefd=False) as file:
        file.write(text)
