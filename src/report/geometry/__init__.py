"""What each analysis of geometry shows: words, tables, figures, records."""
