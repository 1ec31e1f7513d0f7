"""Predicts with any checkpoint, by tensor name.

  python predict.py model1

restores the graph of the newest checkpoint in a folder (or of a .meta file) and the variables that
belong to it, and prints the class and the probability of each row; of a model that is no
classifier, the fetched tensors. Rows are fed with --input, single tensors with --feed; --list shows
what there is to feed and to fetch.

  python predict.py cifar/my-model-1260.meta --input=cifar4/test
  python predict.py model/my-model-300.meta --fetch=w:0,b:0
  python predict.py model/my-model-300.meta --feed="x=[0.5, 1.0]" --format=json

A model of ONNX runs through onnxruntime, without TensorFlow:

  python predict.py model1.onnx --input=photo.jpg
"""

if __name__ == "__main__":  # First, as what follows takes its time.
    from cli.signals import end_at_signals

    end_at_signals()

from cli.run import Supervisor, run
from cli.terminal import import_tensorflow, printable
from prediction.request import PredictConfig


def main(config: PredictConfig) -> None:
    """Predicts what is asked for, and prints it."""
    from prediction.onnx_file import find_onnx

    if find_onnx(config.meta) is None:
        import_tensorflow(config.threads)
    from prediction.evaluation import predict

    print(printable(predict(config)))


if __name__ == "__main__":
    run(main, PredictConfig, __doc__, Supervisor("give it fewer rows at once with --batch_size"))
