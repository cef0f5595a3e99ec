"""The experiments of the paper, run together: study, tasks, train, evaluate, write.

Conventions: an experiment says which heads it needs and judges them once they are
trained; it knows nothing of the others. What two of them need is trained once. Heads
are kept in `heads` beside the report, so that a run that was stopped goes on and a
second one is instant. Progress counts what heads cost, in iterations of an LSTM.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, cast

from aqa.cache.console import Progress, silent
from aqa.cache.errors import AqaError
from aqa.regress.config import CompareConfig
from aqa.regress.experiments import ALL, EXPERIMENTS
from aqa.regress.experiments.result import Result
from aqa.regress.experiments.rows import Needs, Trained
from aqa.regress.experiments.study import Study, open_others, open_study, variants_of
from aqa.regress.heads.trials import trainer_of
from aqa.regress.report.write import Run, Strips, write_report


class Experiment(Protocol):
    """What a module of `EXPERIMENTS` provides."""

    def needs(self, studies: Sequence[Study]) -> Needs:
        """Yield the tasks of all heads; raise `AqaError` if impossible."""

    def evaluate(self, studies: Sequence[Study], trained: Trained) -> Result:
        """Judge them; the first study is the cache itself."""


def compare(
    cache: Path,
    experiments: Sequence[str],
    config: CompareConfig,
    out: Path,
    progress: Progress = silent,
    *,
    also: Sequence[Path] = (),
    command: str = "",
    strips: Strips | None = None,
) -> list[Result]:
    """Run experiments ("all": every one) and write their report into `out`.

    `command` is shown in the report. `also` names caches of the same samples with other
    features; they give further rows to single-vs-all. `strips` decodes frames of the
    videos that the report shows. Raises `AqaError` where an experiment is impossible,
    before anything is trained.
    """
    names = _names(experiments)
    if also and "single-vs-all" not in names:
        raise AqaError("further caches give rows to single-vs-all alone")
    chosen = [cast(Experiment, import_module(EXPERIMENTS[name])) for name in names]

    study = open_study(cache, config)
    studies = [study, *variants_of(study), *open_others(study, cache, also)]
    tasks = chain.from_iterable(experiment.needs(studies) for experiment in chosen)
    trained = train(studies, tasks, out / "heads", progress)
    results = [experiment.evaluate(studies, trained) for experiment in chosen]
    run = Run(data_name(cache), command, date.today().isoformat())
    write_report(results, out, run, strips)
    return results


def data_name(cache: Path) -> str:
    """Return what a report calls its data: the cache's name, or its folder's."""
    path = cache.resolve()
    return path.parent.name if path.stem == "features" else path.stem


def train(
    studies: Sequence[Study], tasks: Needs, store: Path, progress: Progress
) -> Trained:
    """Train every head once, or take it from the store: those of a kind together."""
    features = {study.cache: study.features for study in studies}
    needed: defaultdict[tuple[str, str], dict[Any, None]] = defaultdict(dict)
    for study, task in tasks:
        needed[study.cache, task.kind][task] = None
    work = {group: sum(task.cost for task in each) for group, each in needed.items()}
    total, done = sum(work.values()), 0
    outcomes = {}
    for (cache, head), each in needed.items():
        share = work[cache, head]
        outcomes[cache, head] = trainer_of(head).train_tasks(
            features[cache],
            list(each),
            studies[0].config,
            store,
            _part(progress, done, share, total),
        )
        done += share
    return Trained(outcomes)


def _names(asked: Sequence[str]) -> list[str]:
    """Return the experiments asked for, once each, in the order of the paper."""
    unknown = set(asked) - {*EXPERIMENTS, ALL}
    if unknown or not asked:
        raise AqaError(
            f"experiments: expected {', '.join((*EXPERIMENTS, ALL))}; "
            f"found {', '.join(sorted(unknown)) or 'none'}"
        )
    return [name for name in EXPERIMENTS if name in asked or ALL in asked]


def _part(progress: Progress, start: float, share: float, total: float) -> Progress:
    """Show progress of a part of the work as progress of the whole."""

    def show(done: float, of: float, label: str) -> None:
        progress(start + share * (done / of if of else 1), total, label)

    return show
