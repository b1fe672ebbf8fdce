"""The two libraries of macOS by ctypes: CoreFoundation, and IOReport, which no header of Apple's describes.

Ours rather than the package zeus-apple-silicon: that one converts units and sums channels in a compiled extension,
which neither runs nor can be tested off a Mac, and rounds nanojoules down to millijoules at each read.

Whatever a function whose name has `Create` or `Copy` in it returns is the caller's to release; what a `Get` returns is
not. `owned` sees to it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_bool, c_char_p, c_int32, c_int64, c_long, c_uint32, c_uint64, c_ulong, c_void_p
from typing import Any, TypeAlias

from tracarbon_sensor_macos._errors import SourceError

CORE_FOUNDATION_PATH = "/System/Library/Frameworks/CoreFoundation.framework/CoreFoundation"
IOREPORT_PATH = "/usr/lib/libIOReport.dylib"
"""No file is there: the dynamic loader has it in its cache."""
_UTF_8 = 0x08000100
_TEXT_BYTES = 256

_Functions: TypeAlias = dict[str, tuple[Any, list[Any]]]

_CORE_FOUNDATION: _Functions = {
    "CFRelease": (None, [c_void_p]),
    "CFGetTypeID": (c_ulong, [c_void_p]),
    "CFArrayGetTypeID": (c_ulong, []),
    "CFDictionaryGetTypeID": (c_ulong, []),
    "CFStringGetTypeID": (c_ulong, []),
    "CFStringCreateWithCString": (c_void_p, [c_void_p, c_char_p, c_uint32]),
    "CFStringGetCString": (c_bool, [c_void_p, c_char_p, c_long, c_uint32]),
    "CFDictionaryGetCount": (c_long, [c_void_p]),
    "CFDictionaryGetValue": (c_void_p, [c_void_p, c_void_p]),
    "CFDictionaryCreateMutableCopy": (c_void_p, [c_void_p, c_long, c_void_p]),
    "CFArrayGetCount": (c_long, [c_void_p]),
    "CFArrayGetValueAtIndex": (c_void_p, [c_void_p, c_long]),
}
_IOREPORT: _Functions = {
    "IOReportCopyChannelsInGroup": (c_void_p, [c_void_p, c_void_p, c_uint64, c_uint64, c_uint64]),
    "IOReportCreateSubscription": (c_void_p, [c_void_p, c_void_p, c_void_p, c_uint64, c_void_p]),
    "IOReportCreateSamples": (c_void_p, [c_void_p, c_void_p, c_void_p]),
    "IOReportChannelGetChannelName": (c_void_p, [c_void_p]),
    "IOReportChannelGetUnitLabel": (c_void_p, [c_void_p]),
    "IOReportSimpleGetIntegerValue": (c_int64, [c_void_p, c_int32]),
}


class AppleLibraries:
    """The functions of both libraries that are wanted, with their types.

    Raises:
        SourceError: a library cannot be loaded, or lacks a function.
    """

    def __init__(self, core_foundation_path: str, ioreport_path: str) -> None:
        self._foundation = _loaded(core_foundation_path, _CORE_FOUNDATION)
        self._report = _loaded(ioreport_path, _IOREPORT)

    @contextmanager
    def owned(self, reference: int | None, what: str) -> Iterator[int]:
        """Own what a `Create` or `Copy` has returned until the end of the block.

        Raises:
            SourceError: it has returned nothing.
        """
        if not reference:
            raise SourceError(f"IOReport gave no {what}")
        try:
            yield reference
        finally:
            self.release(reference)

    def release(self, reference: int) -> None:
        """Give up an object that is ours."""
        self._foundation.CFRelease(reference)

    def copy_channels(self, group: str) -> int:
        """Return a mutable copy of the channels of a group, which the caller has to release.

        Raises:
            SourceError: there is no such group.
        """
        foundation = self._foundation
        with self._string(group) as name:
            found = self._report.IOReportCopyChannelsInGroup(name, None, 0, 0, 0)
        with self.owned(found, f"channels of the group {group!r}"):
            if foundation.CFGetTypeID(found) != foundation.CFDictionaryGetTypeID():
                raise SourceError("IOReport gave channels that are no dictionary")
            copy: int | None = foundation.CFDictionaryCreateMutableCopy(
                None, foundation.CFDictionaryGetCount(found), found
            )
        if not copy:
            raise SourceError("CoreFoundation could not copy the channels")
        return copy

    def subscribe(self, channels: int) -> tuple[int, int | None]:
        """Return a subscription to channels, and the channels subscribed to; the caller has to release both.

        Raises:
            SourceError: it was denied.
        """
        subscribed = c_void_p()
        subscription: int | None = self._report.IOReportCreateSubscription(
            None, channels, ctypes.byref(subscribed), 0, None
        )
        if not subscription:
            if subscribed.value:
                self.release(subscribed.value)
            raise SourceError("IOReport denied the subscription to its energy counters")
        return subscription, subscribed.value

    @contextmanager
    def sample(self, subscription: int, channels: int) -> Iterator[list[int]]:
        """Take a sample, and give its channels, which are gone after the block.

        Raises:
            SourceError: there is none.
        """
        taken = self._report.IOReportCreateSamples(subscription, channels, None)
        with self.owned(taken, "sample"):
            yield self._items(taken)

    def name(self, channel: int) -> str:
        """Return the name of a channel; empty where it has none."""
        return self._text(self._report.IOReportChannelGetChannelName(channel))

    def unit(self, channel: int) -> str:
        """Return the unit of a channel; empty where it has none. Some are padded with spaces."""
        return self._text(self._report.IOReportChannelGetUnitLabel(channel)).strip()

    def value(self, channel: int) -> int:
        """Return what a channel stands at."""
        value: int = self._report.IOReportSimpleGetIntegerValue(channel, 0)
        return value

    def _items(self, sample: int) -> list[int]:
        foundation = self._foundation
        with self._string("IOReportChannels") as key:
            if foundation.CFGetTypeID(sample) != foundation.CFDictionaryGetTypeID():
                raise SourceError("IOReport gave a sample that is no dictionary")
            array = foundation.CFDictionaryGetValue(sample, key)
        if not array or foundation.CFGetTypeID(array) != foundation.CFArrayGetTypeID():
            raise SourceError("IOReport gave a sample without channels")
        items = [foundation.CFArrayGetValueAtIndex(array, index) for index in range(foundation.CFArrayGetCount(array))]
        return [item for item in items if item]

    @contextmanager
    def _string(self, text: str) -> Iterator[int]:
        created = self._foundation.CFStringCreateWithCString(None, text.encode(), _UTF_8)
        with self.owned(created, "string"):
            yield created

    def _text(self, reference: int | None) -> str:
        foundation = self._foundation
        if not reference or foundation.CFGetTypeID(reference) != foundation.CFStringGetTypeID():
            return ""
        buffer = ctypes.create_string_buffer(_TEXT_BYTES)
        if not foundation.CFStringGetCString(reference, buffer, _TEXT_BYTES, _UTF_8):
            return ""
        return buffer.value.decode("utf-8", "replace")


def _loaded(path: str, functions: _Functions) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise SourceError(f"{path} cannot be loaded: {error}") from error
    for name, (result, arguments) in functions.items():
        try:
            function = getattr(library, name)
        except AttributeError as error:
            raise SourceError(f"{path} has no {name}") from error
        function.restype, function.argtypes = result, arguments
    return library
