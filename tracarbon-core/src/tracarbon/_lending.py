"""Objects that were constructed in code, lent to the pipelines that run them: each to one pipeline at a time."""

from __future__ import annotations

import copy
import dataclasses
import os
import threading
from typing import Any, TypeVar

from tracarbon.plugin import is_made_from_fields

T = TypeVar("T")


@dataclasses.dataclass(slots=True)
class _Loan:
    """An object that is lent, and those of its attributes that were changed, as its owner knows them."""

    thing: Any
    before: dict[str, Any] = dataclasses.field(default_factory=dict)

    def put_back(self) -> None:
        for name, value in self.before.items():
            setattr(self.thing, name, value)
        self.before.clear()


_lock = threading.RLock()
_lent: dict[int, _Loan] = {}


class Loans:
    """What one pipeline has borrowed: it is given back as it was."""

    def __init__(self) -> None:
        self._mine: dict[int, _Loan] = {}

    def take(self, thing: object) -> bool:
        """Borrow an object; returns whether it was there to be borrowed."""
        with _lock:
            if id(thing) in _lent:
                return False
            self._mine[id(thing)] = _lent[id(thing)] = _Loan(thing)
            return True

    def take_or_copy(self, thing: T) -> T:
        """Borrow an object and return it, or where it is lent a copy: two users take nothing of each other."""
        with _lock:
            return thing if self.take(thing) else _copy_of(_lent[id(thing)])

    def change(self, thing: object, name: str, value: object) -> None:
        """Set an attribute of what was borrowed, or of a copy, until all is given back."""
        with _lock:
            loan = self._mine.get(id(thing))
            if loan is not None:
                loan.before.setdefault(name, getattr(thing, name))
            setattr(thing, name, value)

    def give_back(self) -> None:
        """Give all back, as it was borrowed."""
        with _lock:
            for key, loan in self._mine.items():
                loan.put_back()
                _lent.pop(key, None)
            self._mine.clear()


def value_of_field(thing: object, name: str) -> Any:
    """Return what a field was given: one with a descriptor may show more, or raise."""
    own = getattr(thing, "__dict__", {})
    return own[name] if name in own else getattr(thing, name)


def _copy_of(loan: _Loan) -> Any:
    """Return a copy of a lent object as its owner knows it; one that is made from its fields is made anew."""
    thing, before = loan.thing, loan.before
    if is_made_from_fields(type(thing)) and not hasattr(thing, "__copy__"):
        names = [item.name for item in dataclasses.fields(thing) if item.init]
        twin = type(thing)(**{name: before[name] if name in before else value_of_field(thing, name) for name in names})
    else:
        twin = copy.copy(thing)
    for name, value in before.items():
        setattr(twin, name, value)
    return twin


def _give_all_back() -> None:
    """In a forked child no pipeline runs that was started before."""
    global _lock
    _lock = threading.RLock()
    for loan in _lent.values():
        loan.put_back()
    _lent.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_give_all_back)
