"""Closed-form heads: the best linear head for the support set, and a gradient that flows through its solution.

    ridge    W = argmin sum_i w_i ||W f_i - y_i||^2 + λ ||W||^2,  logits α W f                              R2D2
    svm      A = argmin_A 1/2 tr(A^T K A) - <A, Y>  s.t.  A <= C w Y, A 1 = 0;  W = A^T F,  logits α W f    MetaOptNet

Here K = F F^T, Y is one-hot, and w_i says how often row i counts (once, in the papers). Scores are predicted by ridge
regression in both.

R2D2: Bertinetto et al. 2019, arXiv:1805.08136. λ and α are learned. The paper's bias is left out: it is the same for
all labels, so it changes no prediction. A free intercept is another thing: each label has a bias that is not
penalised, so the solution is that of features and labels from which their means are taken.

The factor α is learned on the numbers of labels and examples that meta-training has. A task may need another one, so α
can be calibrated when the head is made: of the log-likelihood of the support rows, each left out once, and a normal
prior of log α around its learned value, the sum is made as large as possible. What ridge regression predicts for a row
that is left out follows from one solution (Allen 1974, doi:10.2307/1267500):

    y_i - f̂_{-i}(x_i) = (y_i - f̂(x_i)) / (1 - h_i),        h_i = w_i / Σ w + w_i x̃_i^T (X̃^T D X̃ + λ I)^-1 x̃_i

Here x̃ is a feature without the mean, and without an intercept x̃ is the feature itself and w_i / Σ w is left out.

MetaOptNet: Lee et al. 2019, arXiv:1904.03758. It is the multi-class support vector machine of Crammer and Singer in
its dual, which has as many rows as there are examples. The authors' code adds the identity to K, which the paper does
not have. The solution is found without a graph, by alternating
directions (ADMM, Boyd et al. 2011). Its derivative is that of the optimality conditions on the entries that are not
at their bound: one Newton step from the solution, with a constant Jacobian, has exactly that derivative.
"""

import torch
from torch import Tensor, nn

from quickstudy.methods.feature import HeadRule
from quickstudy.models.head import Head, LinearHead, ridge
from quickstudy.models.support_rows import SupportRows
from quickstudy.models.target import Target

_PRIOR_WIDTH = 0.35  # standard deviation of log α around its learned value
_FACTORS: Tensor = 2.0 ** (torch.arange(-12, 25) / 4)  # of the learned α, that are tried: 1/8 to 64


