"""The weights of a model as matrices with roles, read one at a time; nothing here runs a model."""

from src.models.checkpoint.catalogue import catalogue
from src.models.checkpoint.matrices import Attention, Matrix, NormPlace, Role, Stack, read_matrix
from src.models.checkpoint.opening import open_weights
from src.models.checkpoint.weights import Weights, weights_of

__all__ = [
    "Attention",
    "Matrix",
    "NormPlace",
    "Role",
    "Stack",
    "Weights",
    "catalogue",
    "open_weights",
    "read_matrix",
    "weights_of",
]
