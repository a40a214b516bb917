"""Candidates for the nearest patches by brute force on a device of torch."""

import numpy as np

from skanomaly._optional import import_optional
from skanomaly.core.search.brute_force import rounding_bound, squared_norms

_BLOCK = 2**15  # rows of the bank in one matrix product
_MAX_FOUND = 2**22


class DeviceSearch:
    """A memory bank on a device.

    Parameters
    ----------
    bank : ndarray of shape (n, dim)
        Prepared.
    metric : {"cosine", "euclidean"}
    device : str
        Such as ``"cuda"``.
    """

    def __init__(self, bank, metric, device):
        torch = import_optional("torch", "torch", f"algorithm='torch:{device}'")
        self.bank, self.device = bank, torch.device(device)
        self.half_norms = None if metric == "cosine" else 0.5 * squared_norms(bank)
        self._rows = torch.from_numpy(bank).to(self.device)
        if self.half_norms is not None:
            values = self.half_norms.astype(bank.dtype)
            self._half_norms = torch.from_numpy(values).to(self.device)

    def candidates(self, queries, n_neighbors, groups=None):
        """As :meth:`skanomaly.core.search.certified.CertifiedSearch.candidates`."""
        import torch

        slack = np.broadcast_to(rounding_bound(queries, self.half_norms, self.bank), len(queries))
        if torch.get_float32_matmul_precision() != "highest" and self.bank.dtype == np.float32:
            slack = slack * 2.0**16  # factors may be cut to the 8 bits of bfloat16
        none = np.empty(0, dtype=np.int64)
        if not queries.any(axis=1).all():  # zero vectors: their distance is no function of q.x
            return none, none, np.arange(len(queries))
        q, slack = (self._send(x.astype(queries.dtype)) for x in (queries, slack))
        own, of_row = (None, None) if groups is None else (self._send(g) for g in groups)
        best = torch.full((len(queries), n_neighbors), -torch.inf, dtype=q.dtype).to(self.device)
        found = []
        for start in range(0, len(self.bank), _BLOCK):
            rows = slice(start, start + _BLOCK)
            similarity = q @ self._rows[rows].T
            if self.half_norms is not None:
                similarity -= self._half_norms[rows]
            if own is not None:
                left_out = (own[:, None] == of_row[rows]) & (own[:, None] >= 0)
                similarity.masked_fill_(left_out, -torch.inf)
            top = similarity.topk(min(n_neighbors, similarity.shape[1]), dim=1).values
            best = torch.cat([best, top], dim=1).topk(n_neighbors, dim=1).values
            threshold = (best[:, -1] - slack).clamp(min=torch.finfo(q.dtype).min)
            pair = torch.nonzero(similarity >= threshold[:, None])
            found.append((pair[:, 0], pair[:, 1] + start, similarity[pair[:, 0], pair[:, 1]]))
            if sum(len(part[0]) for part in found) > _MAX_FOUND:
                return none, none, np.arange(len(queries))
        q, rows, similarity = (torch.cat(parts) for parts in zip(*found, strict=True))
        kept = similarity >= threshold[q]
        q, rows = q[kept].cpu().numpy(), rows[kept].cpu().numpy()
        return q, rows, np.flatnonzero(np.bincount(q, minlength=len(queries)) < n_neighbors)

    def _send(self, array):
        import torch

        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)
