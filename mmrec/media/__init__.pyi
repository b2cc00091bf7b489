from .reading import DecodedMedia as DecodedMedia
from .reading import decode_media as decode_media
from .sampling import MAX_FRAMES as MAX_FRAMES
from .sampling import FramePlan as FramePlan
from .sampling import FrameSampling as FrameSampling
from .sampling import Moments as Moments
from .sampling import SoundPlan as SoundPlan
from .sampling import SoundSampling as SoundSampling
