"""The cache with a maximum number of entries."""

from search.service.bounded_cache import BoundedCache


def test_bounded_cache_forgets_the_entry_that_was_not_used_longest() -> None:
    cache: BoundedCache[str, int] = BoundedCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert cache.get("b") is None and cache.get("a") == 1 and cache.get("c") == 3
    cache.put("c", 4)
    assert len(cache) == 2 and cache.get("c") == 4
