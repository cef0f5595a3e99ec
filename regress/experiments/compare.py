"""The paper's experiments, run together: what two of them need is made once.

Conventions: an experiment lists the heads it needs, judges them once they are trained,
and knows nothing of the others. All heads of all experiments are one batch of work.
They are kept in `heads` beside the report, so that a run that was stopped goes on and
a second one is instant. Progress counts head-iterations; an SVR counts as
`SVR_WORTH` of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from aqa.cache.console import Progress, silent
from aqa.cache.errors import AqaError
from aqa.regress.config import CompareConfig
from aqa.regress.experiments import fine_tune, single_vs_all, zero_shot
from aqa.regress.experiments.result import Result, strict
from aqa.regress.experiments.single_vs_all import fit_svrs, has_course
from aqa.regress.experiments.study import Heads, Study, open_study, unique
from aqa.regress.heads.tasks import HeadTask
from aqa.regress.heads.workers import train_heads
from aqa.regress.report.write import write_report

#: What each experiment needs, in the order of the paper.
NEEDS: dict[str, Callable[[Study], list[HeadTask]]] = {
    single_vs_all.NAME: single_vs_all.tasks,
    zero_shot.NAME: zero_shot.tasks,
    fine_tune.NAME: fine_tune.tasks,
}
ALL = "all"

#: About how many iterations of an LSTM head take as long as one SVR.
SVR_WORTH = 300
#: Samples that a refusal names.
MOST_NAMED = 3


def compare(
    cache: Path,
    experiments: Sequence[str],
    config: CompareConfig,
    out: Path,
    progress: Progress = silent,
    *,
    also: Sequence[Path] = (),
) -> list[dict[str, Any]]:
    """Run experiments ("all": every one) and write their report into `out`.

    `also` names caches of the same samples with other features; they give further
    rows to single-vs-all. Returns each experiment's report.json object. Raises
    `AqaError` where an experiment cannot be had, before anything is trained.
    """
    _check(config)
    names = _names(experiments)
    single = single_vs_all.NAME in names
    if also and not single:
        raise AqaError(f"further caches give rows to {single_vs_all.NAME} alone")
    study = open_study(cache, config)
    others = _open_others(study, cache, also)
    tasks = {"": unique(task for name in names for task in NEEDS[name](study))}
    for label, other in others.items():
        if has_course(other):
            tasks[label] = single_vs_all.tasks(other)
    svr_tasks = single_vs_all.svr_tasks(study, others) if single else []

    total = sum(map(_iterations, tasks.values())) + SVR_WORTH * len(svr_tasks)
    heads: dict[str, Heads] = {}
    done = 0
    for label, needed in tasks.items():
        of = others.get(label, study)
        heads[label] = train_heads(
            of.features,
            of.targets,
            needed,
            lstm=config.lstm,
            device=config.device,
            workers=config.workers,
            store=out / "heads",
            progress=_part(progress, done, _iterations(needed), total),
        )
        done += _iterations(needed)
    svrs = fit_svrs(
        svr_tasks, out / "heads", _part(progress, done, total - done, total)
    )
    judges: dict[str, Callable[[Study, Heads], Result]] = {
        single_vs_all.NAME: partial(
            single_vs_all.evaluate, svrs=svrs, also=others, also_heads=heads
        ),
        zero_shot.NAME: zero_shot.evaluate,
        fine_tune.NAME: fine_tune.evaluate,
    }
    results = [judges[name](study, heads[""]) for name in names]
    write_report(results, out)
    return [strict(result.report) for result in results]


def _check(config: CompareConfig) -> None:
    """Refuse numbers that no comparison can be made of."""
    for name in ("seeds", "bootstrap", "iterations"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise AqaError(f"{name}: expected at least 1, found {value}")


def _names(asked: Sequence[str]) -> list[str]:
    """The experiments asked for, once each, in the order of the paper."""
    unknown = set(asked) - {*NEEDS, ALL}
    if unknown or not asked:
        raise AqaError(
            f"experiments: expected {', '.join((*NEEDS, ALL))}; "
            f"found {', '.join(sorted(unknown)) or 'none'}"
        )
    return [name for name in NEEDS if name in asked or ALL in asked]


def _iterations(tasks: Sequence[HeadTask]) -> int:
    return sum(task.schedule.iterations for task in tasks)


def _part(progress: Progress, start: float, share: float, total: float) -> Progress:
    """Progress of a part of the work, as progress of the whole."""

    def show(done: float, of: float, label: str) -> None:
        progress(start + share * (done / of if of else 1), total, label)

    return show


def _open_others(study: Study, cache: Path, paths: Sequence[Path]) -> dict[str, Study]:
    """Further caches by a label for their rows: the features' kind, or the file."""
    others: dict[str, Study] = {}
    for path in paths:
        other = open_study(path, replace(study.config, actions=study.actions))
        _require_same_samples(study, cache, other, path)
        taken = {study.kind, *others}
        names = (other.kind, path.stem, str(path))
        free = [name for name in names if name not in taken]
        if not free:
            raise AqaError(f"{path}: given twice")
        others[free[0]] = other
    return others


def _require_same_samples(study: Study, cache: Path, other: Study, path: Path) -> None:
    """Refuse a cache whose samples, splits or scores are not those of the first."""
    listed, found = (
        {key: what for action in study.actions for key, *what in each.samples(action)}
        for each in (study, other)
    )
    differing = sorted(
        key for key in listed.keys() | found.keys() if listed.get(key) != found.get(key)
    )
    if differing:
        named = ", ".join(differing[:MOST_NAMED])
        raise AqaError(
            f"{path}: its samples are not those of {cache}: {len(differing)} are "
            f"missing in one or differ in split or score (first {named}); extract or "
            "relabel it from the same lists"
        )
