"""Word tables: which word is missing, and which sentences have much the same words.

    X   (S, V)  which words a sentence has               Z = tfidf(X) V_d     sentences in d dimensions
    SMLMT       label of a sentence with a masked word = the word            (Bansal et al. 2020, arXiv:2009.08445)
    clusters    label of a sentence = its cluster in Z                       (after Hsu et al. 2019, arXiv:1810.02334)

The words of an episode are drawn from a band of like frequency, or from a cluster of words that stand in like
sentences (Bansal et al. 2021, arXiv:2111.01322): those are harder to tell apart. Clusters are those of k-means, in the
space of a truncated SVD of X (latent semantic analysis, Deerwester et al. 1990). A sentence with several words of a
band stands for the rarest of them.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.preprocessing import normalize

from quickstudy.data.text.sentences import NAME, NUMBER, WORD
from quickstudy.data.text.table import FEWEST_LABELS, FEWEST_ROWS, Ints, Table

_MOST_WORDS = 6000  # of a vocabulary
_COMMON = 0.1  # a word in a larger share of the sentences says nothing of what they are about
_DIMENSIONS = 64
_MOST_WORD_CLUSTERS, _WORDS_PER_CLUSTER = 24, 25
_MOST_CLUSTERS, _SENTENCES_PER_CLUSTER = 100, 60
_BANDS = (("frequent", 0.0, 1 / 9), ("middle", 1 / 9, 1 / 3), ("rare", 1 / 3, 1.0))  # shares of the ranks

_MASKED = "Which word is missing?"


def smlmt_tables(sentences: Iterable[str], numbers: Ints) -> Iterator[Table]:
    """Yield the tables of masked words: by frequency, and by clusters of words.

    Args:
        sentences: Sentences, each once.
        numbers: (S,) their numbers in the store.
    """
    words, counts = _count(sentences, WORD)
    if len(words) < FEWEST_LABELS:
        return
    frequency = np.asarray(counts.sum(axis=0)).ravel()
    ranks = np.argsort(-frequency, kind="stable")
    for name, first, last in _BANDS:
        band = ranks[int(first * len(ranks)) : int(last * len(ranks))]
        yield from _masked(f"smlmt-{name}", words, counts, band, numbers, _MASKED)
    groups = min(_MOST_WORD_CLUSTERS, len(words) // _WORDS_PER_CLUSTER)
    if groups > 1:
        topical = np.flatnonzero(frequency < _COMMON * counts.shape[0])
        vectors = _factor(counts[:, topical]).components_.T
        clusters = _cluster(vectors, groups)
        for cluster in range(groups):
            yield from _masked(
                f"smlmt-cluster-{cluster + 1}", words, counts, topical[clusters == cluster], numbers, _MASKED
            )


def cloze_tables(sentences: Iterable[str], numbers: Ints) -> Iterator[Table]:
    """Yield the tables of masked names and masked numbers; see `smlmt_tables`."""
    for name, pattern, question in (
        ("cloze-names", NAME, "Which name is missing?"),
        ("cloze-numbers", NUMBER, "Which number is missing?"),
    ):
        words, counts = _count(sentences, pattern)
        yield from _masked(name, words, counts, np.arange(len(words)), numbers, question)


def cluster_tables(sentences: Iterable[str], numbers: Ints) -> Iterator[Table]:
    """Yield the table of clusters of sentences, named after the words that set them apart; see `smlmt_tables`."""
    words, counts = _count(sentences, WORD, most=_COMMON)
    groups = min(_MOST_CLUSTERS, counts.shape[0] // _SENTENCES_PER_CLUSTER)
    if len(words) < FEWEST_LABELS or groups < FEWEST_LABELS:
        return
    weighted = TfidfTransformer(sublinear_tf=True).fit_transform(counts)
    told = np.flatnonzero(weighted.getnnz(axis=1))
    factors = _factor(counts)
    labels = _cluster(factors.transform(weighted[told]), groups)
    members = csr_matrix((np.ones(len(told)), (labels, np.arange(len(told)))), shape=(groups, len(told)))
    centres = np.asarray((members @ weighted[told]).todense())
    names = [" ".join(words[word] for word in np.argsort(-centre)[:3]) for centre in centres]
    unique = tuple(name if names.count(name) == 1 else f"{name} {i + 1}" for i, name in enumerate(names))
    question = "Which group of sentences does it belong to?"
    yield Table("clusters", "plain", unique, numbers[told, None], labels.astype(np.int64), question)


def _count(sentences: Iterable[str], pattern: str, most: float = 1.0) -> tuple[list[str], csr_matrix]:
    """Return the words that are in enough sentences, and (S, V) which sentences they are in."""
    counter = CountVectorizer(
        token_pattern=pattern,
        lowercase=pattern == WORD,
        binary=True,
        min_df=FEWEST_ROWS,
        max_df=most,
        max_features=_MOST_WORDS,
        dtype=np.float32,
    )
    try:
        counts = counter.fit_transform(sentences)
    except ValueError:  # no word is in enough sentences
        return [], csr_matrix((0, 0), dtype=np.float32)
    return counter.get_feature_names_out().tolist(), counts


def _masked(
    name: str, words: Sequence[str], counts: csr_matrix, chosen: Ints, numbers: Ints, question: str
) -> Iterator[Table]:
    """Yield the table of some words: each sentence with any of them has the rarest one masked."""
    if len(chosen) < FEWEST_LABELS:
        return
    entries = counts[:, chosen].tocoo()
    frequency = np.bincount(entries.col, minlength=len(chosen))
    order = np.lexsort((entries.col, frequency[entries.col], entries.row))
    rows, first = np.unique(entries.row[order], return_index=True)
    labels = entries.col[order][first].astype(np.int64)
    yield Table(name, "masked", tuple(words[word] for word in chosen), numbers[rows, None], labels, question)


def _factor(counts: csr_matrix) -> TruncatedSVD:
    """Return the truncated SVD of a matrix of counts, weighted by TF-IDF."""
    weighted = TfidfTransformer(sublinear_tf=True).fit_transform(counts)
    return TruncatedSVD(min(_DIMENSIONS, min(counts.shape) - 1), random_state=0).fit(weighted)


def _cluster(vectors: NDArray[np.float32], groups: int) -> NDArray[np.int32]:
    """Return the cluster of each direction."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different vectors than clusters
        clusters = MiniBatchKMeans(groups, random_state=0, n_init=3, batch_size=4096).fit_predict(normalize(vectors))
    return np.asarray(clusters, dtype=np.int32)
