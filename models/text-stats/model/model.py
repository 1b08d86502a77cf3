from pydantic import BaseModel
from textkit.counting import count_sentences, count_words, longest_word


class Text(BaseModel):
    text: str
    top: int = 3


class Model:
    def __init__(self, config, **kwargs):
        self._name = config["model_name"]

    def preprocess(self, inputs: Text) -> Text:
        return inputs.model_copy(update={"text": inputs.text.strip()})

    def predict(self, inputs: Text) -> dict:
        words = count_words(inputs.text)
        return {
            "characters": len(inputs.text),
            "words": sum(words.values()),
            "sentences": count_sentences(inputs.text),
            "longest": longest_word(words),
            "top": dict(words.most_common(inputs.top)),
        }

    def postprocess(self, result: dict) -> dict:
        return {"model": self._name, **result}
