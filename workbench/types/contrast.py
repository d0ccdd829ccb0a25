"""Contrasts: a clean and a corrupted run of one model, and the answers that are told apart at their last position."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from workbench.types.effect import Corruption
from workbench.types.fact import Fact, as_facts, check_distinct
from workbench.types.plain import check_text
from workbench.types.slug import slug
from workbench.types.traced_prompt import Form

if TYPE_CHECKING:
    from workbench.models.load import LoadedModel
    from workbench.types.fact_set import FactSet

Input = str | Sequence[int] | Tensor
"""A text, token ids, or the states [tokens, d_model] that enter layer 0."""
Token = str | int
Answers = Token | Collection[Token]
"""One token, as text or id, or several of which any counts."""
Places = int | str | Sequence[int]
"""Positions of tokens, negative ones from the end; or a piece of the clean text."""
MOST_OF_AN_ID = 60


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Contrast:
    """A contrast is a clean and a corrupted run of a model, and what is measured at their last position.

    Everything that takes a fact takes a contrast too. Both runs have as many tokens, paired by position.

    Args:
        clean: The clean run: a text, which the model reads as its tokenizer does (with its own BOS token); token ids,
            read as they are; or the states that enter layer 0, [tokens, d_model].
        corrupted: The corrupted run, in the same way. Leave it out for ``noise``.
        answer: What the clean run should say next: one token, as text with the space before it (``" Mary"``) or as an
            id, or several of which any counts (their probabilities add up, and their logit is the log of the sum of
            their exponentials). A text of more than one token is measured as a whole where that is supported, by
            the log probability of all its tokens (``causal_trace``, ``attribute``, ``ablate``).
        wrong: What ``logit_diff`` compares it with, in the same way; None where only other metrics are used.
        noise: In the place of ``corrupted``: Gaussian noise on the clean run, so many standard deviations of the states
            that it is added to (as in ``causal_trace``).
        noise_at: Where the noise goes: a name of ``positions``, indices, or a piece of the text; by default all named
            positions.
        positions: Named positions: an index (negative from the end), several, or a piece of the clean text that
            occurs there once. Maps of several contrasts are means over positions of one name. No position has two.
        form: How texts are read: ``"cloze"`` as plain text, ``"chat"`` as the user's message in the chat template.
        id: In results and messages; made from the clean text where it is left out.

    Raises:
        ValueError: An empty run, two equal ones, both or none of ``corrupted`` and ``noise``, a wrong answer that is an
            answer, or a position that is none. What needs the tokenizer is said where a model reads it.

    Example:
        >>> contrast = wb.Contrast(
        ...     clean="The capital of France is", corrupted="The capital of Italy is", answer=" Paris", wrong=" Rome"
        ... )
        >>> contrast
        Contrast('The capital of France is' | 'The capital of Italy is': ' Paris', not ' Rome')
        >>> wb.attribute(model, contrast).top(1)
        Selection('L0H5')
    """

    clean: Input
    corrupted: Input | None = None
    answer: Answers
    wrong: Answers | None = None
    noise: float | None = None
    noise_at: Places | None = None
    positions: Mapping[str, Places] = field(default_factory=dict[str, Places])
    form: Form = "cloze"
    id: str = ""

    def __post_init__(self) -> None:
        _set(self, "clean", _input("clean", self.clean))
        if (self.corrupted is None) == (self.noise is None):
            raise ValueError("A Contrast has either corrupted= (another run) or noise= (on the clean run): give one.")
        if self.corrupted is not None:
            _set(self, "corrupted", _input("corrupted", self.corrupted))
            self._check_pair()
        self._check_noise()
        _set(self, "answer", _answers("answer", self.answer))
        if self.wrong is not None:
            _set(self, "wrong", _answers("wrong", self.wrong))
            both = [token for token in self.wrongs if token in self.answers]
            if both:
                raise ValueError(
                    f"The wrong answer {both[0]!r} is an answer too, so there is no difference to measure. Give "
                    "another wrong=."
                )
        _set(self, "positions", {_name(name): _places(name, at) for name, at in self.positions.items()})
        if self.form not in get_args(Form):
            raise ValueError(f"Contrast.form must be one of {get_args(Form)}, got {self.form!r}.")
        if not self.id:
            _set(self, "id", slug(self.clean)[:MOST_OF_AN_ID] if isinstance(self.clean, str) else "contrast")

    def _check_pair(self) -> None:
        """Raise a ValueError for two runs that are equal, or of which one alone are states."""
        states = [isinstance(run, Tensor) for run in (self.clean, self.corrupted)]
        if states[0] != states[1]:
            raise ValueError("Contrast.clean and .corrupted must both be states, or both be texts or token ids.")
        if _key(self.clean) == _key(self.corrupted):
            raise ValueError("The clean and the corrupted run are equal, so that nothing differs between them.")

    def _check_noise(self) -> None:
        if self.noise is None:
            if self.noise_at is not None:
                raise ValueError("noise_at= says where noise goes; give noise= with it.")
            return
        if isinstance(self.noise, bool) or not 0 < self.noise < float("inf"):
            raise ValueError(f"Contrast.noise must be a number above 0 (standard deviations), got {self.noise!r}.")
        if self.noise_at is None and not self.positions:
            raise ValueError("Say where the noise goes: noise_at= indices or a piece of the text, or named positions=.")
        if self.noise_at is not None:
            _set(self, "noise_at", _places("noise_at", self.noise_at))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Contrast) and self._keys == other._keys

    def __hash__(self) -> int:
        return hash((_key(self.clean), _key(self.corrupted), self.answer, self.wrong, self.id))

    def __repr__(self) -> str:
        other = f"noise {self.noise:g}" if self.corrupted is None else _words(self.corrupted)
        wrong = "" if self.wrong is None else f", not {_listed(self.wrongs)}"
        return f"Contrast({_words(self.clean)} | {other}: {_listed(self.answers)}{wrong})"

    @staticmethod
    def of(
        model: LoadedModel,
        fact: Fact,
        *,
        corruption: Corruption = "swap",
        form: Form | None = None,
        token: Literal["answer", "target"] = "answer",
        partner: Fact | None = None,
        pool: FactSet | None = None,
        noise: float = 3.0,
    ) -> Contrast:
        """Make a contrast of a fact, on the text on which the fact is traced.

        Args:
            model: Who reads it: token ids are its tokenizer's, and the base model's own words lead to the answer.
            fact: The fact.
            corruption: ``"swap"`` for a corrupted run with another subject, ``"noise"`` for noise on the subject.
            form, token, partner, pool, noise: As in ``causal_trace``.

        Returns:
            Token ids of the runs, the answer's token, and as the wrong one the partner's answer (swap) or the target
            (noise); its positions are named by their roles. Traced, it gives what the fact gives.

        Raises:
            ValueError: As ``causal_trace``: the model does not say the answer, or no partner fits.

        Example:
            >>> contrast = wb.Contrast.of(model, fact, form="cloze", pool=facts)
            >>> contrast
            Contrast(5 token ids | 5 token ids: 289, not 309)
            >>> dict(contrast.positions)["last subject token"]
            (3,)
        """
        from workbench.tracing.contrasts import contrast_of

        return contrast_of(
            model,
            fact,
            corruption=corruption,
            form=form,
            token=token,
            partner=partner,
            pool=pool,
            noise=noise,
        )

    @property
    def _keys(self) -> tuple[Any, ...]:
        named = tuple(self.positions.items())
        given = (self.answer, self.wrong, self.noise, self.noise_at, named, self.form, self.id)
        return (_key(self.clean), _key(self.corrupted), *given)

    @property
    def answers(self) -> tuple[Token, ...]:
        """The answer, or each of several."""
        return _several(self.answer)

    @property
    def wrongs(self) -> tuple[Token, ...]:
        """The wrong answer, or each of several; none without one."""
        return () if self.wrong is None else _several(self.wrong)

    @property
    def corruption(self) -> Corruption:
        """``"noise"``, or ``"swap"`` where there is a corrupted run."""
        return "swap" if self.noise is None else "noise"


def _set(contrast: Contrast, name: str, value: Any) -> None:
    object.__setattr__(contrast, name, value)


def _several(answers: Answers) -> tuple[Token, ...]:
    return (answers,) if isinstance(answers, str | int) else tuple(answers)


def _entries(values: Any) -> list[Any]:
    """The entries of a list, tuple, set or tensor; none of anything else."""
    if hasattr(values, "tolist"):
        return values.tolist()
    return [*values] if isinstance(values, Iterable) else []


def _key(run: Input | None) -> Any:
    """What two equal runs have in common."""
    return (tuple(run.shape), tuple(_entries(run.flatten()))) if isinstance(run, Tensor) else run


def _input(name: str, run: Any) -> str | tuple[int, ...] | Tensor:
    """A run as a text, as token ids or as states [tokens, d_model]."""
    if isinstance(run, str):
        if not run.strip():
            raise ValueError(f"Contrast.{name} is an empty text.")
        check_text(f"Contrast.{name}", run)
        return run
    if isinstance(run, Tensor) and run.is_floating_point():
        states = run.detach()
        states = states[0] if states.ndim == 3 and len(states) == 1 else states
        if states.ndim != 2 or not len(states) or not bool(torch.isfinite(states).all()):
            raise ValueError(
                f"Contrast.{name} as states must be finite and [tokens, d_model], got shape {tuple(run.shape)}."
            )
        return states.clone()
    ids = _entries(run)
    if len(ids) == 1 and isinstance(ids[0], list):
        ids = _entries(ids[0])
    if not ids or not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in ids):
        raise ValueError(
            f"Contrast.{name} must be a text, token ids (whole numbers from 0) or states [tokens, d_model], "
            f"got {run!r:.80}."
        )
    return tuple(ids)


def _answers(name: str, answers: Any) -> Token | tuple[Token, ...]:
    """One token, or several as a tuple (a set's in order)."""
    in_order: Any = sorted(_entries(answers), key=str) if isinstance(answers, Set) else answers
    several = hasattr(in_order, "__iter__") or isinstance(in_order, int)
    given: tuple[Any, ...] = _several(in_order) if several else (in_order,)
    for token in given:
        if (
            isinstance(token, bool)
            or not isinstance(token, str | int)
            or token == ""
            or (isinstance(token, int) and token < 0)
        ):
            raise ValueError(
                f"Contrast.{name} must be a token as text (such as ' Mary', with its space) or as an id, or several of "
                f"them, got {answers!r}."
            )
    if not given:
        raise ValueError(f"Contrast.{name} has no token; give at least one.")
    return given[0] if isinstance(answers, str | int) else tuple(dict.fromkeys(given))


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"Names of positions must be texts, got {name!r}.")
    return name


