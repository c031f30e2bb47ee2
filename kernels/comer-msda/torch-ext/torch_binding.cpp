#include "torch_binding.h"

#include <torch/csrc/stable/library.h>

#include "registration.h"

using namespace comer_msda;

// Level sizes are SymInt: with plain int every image size would compile a graph of its own.
STABLE_TORCH_LIBRARY_EXPAND(TORCH_EXTENSION_NAME, ops) {
  ops.def("comer_msda(Tensor value, Tensor projection, SymInt[] level_sizes, int heads, int points) -> Tensor");
  ops.def(
      "comer_msda_backward(Tensor grad_output, Tensor value, Tensor projection, SymInt[] level_sizes, int heads, "
      "int points, bool deterministic) -> (Tensor, Tensor)");
  ops.def(
      "multi_scale_deformable_attention(Tensor value, Tensor sampling_locations, Tensor attention_weights, "
      "SymInt[] level_sizes) -> Tensor");
  ops.def(
      "multi_scale_deformable_attention_backward(Tensor grad_output, Tensor value, Tensor sampling_locations, "
      "Tensor attention_weights, SymInt[] level_sizes, bool deterministic) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL_EXPAND(TORCH_EXTENSION_NAME, CPU, ops) {
  ops.impl("comer_msda", TORCH_BOX(&fused_forward_cpu));
  ops.impl("comer_msda_backward", TORCH_BOX(&fused_backward_cpu));
  ops.impl("multi_scale_deformable_attention", TORCH_BOX(&classic_forward_cpu));
  ops.impl("multi_scale_deformable_attention_backward", TORCH_BOX(&classic_backward_cpu));
}

#if defined(CUDA_KERNEL)
STABLE_TORCH_LIBRARY_IMPL_EXPAND(TORCH_EXTENSION_NAME, CUDA, ops) {
  ops.impl("comer_msda", TORCH_BOX(&fused_forward_cuda));
  ops.impl("comer_msda_backward", TORCH_BOX(&fused_backward_cuda));
  ops.impl("multi_scale_deformable_attention", TORCH_BOX(&classic_forward_cuda));
  ops.impl("multi_scale_deformable_attention_backward", TORCH_BOX(&classic_backward_cuda));
}
#endif

REGISTER_EXTENSION(TORCH_EXTENSION_NAME)