class Ridge(HeadRule):
    """The rule of R2D2.

    Args:
        penalty: Initial λ, learned.
        scale: Initial factor α of the logits, learned.
        intercept: Whether each label has a bias that is not penalised.
        calibrated: Whether `calibrate` chooses α by leaving each example out once.
    """

    def __init__(
        self, penalty: float = 1.0, scale: float = 10.0, *, intercept: bool = False, calibrated: bool = False
    ) -> None:
        super().__init__()
        self.intercept, self.calibrated = intercept, calibrated
        self.penalty_factor = 1.0  # of the learned λ
        self.log_penalty = nn.Parameter(torch.tensor(penalty).log())
        self.log_scale = nn.Parameter(torch.tensor(scale).log())

    @property
    def penalty(self) -> Tensor:
        """λ, ()."""
        return self.penalty_factor * self.log_penalty.exp()

    def head(self, rows: SupportRows, target: Target) -> LinearHead:
        return target.apply(self, rows)

    def for_classes(self, rows: SupportRows, n_way: int) -> LinearHead:
        one_hot = nn.functional.one_hot(rows.labels, n_way).to(rows.features)
        if not self.intercept:
            weight = ridge(rows.features, one_hot, self.penalty, rows.weights)
            return _without_bias(self.log_scale.exp() * weight)
        share = rows.counts / rows.counts.sum()
        mean, base = share @ rows.features, share @ one_hot
        weight = ridge(rows.features - mean, one_hot - base, self.penalty, rows.weights)
        return LinearHead(self.log_scale.exp() * weight, self.log_scale.exp() * (base - weight @ mean))

    def for_scores(self, rows: SupportRows) -> LinearHead:
        return _without_bias(ridge(rows.features, rows.labels.unsqueeze(-1), self.penalty, rows.weights))

    @torch.no_grad()
    def calibrate(self, head: Head, rows: SupportRows, examples: int, target: Target) -> Head:
        if not (self.calibrated and target.label_names and isinstance(head, LinearHead)):
            return head
        labels, n_way = rows.labels[:examples], len(head.bias)
        known = torch.bincount(rows.labels, minlength=n_way)[labels] > 1  # by another row, once the example is left out
        totals = self._totals(rows, known, n_way)
        factor = float(_FACTORS[totals.argmax()]) if bool(totals.isfinite().all()) else 1.0
        return LinearHead(factor * head.weight, factor * head.bias)

    @torch.no_grad()
    def evidence(self, rows: SupportRows, examples: int, n_way: int) -> float:
        """Return the log-likelihood of the examples, each left out once, with the α that makes it largest.

        Only examples count whose label has another example. It is at most 0; it is 0 if there are none, and NaN where
        the solution is not finite.

        Args:
            rows: Features, labels and weights of the support set.
            examples: How many of the rows, the first ones, are examples. The others are label names.
            n_way: Number of labels.
        """
        labels = rows.labels[:examples]
        known = torch.bincount(labels, minlength=n_way)[labels] > 1
        return float(self._totals(rows, known, n_way).max())

    def _totals(self, rows: SupportRows, known: Tensor, n_way: int) -> Tensor:
        """Return what calibration makes as large as possible, for each of `_FACTORS`; see the head of this module.

        `known`, (B,), says which of the first rows are left out, one by one. Without any, it is the prior of α alone.
        """
        labels = rows.labels[: len(known)]
        logits = self.log_scale.exp() * self.leave_one_out(rows, n_way)[: len(known)][known]
        factors = _FACTORS.to(logits)
        answers = torch.log_softmax(factors[:, None, None] * logits, dim=-1)
        likelihood = answers.gather(-1, labels[known].expand(len(factors), -1).unsqueeze(-1)).squeeze(-1)
        prior = -(factors.log() / _PRIOR_WIDTH).square() / 2
        return likelihood @ rows.counts[: len(known)][known].to(logits) + prior

    def leave_one_out(self, rows: SupportRows, n_way: int) -> Tensor:
        """Return what the regression on all other rows predicts for each row, (B, N), without the factor α.

        It is in double precision, because 1 - h_i is a small difference where features are long.
        """
        features, counts = rows.features.double(), rows.counts.double()
        one_hot = nn.functional.one_hot(rows.labels, n_way).double()
        share = counts / counts.sum() if self.intercept else torch.zeros_like(counts)
        features, base = features - share @ features, share @ one_hot
        # In terms of rows times the root of their weight, the hat matrix is symmetric, and a weight of 0 is allowed.
        root = counts.sqrt().unsqueeze(-1)
        kernel = features @ features.T * root.T
        gram, wanted = root * kernel, root * (one_hot - base)
        system = gram + self.penalty * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        # The inverse S^-1 gives both: the dual solution, and 1 - h_i = λ (S^-1)_ii for features without their mean.
        factor, failed = torch.linalg.cholesky_ex(system)
        inverse = torch.cholesky_inverse(factor) if not failed else torch.full_like(system, torch.nan)
        rest = self.penalty * inverse.diagonal() - share
        left_out: Tensor = one_hot - (one_hot - kernel @ (inverse @ wanted) - base) / rest.unsqueeze(-1)
        return left_out


class SupportVectors(HeadRule):
    """The rule of MetaOptNet.

    Args:
        c: Upper bound C of a dual variable: how much one example can pull.
        penalty: λ of the ridge regression that predicts scores.
        scale: Initial factor α of the logits, learned.
    """

    def __init__(self, c: float = 1.0, penalty: float = 1.0, scale: float = 5.0) -> None:
        super().__init__()
        self.c, self.penalty = c, penalty
        self.log_scale = nn.Parameter(torch.tensor(scale).log())

    def head(self, rows: SupportRows, target: Target) -> LinearHead:
        return target.apply(self, rows)

    def for_classes(self, rows: SupportRows, n_way: int) -> LinearHead:
        one_hot = nn.functional.one_hot(rows.labels, n_way).double()
        bounds, kernel = self.c * rows.counts.double(), rows.features @ rows.features.T
        dual = _with_derivative(kernel, one_hot, bounds, solve_svm(kernel, one_hot, bounds))
        return _without_bias(self.log_scale.exp() * dual.T @ rows.features)

    def for_scores(self, rows: SupportRows) -> LinearHead:
        penalty = torch.as_tensor(self.penalty).to(rows.features)
        return _without_bias(ridge(rows.features, rows.labels.unsqueeze(-1), penalty, rows.weights))


