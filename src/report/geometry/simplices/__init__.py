"""What analysis=simplices shows."""
