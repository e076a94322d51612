"""The rounds of the adversary's measurement."""

from bench.scenarios.adversary import rounds


def test_several_attacks_are_measured_alone_and_together():
    measured = rounds(["large-blanks", "rare-crons"])

    assert [(each.name, each.attacks) for each in measured] == [
        ("large-blanks", ["large-blanks"]),
        ("rare-crons", ["rare-crons"]),
        ("all attacks", ["large-blanks", "rare-crons"]),
    ]
    assert [(each.number, each.total) for each in measured] == [(0, 3), (1, 3), (2, 3)]


def test_one_attack_is_measured_once():
    assert [each.name for each in rounds(["rare-crons"])] == ["rare-crons"]
