"""The paper's CNN in Keras: trains an epoch for every line of input and answers with what it took.

Started by classifier.py with a Python that has Keras, so that PyTorch and TensorFlow never share a process:
    PYTHON benchmarks/classifier_keras.py SIZE IMAGES
Input: lines with a dtype policy and a compilation, `float32` or `mixed_bfloat16`, `xla` or `graph`. Output: one JSON
object a line, first the versions, then for every line of input the start and the end of an epoch in seconds since 1970.
The number of threads is the environment's TF_NUM_INTRAOP_THREADS, TF_NUM_INTEROP_THREADS and OMP_NUM_THREADS, or
TensorFlow's own choice.
"""

import json
import os
import sys
import time

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import tensorflow
from keras import layers

COMPILATIONS = {"xla": True, "graph": False}
BATCH_SIZE = 16


def network(size, *, policy, xla):
    """The authors' layers, with their optimiser and loss."""
    keras.config.set_dtype_policy(policy)
    model = keras.Sequential([
        keras.Input((size, size, 1)),
        layers.Conv2D(32, 3, activation="relu"),
        layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D(2), layers.Dropout(0.25),
        layers.Conv2D(128, 3, activation="relu"), layers.MaxPooling2D(2),
        layers.Conv2D(128, 3, activation="relu"), layers.MaxPooling2D(2), layers.Dropout(0.25),
        layers.Flatten(), layers.Dense(1024, activation="relu"), layers.Dropout(0.5),
        layers.Dense(6, dtype="float32")])
    model.compile(optimizer=keras.optimizers.Adam(1e-4, epsilon=1e-7), jit_compile=xla,
                  loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


class Clock(keras.callbacks.Callback):
    """Start and end of the last epoch, without what `fit` does before and after."""

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.time()

    def on_epoch_end(self, epoch, logs=None):
        self.end = time.time()


def main():
    size, n = map(int, sys.argv[1:])
    images = np.random.default_rng(0).random((n, size, size, 1), dtype=np.float32)
    codes = np.arange(n) % 6
    models, clock = {}, Clock()
    answer(f"Keras {keras.__version__}, TensorFlow {tensorflow.__version__}")
    for line in sys.stdin:
        policy, compilation = line.split()
        if line not in models:
            models[line] = network(size, policy=policy, xla=COMPILATIONS[compilation])
        models[line].fit(images, codes, batch_size=BATCH_SIZE, epochs=1, verbose=0, callbacks=[clock])
        answer([clock.start, clock.end])


def answer(value):
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
