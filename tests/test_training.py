"""Heads train as if alone, wherever they train; finished ones are not made again."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.preprocessing import StandardScaler

from aqa.cache.errors import AqaError
from aqa.regress.config import LstmConfig, Schedule
from aqa.regress.heads import lstm_training, tasks, workers
from aqa.regress.heads.lstm import initial_parameters, predict
from aqa.regress.heads.lstm_training import (
    Batch,
    TrainingDiverged,
    batch_order,
    rank_loss,
    train_side_by_side,
)
from aqa.regress.heads.tasks import HeadTask, action_groups
from aqa.regress.heads.workers import train_heads

LSTM = LstmConfig(hidden=6)
SCHEDULE = Schedule(iterations=25, step=10, batch=4)


@pytest.fixture
def features(make_features):
    return make_features()


@pytest.fixture
def targets(features):
    return features.score / 8


@pytest.fixture
def train(features, targets):
    """Train tasks on the features, here and with one thread unless told otherwise."""

    def run(*tasks, labels=targets, x=features, **options):
        options = {"lstm": LSTM, "device": "cpu", "workers": 1} | options
        tasks = [labelled(task, x, labels) for task in tasks]
        heads = train_heads(x, tasks, **options)
        return [heads[task] for task in tasks]

    return run


def task(name="head", seed=0, rows=tuple(range(8)), schedule=SCHEDULE, **more):
    more = {"targets": tuple(map(float, rows))} | more
    return HeadTask(name=name, rows=rows, seed=seed, schedule=schedule, **more)


def labelled(task, features, targets):
    """The task, and the one that it starts from, with these labels of its rows."""
    rows = list(task.rows)
    return replace(
        task,
        targets=tuple(targets[rows].tolist()),
        groups=action_groups(features, rows, task.loss),
        init=task.init and labelled(task.init, features, targets),
    )


def assert_same(a, b):
    """Bit for bit."""
    assert a.parameters.keys() == b.parameters.keys()
    for name in a.parameters:
        assert np.array_equal(a.parameters[name], b.parameters[name]), name
    assert np.array_equal(a.watched, b.watched)
    assert np.array_equal(a.loss, b.loss)
    assert a.iterations == b.iterations


class Literal(torch.nn.Module):
    """The head of torch's parts, which knows nothing of ours but the start."""

    def __init__(self, start):
        super().__init__()
        width, hidden = start["w_x"].shape[0], len(start["v"])
        self.layer = torch.nn.LSTM(width, hidden)
        self.output = torch.nn.Linear(hidden, 1)
        # torch keeps a second bias; ours is the first.
        self.layer.bias_hh_l0.requires_grad_(False).zero_()
        with torch.no_grad():
            self.layer.weight_ih_l0.copy_(self.gates(start["w_x"]).T)
            self.layer.weight_hh_l0.copy_(self.gates(start["w_h"]).T)
            self.layer.bias_ih_l0.zero_()
            self.output.weight.copy_(torch.from_numpy(start["v"]))
            self.output.bias.zero_()

    @staticmethod
    def gates(array):
        o, i, f, g = torch.from_numpy(array).chunk(4, -1)
        return torch.cat([i, f, g, o], -1)

    def forward(self, clips):  # (n, clips, D) -> (n, clips)
        return self.output(self.layer(clips.transpose(0, 1))[0])[..., 0].T


