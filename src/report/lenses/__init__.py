"""What analyse_run.py shows of each analysis: records, tables, figures, and a sentence."""
