from fst_core.testing import TokenizerContract


class TestMyRussian(TokenizerContract):
    use = "myrussian"
