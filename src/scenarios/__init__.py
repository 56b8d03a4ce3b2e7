"""Conversations: run a scenario through a model, keep the states that matter, compare and read them."""
