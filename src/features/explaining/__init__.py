"""What a feature is said to mean: its contexts, explanations of others and of language models, its card."""
