"""LSTM head: one layer, last hidden state to one output, gradients written out.

`LstmHead`, `fit_heads` and `read_head` are what `base` asks of a kind of head,
`task_of`, `train_tasks` and `predict_rows` what `trials` asks of one that trains its
heads together; the training itself is in `workers` and `lstm_training`.

Conventions: M heads side by side on a leading axis, each with its own batch. Inputs
are float32 (M, T, B, D), time steps (clips) before batch; hidden and cell states start
at zero. Gates lie in the order output, input, forget, candidate along the 4H axis, so
that the three sigmoid gates are adjacent, and so are the three that the gradient of
the cell enters. One bias per gate (PyTorch keeps two, of which only the sum acts). An
output is `hidden @ v + c`, in scaled labels.

`mask` (M, T, B) is 1 for real clips and 0 for padding, which comes before the first
real clip: it closes the input gate, so that states stay zero and padding contributes
to no gradient.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aqa.cache.console import Progress
from aqa.cache.errors import AqaError
from aqa.regress.config import FitConfig, LstmConfig, TrainingConfig
from aqa.regress.data import FeatureSet, Floats, Rows
from aqa.regress.heads.base import (
    Clips,
    Head,
    Part,
    axis_length,
    check_arrays,
    check_width,
)
from aqa.regress.heads.tasks import HeadTask, TrainedHead, action_groups

#: Arrays of one head by name: w_x (D, 4H), w_h (H, 4H), b (4H,), v (H,), c (); with
#: standardised inputs also x_mean (D,) and x_std (D,).
Arrays = Mapping[str, NDArray[np.float32]]

#: Sequences that are predicted at once.
CHUNK = 512

#: (dy, y) -> dy (1 - y^2), for y a tanh.
tanh_backward = torch.ops.aten.tanh_backward.grad_input


def _of_amd() -> bool:
    """Return whether the processor is one of AMD, as far as can be told."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return "AuthenticAMD" in file.read(1000)
    except OSError:
        return False


#: MKL's product, torch's default, uses half the vector width on processors of AMD,
#: where oneDNN's is faster; on those of Intel, oneDNN's takes up to twice as long.
USES_ONEDNN = _of_amd() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@dataclass(frozen=True)
class Parameters:
    """The trained weights of M heads, or gradients of the same shapes."""

    w_x: Tensor  # (M, D, 4H)
    w_h: Tensor  # (M, H, 4H)
    b: Tensor  # (M, 4H)
    v: Tensor  # (M, H)
    c: Tensor  # (M,)

    def tensors(self) -> list[Tensor]:
        """Return the five tensors in the order of their declaration."""
        return [self.w_x, self.w_h, self.b, self.v, self.c]


@dataclass(frozen=True)
class Tape:
    """Activations of the forward pass that the backward pass needs, (M, T, B, ...)."""

    gates: Tensor  # after sigmoid or tanh, (..., 4H)
    cells: Tensor
    squashed: Tensor  # tanh of the cells
    hidden: Tensor


def initial_parameters(
    features: int, config: LstmConfig, generator: np.random.Generator
) -> dict[str, NDArray[np.float32]]:
    """Return one untrained head: Gaussian weights, zero biases (paper, section 5)."""

    def gaussian(*shape: int) -> NDArray[np.float32]:
        values = generator.standard_normal(shape, dtype=np.float32)
        return values * np.float32(config.init_std)

    hidden = config.hidden
    return {
        "w_x": gaussian(features, 4 * hidden),
        "w_h": gaussian(hidden, 4 * hidden),
        "b": np.zeros(4 * hidden, np.float32),
        "v": gaussian(hidden),
        "c": np.zeros((), np.float32),
    }


def forward(
    parameters: Parameters,
    x: Tensor,
    products: str = "fp32",
    mask: Tensor | None = None,
) -> tuple[Tensor, Tape]:
    """Return the outputs after every step (M, T, B), and the tape.

    x: (M, T, B, D). One product takes the inputs of all steps through `w_x`; with
    `products` "bf16" its factors and its result are rounded to bfloat16.
    """
    models, steps, batch, _ = x.shape
    hidden = parameters.w_h.shape[1]
    gates = _product(x.flatten(1, 2), parameters.w_x, products)
    gates = gates.add_(parameters.b[:, None]).view(models, steps, batch, 4 * hidden)
    cells, squashed, states = x.new_empty(3, models, steps, batch, hidden)
    for t in range(steps):
        gate, cell, state = gates[:, t], cells[:, t], states[:, t]
        if t > 0:
            gate += _product(states[:, t - 1], parameters.w_h)
        gate[..., : 3 * hidden].sigmoid_()
        o, i, f, g = gate.chunk(4, -1)
        g.tanh_()
        if mask is not None:
            i *= mask[:, t, :, None]
        torch.mul(i, g, out=cell)
        if t > 0:
            cell.addcmul_(f, cells[:, t - 1])
        torch.mul(o, torch.tanh(cell, out=squashed[:, t]), out=state)
    outputs = torch.baddbmm(  # (M, T * B, H) -> (M, T * B, 1)
        parameters.c[:, None, None], states.flatten(1, 2), parameters.v[..., None]
    )
    tape = Tape(gates, cells, squashed, states)
    return outputs.view(models, steps, batch), tape


