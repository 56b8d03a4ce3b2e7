"""The weights of a model as matrices with roles, read one at a time; nothing here runs a model."""

from src.models.checkpoint.matrices import Attention, Matrix, Role, Stack, catalogue, read_matrix
from src.models.checkpoint.weights import Weights, open_weights, weights_of

__all__ = ["Attention", "Matrix", "Role", "Stack", "Weights", "catalogue", "open_weights", "read_matrix", "weights_of"]
