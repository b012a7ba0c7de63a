"""Put every view of every video into train, val or test, by labels and groups.

A split raises VidclfError where a group is in two parts, or a class has too few groups to be in every part.
"""

from vidclf.data.splits.drawing import hold_groups_back as hold_groups_back
from vidclf.data.splits.parts import Split as Split
from vidclf.data.splits.rules import FewerGroups as FewerGroups
from vidclf.data.splits.rules import Given as Given
from vidclf.data.splits.rules import Grouped as Grouped
from vidclf.data.splits.rules import KFold as KFold
from vidclf.data.splits.rules import Official as Official
