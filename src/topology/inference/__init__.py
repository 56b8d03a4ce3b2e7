"""What is more than chance: null models, significance of loops, bands of subsamples, sensitivity to outliers."""
