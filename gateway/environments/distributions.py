"""Find the distribution that provides a module: by the model's requirements, the environment, then a table.

A name that is in none of them may just as well be a forgotten file, so installing it is not suggested.
"""

from __future__ import annotations

import difflib
import re
import shlex
import sys
from collections.abc import Collection, Iterable
from importlib.metadata import PackageNotFoundError, metadata, packages_distributions, version

from .. import near_names

# Modules whose distribution has another name; the first of several is recommended.
OTHERWISE_NAMED: dict[str, tuple[str, ...]] = {
    "attr": ("attrs",),
    "awq": ("autoawq",),
    "bs4": ("beautifulsoup4",),
    "Crypto": ("pycryptodome",),
    "cv2": (
        *("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python"),
        "opencv-python-rolling",
    ),
    "Cython": ("cython",),
    "dateutil": ("python-dateutil",),
    "distutils": ("setuptools",),
    "docx": ("python-docx",),
    "dotenv": ("python-dotenv",),
    "faiss": ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu12"),
    "ffmpeg": ("ffmpeg-python",),
    "fitz": ("pymupdf",),
    "flash_attn": ("flash-attn",),
    "git": ("gitpython",),
    "google.api": ("googleapis-common-protos",),
    "google.cloud.exceptions": ("google-cloud-core",),
    "google.cloud.secretmanager": ("google-cloud-secret-manager",),
    "google.cloud.sql": ("cloud-sql-python-connector",),
    "google.colab": (),  # only available on Colab
    "google.longrunning": ("googleapis-common-protos",),
    "google.oauth2": ("google-auth",),
    "google.protobuf": ("protobuf",),
    "google.rpc": ("googleapis-common-protos",),
    "google.type": ("googleapis-common-protos",),
    "googleapiclient": ("google-api-python-client",),
    "grpc": ("grpcio",),
    "haystack": ("haystack-ai",),
    "huggingface_hub": ("huggingface-hub",),
    "hydra": ("hydra-core",),
    "igraph": ("python-igraph", "igraph"),
    "imblearn": ("imbalanced-learn",),
    "imwatermark": ("invisible-watermark",),
    "jose": ("python-jose",),
    "jwt": ("pyjwt",),
    "kafka": ("kafka-python",),
    "llama_cpp": ("llama-cpp-python",),
    "llama_index": ("llama-index",),
    "magic": ("python-magic",),
    "mpl_toolkits": ("matplotlib",),
    "multipart": ("python-multipart", "multipart"),
    "MySQLdb": ("mysqlclient",),
    "nacl": ("pynacl",),
    "nemo": ("nemo-toolkit",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "open_clip": ("open-clip-torch",),
    "OpenSSL": ("pyopenssl",),
    "opentelemetry": ("opentelemetry-api",),
    "opentelemetry.sdk": ("opentelemetry-sdk",),
    "opentelemetry.semconv": ("opentelemetry-semantic-conventions",),
    "opentelemetry.proto": ("opentelemetry-proto",),
    "paddle": ("paddlepaddle",),
    "PIL": ("pillow", "pillow-simd"),
    "pkg_resources": ("setuptools",),
    "pptx": ("python-pptx",),
    "psycopg2": ("psycopg2-binary", "psycopg2"),
    "pynvml": ("nvidia-ml-py", "pynvml"),
    "pythonjsonlogger": ("python-json-logger",),
    "pytorch_lightning": ("pytorch-lightning",),
    "pywt": ("pywavelets",),
    "ruamel.yaml": ("ruamel-yaml",),
    "sentence_transformers": ("sentence-transformers",),
    "serial": ("pyserial",),
    "skimage": ("scikit-image",),
    "sklearn": ("scikit-learn",),
    "slugify": ("python-slugify",),
    "snappy": ("python-snappy",),
    "snowflake.connector": ("snowflake-connector-python",),
    "snowflake.snowpark": ("snowflake-snowpark-python",),
    "socks": ("pysocks",),
    "speech_recognition": ("speechrecognition",),
    "tensorrt_llm": ("tensorrt-llm",),
    "tiktoken_ext": ("tiktoken",),
    "TTS": ("coqui-tts", "tts"),
    "usb": ("pyusb",),
    "vertexai": ("google-cloud-aiplatform",),
    "websocket": ("websocket-client",),
    "whisper": ("openai-whisper",),
    "win32api": ("pywin32",),
    "wx": ("wxpython",),
    "yaml": ("pyyaml",),
    "zmq": ("pyzmq",),
}

# Namespaces shared by many distributions, with a template for the name of the distribution with a part.
NAMESPACES: dict[str, str] = {
    "azure": "azure-{}",
    "azure.ai": "azure-ai-{}",
    "azure.cognitiveservices": "azure-cognitiveservices-{}",
    "azure.cognitiveservices.vision": "azure-cognitiveservices-vision-{}",
    "azure.communication": "azure-communication-{}",
    "azure.data": "azure-data-{}",
    "azure.keyvault": "azure-keyvault-{}",
    "azure.mgmt": "azure-mgmt-{}",
    "azure.monitor": "azure-monitor-{}",
    "azure.search": "azure-search-{}",
    "azure.storage": "azure-storage-{}",
    "backports": "backports-{}",
    "databricks": "databricks-{}",
    "google": "google-{}",
    "google.ai": "google-ai-{}",
    "google.cloud": "google-cloud-{}",
    "jaraco": "jaraco-{}",
    "llama_index": "llama-index-{}",
    "llama_index.embeddings": "llama-index-embeddings-{}",
    "llama_index.llms": "llama-index-llms-{}",
    "llama_index.readers": "llama-index-readers-{}",
    "llama_index.vector_stores": "llama-index-vector-stores-{}",
    "opentelemetry.exporter": "opentelemetry-exporter-{}",
    "opentelemetry.exporter.otlp.proto": "opentelemetry-exporter-otlp-proto-{}",
    "opentelemetry.instrumentation": "opentelemetry-instrumentation-{}",
    "opentelemetry.propagators": "opentelemetry-propagator-{}",
    "pyannote": "pyannote-{}",
    "zope": "zope-{}",
}
_VERSION = re.compile(r"_v\d+(p\d+)?((alpha|beta)\d*)?$")  # google.cloud.vision_v1 comes with google.cloud.vision

# Modules that models use and whose distribution has the same name.
SAME_NAME = frozenset(
    """
    accelerate aiofiles aiohttp albumentations altair anthropic anyio asyncpg attrs auto_gptq av basicsr bentoml
    bitsandbytes boto3 botocore catboost celery certifi chromadb click cloudpickle cohere compel controlnet_aux
    cryptography ctranslate2 cupy dask datasets decord deepspeed diffusers easyocr einops ema_pytorch eva_decord
    exllamav2 fairseq fastapi fastembed faster_whisper fasttext filelock flair flask fsspec ftfy gcsfs gensim
    gfpgan gguf gradio groq gym gymnasium h5py hf_transfer hf_xet httpcore httpx imageio imageio_ffmpeg
    insightface jax jaxlib jinja2 joblib jsonschema k_diffusion keras kokoro kornia langchain langchain_community
    langchain_core langchain_openai langdetect librosa lightgbm lightning litellm loguru lpips lxml matplotlib
    mediapipe mistral_common mistralai mlflow modal moviepy msgpack mxnet networkx nltk numba numpy omegaconf
    onnx openai openpyxl optimum orjson outlines paddleocr pandas peft phonemizer pikepdf pillow_heif plotly
    polars prometheus_client protobuf psutil psycopg pyarrow pycocotools pydantic pydantic_settings pydub pymongo
    pymysql pypdf pypdfium2 pytesseract pytz qdrant_client qwen_vl_utils rapidfuzz ray realesrgan redis regex
    rembg requests requests_toolbelt resampy rich s3fs sacremoses safetensors scipy seaborn segment_anything
    sentencepiece sentry_sdk setuptools sglang shap silero_vad simplejson six skops soundfile spacy sqlalchemy
    starlette statsmodels supervision sympy tabulate tenacity tensorboard tensorflow tensorrt thinc tiktoken timm
    together tokenizers toml torch torchaudio torchmetrics torchsde torchvision tqdm transformers triton
    tritonclient trl truss typer ujson ultralytics unidecode unstructured urllib3 uvicorn uvloop vllm wandb
    watchfiles weaviate webrtcvad websockets whisperx xformers xgboost xgrammar yt_dlp zstandard
    """.split()
)
LAST_WITH = {"pkg_resources": "setuptools<82"}  # modules that later versions of a distribution lack
NEAR, SHORTEST = 0.8, 4  # similarity (0 to 1): nunpy and numpy match; minimum letters of a compared name
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
_WITH_EXTRAS = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[([^\]]*)\])?")
_OF_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def candidates(module: str) -> tuple[str, ...]:
    """Return the distributions known for a dotted name, most specific first; none if it is unknown.

    A bare namespace, such as google.cloud, may belong to any of many distributions.
    """
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        name, above = ".".join(parts[:end]), ".".join(parts[: end - 1])
        if name in OTHERWISE_NAMED:
            return OTHERWISE_NAMED[name]
        if name in NAMESPACES:
            return ()
        if (template := NAMESPACES.get(above)) and parts[end - 1].islower():
            return (template.format(_VERSION.sub("", parts[end - 1]).replace("_", "-")),)
    return (parts[0].replace("_", "-"),) if parts[0] in SAME_NAME else ()