@torch.no_grad()
def solve_svm(
    kernel: Tensor, one_hot: Tensor, bounds: Tensor, *, steps: int = 2000, tolerance: float = 1e-10
) -> Tensor:
    """Return the dual variables A, (B, N), of the multi-class support vector machine, in double precision.

    Args:
        kernel: K, (B, B), positive semi-definite.
        one_hot: Y, (B, N).
        bounds: Upper bounds C w_i, (B,): how much each example can pull.
        steps: Iterations at most.
        tolerance: The iteration stops when neither residual is larger.
    """
    k, y = kernel.double(), one_hot.double()
    upper = bounds.double().unsqueeze(-1) * y
    rho = float(k.diagonal().mean()) or 1.0
    inverse = torch.linalg.inv(k + rho * torch.eye(len(k), dtype=k.dtype, device=k.device))
    z = u = torch.zeros_like(y)
    for _ in range(steps):
        a = inverse @ (y + rho * (z - u))
        before, z = z, _project(a + u, upper)
        u = u + a - z
        if max(float((a - z).abs().max()), float((z - before).abs().max())) < tolerance:
            break
    return z


def _project(v: Tensor, bound: Tensor) -> Tensor:
    """Return the rows nearest to v (B, N) that are at most `bound` and whose sum is 0: a = min(v - τ, bound)."""
    slack = v - bound  # the entries with the largest slack are at their bound; every number of them is tried
    ordered, order = slack.sort(dim=-1, descending=True)
    bounds, rest = bound.gather(-1, order), v.gather(-1, order)
    n = v.shape[-1]
    at_bound = nn.functional.pad(bounds.cumsum(-1), (1, 0))[..., :n]
    free = rest.flip(-1).cumsum(-1).flip(-1)
    tau = (free + at_bound) / torch.arange(n, 0, -1, dtype=v.dtype, device=v.device)
    fits = (ordered <= tau).int()  # the first number that fits is the right one: up to there, τ is below the slack
    tau = tau.gather(-1, fits.argmax(-1, keepdim=True))
    return torch.minimum(v - tau, bound)


def _with_derivative(kernel: Tensor, one_hot: Tensor, bounds: Tensor, solution: Tensor) -> Tensor:
    """Return the solution with the derivative that the optimality conditions give it.

    They are (K A)_in - Y_in + ν_i = 0 for the entries below their bound, and sum_n A_in = 0 for every row. The other
    entries move with their bounds.
    """
    k, y = kernel.double(), one_hot.double()
    upper = bounds.unsqueeze(-1) * y
    below = solution < (upper - 1e-7 * bounds.unsqueeze(-1)).detach()
    rows, columns = torch.nonzero(below, as_tuple=True)
    size, solution = len(rows), torch.where(below, solution, solution + upper - upper.detach())
    with torch.no_grad():
        block = k[rows][:, rows] * (columns[:, None] == columns[None, :])
        # If K is singular the dual is not unique, but W is, and only W is used. A tiny multiple of I picks one dual.
        block = block + 1e-9 * k.diagonal().mean() * torch.eye(size, dtype=k.dtype, device=k.device)
        member = nn.functional.one_hot(rows, len(k)).to(k)
        zero = torch.zeros(len(k), len(k), dtype=k.dtype, device=k.device)
        jacobian = torch.cat([torch.cat([block, member], 1), torch.cat([member.T, zero], 1)])
    # The conditions are linear in ν, so the step in A is the same for every ν that it starts from, such as 0.
    residual = torch.cat([(k @ solution - y)[rows, columns], solution.sum(-1)])
    step = torch.linalg.solve(jacobian, residual)[:size]
    return solution.index_put((rows, columns), solution[rows, columns] - step).to(kernel)


def _without_bias(weight: Tensor) -> LinearHead:
    return LinearHead(weight, weight.new_zeros(len(weight)))
