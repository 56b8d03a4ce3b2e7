"""Transport operators: affine maps from one hook point of the residual stream to a later one."""