def backward(
    parameters: Parameters,
    x: Tensor,
    tape: Tape,
    error: Tensor,
    products: str = "fp32",
) -> Parameters:
    """Return the gradients of a loss.

    error: (M, T, B), the derivative of the loss by the output after each step. A
    masked step needs no treatment of its own: its input gate and its states are zero.
    """
    hidden = parameters.w_h.shape[1]
    models, steps, batch, _ = x.shape
    o, i, f, g = tape.gates.chunk(4, -1)
    # Derivatives of the hidden state (o) or the cell (i, f, g) by each gate's input,
    # and of the hidden state by the cell, for all steps at once.
    d_gates = torch.empty_like(tape.gates)
    d_o, d_i, d_f, d_g = d_gates.chunk(4, -1)
    sigmoids = tape.gates[..., : 3 * hidden]
    torch.mul(sigmoids, 1 - sigmoids, out=d_gates[..., : 3 * hidden])
    d_o *= tape.squashed
    d_i *= g
    d_f[:, 0] = 0
    d_f[:, 1:] *= tape.cells[:, :-1]
    tanh_backward(i, g, grad_input=d_g)
    through = torch.empty_like(tape.cells)
    tanh_backward(o, tape.squashed, grad_input=through)

    # Multiply by the error in place, last step first.
    d_hidden = error[..., None] * parameters.v[:, None, None]
    w_h_back = parameters.w_h.transpose(1, 2)
    d_cell = torch.zeros_like(through[:, 0])
    for t in reversed(range(steps)):
        of_hidden, of_gates = d_hidden[:, t], d_gates[:, t]
        if t + 1 < steps:
            of_hidden += _product(d_gates[:, t + 1], w_h_back)
        d_cell.addcmul_(of_hidden, through[:, t])
        of_gates[..., :hidden] *= of_hidden
        of_cell = of_gates[..., hidden:].view(models, batch, 3, hidden)
        of_cell *= d_cell[..., None, :]
        d_cell *= f[:, t]

    flat = d_gates.flatten(1, 2)  # (M, T, B, 4H) -> (M, T * B, 4H)
    states = tape.hidden.flatten(1, 2).transpose(1, 2)
    earlier = tape.hidden[:, :-1].flatten(1, 2).transpose(1, 2)
    return Parameters(
        w_x=_product(x.flatten(1, 2).transpose(1, 2), flat, products),
        w_h=_product(earlier, d_gates[:, 1:].flatten(1, 2)),
        b=flat.sum(1),
        v=torch.bmm(states, error.flatten(1)[..., None])[..., 0],
        c=error.flatten(1).sum(1),
    )


def _product(a: Tensor, b: Tensor, products: str = "fp32") -> Tensor:
    """Return a @ b per head, (M, r, k) and (M, k, c) -> (M, r, c)."""
    if products == "bf16":
        return torch.bmm(a.bfloat16(), b.bfloat16()).float()
    if USES_ONEDNN and len(a) == 1 and a.device.type == "cpu" and a.numel():
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            a[0], b[0].t(), None, "none", [], ""
        )
        return product[None]
    return torch.bmm(a, b)


def stacked(heads: Sequence[Arrays], device: torch.device | str = "cpu") -> Parameters:
    """Stack heads of one shape on a device."""
    return Parameters(
        *(
            torch.from_numpy(np.stack([head[name] for head in heads])).to(device)
            for name in Parameters.__dataclass_fields__
        )
    )


def arrays(parameters: Parameters, head: int) -> dict[str, NDArray[np.float32]]:
    """Copy one of the heads to NumPy."""
    names = Parameters.__dataclass_fields__
    tensors = parameters.tensors()
    return {
        n: t[head].cpu().numpy().copy() for n, t in zip(names, tensors, strict=True)
    }


def real_clips(counts: NDArray[np.integer], clips: int) -> NDArray[np.float32]:
    """Return the mask (n, clips) of samples with `counts` (n,) clips at the end."""
    return (np.arange(clips) >= clips - counts[:, None]).astype(np.float32)


