"""One attention core: operators, kernels, taps, layers and training."""
