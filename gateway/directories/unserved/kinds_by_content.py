"""Kinds of models that are recognised by the content of a file, whatever its name: more rows for `tables.py`."""

from __future__ import annotations

from .kinds import (
    A_PICKLE,
    CLASS,
    MAIN,
    ORT,
    PICKLE,
    PICKLED,
    RENAMED_GGUF,
    SKOPS,
    TO_ONNX,
    TORCH,
    VECTORS,
    Kind,
    predicts,
)

# The version field of the protobuf, followed by the producer's name, a description, or the graph with its first node.
ONNX = (
    rb"(?s)\A\x08[\x01-\x20]"
    rb"(\x12[\x03-\x40][\w.-]{3}|\x32.[ -~]|:[\x80-\xff]{0,9}[\0-\x7f]\n[\x80-\xff]{0,4}[\0-\x7f][\n\x12\x22])"
)
# As written by llama-imatrix before it used GGUF: the number of matrices, and the length and name of the first.
IMATRIX = rb"(?s)\A..\0\0[\x05-\x60]\0{3}(blk\.\d{1,4}\.|output\.|token_embd\.)"
# The counts of words and numbers, the first word, and binary numbers.
WORD2VEC = rb"(?s)\A\d{1,9} \d{1,4}\n[^\s\0]{1,60} .{0,7}[\0\x80-\xff]"

# Recognised by its beginning if the name reveals nothing.
BEGINNINGS = (
    Kind("", RENAMED_GGUF, "rename it to NAME.gguf", rb"\AGGUF"),
    Kind("", "PyTorch weights or a pickled model, " + PICKLED, TORCH, rb"(?s)\APK\x03\x04.{26}[^/]{1,99}/data\.pkl"),
    Kind("", "PyTorch weights or a pickled model, " + PICKLED, TORCH, rb"\A\x80\x02\x8a\nl\xfc\x9c\x46"),
    Kind("", "a CatBoost model", "rename it to model.cbm", rb"\ACBM1"),
    Kind("", "a LightGBM model", "rename it to model.txt", rb"\Atree\s+version="),
    Kind("", "an XGBoost model", "rename it to model.ubj", rb"(?s)\A(\{L.{8}learner|binf)"),
    Kind("", "a TensorFlow Lite model", predicts("ai-edge-litert"), rb"(?s)\A.{4}TFL3"),
    Kind("", "an ONNX model in ORT's own format", ORT, rb"(?s)\A.{4}ORTM"),
    Kind("", "a TensorRT engine", predicts("tensorrt"), rb"\A[fp]trt"),
    Kind("", "an ONNX model", "rename it to model.onnx", ONNX),
    Kind("", "word vectors as text", predicts("gensim"), VECTORS),
    Kind("", "word vectors of word2vec", predicts("gensim"), WORD2VEC),
    Kind("", "an importance matrix", MAIN, IMATRIX),
    Kind("", "weights of Apache TVM", predicts("tvm"), rb"\A\xb7\x9c\x04\x05\x4f\x8d\xe5\xf7"),
    Kind("", "weights of MXNet", TO_ONNX, rb"\A\x12\x01\0{6}"),
    Kind("", "an n-gram language model", predicts("kenlm"), rb"\Ammap lm http://kheafield"),
    Kind("", "a model of CRFsuite", predicts("sklearn_crfsuite or pycrfsuite"), rb"\AlCRF"),
    Kind(
        "", "an object of Java, as Weka's models are", f"convert it, or {CLASS} and starts Java", rb"\A\xac\xed\0\x05"
    ),
    Kind("", A_PICKLE, SKOPS, PICKLE),
)

# Archives: the name of a file inside reveals the kind. Unpacking these would not be enough.
PACKED = (
    Kind("model.ini", "a MOJO of H2O", predicts("h2o (import_mojo)")),
    Kind("bundle.json", "a bundle of MLeap", f"{CLASS} and starts Java"),
    Kind("transformerchain/*", "a model of ML.NET", TO_ONNX),
    Kind("configuration.json", "a model of Deeplearning4j", TO_ONNX),
    Kind("schema.json", "a scikit-learn model saved by skops, with another suffix", "rename it to model.skops"),
    Kind("*/data.pkl", f"PyTorch weights or a pickled model, {PICKLED}", TORCH),
    Kind("policy.pth", "an agent of Stable-Baselines3", predicts("stable_baselines3")),
)
