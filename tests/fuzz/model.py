"""Answers every route that it can, so that what fails is the gateway."""


class Model:
    def predict(self, inputs):
        return {"got": type(inputs).__name__}

    def chat_completions(self, inputs):
        return "fine"

    def completions(self, inputs):
        return "fine"

    def embeddings(self, inputs):
        return [[0.5, 0.5] for _ in inputs["input"]]

    def rerank(self, inputs):
        return [0.5 for _ in inputs["documents"]]

    def tokenize(self, inputs):
        return [1, 2, 3]

    def detokenize(self, inputs):
        return "fine"
