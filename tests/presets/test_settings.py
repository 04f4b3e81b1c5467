"""What settings say of themselves."""

from retclip.presets import MergeSettings, Preset


def test_given_masks_are_objects_and_are_not_joined() -> None:
    preset = Preset("p", merge=MergeSettings(rule="greedy", join_things=True))
    given = preset.with_proposals("given")
    assert (given.proposals.kind, given.merge.join_things, given.merge.rule) == ("given", False, "greedy")
