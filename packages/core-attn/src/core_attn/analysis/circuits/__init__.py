"""Which heads form a circuit: discrete codes of a sparse autoencoder over their outputs.

Source: O'Neill & Bui, 2024, "Sparse Autoencoders Enable Scalable and Reliable Circuit
Identification in Language Models", arXiv 2405.12522.
"""

from .autoencoder import HeadAutoencoder, train
from .find import Circuit, ablated, find_circuit, head_outputs
from .scores import (
    Agreement,
    agreement,
    distinct_codes,
    edge_circuit,
    edge_counts,
    edge_scores,
    node_scores,
)
from .tasks import GROUND_TRUTH, Prompts, docstring, greater_than, ioi, truth

__all__ = [
    "HeadAutoencoder",
    "train",
    "head_outputs",
    "find_circuit",
    "Circuit",
    "ablated",
    "distinct_codes",
    "node_scores",
    "edge_scores",
    "edge_circuit",
    "edge_counts",
    "agreement",
    "Agreement",
    "Prompts",
    "ioi",
    "greater_than",
    "docstring",
    "truth",
    "GROUND_TRUTH",
]
