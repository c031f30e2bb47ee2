"""What the deformable attention runs on: the native kernel where one fits, else torch."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
from transformers.utils import logging


logger = logging.get_logger(__name__)

# Where `make kernel` builds. An installed wheel or a copy from the Hub has no such folder beside it.
LOCAL_KERNEL = Path(__file__).resolve().parents[1] / "kernels" / "comer-msda"
# The version of the operators' signatures, as in the kernel's build.toml.
KERNEL_VERSION = 1
OPERATORS = ("comer_msda", "multi_scale_deformable_attention")
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
MINIMUM_CUDA_CAPABILITY = (8, 0)

# The loaded kernel for each type of device it has code for. None: nobody has asked yet.
_kernels: dict[str, ModuleType] | None = None


def use_deformable_attention_kernel(kernel: str, trust_remote_code: bool = False) -> None:
    """Choose the implementation of the deformable attention, for all models of this process.

    Args:
        kernel: "auto", a local build (`make kernel`) where it fits, else torch: what runs if nobody chooses; "torch";
            the folder of a kernel; or the name of a kernel repository on the Hub, which is downloaded.
        trust_remote_code: run a Hub kernel of a publisher that the Hub does not list as trusted.

    Raises:
        ImportError: the `kernels` package is missing, or the kernel cannot be loaded by this torch.
        FileNotFoundError: the folder has no build for this machine and torch.
        ValueError: `kernel` is none of these, or is a kernel without our operators.
    """
    global _kernels
    if kernel == "auto":
        _kernels = find_local_kernel()
    elif kernel == "torch":
        _kernels = {}
    elif kernel and Path(kernel).is_dir():
        _kernels = load_folder(Path(kernel))
    elif kernel.count("/") == 1 and not kernel.startswith((".", "/", "~")):
        _kernels = load_from_hub(kernel, trust_remote_code)
    else:
        raise ValueError(
            f"kernel must be 'auto', 'torch', the folder of a kernel or a Hub id ('org/name'), got {kernel!r}. "
            "`make kernel` builds one."
        )
    names = ", ".join(f"comer_msda:{device_type}" for device_type in _kernels)
    logger.info(f"The deformable attention runs on {names or 'torch'} ({kernel!r} was asked for).")


def deformable_attention_backend(device: torch.device | str | None = None) -> str:
    """What runs now on `device` (the GPU if there is one): "torch", "comer_msda:cpu" or "comer_msda:cuda"."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    return "torch" if kernel_for(device, torch.float32) is None else f"comer_msda:{device.type}"


def kernel_for(device: torch.device, dtype: torch.dtype) -> ModuleType | None:
    """The kernel for values of this device and dtype, or None where torch has to do.

    An exported or traced graph gets the torch operators: it must run where our kernel is not.
    """
    kernel = loaded_kernels().get(device.type)
    if kernel is None or dtype not in DTYPES or is_exporting():
        return None
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < MINIMUM_CUDA_CAPABILITY:
        return None
    return kernel


def is_exporting() -> bool:
    """Whether a graph is made that will run elsewhere: by `torch.export`, or by `torch.jit.trace`, which TensorBoard
    and the older ONNX exporter use, too.

    `torch.compiler.is_exporting()` of torch 2.11 is also True under `torch.compile`.
    """
    return torch.compiler._is_exporting_flag or torch.jit.is_tracing()


def loaded_kernels() -> dict[str, ModuleType]:
    """The kernels by type of device. The first call chooses; layers make it before anything is traced."""
    if _kernels is None:
        use_deformable_attention_kernel("auto")
    return _kernels or {}


def find_local_kernel() -> dict[str, ModuleType]:
    if not (LOCAL_KERNEL / "build").is_dir():
        return {}
    try:
        return load_folder(LOCAL_KERNEL)
    except FileNotFoundError:
        logger.info(f"{LOCAL_KERNEL} has no build for this machine and torch; `make kernel` makes one.")
    except (ImportError, OSError, ValueError) as error:
        logger.warning(f"The kernel in {LOCAL_KERNEL} cannot be used, torch is used instead: {error}")
    return {}


def load_folder(folder: Path) -> dict[str, ModuleType]:
    """Load a kernel from its folder, its `build` folder or one variant's."""
    return load_variant(partial(import_kernels().get_local_kernel, folder))


def load_from_hub(name: str, trust_remote_code: bool) -> dict[str, ModuleType]:
    get_kernel = partial(import_kernels().get_kernel, version=KERNEL_VERSION, trust_remote_code=trust_remote_code)
    return load_variant(partial(get_kernel, name))


def load_variant(load: Callable[..., ModuleType]) -> dict[str, ModuleType]:
    """The build for this machine.

    A CUDA build of torch looks for a CUDA variant only, which carries the CPU code too; without one, the CPU's has to
    be asked for.
    """
    try:
        return by_device_type(load())
    except FileNotFoundError:
        return by_device_type(load(backend="cpu"))


def import_kernels() -> ModuleType:
    try:
        import kernels
    except ImportError as error:
        raise ImportError("Native kernels are loaded by the `kernels` package: pip install kernels") from error
    # From the root of our repository, without the package, `kernels` is the folder of that name.
    if not hasattr(kernels, "get_local_kernel"):
        raise ImportError("Native kernels are loaded by the `kernels` package: pip install kernels")
    return kernels


def by_device_type(kernel: ModuleType) -> dict[str, ModuleType]:
    missing = [name for name in OPERATORS if not hasattr(kernel, name)]
    if missing:
        raise ValueError(f"{kernel.__name__} is not a ViT-CoMer kernel: it has no {', '.join(missing)}.")
    return dict.fromkeys(kernel.DEVICE_TYPES, kernel)
