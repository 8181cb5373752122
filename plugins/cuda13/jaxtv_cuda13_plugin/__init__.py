"""The module `_cuda`: CUDA 13 kernels, which jaxtv loads."""