def outputs(
    parameters: Arrays, x: Tensor, clips: NDArray[np.int32] | None = None
) -> NDArray[np.float32]:
    """Return the output after each clip (n, T) for sequences x (n, T, D) on a device.

    `clips` (n,) counts the real clips of each sequence; None: all are real.
    """
    head = stacked([parameters], x.device)
    parts = [np.empty((0, x.shape[1]), np.float32)]
    for start in range(0, len(x), CHUNK):
        steps = x[start : start + CHUNK].transpose(0, 1)[None].contiguous()
        if "x_mean" in parameters:
            mean, std = (
                torch.from_numpy(parameters[name]).to(x.device)
                for name in ("x_mean", "x_std")
            )
            steps = (steps - mean) / std
        mask = None
        if clips is not None:
            real = real_clips(clips[start : start + CHUNK], x.shape[1])
            mask = torch.from_numpy(real.T).to(x.device)[None]
        parts.append(forward(head, steps, mask=mask)[0][0].T.cpu().numpy())
    return np.concatenate(parts)


def course(
    parameters: Arrays,
    x: NDArray[np.float32],
    clips: NDArray[np.int32] | None = None,
) -> NDArray[np.float32]:
    """Return the prediction after each clip, (n, clips, D) -> (n, clips), scaled.

    Raises `AqaError` for features of another shape.
    """
    check_width(x, len(parameters["w_x"]))
    return outputs(parameters, torch.from_numpy(np.ascontiguousarray(x)), clips)


def predict(
    parameters: Arrays,
    x: NDArray[np.float32],
    clips: NDArray[np.int32] | None = None,
) -> NDArray[np.float32]:
    """Return the prediction after the last clip, (n, clips, D) -> (n,), scaled."""
    return course(parameters, x, clips)[:, -1]


@dataclass(frozen=True, eq=False)
class LstmHead(Head):
    """One trained LSTM; `parameters` as in `Arrays`."""

    kind = "lstm"
    parameters: Arrays

    def predict(self, x: NDArray[np.float32], clips: Clips = None) -> Floats:
        """Return the prediction after the last clip (n,)."""
        return np.asarray(predict(self.parameters, x, clips), np.float64)

    def course(self, x: NDArray[np.float32], clips: Clips = None) -> Floats:
        """Return the prediction after each clip (n, clips)."""
        return np.asarray(course(self.parameters, x, clips), np.float64)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the parameters."""
        return dict(self.parameters)


def fit_heads(
    features: FeatureSet,
    parts: Sequence[Part],
    config: FitConfig,
    store: Path,
    progress: Progress,
) -> list[Head]:
    """Train one LSTM per part; finished ones are taken from `store`."""
    tasks = [task_of(features, part, part.rows, config) for part in parts]
    trained = train_tasks(features, tasks, config, store, progress)
    return [LstmHead(trained[task].parameters) for task in tasks]


def task_of(features: FeatureSet, part: Part, _: Rows, config: FitConfig) -> HeadTask:
    """Return the task of a head that learns a part, whatever it is tried on."""
    return HeadTask(
        name=part.name,
        rows=tuple(part.rows.tolist()),
        targets=tuple(part.labels.tolist()),
        seed=config.first_seed,
        schedule=config.schedule.scaled(config.scale),
        labels=config.labels,
        loss=config.loss,
        groups=action_groups(features, part.rows, config.loss),
        standardise=config.standardises(features.kind),
    )


def train_tasks(
    features: FeatureSet,
    tasks: Sequence[HeadTask],
    config: TrainingConfig,
    store: Path,
    progress: Progress,
) -> Mapping[HeadTask, TrainedHead]:
    """Train all tasks together; see `workers.train_heads`."""
    from aqa.regress.heads.workers import train_heads  # which imports this module

    return train_heads(
        features,
        tasks,
        lstm=config.lstm,
        device=config.device,
        workers=config.workers,
        store=store,
        progress=progress,
    )


def predict_rows(
    features: FeatureSet,
    _: HeadTask,
    trained: TrainedHead,
    rows: Rows,
    copies: int = 1,
) -> Floats:
    """Return scaled predictions (n,) for any rows, the mean of copies."""
    head, clips = LstmHead(trained.parameters), features.clips_of(rows)
    found = [head.predict(features.x[rows, copy], clips) for copy in range(copies)]
    return np.asarray(np.mean(found, axis=0))


def read_head(arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> LstmHead:
    """Make the head of a model file."""
    width = axis_length(arrays, "w_x", 0)
    hidden = axis_length(arrays, "v", 0)
    shapes: dict[str, tuple[int, ...]] = {
        "w_x": (width, 4 * hidden),
        "w_h": (hidden, 4 * hidden),
        "b": (4 * hidden,),
        "v": (hidden,),
        "c": (),
    }
    if "x_mean" in arrays:
        shapes |= {"x_mean": (width,), "x_std": (width,)}
    check_arrays(arrays, {name: (shape, "float32") for name, shape in shapes.items()})
    if "x_std" in arrays and not (arrays["x_std"] > 0).all():
        raise AqaError("x_std: a standard deviation is above 0")
    return LstmHead(arrays)
