"""Threads that go on where the main thread has ended, and values that several may compute without waiting."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, Self, TypeVar, overload

T = TypeVar("T")


class Threads(ThreadPoolExecutor):
    """A pool that works on the spot where no thread can be started any more.

    When the main thread ends, Python lets the others finish but refuses them new threads. A system without more threads
    refuses them after the pool has noted the call, so what is submitted may run twice, and must be the same again.
    """

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """See `concurrent.futures.Executor.submit`."""
        try:
            return super().submit(fn, *args, **kwargs)
        except RuntimeError:
            done: Future[T] = Future()
            try:
                done.set_result(fn(*args, **kwargs))
            except Exception as error:
                done.set_exception(error)
            return done


class cached_property(Generic[T]):  # noqa: N801  # the name of what it stands for
    """`functools.cached_property` as it is from Python 3.12 on: two threads may compute the same value, none waits.

    Before, all instances of a class shared one lock for each property: while one database was read every other waited,
    and a child that was forked meanwhile waited for ever.
    """

    def __init__(self, function: Callable[[Any], T]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> Self | T:
        """The kept value; the first thread's, when several compute it."""
        if instance is None:
            return self
        value: T = instance.__dict__.setdefault(self._name, self._function(instance))
        return value
