"""How well single features are predicted through a transport operator, with intervals."""
