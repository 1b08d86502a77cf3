"""The kinds of models that are recognised by a file but not served: rows that `tables.py` searches.

It is this long because there are so many kinds: tables without logic, in which each row is independent.
"""

from __future__ import annotations

from dataclasses import dataclass

CLASS = "write a model.py whose class loads it"
PICKLED = "which runs code when it is opened"
SKOPS = f"save a scikit-learn model as model.skops (skops.io.dump), or {CLASS}"
TORCH = f"{CLASS} with torch.load(…, weights_only=True)"
# How protocols 4 and 5, 2 and 3, 0 and 1 begin; `file_headers.py` decompresses files first.
PICKLE = rb"\A(\x80[\x04\x05]\x95|\x80[\x02\x03][\]}(c\x8a]|\(?[ld]p\d+\n|\(?c[A-Za-z_][\w.]*\n\w+\n)"
COMPRESSED = ("bz2", "gz", "lz4", "lzma", "xz", "z", "zst")
# File types that are never a model, unless a pickle has such a name. They are searched last: there may be thousands.
NO_MODEL = frozenset(
    "avi avif bmp c cc cfg conf cpp cs css csv cu docx flac gif go h hpp htm html ico ini ipynb java jpeg jpg js json "
    "jsonl lock log m4a md mkv mov mp3 mp4 ogg opus parquet pdf png ppm proto ps1 py pyc pyi rb rs rst sh sql svg tex "
    "tif tiff toml ts tsv txt wav webm webp xls xlsx xml yaml yml".split()
)
# File types that always hold weights, so they are reported even next to directories of models.
WEIGHTS = frozenset(
    "caffemodel cbm ckpt engine ftz ggml gguf joblib keras lgb lgbm litertlm llamafile mar mlmodel nemo onnx pdiparams "
    "pdmodel pdparams pickle pkl pmml pt pt2 pte pth safetensors sft skops tflite torchscript trt ubj xgb".split()
)
# The beginning of a file of torch.save: a zip file, and the older format.
TORCH_SAVED = rb"(?s)\A(PK\x03\x04.{26}[^/]{1,99}/data\.pkl|\x80\x02[\x8a}(c\]])"
RENAMED_GGUF = "a GGUF file with another suffix"
A_PICKLE = f"a pickle, {PICKLED}"
MERGE = f"merge it into its base, or {CLASS} with the base"
IMAGES = f"{CLASS} with diffusers and has a method images, see docs/images.md"
KALDI = f"{CLASS} with vosk and has a method transcriptions, see docs/audio.md"
INDEX = ("an index of vectors, not a model", f"{CLASS} with the library that wrote it")
TO_ONNX = "convert it to ONNX, as model.onnx"
ORT = "get the model as .onnx, from which it was made"
NCNN, NCNN_BINARY = rb"\A7767517\s", rb"\A\x45\x8a\x76\0"
FAISS = rb"\A(Ix|Iw|IH|Im|Is|Ip|IB)[A-Za-z0-9]{2}"  # magic numbers of FAISS
# The magic number of its second and third format; for the first, the sizes of a model, with a signed vocabulary size.
LLAMA2_C = rb"(?s)\A(24ka|..\0\0..\0\0([\x01-\xff]\0{3}){3}..(\0\0|\xff\xff)..\0\0)"
# A word and its numbers, with or without a first line of counts; fewer than three numbers may be any table.
VECTORS = rb"\A(\d+ \d+\r?\n\S+( -?\d+\.\d+(e-?\d+)?){3}|[^\s\d.+-]\S*( -?\d\.\d{3,}(e-?\d+)?){4})"
MAIN = "add the GGUF file of the model that it belongs to"
GENSIM = rb"(?s)\A\x80[\x02-\x05].{0,24}gensim[._]"  # the module of the first class in a pickle
BROKEN_UP = "or move its computation into a class with load and predict in a model.py, which is a model here"


def predicts(library: str) -> str:
    return f"{CLASS} with {library} and has a method predict"


def chosen(framework: str) -> str:
    """Say how to serve a file for which there is a plugin, but that is not alone, or not where the plugin looks."""
    return f"write framework: {framework} into config.yaml"


