"""The playground: a world of drawn scenes with exact ground truth, for machines without data, network or GPU."""

from retclip.corpora.playground.classes import CLASSES, SceneClass
from retclip.corpora.playground.scenes import Scene, SceneSettings, compose

__all__ = ["CLASSES", "Scene", "SceneClass", "SceneSettings", "compose"]
