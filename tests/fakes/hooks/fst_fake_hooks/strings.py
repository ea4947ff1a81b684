from fst_core import hookimpl


@hookimpl
def fst_tokenizers():
    return ["fst_fake_hooks:Tokenizer"]
