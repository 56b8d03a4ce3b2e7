"""States by layer: norms, cosines, dimensions, updates of the stream, and two stacks against each other."""
