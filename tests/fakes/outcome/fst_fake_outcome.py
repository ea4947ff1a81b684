"""A plugin that raises what is not an Exception, as `pytest.importorskip` does."""


class Skipped(BaseException):
    pass


raise Skipped("not today")
