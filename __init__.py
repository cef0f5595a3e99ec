"""aqa: action quality assessment from cached video features.

    import aqa

    aqa.extract("AQA-7", weights="c3d.safetensors", cache="features.h5")
    cache = aqa.open_cache("features.h5")
    report = aqa.fit("features.h5", out="models")
    aqa.load_model(report.models[0]).predict(cache.features[:3], "diving")

Public names are listed in `__all__` and documented in `aqa.api`. `import aqa` alone
imports nothing heavy: each name is imported when it is first used. `aqa.extract` is a
package and may be called: as `aqa.api.extract`.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import aqa.extract as _extract_package

if TYPE_CHECKING:
    from aqa.api import compare, fit, load_model, open_cache, score
    from aqa.cache.errors import AqaError
    from aqa.regress.heads.estimators import LSTMRegressor, SVRRegressor

__version__ = "0.1.0"

#: Public names and the modules that define them.
_PUBLIC = {
    "AqaError": "aqa.cache.errors",
    "LSTMRegressor": "aqa.regress.heads.estimators",
    "SVRRegressor": "aqa.regress.heads.estimators",
    "compare": "aqa.api",
    "fit": "aqa.api",
    "load_model": "aqa.api",
    "open_cache": "aqa.api",
    "score": "aqa.api",
}

__all__ = [
    "AqaError",
    "LSTMRegressor",
    "SVRRegressor",
    "compare",
    "extract",
    "fit",
    "load_model",
    "open_cache",
    "score",
]


class _ExtractPackage(ModuleType):
    """The package `aqa.extract`, callable: the name belongs to both."""

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        """See `aqa.api.extract`."""
        from aqa.api import extract

        return extract(*arguments, **settings)


_extract_package.__class__ = _ExtractPackage
extract = _extract_package


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'aqa' has no attribute {name!r}")
    value = getattr(import_module(_PUBLIC[name]), name)
    setattr(sys.modules[__name__], name, value)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
