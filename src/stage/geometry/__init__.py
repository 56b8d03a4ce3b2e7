"""The stages of geometry: what each analysis reads, measures and shows."""
