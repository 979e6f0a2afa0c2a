"""Edits: whether two texts differ in at most so many units that were changed, left out or put in."""

from collections.abc import Sequence


def within_edits(a: Sequence[int], b: Sequence[int], most: int) -> bool:
    """Return whether `most` edits turn one sequence into the other (Levenshtein, on a band of the table).

    >>> within_edits([1, 2, 3, 4], [1, 9, 3, 4], 1), within_edits([1, 2, 3, 4], [2, 3, 4, 5], 1)
    (True, False)
    """
    start = 0
    while start < min(len(a), len(b)) and a[start] == b[start]:
        start += 1
    a, b = a[start:], b[start:]
    while a and b and a[-1] == b[-1]:
        a, b = a[:-1], b[:-1]
    if abs(len(a) - len(b)) > most:
        return False
    row = [column if column <= most else most + 1 for column in range(len(b) + 1)]
    for line, unit in enumerate(a, start=1):
        low, high = max(1, line - most), min(len(b), line + most)
        before, row = row, [most + 1] * (len(b) + 1)
        row[0] = line
        for column in range(low, high + 1):
            changed = before[column - 1] + (unit != b[column - 1])
            row[column] = min(changed, before[column] + 1, row[column - 1] + 1)
        if min(row[low - 1 : high + 1]) > most:
            return False
    return row[-1] <= most
