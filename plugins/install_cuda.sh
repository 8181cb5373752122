#!/usr/bin/env bash
# nvcc and the CUDA runtime of a version such as 12.9, into an image of manylinux (for cibuildwheel).
set -euo pipefail
version=${1/./-}
case $(uname -m) in x86_64) arch=x86_64 ;; aarch64) arch=sbsa ;; esac
dnf install -y 'dnf-command(config-manager)'
dnf config-manager --add-repo "https://developer.download.nvidia.com/compute/cuda/repos/rhel8/$arch/cuda-rhel8.repo"
dnf install -y "cuda-nvcc-$version" "cuda-cudart-devel-$version" "cuda-cccl-$version"
