"""What analyses of geometry show: words, tables, figures, records."""
