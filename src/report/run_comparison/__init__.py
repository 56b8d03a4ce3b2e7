"""What comparisons of captured runs show: tables, figures, and a page of its own."""
