from .examples import Examples as Examples
from .examples import read_examples as read_examples
from .label_sets import BUILT_IN as BUILT_IN
from .label_sets import LabelSet as LabelSet
from .label_sets import read_labels as read_labels
from .tagger import LabelScores as LabelScores
from .tagger import score_labels as score_labels
from .tagger import tag as tag
