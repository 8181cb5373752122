"""Times of the CUDA kernels on an H100, predicted from their machine code; needs no GPU."""
