"""Images side by side, each in a thread of its own."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache

from threadpoolctl import ThreadpoolController

from skanomaly._optional import import_optional


def map_images(function, images):
    """Apply a function of torch, on the CPU, to images side by side.

    Parameters
    ----------
    function : callable
        Called with one image, in several threads at once, under ``torch.inference_mode()``.
    images : sequence

    Returns
    -------
    list
        The results, in order.

    Notes
    -----
    torch's threads are shared out among the images: one image gets all of them, as many images as
    there are threads get one each. Threads that work on an image of their own need not wait for
    each other, least of all where other processes keep some of them from running.
    """
    torch = import_optional("torch", "torch", "this embedder")
    n_threads = torch.get_num_threads()
    n_streams = min(n_threads, len(images))

    def call(image):
        with torch.inference_mode():
            return function(image)

    if n_streams <= 1:
        return [call(image) for image in images]
    share = (n_threads // n_streams,)
    with ThreadPoolExecutor(n_streams, "skanomaly-embed", _limit_threads, share) as pool:
        return list(pool.map(call, images))


def one_thread():
    """Let the calling thread use no further threads of torch."""
    _limit_threads(1)


def _limit_threads(n_threads):
    torch = import_optional("torch", "torch", "this embedder")
    torch.get_num_threads()  # what torch sets up in each thread would undo the limit
    # OpenMP's limit, unlike torch's own, is of the calling thread alone.
    _openmp().limit(limits=n_threads)


@cache
def _openmp():
    return ThreadpoolController().select(user_api="openmp")
