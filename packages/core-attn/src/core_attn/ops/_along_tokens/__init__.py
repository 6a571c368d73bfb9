"""C kernels of the operators that walk along the tokens: wkv, lif, pluecker_mean."""
