"""Features of sparse autoencoders (SAEs): load an SAE through SAELens, and check that it belongs to its hook."""
