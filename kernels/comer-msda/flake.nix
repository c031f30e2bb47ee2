# The build for the Hub, with nix: all CUDA versions and processors, for Linux as old as manylinux_2_28.
{
  description = "Multi-scale deformable attention of ViT-CoMer and Deformable DETR, for CPU and CUDA";

  inputs.kernel-builder.url = "github:huggingface/kernels";

  outputs =
    { self, kernel-builder }:
    kernel-builder.lib.genKernelFlakeOutputs {
      inherit self;
      path = ./.;
    };
}