def to_install(module: str) -> str | None:
    """Return the argument of `pip install` for a dotted name, if the tables know it."""
    if line := LAST_WITH.get(module.partition(".")[0]):
        return f"'{line}'"
    return next(iter(candidates(module)), None)


def did_you_mean(module: str, here: Collection[str] | None = None) -> str:
    """ "did you mean numpy?" for an unknown dotted name; "" if no installed or known module is similar.

    `here` are the names of installed modules, if the caller has them: listing them takes time. Installing a misspelt
    name is never suggested: it may be the name of a malicious package.
    """
    top = module.partition(".")[0]
    known = {*SAME_NAME, *(name for name, found in OTHERWISE_NAMED.items() if found and "." not in name)}
    for names in (packages_distributions() if here is None else here, sys.stdlib_module_names, known):
        if close := nearest(top, names):
            return f"did you mean {close}?" + (f" (pip install {to_install(close)})" if names is known else "")
    return ""


def nearest(name: str, names: Iterable[str], shortest: int = SHORTEST) -> str:
    """Return the similar module name; "" if there is none. Names with fewer than `shortest` letters do not match."""
    # A short or common word that is part of another, such as lib or config, is probably a local file.
    alike = [each for each in names if abs(len(each) - len(name)) < 2 and not each.startswith("_") and each != name]
    if same := near_names.same_letters(name, alike):
        return same
    close = difflib.get_close_matches(name, alike, n=1, cutoff=NEAR) if len(name) >= shortest else []
    return close[0] if close else ""


