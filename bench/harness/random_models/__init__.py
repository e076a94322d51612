"""GGUF files of models with random weights, which real engines load: for tests and measurements without a download.

`llama31` has the architecture, the kind of vocabulary, the special tokens and the prompt format of Llama 3.1, `llama2`
those of Llama 2. Their text means nothing.
"""
