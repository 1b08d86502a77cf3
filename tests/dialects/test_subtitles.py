"""Subtitles: every segment is a cue that players read."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.openai.subtitles import srt, vtt

SEGMENTS = [{"start": 0, "end": 1.5, "text": " Hello."}, {"start": 3661.0005, "end": 3662.9996, "text": "Bye\n\nbye"}]


def test_srt_has_numbers_and_commas() -> None:
    assert srt(SEGMENTS) == ("1\n00:00:00,000 --> 00:00:01,500\nHello.\n\n2\n01:01:01,000 --> 01:01:03,000\nBye\nbye\n")


def test_vtt_has_a_head_and_points() -> None:
    assert vtt(SEGMENTS) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello.\n\n01:01:01.000 --> 01:01:03.000\nBye\nbye\n"
    )


def test_nothing_said_is_nothing_shown() -> None:
    assert (srt([]), vtt([])) == ("", "WEBVTT\n")


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "start": st.floats(min_value=0, max_value=1e6),
                "end": st.floats(min_value=0, max_value=1e6),
                "text": st.text(),
            }
        ),
        max_size=5,
    )
)
def test_no_text_breaks_out_of_its_cue(segments: list[dict[str, Any]]) -> None:
    for text, pattern in ((srt(segments), r"\d{2,}:\d\d:\d\d,\d{3}"), (vtt(segments), r"\d{2,}:\d\d:\d\d\.\d{3}")):
        times = re.findall(rf"^({pattern}) --> ({pattern})$", text, re.MULTILINE)
        assert len(times) == len(segments) == text.count("-->")
