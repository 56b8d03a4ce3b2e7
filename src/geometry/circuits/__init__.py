"""QK and OV circuits of attention heads in model space, and what heads make of distance."""
