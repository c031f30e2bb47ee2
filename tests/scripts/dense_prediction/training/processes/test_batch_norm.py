"""Two processes with a part of a batch each, against one process with all of it."""

from pathlib import Path

import torch
import torch.multiprocessing
from torch import distributed, nn

from dense_prediction.training.processes.batch_norm import CpuSyncBatchNorm, synchronize_batch_norms
from modeling_vit_comer.spatial_pyramid import PyramidBatchNorm


CPU = torch.device("cpu")
SPLIT = (1, 3)
"""Images of the first and of the second process."""


def build() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(PyramidBatchNorm(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    for module in (model[0], model[2]):
        nn.init.uniform_(module.weight)
        nn.init.uniform_(module.bias)
    return model


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Images far from zero, where a variance without care loses its digits; and weights of their loss."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 4, 3, 5, generator=generator) + 100, torch.randn(4, 4, 3, 5, generator=generator)


def step(model: nn.Module, images: torch.Tensor, weights: torch.Tensor) -> dict[str, torch.Tensor]:
    images.requires_grad_()
    output = model(images)
    (output * weights).sum().backward()
    gradients = {f"gradient of {name}": parameter.grad for name, parameter in model.named_parameters()}
    return {"output": output.detach(), "gradient": images.grad, **gradients, **model.state_dict()}


def one_process(rank: int, folder: Path) -> None:
    distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=len(SPLIT))
    model = synchronize_batch_norms(build(), CPU)
    found = step(model, *(tensor.split(SPLIT)[rank].clone() for tensor in batch()))
    nn.parallel.DistributedDataParallel(model)  # which refuses torch's own on the CPU
    model.eval()
    found["evaluation"] = model(batch()[0]).detach()
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_normalise_as_one(tmp_path: Path) -> None:
    model = build()
    expected = step(model, *batch())
    model.eval()
    expected["evaluation"] = model(batch()[0]).detach()
    torch.multiprocessing.spawn(one_process, (tmp_path,), len(SPLIT))
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(len(SPLIT)))
    for key, value in expected.items():
        if key in ("output", "gradient"):
            found = torch.cat([first[key], second[key]])
        elif key.startswith("gradient of"):
            found = first[key] + second[key]
        else:
            assert torch.equal(first[key], second[key]), key
            found = first[key]
        torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")


def test_names_and_weights_stay() -> None:
    model = build()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for device, kind in ((CPU, CpuSyncBatchNorm), (torch.device("meta"), nn.SyncBatchNorm)):
        converted = synchronize_batch_norms(build(), device)
        assert converted.state_dict().keys() == before.keys()
        assert all(torch.equal(value, before[key]) for key, value in converted.state_dict().items())
        norms = [module for module in converted.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        assert [type(norm) for norm in norms] == [kind, kind]
