"""The LSTM head against torch's own layer and autograd."""

import numpy as np
import pytest
import torch

from aqa.cache.errors import AqaError
from aqa.regress.config import LstmConfig
from aqa.regress.heads import lstm
from aqa.regress.heads.lstm import (
    Parameters,
    arrays,
    backward,
    course,
    forward,
    initial_parameters,
    predict,
)

MODELS, STEPS, BATCH, WIDTH, HIDDEN = 3, 5, 4, 7, 6


@pytest.fixture
def parameters():
    shapes = (WIDTH, 4 * HIDDEN), (HIDDEN, 4 * HIDDEN), (4 * HIDDEN,), (HIDDEN,), ()
    return Parameters(*(torch.randn(MODELS, *shape) / 2 for shape in shapes))


@pytest.fixture
def x():
    return torch.randn(MODELS, STEPS, BATCH, WIDTH)


def torch_outputs(parameters, x, model):
    """The same head made of torch.nn.LSTM, whose gates lie as i, f, g, o."""

    def as_torch(tensor):
        o, i, f, g = tensor.chunk(4, -1)
        return torch.cat([i, f, g, o], -1)

    layer = torch.nn.LSTM(WIDTH, HIDDEN)
    with torch.no_grad():
        layer.weight_ih_l0.copy_(as_torch(parameters.w_x[model]).T)
        layer.weight_hh_l0.copy_(as_torch(parameters.w_h[model]).T)
        layer.bias_ih_l0.copy_(as_torch(parameters.b[model]))
        layer.bias_hh_l0.zero_()
        hidden, _ = layer(x[model])
    return hidden @ parameters.v[model] + parameters.c[model]


def literal_outputs(parameters, x):
    """One step after the other, with operations that autograd follows."""
    hidden = cell = torch.zeros(len(x), BATCH, HIDDEN)
    outputs = []
    for step in range(x.shape[1]):
        gates = x[:, step] @ parameters.w_x + hidden @ parameters.w_h
        o, i, f, g = (gates + parameters.b[:, None]).chunk(4, -1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        output = (hidden @ parameters.v[..., None])[..., 0]
        outputs.append(output + parameters.c[:, None])
    return torch.stack(outputs, 1)


def test_forward_is_torchs_lstm(parameters, x):
    outputs, _ = forward(parameters, x)
    for model in range(MODELS):
        expected = torch_outputs(parameters, x, model)
        torch.testing.assert_close(outputs[model], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps", [1, STEPS])
@pytest.mark.parametrize("models, onednn", [(1, False), (1, True), (MODELS, True)])
@pytest.mark.parametrize("last_only", [True, False])
def test_gradients_are_autograds(
    parameters, x, last_only, models, onednn, steps, monkeypatch
):
    """One head alone takes oneDNN's products on some processors."""
    if onednn and not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this torch is built without oneDNN")
    monkeypatch.setattr(lstm, "USES_ONEDNN", onednn)
    parameters = Parameters(*(t[:models] for t in parameters.tensors()))
    x = x[:models, :steps]
    error = torch.randn(models, steps, BATCH)
    if last_only:
        error[:, :-1] = 0
    leaves = Parameters(*(t.clone().requires_grad_() for t in parameters.tensors()))
    (literal_outputs(leaves, x) * error).sum().backward()

    found = backward(parameters, x, forward(parameters, x)[1], error)
    for ours, leaf in zip(found.tensors(), leaves.tensors(), strict=True):
        torch.testing.assert_close(ours, leaf.grad, rtol=1e-5, atol=1e-5)


def test_narrow_products_round_and_no_more(parameters, x):
    """bfloat16 has 8 significant bits, so a product's terms are off by 2^-8."""
    error = torch.randn(MODELS, STEPS, BATCH)
    gradients = []
    for products in ("fp32", "bf16"):
        outputs, tape = forward(parameters, x, products)
        into = backward(parameters, x, tape, error, products)
        gradients.append((outputs, into.w_x))
    for wide, narrow in zip(*gradients, strict=True):
        assert 0 < (wide - narrow).abs().max() < 0.05 * wide.abs().max()


def test_padding_in_front_is_as_if_it_were_not_there(parameters, x):
    """Outputs and gradients of 5 steps with 2 masked are those of the last 3."""
    mask = torch.ones(MODELS, STEPS, BATCH)
    mask[:, :2] = 0
    error = torch.randn(MODELS, STEPS, BATCH)
    error[:, :2] = 0
    both = []
    for inputs, wrong, masked in ((x, error, mask), (x[:, 2:], error[:, 2:], None)):
        outputs, tape = forward(parameters, inputs, mask=masked)
        into = backward(parameters, inputs, tape, wrong)
        both.append([outputs[:, -3:], *into.tensors()])
    for padded, cut in zip(*both, strict=True):
        torch.testing.assert_close(padded, cut, rtol=1e-5, atol=1e-6)


def test_clip_counts_and_standardisation_in_prediction(parameters, x):
    head = arrays(parameters, 1)
    clips = x[1].transpose(0, 1).numpy()  # (4, 5, D)
    mean, std = np.arange(WIDTH, dtype=np.float32), np.full(WIDTH, 2, np.float32)
    scaled = {**head, "x_mean": mean, "x_std": std}
    found = predict(scaled, clips, np.array([5, 3, 1, 5], np.int32))
    for place, count in enumerate((5, 3, 1, 5)):
        alone = predict(head, (clips[place : place + 1, -count:] - mean) / std)
        np.testing.assert_allclose(found[place], alone[0], rtol=1e-4)


def test_course_ends_in_the_prediction(parameters, x):
    head = arrays(parameters, 1)
    clips = x[1].transpose(0, 1).numpy()  # (n, clips, D)
    found = course(head, clips)
    expected = torch_outputs(parameters, x, 1).T.numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert np.array_equal(predict(head, clips), found[:, -1])
    assert predict(head, clips[:0]).shape == (0,)


def test_features_of_another_width_are_refused(parameters, x):
    head = arrays(parameters, 0)
    with pytest.raises(AqaError, match=r"\(videos, clips, 7\); found \(4, 5, 3\)"):
        predict(head, np.zeros((4, 5, 3), np.float32))


def test_initial_weights_are_gaussian_and_biases_zero():
    head = initial_parameters(300, LstmConfig(hidden=64), np.random.default_rng(1))
    assert head["w_x"].std() == pytest.approx(0.1, rel=0.02)
    assert head["w_h"].std() == pytest.approx(0.1, rel=0.02)
    assert abs(head["w_x"].mean()) < 0.002
    assert head["v"].shape == (64,) and head["v"].any()
    assert not head["b"].any() and head["c"] == 0