@dataclass(frozen=True, slots=True)
class Kind:
    """One row: files with a name like one of `names` (lower case) whose beginning matches `holds`."""

    names: str
    what: str
    fix: str
    # A regular expression for the beginning of the file, because many names have several meanings. The file may be
    # hostile: the expression reads each byte only a few times, and does not backtrack over long parts.
    holds: bytes = b""
    tells_depth: bool = False  # models in the directory are too deep to be searched
    goes_with: bool = False  # it accompanies models of other kinds, and is no model next to them
    is_flat: bool = False  # all of it is in one directory: directories below are not parts of it


# Such a directory is one model: directories below are parts of it, unless it is flat.
DIRECTORIES = (
    Kind("gliner_config.json", "a model of GLiNER", predicts("gliner"), is_flat=True),
    Kind("model_config.yaml", "a NeMo model, unpacked", f"{CLASS} with nemo_toolkit", rb"(?m)^target:\s*nemo\."),
    Kind("hyperparams.yaml", "a model of SpeechBrain", predicts("speechbrain"), rb"speechbrain\."),
    Kind("meta.yaml", "a model of ESPnet", predicts("espnet2"), rb"(?m)^espnet:"),
    Kind(
        "model.yaml", "a model of BentoML's store", f"export it from the store, or {CLASS}", rb"(?m)^bentoml_version:"
    ),
    Kind("*.mojo", "a MOJO of H2O", predicts("h2o (import_mojo)")),
    Kind("model.ini", "a MOJO of H2O, unpacked", predicts("h2o (import_mojo, of the zip file)"), rb"h2o_version"),
    Kind(
        "_stable_baselines3_version",
        "an agent of Stable-Baselines3, unpacked",
        f"zip its files again, or get the zip file that this was, and {predicts('stable_baselines3')}",
    ),
    Kind("nlu_engine.json", "an engine of Snips NLU", predicts("snips_nlu")),
    Kind("ctfidf_config.json", "a model of BERTopic", predicts("bertopic")),
    Kind("model_hyperparameters.json", "a model of Ludwig", predicts("ludwig")),
    Kind(
        "feat.params",
        "an acoustic model of CMU Sphinx",
        f"{CLASS} with pocketsphinx and has a method transcriptions, see docs/audio.md",
    ),
    Kind("target.*.kernel target.*.embedding", "a checkpoint of T5X (JAX)", "get the model as *.safetensors"),
    Kind(
        "zero_to_fp32.py",
        "a checkpoint of DeepSpeed in parts",
        "join it: python zero_to_fp32.py . FOLDER --safe_serialization, and put config.json and the tokenizer there",
    ),
    Kind("*data_spec.pb", "a model of Yggdrasil Decision Forests", predicts("ydf")),
    Kind("mlmodel", "an MLflow model", predicts("mlflow.pyfunc")),
    Kind(
        "config.pbtxt",
        "a model of Triton's repository, written for its Python backend",
        f"{CLASS}: load in place of initialize, predict(inputs) for one request of execute",
        rb'backend\s{0,9}:\s{0,9}"python"',
    ),
    Kind("config.pbtxt", "a model of Triton's repository", predicts("the library of its framework")),
    Kind("saved_model.pb saved_model.pbtxt", "a TensorFlow SavedModel", predicts("tensorflow")),
    Kind("openvino_model.xml", "an OpenVINO model", predicts("openvino")),
    Kind("*.xml", "an OpenVINO model", predicts("openvino"), rb"<net\s[^<>]*version="),
    Kind("*.pdmodel", "a Paddle model", predicts("paddle")),
    Kind("meta.json", "a spaCy pipeline", chosen("spacy"), rb'"spacy_(version|git_version)"'),
    Kind("bentofile.yaml bento.yaml", "a Bento", f"start it with bentoml, {BROKEN_UP}"),
    Kind("cog.yaml", "a model for Cog", f"start it with cog, {BROKEN_UP}"),
    Kind("model-settings.json", "a model of MLServer", predicts("the library of its implementation")),
    Kind(
        "config.json",
        "an engine of TensorRT-LLM, built for one kind of GPU",
        f"get the model as *.safetensors, or {CLASS} with tensorrt_llm and has a method chat_completions",
        rb'"build_config"\s*:',
        is_flat=True,
    ),
    Kind(
        "config.json",
        "a checkpoint of TensorRT-LLM before it was built",
        "get the model as *.safetensors, as transformers has it",
        rb'"mapping"\s*:\s*\{[^{}]{0,200}"tp_size"',
        is_flat=True,
    ),
    Kind(
        "decoder.yml *.decoder.yml",
        "a translation model of Marian",
        predicts("ctranslate2, converted by it"),
        rb"(?m)^vocabs:",
        is_flat=True,
    ),
    Kind(
        "mlc-chat-config.json",
        "a language model of MLC",
        "get the model as *.safetensors or as a GGUF file",
        is_flat=True,
    ),
    Kind(
        "genai_config.json",
        "a language model of ONNX Runtime GenAI",
        f"get it as *.safetensors, or {CLASS}",
        is_flat=True,
    ),
    Kind("open_clip_config.json", "a model of OpenCLIP", predicts("open_clip"), is_flat=True),
    Kind(
        "model.bin",
        "a model of CTranslate2",
        predicts("ctranslate2 (faster_whisper for speech)"),
        rb"\wSpec\0",
        is_flat=True,
    ),
    Kind(
        "config.json", "a part of a diffusers pipeline", "get the whole pipeline", rb'"_(diffusers_version|class_name)"'
    ),
    Kind("config.json", "a model of timm", predicts("timm"), rb'"pretrained_cfg"|"num_features"\s*:', is_flat=True),
    Kind("config.json", "a Keras model", predicts("keras.saving"), rb'"registered_name"|"keras_version"', is_flat=True),
    Kind("*.mlmodelc *.mlpackage", "a Core ML model", f"convert it, or {CLASS}"),
    Kind("coremldata.bin", "a Core ML model", f"convert it, or {CLASS}"),
    Kind("manifest.json", "a Core ML model", f"convert it, or {CLASS}", rb'"itemInfoEntries"'),
    Kind("metadata.json", "a model of Rasa, unpacked", predicts("rasa"), rb'"rasa_open_source_version"'),
    Kind("chroma.sqlite3 data_level0.bin", "a store of vectors of Chroma, not a model", f"{CLASS} with chromadb"),
    Kind("scann_config.pb", "an index of vectors of ScaNN, not a model", f"{CLASS} with scann"),
    Kind("type.txt", "a predictor of GluonTS", predicts("gluonts"), rb"\Agluonts\."),
    Kind("_metadata _sharding", "a checkpoint of Orbax (JAX)", "get the model as *.safetensors", rb"\A\s*\{"),
    Kind("_checkpoint_metadata", "a checkpoint of Orbax (JAX)", "get the model as *.safetensors"),
    Kind("manifest.ocdbt", "a checkpoint of Orbax (JAX)", "get the model as *.safetensors"),
)


