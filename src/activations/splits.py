"""Which documents are for fitting, for choosing and for judging."""

import math

import numpy as np
from jaxtyping import Int, Int8, UInt64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from src.config.stages import MOST_FOLDS, MOST_GROUPS
from src.errors import StrataError


def document_hashes(
    hashes: UInt64[np.ndarray, "sequence"], document: Int[np.ndarray, "sequence"]
) -> UInt64[np.ndarray, "sequence"]:
    """Give all sequences that must stay together one hash, so that `split_groups` never parts them.

    Together belong the sequences of a document, and documents that have a sequence in common (copies, even one that
    `num_tokens` has cut off; what shares a page of boilerplate), over any number of steps. Their hash is the smallest
    among the first sequences of the documents, so that splitting a long document does not change its group.

    hashes: of the contents (`src.text.content_hashes`). document: index of each sequence's document.
    """
    documents, first, of_document = np.unique(document, return_index=True, return_inverse=True)
    contents, of_content = np.unique(hashes, return_inverse=True)
    n = len(documents) + len(contents)
    links = coo_array((np.ones(len(hashes), np.int8), (of_document, len(documents) + of_content)), shape=(n, n))
    n_clusters, cluster = connected_components(links, directed=False)
    smallest = np.full(n_clusters, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, cluster[: len(documents)], hashes[first])
    return smallest[cluster[of_document]]


def split_groups(
    hashes: UInt64[np.ndarray, "sequence"],
    fractions: tuple[float, float, float],
    n_folds: int,
    n_test_groups: int = 1,
) -> Int8[np.ndarray, "sequence"]:
    """The group of each sequence: 0 to n_folds - 1 are the folds of train, n_folds is val, all above are test.

    hashes: of the sequences' documents (`document_hashes`); what has the same hash shares a group.
    fractions: of train, val and test among the different documents; sizes are exact but for rounding (by the largest
        remainder, so each is at most one off its quota). Different documents are sorted by hash, cut into train, val
        and test, and train is dealt to the folds in turn, whose sizes differ by at most one.
    n_test_groups: test is dealt to so many groups in the same way. Train, val and test are the same for any n_folds
        and n_test_groups.

    Raises StrataError: fractions that are not positive or do not sum to 1; too few different documents.
    """
    if min(fractions) <= 0 or not math.isclose(sum(fractions), 1, abs_tol=1e-6):
        raise StrataError(f"fractions of train, val and test must be positive and sum to 1, not {list(fractions)}")
    if not 1 <= n_folds <= MOST_FOLDS:
        raise StrataError(f"n_folds={n_folds} is not within 1 to {MOST_FOLDS}")
    if not 1 <= n_test_groups <= MOST_GROUPS - n_folds - 1:
        raise StrataError(f"n_test_groups={n_test_groups} is not within 1 to {MOST_GROUPS - n_folds - 1}")
    unique, inverse = np.unique(hashes, return_inverse=True)
    n_train, n_val, n_test = _sizes(len(unique), fractions)
    if n_train < n_folds or not n_val or n_test < n_test_groups:
        train, val, test = fractions
        enough = math.ceil(max(n_folds / train, 1 / val, n_test_groups / test))
        groups_of_test = "test" if n_test_groups == 1 else f"{n_test_groups} groups of test"
        groups_of_train = "train" if n_folds == 1 else f"{n_folds} folds of train"
        fewer = "fewer groups or " if n_test_groups > 1 else "fewer folds or " if n_folds > 1 else ""
        raise StrataError(
            f"{len(unique)} different document{'s' * (len(unique) != 1)} cannot be split into {groups_of_train}, val "
            f"and {groups_of_test} ({train:g}, {val:g}, {test:g}): {enough} are enough; take more text, or choose "
            f"{fewer}other fractions"
        )
    test_groups = n_folds + 1 + np.arange(n_test) % n_test_groups
    groups = np.concatenate([np.arange(n_train) % n_folds, np.full(n_val, n_folds), test_groups])
    return groups.astype(np.int8)[inverse]


def _sizes(n: int, fractions: tuple[float, float, float]) -> list[int]:
    quotas = [n * fraction / sum(fractions) for fraction in fractions]
    sizes = [math.floor(quota) for quota in quotas]
    by_remainder = sorted(range(3), key=lambda i: sizes[i] - quotas[i])
    for i in by_remainder[: n - sum(sizes)]:
        sizes[i] += 1
    return sizes
