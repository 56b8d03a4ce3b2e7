"""What an edit of the residual stream does to a model's predictions: interventions, replays, scores per token."""
