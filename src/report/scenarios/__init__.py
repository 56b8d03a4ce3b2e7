"""What comparisons of captured conversations show: tables, figures, and a page of its own."""