def _places(name: str, places: Any) -> Places:
    """Positions as a tuple of indices, or the piece of the text that they are in."""
    if isinstance(places, str):
        if not places.strip():
            raise ValueError(f"Contrast.positions[{name!r}] is an empty text.")
        return places
    given = _entries(places) if isinstance(places, Iterable) else [places]
    if not given or not all(isinstance(i, int) and not isinstance(i, bool) for i in given):
        raise ValueError(
            f"The positions of {name!r} must be indices of tokens, or a piece of the clean text, got {places!r}."
        )
    return tuple(given)


def _words(run: Input) -> str:
    if isinstance(run, Tensor):
        return f"states {tuple(run.shape)}"
    return repr(run) if isinstance(run, str) else f"{len(run)} token ids"


def _listed(tokens: Sequence[Token]) -> str:
    return repr(tokens[0]) if len(tokens) == 1 else f"any of {len(tokens)} tokens"


Traced = Fact | Contrast | Sequence[Fact] | Sequence[Contrast]
"""What is traced: a fact or a contrast, or several (a ``FactSet`` is a sequence of facts)."""


def as_traced(traced: Traced | Sequence[Fact | Contrast], function: str) -> list[Fact] | list[Contrast]:
    """Facts or contrasts as a list, where one or several may be given.

    Args:
        traced: What is given.
        function: Who takes it, as messages begin.

    Raises:
        TypeError: It is neither.
        ValueError: There is none, or both kinds at once: their positions have no roles in common.
    """
    single: Any = [traced]
    given: list[Any] = single if isinstance(traced, Fact | Contrast | str) else list(traced)
    contrasts = [one for one in given if isinstance(one, Contrast)]
    if not contrasts:
        facts = as_facts(given)
        if not facts:
            raise ValueError(f"{function} needs at least one fact, got none.")
        check_distinct(facts)
        return facts
    if len(contrasts) < len(given):
        raise ValueError(
            f"{function} takes facts or contrasts, not both at once. Make contrasts of the facts: "
            "wb.Contrast.of(model, fact)."
        )
    seen: set[Any] = set()
    for one in contrasts:
        runs = tuple(id(run) if isinstance(run, Tensor) else _hashable(run) for run in (one.clean, one.corrupted))
        rest = (one.answer, one.wrong, one.noise, one.noise_at, dict(one.positions), one.form)
        key = (*runs, *map(_hashable, rest))
        if key in seen:
            raise ValueError(f"Each contrast may be given once; {one.id!r} came more often.")
        seen.add(key)
    return contrasts


def _hashable(value: Any) -> Any:
    """A value of a contrast's field that can be looked up."""
    return value if isinstance(value, str | int | float | None) else repr(value)
