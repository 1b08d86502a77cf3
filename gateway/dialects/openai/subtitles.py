"""Write the segments of a transcript as SubRip and WebVTT. Times are in seconds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def srt(segments: Iterable[dict[str, Any]]) -> str:
    """Return numbered cues, with times as 00:00:01,500."""
    cues = [
        f"{number}\n{_clock(segment['start'], ',')} --> {_clock(segment['end'], ',')}\n{_text(segment)}\n"
        for number, segment in enumerate(segments, 1)
    ]
    return "\n".join(cues)


def vtt(segments: Iterable[dict[str, Any]]) -> str:
    """Return cues after a header, with times as 00:00:01.500."""
    cues = [
        f"{_clock(segment['start'], '.')} --> {_clock(segment['end'], '.')}\n{_text(segment)}\n" for segment in segments
    ]
    return "\n".join(["WEBVTT\n", *cues])


def _text(segment: dict[str, Any]) -> str:
    """Return the lines of one cue. A blank line would end the cue, and "-->" would begin another."""
    lines = (line.strip() for line in str(segment["text"]).replace("-->", "->").splitlines())
    return "\n".join(line for line in lines if line)


def _clock(seconds: float, point: str) -> str:
    milliseconds = max(0, round(seconds * 1000))
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{point}{milliseconds % 1000:03d}"
