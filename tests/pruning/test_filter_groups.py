import torch

from rayprune.pruning.groups import complete, join, separate, shares

MASKS = {
    "a": torch.tensor([[[True, False]], [[True, True]]]),
    "b": torch.rand(4, 3, 1, generator=torch.Generator().manual_seed(0)) > 0.5,
    "c": torch.tensor([[[True]], [[False]], [[True]]]),
}
SHIFTED = (("a", (0, 1)), ("b", (1, 2)))


def test_filters_in_no_group_make_one_of_their_own():
    groups = complete([SHIFTED], MASKS)
    assert list(groups) == ["a + b", "b", "c"]
    assert groups["b"] == (("b", (0, 3)),)
    assert list(complete([], MASKS)) == list(MASKS)


def test_a_group_whose_other_member_stays_dense_is_none():
    rest = {name: MASKS[name] for name in "bc"}
    assert complete([SHIFTED], rest) == complete([], rest)


def test_a_joint_filter_has_all_weights_of_its_members():
    joined = join(MASKS, complete([SHIFTED], MASKS))
    assert {name: tuple(mask.shape) for name, mask in joined.items()} == {
        "a + b": (2, 5, 1),
        "b": (2, 3, 1),
        "c": (3, 1, 1),
    }
    assert joined["a + b"][0, :, 0].equal(torch.cat([MASKS["a"][0, 0], MASKS["b"][1, :, 0]]))


def test_what_is_joined_comes_apart_again():
    groups = complete([SHIFTED], MASKS)
    apart = separate(join(MASKS, groups), groups, MASKS)
    assert list(apart) == list(MASKS)
    assert all(apart[name].equal(mask) for name, mask in MASKS.items())


def test_a_group_takes_its_part_of_what_its_members_take():
    found = shares({"a": 2, "b": 8, "c": 3}, complete([SHIFTED], MASKS), MASKS)
    assert found == {"a + b": 2 + 4, "b": 4, "c": 3}
