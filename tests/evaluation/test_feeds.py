"""Events of evaluations: whoever follows hears the end, wherever they begin."""

import asyncio

from lora_server.evaluation.feeds import DONE, KEPT_FEEDS, STATE, Feeds


async def heard(feeds: Feeds, evaluation_id: str, after: int) -> list[int]:
    """Return the numbers of the events after one, up to the end."""
    async with asyncio.timeout(2):
        events = feeds.follow(evaluation_id, after, silence_s=0.05)
        return [event.id async for event in events if event]


async def test_a_number_of_an_earlier_life_is_no_dead_end() -> None:
    """A restart counts anew: who was further before hears everything of the new life."""
    feeds = Feeds()
    feeds.publish("ev_1", STATE, {})
    following = asyncio.create_task(heard(feeds, "ev_1", after=57))
    await asyncio.sleep(0)
    feeds.publish("ev_1", DONE, {})

    assert await following == [1, 2]


async def test_who_has_heard_the_end_waits_for_nothing() -> None:
    """Following from the last event on ends at once."""
    feeds = Feeds()
    feeds.publish("ev_1", DONE, {})

    assert await heard(feeds, "ev_1", after=1) == []


async def test_what_waits_is_not_forgotten_for_what_ended() -> None:
    """However many end meanwhile, an evaluation under way can be followed; ended ones go."""
    feeds = Feeds()
    feeds.publish("under way", STATE, {})
    for number in range(KEPT_FEEDS + 5):
        feeds.publish(f"ev_{number}", STATE, {})
        feeds.publish(f"ev_{number}", DONE, {})
    following = asyncio.create_task(heard(feeds, "under way", after=0))
    await asyncio.sleep(0)
    feeds.publish("under way", DONE, {})

    assert await following == [1, 2]
    assert await heard(feeds, "ev_0", after=0) == []
