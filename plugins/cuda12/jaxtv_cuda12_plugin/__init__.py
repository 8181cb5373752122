"""The module `_cuda`: CUDA 12 kernels, which jaxtv loads."""
