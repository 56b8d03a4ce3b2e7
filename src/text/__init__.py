"""Text in, a pretokenised table of sequences out.

`read_documents` streams documents from files or the hub, `tokenize_documents` makes sequences of them, and
`write_sequence_table` puts those on disk, where `SequenceTable` finds any range of them by index.
"""

from src.text.documents import Document, read_documents
from src.text.files import local_files
from src.text.hub import pin_revision
from src.text.keep import Keep
from src.text.selection import SeenText, Selection
from src.text.table import SequenceTable, TableSummary, content_hashes, write_sequence_table
from src.text.tokenization import DocumentCounts, TokenSequence, tokenize_documents, tokenizer_identity

__all__ = [
    "Document",
    "DocumentCounts",
    "Keep",
    "SeenText",
    "Selection",
    "SequenceTable",
    "TableSummary",
    "TokenSequence",
    "content_hashes",
    "local_files",
    "pin_revision",
    "read_documents",
    "tokenize_documents",
    "tokenizer_identity",
    "write_sequence_table",
]
