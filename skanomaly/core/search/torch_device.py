"""Candidates for the nearest patches by brute force on a device of torch."""

from __future__ import annotations

import numpy as np

from skanomaly._optional import import_optional
from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.products import squared_norms
from skanomaly.core.search.brute_force import rounding_bound
from skanomaly.core.search.tuning import DEFAULT_TUNING, Tuning


class DeviceSearch:
    """A memory bank on a device.

    Parameters
    ----------
    bank : ndarray of shape (n, dim)
        Prepared.
    metric : {"cosine", "euclidean"}
    device : str
        Such as ``"cuda"``.
    tuning : Tuning, optional
    """

    def __init__(
        self, bank: FloatArray, metric: str, device: str, tuning: Tuning = DEFAULT_TUNING
    ) -> None:
        torch = import_optional("torch", "torch", f"algorithm='torch:{device}'")
        self.bank, self.device, self.tuning = bank, torch.device(device), tuning
        self.half_norms = None if metric == "cosine" else 0.5 * squared_norms(bank)
        self._rows = torch.from_numpy(bank).to(self.device)
        if self.half_norms is not None:
            values = self.half_norms.astype(bank.dtype)
            self._half_norms = torch.from_numpy(values).to(self.device)

    def candidates(
        self,
        queries: FloatArray,
        n_neighbors: int,
        groups: tuple[IntArray, IntArray] | None = None,
    ) -> tuple[IntArray, IntArray, IntArray]:
        """Pairs of a query and a row among which the nearest are.

        Parameters
        ----------
        queries, n_neighbors, groups
            As for :meth:`skanomaly.core.search.certified.CertifiedSearch.candidates`.

        Returns
        -------
        q, rows, left_over : ndarray of int64
            As from that method. All queries are left over where one of them is zero, or where
            there are too many candidates.
        """
        import torch

        slack = np.broadcast_to(rounding_bound(queries, self.half_norms, self.bank), len(queries))
        if torch.get_float32_matmul_precision() != "highest" and self.bank.dtype == np.float32:
            slack = slack * 2.0**16  # factors may be cut to 8 bits, see docs/development/search.md
        none = np.empty(0, dtype=np.int64)
        if not queries.any(axis=1).all():  # zero vectors: their distance is no function of q.x
            return none, none, np.arange(len(queries))
        q, slack = (self._send(x.astype(queries.dtype)) for x in (queries, slack))
        own, of_row = (None, None) if groups is None else (self._send(g) for g in groups)
        best = torch.full((len(queries), n_neighbors), -torch.inf, dtype=q.dtype).to(self.device)
        found = []
        step = self.tuning.rows_per_device_product
        for start in range(0, len(self.bank), step):
            part = slice(start, start + step)
            similarity = q @ self._rows[part].T
            if self.half_norms is not None:
                similarity -= self._half_norms[part]
            if own is not None and of_row is not None:
                left_out = (own[:, None] == of_row[part]) & (own[:, None] >= 0)
                similarity.masked_fill_(left_out, -torch.inf)
            top = similarity.topk(min(n_neighbors, similarity.shape[1]), dim=1).values
            best = torch.cat([best, top], dim=1).topk(n_neighbors, dim=1).values
            threshold = (best[:, -1] - slack).clamp(min=torch.finfo(q.dtype).min)
            pair = torch.nonzero(similarity >= threshold[:, None])
            found.append((pair[:, 0], pair[:, 1] + start, similarity[pair[:, 0], pair[:, 1]]))
            if sum(len(part[0]) for part in found) > self.tuning.candidates_at_once:
                return none, none, np.arange(len(queries))
        q, rows, similarity = (torch.cat(parts) for parts in zip(*found, strict=True))
        kept = similarity >= threshold[q]
        pairs = q[kept].cpu().numpy(), rows[kept].cpu().numpy()
        return *pairs, np.flatnonzero(np.bincount(pairs[0], minlength=len(queries)) < n_neighbors)

    def _send(self, array):
        import torch

        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)
