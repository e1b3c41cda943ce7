"""Events of evaluations: what a follower gets, however late, and from whatever point."""

from lora_server.evaluation.feeds import DONE, KEPT_FEEDS, PROGRESS, STATE, Feeds


async def names_from(feeds: Feeds, evaluation_id: str, after: int) -> list[str]:
    """Return the names of the events after one, up to the first silence."""
    found = []
    async for event in feeds.follow(evaluation_id, after, silence_s=0.01):
        if event is None:
            break
        found.append(event.name)
    return found


async def test_a_number_of_an_earlier_life_hides_nothing() -> None:
    """A restart counts from 1 again: a follower that comes back with 80 still hears of the end."""
    feeds = Feeds()
    feeds.publish("ev", STATE, {})
    feeds.publish("ev", DONE, {})

    assert await names_from(feeds, "ev", 80) == [STATE, DONE]
    assert await names_from(feeds, "ev", 1) == [DONE]
    assert await names_from(feeds, "ev", 2) == []


async def test_whoever_waits_is_not_forgotten_for_those_that_ended() -> None:
    """However many evaluations come and go, one that waits can be followed."""
    feeds = Feeds()
    feeds.publish("waiting", STATE, {})
    for at in range(KEPT_FEEDS + 1):
        feeds.publish(f"ended {at}", PROGRESS, {})
        feeds.publish(f"ended {at}", DONE, {})

    assert await names_from(feeds, "waiting", 0) == [STATE]
    assert await names_from(feeds, "ended 0", 0) == []
    assert await names_from(feeds, "ended 1", 0) == [PROGRESS, DONE]


async def test_who_has_heard_the_end_waits_for_nothing() -> None:
    """Following from the last event on ends at once, without a silence."""
    feeds = Feeds()
    feeds.publish("ev", DONE, {})

    assert [event async for event in feeds.follow("ev", 1, silence_s=0.01)] == []
