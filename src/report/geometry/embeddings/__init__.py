"""What analysis=embeddings shows."""
