"""Read a recording that a client sends: few formats, a bounded length, one channel at the rate that a model wants."""

from __future__ import annotations

import io
from dataclasses import dataclass
from math import gcd
from typing import Any

from gateway import BadRequest

FORMATS = ("WAV", "WAVEX", "W64", "RF64", "FLAC", "OGG", "MP3", "AIFF", "AU")  # of libsndfile
SHOWN = "wav, flac, ogg, mp3, aiff, au"
CHANNELS = 16
RATES = (1_000, 384_000)
USUAL = 48_000  # samples a second; a long recording with more of them takes the memory of one that is too long
MOST_RATIO = 50_000  # the larger part of the ratio of two rates: the filter between them is twenty times as long
BLOCK = 1 << 18  # frames that are read at once


@dataclass(frozen=True, slots=True)
class Sound:
    samples: Any  # a float32 array of one channel
    seconds: float


def sound(data: bytes, rate: int, most: float) -> Sound:
    """Return a recording of at most `most` seconds at `rate` samples a second: the mean of its channels.

    Raises:
        BadRequest: it is no recording in a known format, is damaged or empty, or is too long. Not more than the longest
            is unpacked.
    """
    import numpy
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if file.format not in FORMATS:
                raise _unknown()
            if file.channels > CHANNELS:
                raise BadRequest(f"the recording has {file.channels} channels, and {CHANNELS} are the most")
            own = file.samplerate
            if not RATES[0] <= own <= RATES[1]:
                raise BadRequest(f"the recording has {own} samples a second; {RATES[0]} to {RATES[1]} are possible")
            if max(rate, own) // gcd(rate, own) > MOST_RATIO:
                raise BadRequest(f"the recording has {own} samples a second: send one with {rate} or {USUAL}")
            longest, frugal = int(most * own), max(int(most * USUAL), 1)
            blocks, frames = [], 0
            while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
                frames += len(block)
                if frames > longest:
                    raise BadRequest(
                        f"the recording is longer than {most:g} seconds, the most that this model takes: divide it"
                    )
                if frames > frugal:
                    what = f"the recording has more than {frugal:,} samples, the most that this model takes"
                    raise BadRequest(f"{what}: send it with {USUAL} samples a second")
                blocks.append(block.mean(axis=1))
    except BadRequest:
        raise
    except MemoryError:
        raise
    except soundfile.LibsndfileError as error:
        raise _unknown() from error
    except Exception as error:
        raise BadRequest(f"the recording is damaged: {' '.join(str(error).split())[:200]}") from error
    if not frames:
        raise BadRequest("the recording is empty: it has no samples")
    samples = numpy.concatenate(blocks)
    if not numpy.isfinite(samples).all():
        raise BadRequest("the recording has samples that are NaN or infinite")
    return Sound(_resampled(samples, own, rate), frames / own)


def _resampled(samples: Any, own: int, rate: int) -> Any:
    if own == rate:
        return samples
    from scipy.signal import resample_poly

    common = gcd(own, rate)
    return resample_poly(samples, rate // common, own // common).astype("float32")


def _unknown() -> BadRequest:
    return BadRequest(f"the file is not a recording in a known format, or is damaged (have: {SHOWN})")
