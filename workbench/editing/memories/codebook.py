"""How a codebook grows, edit by edit: a new key, a wider radius, or a ball that is split in two.

Source: GRACE (Hartvigsen et al. 2022, 2211.11031), its rules as in its public code. Deviations: labels are compared
token by token (there, by the mean of the ids); a key whose own state is taught another answer takes it over (there, its
radius would become negative and the new one's 0); a ball that is split never grows by it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Label = tuple[int, ...]
SAME = 1e-4
"""As a share of the first radius: states that are no farther from each other are one state, computed twice."""


class KeyBook:
    """Keys with radii and labels, which grow by ``add``.

    Args:
        radius: The radius of a new key.
        grow: Cover a state of the same label beyond a key's radius by a wider radius, as published; False: by a key of
            its own, so that no radius exceeds the first one.
        keys, radii, labels: Those that are there already.

    Example:
        >>> book = KeyBook(1.0)
        >>> book.add(torch.tensor([0.0, 0.0]), (1,)), book.add(torch.tensor([1.5, 0.0]), (2,))
        (0, 1)
        >>> [round(radius, 3) for radius in book.radii]
        [0.75, 0.75]
    """

    def __init__(
        self,
        radius: float,
        *,
        grow: bool = True,
        keys: Sequence[Tensor] = (),
        radii: Sequence[float] = (),
        labels: Sequence[Label] = (),
    ) -> None:
        self.radius, self.grow = radius, grow
        self.keys, self.radii, self.labels = list(keys), list(radii), list(labels)

    def add(self, state: Tensor, label: Label) -> int:
        """Teach that a state [inputs] has a label.

        The nearest key decides, by its distance d from the state and its radius r. Farther than ``radius`` + r: the
        state becomes a key. Nearer and of the same label: r becomes d where it was less (without ``grow`` the state
        then becomes a key). Nearer and of another label: the state becomes a key, and both have d / 2 as their radius,
        the old one a little less.

        Returns:
            The key that the state now belongs to.
        """
        if not self.keys:
            return self._new(state, label, self.radius)
        distances = (torch.stack(self.keys) - state).square().sum(-1).sqrt()
        j = int(distances.argmin())
        d = float(distances[j])
        if d <= SAME * self.radius:
            self.labels[j] = label
            return j
        if d > self.radius + self.radii[j]:
            return self._new(state, label, self.radius)
        if self.labels[j] == label and d > self.radii[j] and not self.grow:
            return self._new(state, label, self.radius)
        if self.labels[j] == label:
            self.radii[j] = max(self.radii[j], d * (1 + SAME))  # on the edge rounding would decide
            return j
        self.radii[j] = min(self.radii[j], d / 2 * (1 - SAME))
        return self._new(state, label, d / 2)

    def _new(self, state: Tensor, label: Label, radius: float) -> int:
        self.keys.append(state)
        self.radii.append(radius)
        self.labels.append(label)
        return len(self.keys) - 1