# Such files may be in any directory, above directories with models. The first matching row is used.
FILES = (
    Kind(
        "meta.yaml",
        "an experiment of MLflow, whose models are too deep to be searched, or of an unknown kind",
        "give --models the directory of a run's artifacts",
        rb"(?m)^artifact_location:",
        tells_depth=True,
        goes_with=True,
    ),
    Kind(
        "*.yaml *.yml",
        "a manifest for KServe, which says where a model is",
        "get the model that it names (storageUri)",
        rb"serving\.kserve\.io",
        goes_with=True,
    ),
    Kind("*.bin *.pt *.pth *.ggml *.model *.safetensors *.dat", RENAMED_GGUF, "rename it to NAME.gguf", rb"\AGGUF"),
    Kind("*.onnx", "an ONNX model", chosen("onnx")),
    Kind("model.txt *.lgb *.lgbm", "a LightGBM model", chosen("lightgbm"), rb"\Atree\s+version="),
    Kind("*.lgb *.lgbm", "a LightGBM model", chosen("lightgbm")),
    Kind("*.txt", "a LightGBM model", chosen("lightgbm"), rb"\Atree\s+version=v\d"),
    Kind(
        "*.json",
        "a LightGBM model as JSON",
        'save it with booster.save_model("model.txt")',
        rb'\A\{\s*"name"\s*:\s*"tree"',
    ),
    Kind("*.json", "an XGBoost model", chosen("xgboost"), rb'\A\{\s*"(learner|Config)"|\A\{"version":\[\d'),
    Kind("*.json", "an XGBoost model", chosen("xgboost"), rb'(?s)\A\{.*"gradient_booster"'),
    Kind("*.bin *.model *.bst", "an XGBoost model", chosen("xgboost"), rb'\A(binf|\{L|\{\s*"learner")'),
    Kind("*.ubj *.xgb *.bst", "an XGBoost model", chosen("xgboost")),
    Kind("xgboost-model", "an XGBoost model of SageMaker", chosen("xgboost")),
    Kind("*.cbm", "a CatBoost model", chosen("catboost")),
    Kind("*.bin", "a CatBoost model", chosen("catboost"), rb"\ACBM1"),
    Kind("*.bin", "word vectors of word2vec", predicts("gensim"), rb"\A\d+ \d+\n"),
    Kind("*.json", "a CatBoost model", chosen("catboost"), rb'"(oblivious_trees|float_features)"'),
    Kind("*.json", "a model of TensorFlow.js", f"convert it, or {CLASS}", rb'"modelTopology"'),
    Kind("*.bin", "a model of llama2.c", "get the model as *.safetensors or as a GGUF file", LLAMA2_C),
    Kind("*.bin *.ftz", "a fastText model", chosen("fasttext"), rb"\A\xba\x16\x4f\x2f"),
    Kind("*.ftz", "a fastText model", chosen("fasttext")),
    Kind("*.bin", "a GGML file, older than GGUF", "get the model as a GGUF file", rb"\A(fmgg|tjgg|algg)"),
    Kind(
        "ggml-*.bin",
        "a model of speech for whisper.cpp",
        f"{CLASS} with pywhispercpp and has a method transcriptions, see docs/audio.md",
    ),
    Kind("*.ggml", "a GGML file, older than GGUF", "get the model as a GGUF file"),
    Kind("*.bin", "a GGML file, older than GGUF", "get the model as a GGUF file", rb"\Almgg"),
    Kind(
        "consolidated.safetensors consolidated*.pth consolidated-*.safetensors",
        "weights in the original layout of the model's authors",
        "get the checkpoint as transformers has it: config.json and model*.safetensors",
    ),
    Kind("*.ts *.jit", "a program of TorchScript", chosen("torch"), rb"\APK\x03\x04"),
    Kind("*.torchscript", "a program of TorchScript", chosen("torch")),
    Kind(
        "*.distcp",
        "a checkpoint of a training in parts",
        "join it: accelerate merge-weights DIRECTORY FOLDER writes model.safetensors; put it next to its config.json",
    ),
    Kind("lit_model.pth", "a checkpoint of LitGPT", "litgpt convert_from_litgpt makes weights for transformers of it"),
    Kind("*.pt *.pth", f"PyTorch weights or a pickled model, {PICKLED}", TORCH),
    Kind("*.tar", f"PyTorch weights or a pickled model, {PICKLED}", TORCH, TORCH_SAVED),  # as in model_best.pth.tar
    Kind("*.ot", "a model of tch (PyTorch for Rust)", "get the model as *.safetensors", rb"\APK\x03\x04"),
    Kind("*.eqx", "weights of Equinox (JAX)", predicts("equinox"), rb"\A(\{[^\n]{0,65536}\n)?\x93NUMPY"),
    Kind("*.tl", "a model of Treelite", predicts("treelite"), rb"\A[\x03-\x05]\0{3}([\0-\x20]\0{3}){2}[\0-\x03]{2}"),
    Kind("*.mlnet", "a model of ML.NET", TO_ONNX, rb"\APK\x03\x04"),
    Kind(
        "*.json",
        "an Explainable Boosting Machine of InterpretML",
        predicts("interpret"),
        rb'\A\{\s{0,9}"version"\s{0,9}:\s{0,9}"[^"]{1,20}"\s{0,9},\s{0,9}"ebm"\s{0,9}:',
    ),
    Kind("*.jls", "objects of Julia", f"{CLASS} and starts Julia", rb"\A7JL"),
    Kind("*.ckpt", f"a checkpoint of a training, {PICKLED}", TORCH),
    Kind("*.pt2", "a program exported by torch.export", chosen("torch")),
    Kind("*.keras", "a Keras model", chosen("keras")),
    Kind("*.weights.h5 tf_model.h5", "weights of Keras", predicts("keras.models.load_model")),
    Kind(
        "*.h5 *.hdf5",
        "an HDF5 file, as Keras keeps models and weights in",
        f"if it is a model: {predicts('keras.models.load_model')}",
    ),
    Kind("*.tflite *.lite", "a TensorFlow Lite model", predicts("ai-edge-litert")),
    Kind("*.litertlm", "a LiteRT language model", "get the model as *.safetensors or as a GGUF file"),
    Kind("*.task", "a MediaPipe model", predicts("mediapipe")),
    Kind("*.pmml", "a PMML model", predicts("pypmml")),
    Kind("*.xml", "a PMML model", predicts("pypmml"), rb"<PMML\b"),
    Kind(
        "*.xml",
        "a cascade of OpenCV",
        predicts("cv2.CascadeClassifier"),
        rb"(?s)\A(?>.*?<opencv_storage>).*?opencv-(cascade|haar)-classifier",
    ),
    Kind("*.xml *.yml *.yaml", "a model of OpenCV", predicts("cv2.ml"), rb"\bopencv_ml_\w+"),
    Kind("*.pfa", "a model in PFA", predicts("titus")),
    Kind("*_net.pb", "a Caffe2 model", TO_ONNX),
    Kind(
        "*.pb.gz *.pb", "a network of Leela Chess Zero", f"{CLASS} and starts lc0", rb"\A\x0d\xc0\x01"
    ),  # its magic number, the first field
    Kind("*.pb", "a protobuf, as frozen TensorFlow graphs are", f"if it is one: {predicts('tensorflow')}"),
    Kind("*.faiss *.usearch *.hnsw *.ann *.annoy", *INDEX, goes_with=True),
    Kind("*.index", *INDEX, FAISS, goes_with=True),
    Kind("*.pkl *.pickle *.model *.kv *.sav *.bin", f"a model of gensim, {A_PICKLE}", predicts("gensim"), GENSIM),
    Kind("*.pkl *.pickle *.joblib", A_PICKLE, SKOPS),
    Kind(
        " ".join(f"*.{name}.{end}" for name in ("pkl", "pickle", "joblib", "sav") for end in COMPRESSED),
        f"a compressed pickle, {PICKLED}",
        SKOPS,
    ),
    Kind("*.dill *.cloudpickle", A_PICKLE, CLASS),
    Kind("*.wv *.wv.vectors.npy *.dv.vectors.npy", "word vectors of gensim", predicts("gensim")),
    Kind("*.pk *.pck", A_PICKLE, SKOPS),
    Kind("*.sav *.p *.jl *.model *.dump *.skl *.clf *.dat *.bin *.mdl model", A_PICKLE, SKOPS, PICKLE),
    Kind(" ".join(f"*.{end}" for end in COMPRESSED), f"a compressed pickle, {PICKLED}", SKOPS, PICKLE),
    Kind(
        "*.safetensors *.sft",
        "weights without a config.json that describes them",
        "get the other files of the checkpoint",
    ),
    Kind("*.engine *.plan *.trt", "a TensorRT engine", predicts("tensorrt")),
    Kind("*.mlmodel", "a Core ML model", f"convert it, or {CLASS}"),
    Kind("*.nemo", "a NeMo model", f"{CLASS} with nemo_toolkit"),
    Kind("*.pte", "a program of ExecuTorch", predicts("executorch")),
    Kind("*.mar", "an archive of TorchServe", f"unpack it (it is a zip file), and {CLASS}"),
    Kind("*.llamafile", "a llamafile", "extract the GGUF file from it (it is a zip file)"),
    Kind("*.kv", "word vectors of gensim", predicts("gensim"), PICKLE),
    Kind("*.caffemodel", "a Caffe model", TO_ONNX),
    Kind("*.weights", "weights of Darknet", TO_ONNX),
    Kind("*.rds *.rda *.rdata", "objects of R", "convert it, or write a model.py whose class starts R"),
    Kind("*.rkllm *.rknn", "a model compiled for Rockchip's processors", f"{CLASS} with the runtime of Rockchip"),
    Kind("*.hef", "a model compiled for Hailo's processors", predicts("hailo_platform")),
    Kind("*.dlc", "a model for Qualcomm's processors", f"{CLASS} with the runtime of Qualcomm"),
    Kind(
        "*.axmodel *.bmodel *.cvimodel *.espdl *.kmodel *.neff *.neuron *.om *.tmfile *.vmfb *.xmodel",
        "a model compiled for one kind of processor",
        f"{CLASS} with the runtime of its makers",
    ),
    Kind("*.blob", "a *.blob, as models for Myriad processors are", f"if it is one: {predicts('openvino or depthai')}"),
    Kind("*.nb", "a model of Paddle Lite", predicts("paddlelite"), rb"\A[\0-\x03]\0"),
    Kind("*.ort", "an ONNX model in ORT's own format", ORT),
    Kind("*.rten", "a model of RTen", "get it as ONNX"),
    Kind("*.sentis", "a model for Unity", "get it as ONNX"),
    Kind("*.mpk", "a record of Burn", "get the model as ONNX or *.safetensors"),
    Kind("*.mpk.gz", "a record of Burn", "get the model as ONNX or *.safetensors"),
    Kind("*.param", "a model of ncnn", predicts("ncnn"), NCNN),
    Kind("*.param.bin", "a model of ncnn", predicts("ncnn"), NCNN_BINARY),
    Kind("*.tensors", "weights of Tensorizer", "get the model as *.safetensors"),
    Kind("*.sbs", "a language model of gemma.cpp", "get it as *.safetensors or as a GGUF file"),
    Kind("*.argosmodel", "a package of Argos Translate", predicts("argostranslate")),
    Kind(
        "*.pbmm *.scorer",
        "a model of DeepSpeech",
        f"{CLASS} with deepspeech and has a method transcriptions, see docs/audio.md",
    ),
    Kind("*.klm *.arpa", "an n-gram language model", predicts("kenlm")),
    Kind("*.ptl", "a program of TorchScript for phones", f"{CLASS} with torch.jit.load"),
    Kind("*.th", f"PyTorch weights, {PICKLED}", TORCH),
    Kind("*.t7", "a model of Torch 7", "convert it, or " + CLASS),
    Kind("*.dnn *.cntk", "a model of CNTK", TO_ONNX),
    Kind(
        "*.wts",
        "weights of TensorRT as text",
        predicts("tensorrt, built by it"),
        rb"\A\d{1,9}\s+[\w.]+ \d{1,12} [0-9a-f]",
    ),
    Kind(
        "*.ply",
        "a scene of Gaussians, as gsplat writes it",
        f"{CLASS} with gsplat, to render views of it",
        rb"(?s)\Aply\s(?>.*?property float (f_dc_0|scale_0|rot_0))",
    ),
    Kind("*.splat *.spz", "a scene of Gaussians", f"{CLASS} with gsplat, to render views of it"),
    Kind("*.zarr", "arrays of Zarr", f"if they are the weights of a model: {CLASS} with zarr"),
    Kind("*.nnue", "a network of a chess engine", f"{CLASS} and starts the engine"),
    Kind("*.vw", "a model of Vowpal Wabbit", predicts("vowpalwabbit"), rb"\A[\x05-\x0f]\0{3}\d+\.\d"),
    Kind("*.model", "a model of LIBLINEAR", predicts("liblinear"), rb"\Asolver_type "),
    Kind("*.model", "a model of LIBSVM", predicts("libsvm"), rb"\Asvm_type "),
    Kind("*.json", "a model of Prophet", predicts("prophet.serialize"), rb'"(seasonality_mode|__prophet_version)\\?"'),
    Kind("shape_predictor*.dat", "a model of dlib", predicts("dlib")),
    Kind(  # the version, and the name of its loss or the size of its mean shape
        "*.dat",
        "a model of dlib",
        predicts("dlib"),
        rb"(?s)\A\x01\x01(\x01[\x05-\x20]loss_|\x81.\x81\x01[\x01-\x04\x81-\x84])",
    ),
    Kind("*.ppn *.pv *.rhn", "a model of Picovoice", f"{CLASS} with the package of Picovoice that it is for"),
    Kind("*.umdl *.pmdl", "a hotword of Snowboy", predicts("snowboy")),
    Kind("*.eim", "a model of Edge Impulse, a program for one kind of processor", predicts("edge_impulse_linux")),
    Kind("*.jld2 *.bson", "a file in which Julia keeps models", f"if it is a model: {CLASS} and starts Julia"),
    Kind(
        "*.mat", "a file of MATLAB, which may hold weights", f"if it does: {CLASS} with scipy.io.loadmat", rb"\AMATLAB"
    ),
    Kind("*.tnnmodel", "a model of TNN", TO_ONNX),
    Kind("*.uff", "a model in UFF, which older TensorRT reads", TO_ONNX),
    Kind("*.mindir", "a model of MindSpore", predicts("mindspore")),
    Kind("*.torrent *.metalink *.url", "a link to a download instead of the file", "download what it names"),
    Kind(
        "*.7z.001 *.zip.001 *.tar.001 *.tar.gz.001 *.tar.gz.aa *.tar.gz.part?? *.z01",
        "an archive in parts",
        "join and unpack it here",
    ),
    Kind("*.dvc", "a DVC pointer instead of the file", "dvc pull"),
    Kind("*.mnn", "a model of MNN", predicts("MNN")),
    Kind("*-symbol.json", "an MXNet model", TO_ONNX),
    Kind("*.msgpack", "weights of Flax (JAX)", "get the model as *.safetensors"),
    Kind("*.ckpt-*.index *.ckpt.index *.data-00000-of-?????", "a checkpoint of TensorFlow", predicts("tensorflow")),
    Kind("*.pdparams *.pdiparams", "weights of Paddle", predicts("paddle")),
    Kind("*-????.params", "weights of MXNet", TO_ONNX, goes_with=True),
    Kind("final.mdl", "a Kaldi model", KALDI),
    Kind("*.traineddata", "a model of Tesseract", predicts("pytesseract")),
    Kind("*.vec", "word vectors as text", predicts("gensim")),
    Kind("*.txt", "word vectors as text", predicts("gensim"), VECTORS),
    Kind("*imatrix*.dat *.imatrix", "an importance matrix", MAIN, goes_with=True),
    Kind(
        "*.onnx.data *.onnx_data",
        "the weights of an ONNX model without the model",
        "get its .onnx file too",
        goes_with=True,
    ),
    Kind("sha256-*", "a blob of Ollama that is a GGUF file", "rename it to model.gguf", rb"\AGGUF"),
    Kind("*.npz *.npy", "arrays of NumPy", f"if they are the weights of a model: {CLASS} with numpy.load"),
    Kind(
        "*.gguf.[0-9] *.safetensors.[0-9]",
        "a file with a number after its name, which a download adds if the name is already used",
        "remove the number, if the file is complete",
    ),
    Kind(
        "*.gguf",
        "not a language model, but a part of one (a projector, an adapter, a draft, a matrix), "
        "an encoder, or a model of images or sound",
        "add the model's own GGUF file; get an encoder as a folder of sentence-transformers",
    ),
    Kind("*.bin", "a *.bin, which may hold weights of any kind", f"if it does: get the other files of it, or {CLASS}"),
    Kind(
        "tokenizer.json tokenizer.model tokenizer_config.json spiece.model merges.txt",
        "a tokenizer without a model",
        "get the other files of the checkpoint",
        goes_with=True,
    ),
    Kind(
        "*.model *.spm",
        "a tokenizer without a model",
        "get the other files of the checkpoint",
        rb"(?s)\A\n.\n.<(unk|pad|s|cls|PAD|UNK)",
        goes_with=True,
    ),
    Kind(
        "*.safetensors.index.json *.bin.index.json",
        "a list of files of weights without the files",
        "get the files that it names",
        goes_with=True,
    ),
)
