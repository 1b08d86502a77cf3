"""Programs that serve a model in another server, recognised by their imports. These rows precede those for files."""

from __future__ import annotations

from .kinds import BROKEN_UP, CLASS, Kind

# Names that other servers and templates use for the file with a model's code.
CODE = "main.py app.py api.py predictor.py predict.py inference.py handler.py serve.py server.py service.py models.py"

# The first matching row is used. Such files may be in any directory, like those of `FILES` in `kinds.py`.
PROGRAMS = (
    Kind(
        "*.py",
        "a Truss Chain, whose parts are deployed each by itself",
        "write a model.py, or a Truss, for each part that computes; a part may call another by its URL",
        rb"(?s)\A(?>.*?truss_chains).*?mark_entrypoint",
    ),
    Kind(
        "*.py",
        "a model for Triton's Python backend",
        f"{CLASS}: load in place of initialize, predict(inputs) for one request of execute",
        rb"(?m)^class TritonPythonModel\b",
    ),
    Kind(
        "*.py",
        "a handler of TorchServe",
        f"{CLASS}: load in place of initialize, predict(inputs) of handle",
        rb"(?m)^[ \t]*+(import|from) ts\.torch_handler\b",
    ),
    Kind(
        "*.py", "a model for MLServer", f"start it with mlserver, {BROKEN_UP}", rb"(?m)^[ \t]*+(import|from) mlserver\b"
    ),
    Kind("*.py", "a model for KServe", f"start it with python, {BROKEN_UP}", rb"(?m)^[ \t]*+(import|from) kserve\b"),
    Kind("*.py", "a worker of mosec", f"start it with python, {BROKEN_UP}", rb"(?m)^[ \t]*+(import|from) mosec\b"),
    Kind("*.py", "a class of Modal", f"start it with modal, {BROKEN_UP}", rb"(?m)^[ \t]*+(import|from) modal\b"),
    Kind(
        "*.py", "a service of BentoML", f"start it with bentoml, {BROKEN_UP}", rb"(?m)^[ \t]*+(import|from) bentoml\b"
    ),
    Kind("*.py", "a predictor of Cog", f"start it with cog, {BROKEN_UP}", rb"(?m)^[ \t]*+(import|from) cog\b"),
    Kind("*.py", "an API of LitServe", f"start it with python, {BROKEN_UP}", rb"(?m)^[ \t]*+(import|from) litserve\b"),
    Kind("*.py", "a deployment of Ray Serve", f"start it with serve run, {BROKEN_UP}", rb"@serve\.deployment"),
    Kind(
        "*.py",
        "a class Model in a file not named model.py",
        "rename the file to model.py",
        rb"(?s)\A(?>(?:.*?\n)?class Model[ \t]*+[:(]).*?\n[ \t]++(async )?def predict\(",
    ),
    Kind("*.py", "a handler of RunPod", f"start it with python, {BROKEN_UP}", rb"(?m)^[ \t]*+(import|from) runpod\b"),
    Kind("*.py", "an endpoint of Beam", f"start it with beam, {BROKEN_UP}", rb"(?m)^[ \t]*+from beam import\b"),
    Kind("*.py", "an app of Gradio", f"start it with python, {BROKEN_UP}", rb"(?m)^[ \t]*+(import|from) gradio\b"),
    Kind(
        "*.py",
        "a predictor of Vertex AI",
        f"{CLASS}: load in place of load(artifacts_uri), predict as it is",
        rb"(?m)^[ \t]*+from google\.cloud\.aiplatform\.prediction\b",
    ),
    Kind(
        "score.py",
        "a script of Azure ML",
        f"take it over: {CLASS}, load from init and predict from run",
        rb"(?m)^def run\(",
    ),
    Kind("handler.py", "a handler of Hugging Face's endpoints", f"take it over: {CLASS}", rb"class EndpointHandler"),
    Kind("inference.py", "a script of SageMaker", f"take it over: {CLASS}", rb"(?m)^def model_fn\("),
    Kind(
        CODE,
        "a class with a method predict in a file not named model.py",
        "rename the file to model.py and the class to Model, or name them in a config.yaml: model_module_dir: ., "
        "model_class_filename and model_class_name",
        rb"(?s)\A(?>(?:.*?\n)?class \w++[ \t]*+[:(]).*?\n[ \t]++(async )?def predict\(",
    ),
    Kind(
        CODE,
        "a function predict in a file, where a class in model.py is expected",
        "write a model.py whose class Model has a method predict that calls it",
        rb"(?m)^(async )?def predict\(",
    ),
)