@pytest.mark.parametrize("labels", ["final", "incremental"])
def test_training_is_what_the_protocol_says(features, targets, train, labels):
    asked = task(labels=labels, watch=(8, 9))
    (head,) = train(asked)

    start = initial_parameters(10, LSTM, np.random.default_rng([0, 0]))
    model = Literal(start)
    trained = [p for p in model.parameters() if p.requires_grad]
    adam = torch.optim.Adam(trained, lr=0.001)
    part = torch.arange(1, 5) / 4
    for iteration, batch in enumerate(batch_order(asked, copies=3)):
        adam.param_groups[0]["lr"] = 0.001 * 0.5 ** (iteration // 10)
        rows, copies = batch // 3, batch % 3
        outputs = model(torch.from_numpy(features.x[rows, copies]))
        scores = torch.from_numpy(targets[rows].astype(np.float32))
        if labels == "final":
            loss = ((outputs[:, -1] - scores) ** 2).sum() / (2 * 4)
        else:
            loss = ((outputs - scores[:, None] * part) ** 2).sum() / (2 * 4 * 4)
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        expected = model(torch.from_numpy(features.x[[8, 9], 0]))[:, -1]
    np.testing.assert_allclose(head.watched[-1], expected, rtol=1e-4)
    np.testing.assert_allclose(
        Literal.gates(head.parameters["w_x"]).T,
        model.layer.weight_ih_l0.detach(),
        atol=1e-5,
    )


def test_standardised_inputs_are_scikit_learns(features, targets, train):
    """The head of standardised inputs equals the one of inputs scaled beforehand."""
    features.x[..., 5] = 3 * features.x[..., 5] + 7
    features.x[..., 6] = 2.5
    base = task(standardise=True, watch=(8, 9))
    heads = train(base, task("child", init=base, rows=(8, 9), standardise=True))
    clips = features.x[:8].reshape(-1, 10).astype(float)
    scaler = StandardScaler().fit(clips)
    np.testing.assert_allclose(heads[0].parameters["x_mean"], scaler.mean_, rtol=1e-6)
    np.testing.assert_allclose(heads[0].parameters["x_std"], scaler.scale_, rtol=1e-6)
    child = heads[1].parameters  # keeps the scaling of its start
    assert np.array_equal(child["x_mean"], heads[0].parameters["x_mean"])

    x = scaler.transform(features.x.reshape(-1, 10).astype(float))
    scaled = replace(features, x=x.reshape(features.x.shape).astype(np.float32))
    (other,) = train(task(watch=(8, 9)), x=scaled)
    np.testing.assert_allclose(heads[0].watched, other.watched, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("labels", ["final", "incremental"])
def test_samples_of_fewer_clips(features, targets, train, labels):
    """What stands in a masked clip has no influence, and rows may differ in length."""
    counts = np.full(14, 4, np.int32)
    counts[:3] = 2
    masked = replace(features, clips=counts)
    asked = task(labels=labels, standardise=True, watch=(0, 9))
    (head,) = train(asked, x=masked)
    features.x[:3, :, :2] = 77
    (again,) = train(asked, x=masked)
    assert_same(head, again)
    real = np.concatenate(
        [features.x[row, :, -counts[row] :].reshape(-1, 10) for row in range(8)]
    )
    np.testing.assert_allclose(head.parameters["x_mean"], real.mean(0), rtol=1e-5)

    # One step of training against autograd: batches of all lengths.
    start = initial_parameters(10, LSTM, np.random.default_rng([0, 0]))
    plain = task(labels=labels, schedule=replace(SCHEDULE, iterations=1))
    (head,) = train(plain, x=masked)
    model = Literal(start)
    loss = 0
    for sequence in batch_order(plain, copies=3)[0]:
        row, copy = sequence // 3, sequence % 3
        real = counts[row]
        made = model(torch.from_numpy(features.x[row : row + 1, copy, -real:]))[0]
        if labels == "final":
            loss = loss + (made[-1] - targets[row]) ** 2 / (2 * 4)
        else:
            part = torch.arange(1, real + 1) / real
            loss = loss + ((made - targets[row] * part) ** 2).sum() / (2 * 4 * real)
    assert head.loss[0] == pytest.approx(loss.item(), rel=1e-5)


def test_rank_loss_is_that_of_autograd():
    """Two actions; only pairs within one that differ in label count."""
    predicted = torch.randn(1, 1, 6, requires_grad=True)
    label = torch.tensor([3.0, 1.0, 2.0, 5.0, 5.0, 4.0])
    group = torch.tensor([0, 0, 0, 1, 1, 1])
    expected, pairs = 0, 0
    for i in range(6):
        for j in range(6):
            if group[i] == group[j] and label[i] > label[j]:
                gap = predicted[0, 0, i] - predicted[0, 0, j]
                expected, pairs = expected + torch.relu(1 - gap), pairs + 1
    assert pairs == 3 + 2
    (expected / pairs).backward()
    better = (label[:, None] > label) & (group[:, None] == group)
    batch = Batch(None, None, torch.full((1, 1, 1), 1 / 6), None, better[None])
    error, loss = rank_loss(predicted.detach(), batch)
    assert float(loss) == pytest.approx(expected.item() / pairs)
    torch.testing.assert_close(error, predicted.grad)


def test_ranking_needs_no_common_scale(make_features, train):
    """Labels of two actions on scales that do not compare give one ranking head."""
    features = make_features({"diving": 30, "luge": 30})
    targets = features.score.copy()
    targets[features.action == "luge"] = 900 + targets[features.action == "luge"] / 50
    rows = tuple(features.rows(split="train").tolist())
    schedule = Schedule(iterations=300, learning_rate=0.01, batch=12)
    asked = task(rows=rows, loss="rank", schedule=schedule, watch=rows)
    (head,) = train(asked, x=features, labels=targets)
    for action in ("diving", "luge"):
        own = features.action[list(rows)] == action
        made, truth = head.watched[-1][own], targets[list(rows)][own]
        assert spearmanr(made, truth).statistic > 0.9
    assert abs(head.watched[-1].mean()) < 50


def test_every_sequence_once_an_epoch():
    asked = task(rows=(3, 5, 9), schedule=replace(SCHEDULE, iterations=9, batch=4))
    order = batch_order(asked, copies=2).ravel()  # 36 places, epochs of 6
    for epoch in order.reshape(6, 6):
        assert sorted(epoch) == list(range(6))
    assert len({tuple(epoch) for epoch in order.reshape(6, 6)}) > 1
    assert not np.array_equal(order, batch_order(replace(asked, seed=1), 2).ravel())


def test_watched_rows_are_predicted_on_the_way(features, train):
    base = task()
    first, second = train(base, task("more", init=base, watch=(8, 9), watch_every=10))
    assert second.iterations == (0, 10, 20, 25)
    x = features.x[[8, 9], 0]
    np.testing.assert_allclose(second.watched[0], predict(first.parameters, x), 1e-5)
    np.testing.assert_allclose(second.watched[-1], predict(second.parameters, x), 1e-5)
    assert first.watched.shape == (0, 0) and len(first.loss) == 1


def test_columns_that_wake_up_later_are_seen(features, train):
    """A column dead in training keeps its weights, and counts in a prediction."""
    features.x[8:, ..., 3] = 5
    (head,) = train(task(watch=(8,)))
    start = initial_parameters(10, LSTM, np.random.default_rng([0, 0]))
    assert np.array_equal(head.parameters["w_x"][3], start["w_x"][3])
    expected = predict(head.parameters, features.x[8:9, 0])
    np.testing.assert_allclose(head.watched[-1], expected, 1e-5)


def test_no_iterations_give_the_head_as_drawn(features, train):
    none = replace(SCHEDULE, iterations=0)
    (head,) = train(task(seed=4, schedule=none, watch=(8,)))
    start = initial_parameters(10, LSTM, np.random.default_rng([4, 0]))
    for name, array in start.items():
        assert np.array_equal(head.parameters[name], array)
    assert head.iterations == (0,) and len(head.loss) == 0


def family():
    """Heads of several lengths, some of which start from others."""
    base = task("base", seed=3)
    short = replace(SCHEDULE, iterations=11)
    return [
        task("child", seed=1, rows=(8, 9), schedule=short, init=base, watch=(10, 11)),
        base,
        task("other", seed=2, rows=(1, 4, 6), watch=(0,), watch_every=5),
        task("grandchild", init=task("middle", init=base), labels="incremental"),
    ]


@pytest.mark.slow
def test_processes_give_the_bits_of_one_after_the_other(train, monkeypatch):
    here = train(*family())
    monkeypatch.setattr(workers, "WORTH_PROCESSES", 0)
    seen = []
    there = train(*family(), workers=2, progress=lambda *what: seen.append(what))
    for a, b in zip(here, there, strict=True):
        assert_same(a, b)
    total = 11 + 4 * 25
    assert seen[0] == (0, total, "0 of 5 heads of 4 seeds trained")
    assert seen[-1][0] == total
    assert "5 of 5 heads of 4 seeds trained" in seen[-1][2]
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)


def test_side_by_side_is_as_if_alone(features, targets, train):
    """What a GPU does, on the CPU: batched products instead of one head's."""
    tasks = [
        task("a", seed=1, watch=(8, 9)),
        task("b", seed=2, rows=(1, 4, 6), labels="incremental"),
        task("c", seed=1, rows=(0, 10, 11), watch=(3,), watch_every=7),
    ]
    alone = train(*tasks)
    together = train_side_by_side(
        torch.from_numpy(features.x),
        [labelled(t, features, targets) for t in tasks],
        [
            initial_parameters(10, LSTM, np.random.default_rng([t.seed, 0]))
            for t in tasks
        ],
        lambda iterations: None,
    )
    for a, b in zip(alone, together, strict=True):
        assert a.iterations == b.iterations
        np.testing.assert_allclose(a.watched, b.watched, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(a.loss, b.loss, rtol=1e-4)
        for name in a.parameters:
            np.testing.assert_allclose(
                a.parameters[name], b.parameters[name], atol=1e-5
            )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
@pytest.mark.parametrize("products", ["fp32", "bf16"])
def test_side_by_side_on_a_gpu_is_as_if_alone(train, products):
    lstm = replace(LSTM, products=products)
    together = train(*family(), device="cuda", lstm=lstm)
    # bf16 has 8 bits: batched products may round otherwise, and training goes on.
    near = 1e-5 if products == "fp32" else 2e-2
    for place, head in enumerate(together):
        alone = train(family()[place], device="cuda", lstm=lstm)[0]
        assert head.iterations == alone.iterations
        np.testing.assert_allclose(head.watched, alone.watched, atol=10 * near)
        for name in head.parameters:
            np.testing.assert_allclose(
                head.parameters[name], alone.parameters[name], atol=near
            )


@pytest.mark.parametrize("most", [1, 64])
def test_groups_that_train_together_on_a_gpu(train, monkeypatch, most):
    """Independent jobs of one schedule and loss, after those they start from."""
    alone = train(*family())
    groups = []
    real = workers.Trainer.train

    def note(trainer, jobs, advance):
        groups.append([job.task.name for job in jobs])
        real(trainer, jobs, advance)

    def on_gpu(jobs, trainer, features, processes, advance):
        workers._on_gpu(jobs, trainer, most, advance)

    monkeypatch.setattr(workers, "WORTH_PROCESSES", 0)
    monkeypatch.setattr(workers.Trainer, "train", note)
    monkeypatch.setattr(workers, "_in_processes", on_gpu)
    together = train(*family())
    first = [["base", "other"]] if most > 1 else [["base"], ["other"]]
    assert groups == [*first, ["child"], ["middle"], ["grandchild"]]
    for a, b in zip(alone, together, strict=True):
        for name in a.parameters:
            np.testing.assert_allclose(
                a.parameters[name], b.parameters[name], atol=1e-5
            )


def test_finished_heads_are_kept(train, tmp_path, monkeypatch):
    first = train(*family(), store=tmp_path)
    assert len(list(tmp_path.iterdir())) == 5

    def never(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(workers.Trainer, "train", never)
    seen = []
    again = train(*family(), store=tmp_path, progress=lambda *what: seen.append(what))
    for a, b in zip(first, again, strict=True):
        assert_same(a, b)
    # The head in the middle was not asked for, and is not looked for.
    assert seen == [(11 + 3 * 25, 11 + 3 * 25, "all heads stored")]
    (renamed,) = train(replace(family()[1], name="another name"), store=tmp_path)
    assert_same(renamed, first[1])


@pytest.mark.parametrize("loss", ["squared", "rank"])
def test_head_resumes_from_its_checkpoint_to_the_bit(
    train, tmp_path, monkeypatch, loss
):
    """Interrupted in the middle of a head: at most the time of a checkpoint is lost."""
    schedule = replace(SCHEDULE, iterations=250, step=120)
    asked = task(
        schedule=schedule, watch=(8,), watch_every=60, loss=loss, standardise=True
    )
    whole = train(asked)[0]
    monkeypatch.setattr(lstm_training, "CHECKPOINT_SECONDS", 0)

    def stop(done, total, label):
        if done >= 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(asked, store=tmp_path, progress=stop)
    (kept,) = tmp_path.iterdir()
    assert kept.suffix == ".checkpoint"
    seen = []
    again = train(asked, store=tmp_path, progress=lambda *what: seen.append(what))
    assert_same(again[0], whole)
    assert [done for done, _, _ in seen] == [0, 200, 250, 250]
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


def test_damaged_checkpoint_is_ignored(train, tmp_path, monkeypatch):
    monkeypatch.setattr(lstm_training, "CHECKPOINT_SECONDS", 0)
    asked = task(schedule=replace(SCHEDULE, iterations=150))

    def stop(done, total, label):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(asked, store=tmp_path, progress=stop)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:-9])
    assert_same(train(asked, store=tmp_path)[0], train(asked)[0])


def test_stored_heads_are_read_when_asked_for(features, targets, tmp_path):
    """Heads of a large comparison do not fit into memory together."""
    tasks = [labelled(task, features, targets) for task in family()]
    how = {"lstm": LSTM, "device": "cpu", "workers": 1}
    heads = train_heads(features, tasks, store=tmp_path, **how)
    assert list(heads) == tasks
    assert heads[tasks[1]] is not heads[tasks[1]]
    assert_same(heads[tasks[1]], heads[tasks[1]])
    kept = train_heads(features, tasks, **how)
    assert kept[tasks[1]] is kept[tasks[1]]


def test_run_that_was_stopped_goes_on(train, tmp_path):
    def stop(done, total, label):
        if label.startswith("2 of"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(*family(), store=tmp_path, progress=stop)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert len(kept) == 2 and all(name.endswith(".safetensors") for name in kept)
    for a, b in zip(train(*family(), store=tmp_path), train(*family()), strict=True):
        assert_same(a, b)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 9},
        {"rows": (0, 1), "targets": (1.0, 2.0)},
        {"labels": "incremental"},
        {"loss": "rank"},
        {"standardise": True},
        {"schedule": replace(SCHEDULE, gamma=0.4)},
        {"watch": (9,)},
        {"init": task()},
        {"keep_parameters": False},
    ],
)
def test_another_task_is_another_head(train, tmp_path, change):
    train(task(), store=tmp_path)
    train(replace(task(), **change), store=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_other_labels_settings_and_libraries_are_other_heads(
    targets, train, tmp_path, monkeypatch
):
    train(task(), store=tmp_path)
    untouched = targets.copy()
    untouched[8:] = np.nan  # no training row
    train(task(), labels=untouched, store=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    train(task(), labels=targets * 2, store=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    train(task(), lstm=replace(LSTM, init_std=0.2), store=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    monkeypatch.setattr(tasks, "version", lambda name: "0.1")  # of torch and NumPy
    train(task(), store=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def test_only_predictions_are_kept_where_asked(train, tmp_path):
    (head,) = train(task(watch=(8,), keep_parameters=False), store=tmp_path)
    assert head.parameters == {} and head.watched.shape == (2, 1)
    with pytest.raises(AqaError, match="a head that is not kept"):
        task("child", init=task(keep_parameters=False))


def test_divergence_stops_with_the_heads_name(features, train):
    features.x[2, 1, 1, 0] = np.nan
    with pytest.raises(TrainingDiverged, match="bad: training diverged, loss nan") as e:
        train(task("good", rows=(4, 5)), task("bad"))
    # A training process hands it over.
    again = pickle.loads(pickle.dumps(e.value))
    assert type(again) is TrainingDiverged and str(again) == str(e.value)


def test_loss_beyond_all_bounds_is_divergence(train):
    wild = replace(SCHEDULE, learning_rate=1e5, iterations=200)
    with pytest.raises(TrainingDiverged, match="lower the learning rate"):
        train(task(schedule=wild))


def _die(numbered):
    import os

    os._exit(9)


def test_process_that_dies_is_an_error(train, monkeypatch):
    monkeypatch.setattr(workers, "WORTH_PROCESSES", 0)
    monkeypatch.setattr(workers, "_train", _die)
    with pytest.raises(AqaError, match=r"^.: its process crashed \(exit code 9"):
        train(task("a"), task("b", seed=1), workers=2)


def test_impossible_trainings_are_refused(train):
    with pytest.raises(AqaError, match="head: no training rows"):
        task(rows=())
    for targets in ((1.0,) * 7, (1.0,) * 7 + (np.nan,)):
        with pytest.raises(AqaError, match="head: expected a label for each"):
            task(targets=targets)
    with pytest.raises(AqaError, match="head: expected a group for each"):
        task(groups=(0,) * 9)
    with pytest.raises(AqaError, match="products fp16: expected fp32 or bf16"):
        train(task(), lstm=replace(LSTM, products="fp16"))
    with pytest.raises(AqaError, match="^device:"):
        train(task(), device="meta")
