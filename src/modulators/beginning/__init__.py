"""How residual modulators begin: tokens' vectors, and the map that brings them into the residual stream."""
