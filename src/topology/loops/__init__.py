"""What a loop means: points on it, circular coordinates, labels around it, the same loop in other layers."""
