"""What the flags need to know of an export; apart from what does it, which needs TensorFlow."""

SAVED_MODEL, ONNX, TFLITE = "saved_model", "onnx", "tflite"
FORMATS = (SAVED_MODEL, ONNX, TFLITE)
SUFFIXES = {ONNX: ".onnx", TFLITE: ".tflite"}  # A SavedModel is a folder.

DEFAULT_TOLERANCE = 1e-5
# onnxruntime promises to run opsets from 7 on, and tf2onnx writes none above 18. Runtimes of 2022
# and later take 17.
FIRST_OPSET, DEFAULT_OPSET, LAST_OPSET = 7, 17, 18
