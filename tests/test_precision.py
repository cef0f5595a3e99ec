"""What is said to run is what runs, and what cannot run is refused."""

import pytest
import torch

from aqa.cache.errors import AqaError
from aqa.cache.processes import choose_device
from aqa.extract.network import arithmetic, choose_precision, precision_note

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def gpus(monkeypatch):
    """Pretend to `count` GPUs, old or new."""

    def pretend(count, bf16=True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda emulated: bf16)

    return pretend


def test_auto_takes_a_gpu_where_there_is_one(gpus):
    gpus(0)
    assert choose_device("auto") == CPU
    gpus(2)
    assert choose_device("auto") == CUDA
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize("name", ["cuda:2", "cuda", "mps", "meta", "gpu", ""])
def test_a_device_that_is_not_there_is_refused(gpus, name):
    gpus(0 if name == "cuda" else 2)
    with pytest.raises(AqaError, match="^device:"):
        choose_device(name)


def test_auto_is_fp32_on_cpu_and_half_of_that_on_cuda(gpus):
    assert choose_precision("auto", CPU) == "fp32"
    gpus(1)
    assert choose_precision("auto", CUDA) == "bf16"
    gpus(1, bf16=False)
    assert choose_precision("auto", CUDA) == "fp16"
    assert choose_precision("tf32", CUDA) == "tf32"


@pytest.mark.parametrize("name", ["tf32", "fp16", "int8"])
def test_a_precision_that_the_device_lacks_is_refused(name):
    with pytest.raises(AqaError, match="fp32 or bf16 on cpu"):
        choose_precision(name, CPU)


def test_slow_bf16_is_remarked_on(monkeypatch):
    able = {"avx2": True, "avx512_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert "fp32 is much faster" in precision_note("bf16", CPU)
    assert precision_note("fp32", CPU) is None
    able["avx512_bf16"] = True
    assert precision_note("bf16", CPU) is None


def settings():
    conv = torch.backends.cudnn.conv.fp32_precision
    return conv, torch.backends.cuda.matmul.fp32_precision


@pytest.mark.parametrize(
    ("precision", "products"), [("fp32", "ieee"), ("tf32", "tf32"), ("bf16", "ieee")]
)
def test_cuda_rounds_products_only_where_asked(precision, products):
    before = settings()
    with pytest.raises(ZeroDivisionError), arithmetic(precision):
        assert settings() == (products, products)
        assert torch.backends.cudnn.deterministic
        raise ZeroDivisionError
    assert settings() == before
    assert not torch.backends.cudnn.deterministic
