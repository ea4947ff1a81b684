from concurrent.futures import ThreadPoolExecutor, as_completed

from fst_core import Executor


class GoodExecutor(Executor):
    def map(self, function, items):
        with ThreadPoolExecutor(8) as pool:
            yield from pool.map(function, items)


class FirstDoneExecutor(GoodExecutor):
    def map(self, function, items):
        with ThreadPoolExecutor(8) as pool:
            for future in as_completed([pool.submit(function, item) for item in items]):
                yield future.result()


class RepeatingExecutor(GoodExecutor):
    def map(self, function, items):
        for item in items:
            yield function(item)
            if item == 77:
                yield function(item)


class NeedyExecutor(GoodExecutor):
    def map(self, function, items):
        items = list(items)
        with ThreadPoolExecutor(min(8, len(items))) as pool:
            yield from pool.map(function, items)


class EagerExecutor(GoodExecutor):
    def map(self, function, items):
        return iter([function(item) for item in items])


class OnceExecutor(GoodExecutor):
    def __init__(self):
        self.pool = ThreadPoolExecutor(2)

    def map(self, function, items):
        try:
            yield from self.pool.map(function, items)
        finally:
            self.pool.shutdown()
