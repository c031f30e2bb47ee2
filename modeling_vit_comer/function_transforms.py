"""The transforms of `torch.func` that the model's operators do not know."""

import torch


def refuse_transforms(pixel_values: torch.Tensor) -> None:
    """Refuse what would end inside some operator; of all transforms `vmap` over stacked weights alone works.

    Raises:
        NotImplementedError: the model is called inside `torch.func.grad`, `vjp`, `jvp` or what is made of these, or
            `vmap` runs over the images.
    """
    if torch.compiler.is_compiling():
        return
    transform = torch._C._functorch.peek_interpreter_stack()
    if transform is None:
        return
    is_vmap = transform.key() == torch._C._functorch.TransformType.Vmap
    if not is_vmap or torch._C._functorch.is_batchedtensor(pixel_values):
        names = "vmap over images" if is_vmap else "grad, vjp, jvp, jacrev, jacfwd and hessian"
        raise NotImplementedError(
            f"torch.func's {names} cannot go through the deformable attention. For gradients use loss.backward() or "
            "torch.autograd.grad, for many images their batch dimension; torch.func.functional_call and vmap over "
            "stacked weights work."
        )
