import time


class Model:
    def predict(self, inputs):
        count, delay = int(inputs.get("count", 10)), float(inputs.get("delay", 0.1))
        for number in range(1, count + 1):
            yield f"{number}\n"
            if number < count:
                time.sleep(delay)
