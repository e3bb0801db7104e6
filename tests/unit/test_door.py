"""The door between protocols and simulator: narrow, documented, and behind it what it promises."""

import inspect
import re
import typing

import pytest

from sim.protocol import FastPathView
from sim.protocol import context as door
from sim.protocol.context import Context
from tests.runs import play, scenario

PARTS = {name: hints["return"] for name, hints in (
    (name, typing.get_type_hints(member.fget)) for name, member in vars(Context).items() if isinstance(member, property)
) if getattr(hints["return"], "_is_protocol", False)}  # fmt: skip


def members(interface: type) -> set[str]:
    """What an interface offers: its attributes, properties and methods."""
    found = {*vars(interface), *interface.__annotations__}
    return {name for name in found if not name.startswith("_")}


def test_the_core_has_at_most_fifteen_members() -> None:
    assert len(members(Context) - set(PARTS)) <= 15


def test_every_part_is_small_and_every_interface_of_the_module_is_a_part() -> None:
    assert all(len(members(part)) <= 8 for part in PARTS.values())
    found = inspect.getmembers(door, inspect.isclass)
    interfaces = {one for _, one in found if one is not typing.Protocol and getattr(one, "_is_protocol", False)}
    assert interfaces - {Context} == set(PARTS.values())
    assert FastPathView in interfaces


@pytest.mark.parametrize("interface", [Context, *PARTS.values()], ids=lambda interface: interface.__name__)
def test_every_method_is_documented_and_implemented_with_the_same_signature(interface: type) -> None:
    host = play(scenario(duration="1 ms")).world.run.hosts[0]
    behind = host if interface is Context else getattr(host, next(n for n, of in PARTS.items() if of is interface))
    for name in members(interface):
        assert hasattr(behind, name), f"{type(behind).__name__} has no {name}"
        promised = vars(interface).get(name)
        if promised is None or isinstance(promised, property):
            continue
        assert inspect.getdoc(promised), name
        assert str(inspect.signature(promised)) == str(inspect.signature(getattr(type(behind), name))), name


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("ballot", "context.votes.ballot"),
        ("persist", "context.disk.persist"),
        ("decided_block", "context.chain.decided"),
    ],
)
def test_who_asks_the_core_for_what_a_part_has_is_told_where_it_is(asked: str, told: str) -> None:
    host = play(scenario(duration="1 ms")).world.run.hosts[0]
    with pytest.raises(AttributeError, match=re.escape(told)):
        getattr(host, asked)
    with pytest.raises(AttributeError, match="a context has no qwertyuiop; "):
        host.qwertyuiop  # noqa: B018