def is_namespace(module: str) -> bool:
    """Return whether the tables know several distributions below a dotted name, so that the imported name matters."""
    return module in NAMESPACES or any(name.startswith(f"{module}.") for name in OTHERWISE_NAMED)


def name_in(requirement: str) -> str:
    """Return the canonical distribution name in a requirement line; "" for an option, an address or a path."""
    if "://" in requirement.partition("@")[0] or requirement.lstrip().startswith(("-", ".", "/", "#")):
        egg = re.search(r"#egg=([A-Za-z0-9._-]+)", requirement)
        return canonical(egg[1]) if egg else ""
    match = _REQUIREMENT.match(requirement)
    return canonical(match[1]) if match else ""


def _repository(requirement: str) -> str:
    """Return the name of the repository in an address: probably, but not certainly, the name of the distribution."""
    address = requirement.partition(" #")[0].strip()
    if not address.startswith("git+"):
        return ""
    path = re.split("[@#]", address.partition("://")[2].partition("/")[2], maxsplit=1)[0]
    match = _REQUIREMENT.fullmatch(path.removesuffix("/").rpartition("/")[2].removesuffix(".git"))
    return canonical(match[1]) if match else ""


def required(module: str, requirements: Iterable[str]) -> str | None:
    """Return the requirement line that provides a module: by the tables, by its own name, or with "python" added."""
    named = by_name(requirements)
    return next((named[name] for name in likely(module) if name in named), None)


def by_name(requirements: Iterable[str]) -> dict[str, str]:
    """Return the lines by the canonical names of their distributions, as far as those are known."""
    return {name: line.strip() for line in requirements if (name := name_in(line) or _repository(line))}


def likely(module: str) -> tuple[str, ...]:
    """Return the canonical names of distributions that may provide a module; the most likely is first."""
    top = canonical(module.partition(".")[0])
    around = (f"python-{top}", f"{top}-python", f"py{top}", f"py-{top}", f"{top}-py")
    return (*map(canonical, candidates(module)), canonical(module), top, *around)


def extras_of(distribution: str) -> dict[str, list[str]]:
    """Return the extras of an installed distribution with their requirements; "" is for those that always apply."""
    try:
        found = metadata(distribution)
    except PackageNotFoundError:
        return {}
    extras: dict[str, list[str]] = {"": [], **{name: [] for name in found.get_all("Provides-Extra", [])}}
    for line in found.get_all("Requires-Dist", []):
        requirement, _, marker = line.partition(";")
        of = _OF_EXTRA.search(marker)
        extras.setdefault(of[1] if of else "", []).append(requirement.strip())
    return extras


def brought_by(command: str) -> list[str]:
    """Return the requirements of the distributions in a `pip install` command, as far as they are installed here."""
    lines: list[str] = []
    for word in shlex.split(command):
        if (named := _WITH_EXTRAS.match(word)) is not None:
            of = extras_of(named[1])
            lines += [line for extra in (named[2] or "").split(",") for line in of.get(extra.strip(), ())]
    return lines


def is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def installed(module: str) -> str | None:
    """Return the installed distribution, with version, of a dotted name's package; it may lack the module itself."""
    for name in packages_distributions().get(module.partition(".")[0], ()):
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return None
