"""Training SAEs with SAELens' trainer: rows, their order, and how well the SAEs reconstruct."""
